"""The run's database: append-only events, chained by their hashes, and projections that are updated in the same transaction.

Whoever reads events compares their hashes (`lamdatui.store.schema`, also of older layouts). A run that a newer version has written is read as far as
it is understood, and `RunState.newer` says so; nothing is written to it. SQLite through apsw, because the standard library's build may predate 3.51.3, which fixed a corrupting race in WAL mode.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from msgspec import MsgspecError
from msgspec.json import decode

from lamdatui.base.clock import Clock, SystemClock
from lamdatui.base.collector import uncollected
from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.jsonio import canonical, finite, fsync_dir, parse_json, sealed, unsealed
from lamdatui.base.surrogates import escaped
from lamdatui.domain.checked import check, check_references, check_run
from lamdatui.domain.events import Event, check_fields
from lamdatui.domain.schemes import SCHEME
from lamdatui.domain.state import RunState, run_from_json
from lamdatui.store.schema import CHAINED, COLUMNS, SCHEMA, SCHEMA_VERSION, link, migrate, version_of

REPAIRED = "run.db.repaired"
"""The name that a repaired database has until it takes the place of the damaged one."""
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA busy_timeout=5000",
)


class JournalFailed(LamdatuiError):
    """A commit failed: nothing of it is in memory, and nothing more can be recorded.

    Nor is it on disk, once the database is closed. Where the process is killed before that, a commit that failed at its last sync may
    be there, whole, when the run is opened again.
    """

    def __init__(self, path: Path, error: Exception) -> None:
        why = _full(path, error) or f"{type(error).__name__}: {error}"
        super().__init__(f"the run can't be recorded any more: {why}", where=str(path), fix=_FREE, exit_code=EXIT_FAILED)


class Journal:
    """The only writer of a `run.db`. `state` is always what the committed events add up to."""

    def __init__(self, path: Path, clock: Clock | None = None, *, view: bool = False) -> None:
        """Open or create; an older layout becomes the newest. Raises LamdatuiError when the file is of a newer version or is damaged.

        `view`: one of a newer version is opened all the same, to be read; `append` refuses then.
        """
        if tuple(map(int, apsw.sqlitelibversion().split("."))) < (3, 51, 3):
            raise LamdatuiError(
                f"SQLite {apsw.sqlitelibversion()} can corrupt a WAL database", fix="pip install -U apsw", exit_code=EXIT_FAILED
            )
        self.path = path
        self.clock = clock or SystemClock()
        self.state = RunState()
        self.failure: JournalFailed | None = None
        self.on_failure: Callable[[JournalFailed], None] = lambda _: None
        self._touched: set[tuple[str, str]] = set()
        self._hash = ""
        self._held = contextlib.ExitStack()
        if view and path.exists() and (state := read_state(path)).newer:
            db = self._held.enter_context(reading(path))
            assert db is not None, "it has events"
            self.state, self._db = state, db
            return
        if path.with_name(REPAIRED).exists():
            raise _broken_off(path)
        _make(path)
        with telling(path, "the run's database can't be read"):
            # Before the first pragma, which would write a header into an emptied file.
            has_lost = _has_lost(path)
            self._db = apsw.Connection(str(path))
            self._held.callback(self._db.close)
            version = self._prepare(has_lost)
            self._read()
            if self.state.newer:
                raise newer_run(path, self.state.newer)
            if migrate(path, self._db, version):
                self._read()

    def _prepare(self, has_lost: bool) -> int:
        """Set the connection up; the version of the layout."""
        version = next(iter(self._db.execute("PRAGMA user_version")))[0]
        if version > SCHEMA_VERSION:
            raise newer_run(self.path, _newer_schema(self._db))
        for pragma in _PRAGMAS:
            self._db.execute(pragma).fetchall()
        if version == 0 and not has_lost:
            with self._db:
                self._db.execute(SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            return SCHEMA_VERSION
        if version == 0:
            raise _empty(self.path)
        if version < 1:
            raise _other_version(self.path, version)
        return version

    def _read(self) -> None:
        """Make the state from what is on disk."""
        self.state, self._hash = RunState(), ""
        with uncollected():
            for row, found in chained(self._db):
                take(self.state, event_of(row))
                self._hash = found

    def append(self, *facts: tuple[str, dict[str, Any]]) -> list[Event]:
        """Commit events and their projections in one transaction; when this returns they survive a power cut.

        Raises ValueError for a fact of the wrong shape, and JournalFailed when the disk fails: then nothing has changed, on disk
        or in memory, and whoever watches `on_failure` has heard of it. Raises LamdatuiError for a run of a newer version.
        """
        if self.state.newer:
            raise newer_run(self.path, self.state.newer)
        if self.failure is not None:
            raise self.failure
        events, rows = [], []
        for offset, (kind, data) in enumerate(facts, 1):
            check_fields(kind, data)
            event = Event(self.state.last_seq + offset, kind, self.clock.wall(), self.clock.mono(), data)
            text = escaped(json.dumps(data, ensure_ascii=False, allow_nan=False))
            try:
                # As it will be read: what no reader takes is not written.
                check(kind, parse_json(text))
            except TypeError as error:
                raise ValueError(str(error)) from error
            events.append(event)
            rows.append((event.seq, kind, event.wall, event.mono, text))
        last, touched = self._hash, set[tuple[str, str]]()
        try:
            with self._db:
                for event, row in zip(events, rows, strict=True):
                    last = link(last, row)
                    self._db.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
                    self._db.execute("INSERT INTO chain VALUES (?,?)", (event.seq, last))
                    check_references(self.state, event.kind, event.data)
                    self.state.apply(event)
                    touched |= self.state.touched
                self._project()
                fault("journal.before-commit")
        except BaseException as error:
            self._undo(error)
            raise
        self._hash = last
        self._touched |= touched
        fault("journal.after-commit")
        return events

    def _undo(self, error: BaseException) -> None:
        """The transaction was rolled back: the state becomes again what is on disk. Raises JournalFailed when the disk was the cause."""
        is_disk = isinstance(error, (apsw.Error, OSError))
        if is_disk:
            self.failure = JournalFailed(self.path, error)
        with contextlib.suppress(apsw.Error, OSError, LamdatuiError):
            self._read()
        if self.failure is not None and is_disk:
            self.on_failure(self.failure)
            raise self.failure from error

    def _project(self) -> None:
        self._db.execute("INSERT OR REPLACE INTO projections VALUES ('run', 'run', ?)", (projection(self.state),))

    def rebuild(self) -> None:
        """Throw the projections away and make them again from the events."""
        self.state = RunState()
        with self._db:
            self._db.execute("DELETE FROM projections")
            for row, _ in chained(self._db):
                self.state.apply(event_of(row))
            self._project()

    def projections(self) -> list[tuple[str, str, str]]:
        """All (name, id, body) rows, sorted."""
        return list(self._db.execute("SELECT name, id, body FROM projections ORDER BY name, id"))

    def events(self, after: int = 0) -> Iterator[Event]:
        """Events with seq > `after`, in order. Raises LamdatuiError at one that is not what was written."""
        return (event_of(row) for row, _ in chained(self._db, after))

    def lines(self, after: int = 0, upto: int | None = None) -> Iterator[tuple[int, str, str]]:
        """(seq, kind, JSON of the event) for the events with `after` < seq <= `upto`; nothing is parsed on the way.

        Raises LamdatuiError at one that is not what was written.
        """
        for (seq, kind, wall, mono, data), _ in chained(self._db, after, self.state.last_seq if upto is None else upto):
            yield seq, kind, f'{{"seq":{seq},"kind":"{kind}","wall":{wall!r},"mono":{mono!r},"data":{data}}}'

    def take_touched(self) -> set[tuple[str, str]]:
        """(part, id) of what was changed since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def close(self) -> None:
        """Close the database."""
        self._held.close()


def projection(state: RunState) -> str:
    """What is stored of a run beside its events: it is read without them by whoever lists runs."""
    return canonical(sealed({**state.run_json(), "trial_count": len(state.trials)}))


def _make(path: Path) -> None:
    """Make an empty database, whole or not at all."""
    if path.exists():
        return
    with telling(path, "the run's database can't be made"):
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            made = Path(folder) / path.name
            db = apsw.Connection(str(made))
            db.execute(_PRAGMAS[0]).fetchall()
            with db:
                db.execute(SCHEMA)
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            # Closing does the same, but says nothing where it fails: the file would get its name without what is in its log.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            db.close()
            os.rename(made, path)
        fsync_dir(path.parent)


def _has_lost(path: Path) -> bool:
    """Whether a database without a schema has had one: it has not even a header, or the run has steps.

    Engines of the first version made it in place, header first: killed in between they lost nothing.
    """
    return path.stat().st_size == 0 or any((path.parent / "steps").glob("*/*"))


def _empty(path: Path) -> LamdatuiError:
    return LamdatuiError(
        "the run's database is empty, though the run has steps", where=str(path), fix=_FIX, exit_code=EXIT_FAILED
    )


def _other_version(path: Path, version: int) -> LamdatuiError:
    return LamdatuiError(
        f"this run was written by another version (schema {version}, this one knows {SCHEMA_VERSION})",
        where=str(path),
        fix="open it with the lamdatui that made it",
    )


def newer_run(path: Path, why: str) -> LamdatuiError:
    """The refusal of whoever would write to a run of a newer version, or make another one of it."""
    return LamdatuiError(
        f"this run was written by a newer version of lamdatui ({why}): it can only be looked at",
        where=str(path),
        fix="use that version, or a newer one",
    )


def told_newer(state: RunState) -> str:
    """What whoever shows such a run says once."""
    return f"note: a newer version of lamdatui has written {state.name or 'this run'} ({state.newer}): what this one understands is shown"


def _broken_off(path: Path) -> LamdatuiError:
    return LamdatuiError(
        "a repair of this run was broken off",
        where=str(path),
        fix=f"lamdatui doctor {path.parent.name} --repair",
        exit_code=EXIT_FAILED,
    )


_FIX = "lamdatui doctor RUN says what is left; put a copy of the file back, or start another run with --name: finished work comes from the store"
_FREE = "free some space, then start it again: what was recorded is kept"


def _full(path: Path, error: Exception) -> str:
    """That the disk is full, where that is what an error says; else ""."""
    if isinstance(error, apsw.FullError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({shutil.disk_usage(path.parent).free / 2**20:.1f} MiB free)"
    return ""


@contextmanager
def telling(path: Path, what: str) -> Iterator[None]:
    """Whatever a damaged database raises, or a disk that fails, becomes one clear error."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        fix, full = _FIX, _full(path, error)
        if full:
            fix = _FREE
        elif isinstance(error, (OSError, apsw.IOError, apsw.CantOpenError)):
            fix = f"try again: the disk or the system refused; should that stay so, {_FIX}"
        raise LamdatuiError(f"{what}: {full or error}", where=str(path), fix=fix, exit_code=EXIT_FAILED) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        told = f"{what}: it is damaged ({type(error).__name__}: {error})"
        raise LamdatuiError(told[:500], where=str(path), fix=_FIX, exit_code=EXIT_FAILED) from error


class Broken(LamdatuiError):
    """Event `seq` is not what was written; those before it are."""

    def __init__(self, db: apsw.Connection, seq: int) -> None:
        what = f"the run's record is damaged: event {seq} is not what was written"
        super().__init__(what, where=db.filename, fix=_FIX, exit_code=EXIT_FAILED)
        self.seq = seq


def chained(db: apsw.Connection, after: int = 0, upto: int | None = None) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Rows of the events with `after` < seq <= `upto`, each with its hash once that fits. Raises Broken at one that is damaged.

    A run that only the first version has written has no hashes, and how a newer version makes them is not known: rows are given as they are, with none.
    """
    version = version_of(db)
    has_chain = bool(list(db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'")))
    most = 2**62 if upto is None else upto
    if version > SCHEMA_VERSION or (version < CHAINED and not has_chain):
        # Only readers meet such a run: a writer has given it hashes first.
        asked = "SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? AND seq <= ? ORDER BY seq"
        for row in db.execute(asked, (after, most)):
            yield row, ""
        return
    if not has_chain:
        raise Broken(db, 1)
    before = next((found for (found,) in db.execute("SELECT hash FROM chain WHERE seq = ?", (after,))), "")
    rows: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT e.seq, e.kind, e.wall, e.mono, e.data, c.hash FROM events e LEFT JOIN chain c ON c.seq = e.seq "
        "WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq",
        (after, most),
    )
    expected, is_chained = after, True
    for *row, found in rows:
        expected += 1
        # What the first version has appended to a run with hashes is at the end, and has none.
        is_chained = is_chained and (found is not None or version >= CHAINED)
        before = link(before, tuple(row)) if is_chained else ""
        if row[0] != expected or before != (found or ""):
            raise Broken(db, expected)
        yield tuple(row), before
    last = next(iter(db.execute("SELECT max(seq) FROM chain WHERE seq <= ?", (most,))))[0]
    if last is not None and last > expected:
        raise Broken(db, expected + 1)


def event_of(row: tuple[Any, ...]) -> Event:
    """The event of a row. Raises ValueError for what is no JSON, or no number or text where one stands."""
    seq, kind, wall, mono, data = row
    if not isinstance(kind, str) or not isinstance(data, str) or finite(wall) is None or finite(mono) is None:
        raise ValueError("its columns hold other types")
    try:
        found = decode(data)
    except MsgspecError:  # It takes no lone surrogates.
        found = parse_json(data)
    return Event(seq, kind, wall, mono, found)


def take(state: RunState, event: Event) -> None:
    """Apply an event. Of a run of a newer version, which `state.newer` tells from the first unknown thing on, what is not understood is left out.

    Raises ValueError, KeyError, TypeError, AttributeError or IndexError for one that can't be of this run.
    """
    is_typed = True
    for look in (check_fields, check):
        try:
            look(event.kind, event.data)
        except (ValueError, TypeError, KeyError) as error:
            state.newer = state.newer or f"event {event.seq}: {error}"[:300]
            is_typed = look is not check
    try:
        if is_typed:
            check_references(state, event.kind, event.data)
            state.apply(event)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        if not state.newer:
            raise
    state.last_seq, state.last_wall, state.last_mono = event.seq, event.wall, event.mono
    if state.scheme > SCHEME:
        state.newer = state.newer or f"scheme {state.scheme}, this one knows {SCHEME}"


def _newer_schema(db: apsw.Connection) -> str:
    version = version_of(db)
    return f"schema {version}, this one knows {SCHEMA_VERSION}" if version > SCHEMA_VERSION else ""


def read_state(path: Path, seen: Callable[[Event], None] = lambda _: None) -> RunState:
    """The state of a run that this process does not own. `seen` is told of each event. Raises LamdatuiError when there is no readable journal."""
    state = RunState()
    with reading(path) as db, uncollected():
        state.newer = _newer_schema(db) if db else ""
        for row, _ in chained(db) if db else ():
            event = event_of(row)
            seen(event)
            take(state, event)
    return state


def copy_events(source: Path, target: Path, upto: int) -> None:
    """Begin the journal `target` with the events of `source` with seq <= `upto`, as they stand there: so their hashes are the same.

    Raises LamdatuiError where they can't be read, or written.
    """
    _make(target)
    with reading(source) as db, telling(target, "the record can't be written"):
        made = apsw.Connection(str(target))
        with contextlib.closing(made), made:
            last = ""
            for row, _ in chained(db, 0, upto) if db else ():
                last = link(last, row)
                made.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
                made.execute("INSERT INTO chain VALUES (?,?)", (row[0], last))


def read_run(path: Path) -> tuple[RunState, int]:
    """The run itself, without what belongs to its trials, and how many trials it has: at once, however long it is.

    Raises LamdatuiError when there is no readable journal.
    """
    with reading(path) as db:
        if db is None:
            return RunState(), 0
        bodies = [parse_json(body) for (body,) in db.execute("SELECT body FROM projections WHERE name = 'run'")]
        trials = next(iter(db.execute("SELECT count(*) FROM projections WHERE name = 'trial'")))[0]
        if not bodies:
            return RunState(newer=_newer_schema(db)), 0
        # The first version wrote no seal.
        run = unsealed(bodies[0], frozenset(bodies[0]) if "trial_count" not in bodies[0] else frozenset())
        check_run(run)
        state = run_from_json(run)
        state.newer = _newer_schema(db)
        return state, run.get("trial_count", trials)


@contextmanager
def reading(path: Path) -> Iterator[apsw.Connection | None]:
    """The database for reading, also on a disk that can't be written; None where an engine was killed while it made the file.

    Raises LamdatuiError.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise LamdatuiError("the path of a run must be UTF-8", where=str(path), fix="rename the folder") from error
    with telling(path, "no readable run"), contextlib.ExitStack() as stack:
        db = _opened(path)
        if db is None:
            # In WAL mode SQLite needs to write beside the file.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamdatui-read-")))
            for name in (path.name, f"{path.name}-wal"):
                if (path.parent / name).exists():
                    shutil.copyfile(path.parent / name, folder / name)
            db = apsw.Connection(str(folder / path.name))
        stack.callback(db.close)
        version = next(iter(db.execute("PRAGMA user_version")))[0]
        is_made = version != 0
        if not is_made and _has_lost(path):
            raise _empty(path)
        if is_made and not _is_understood(db, version):
            raise _other_version(path, version)
        # One moment of the database, while its engine goes on writing.
        db.execute("BEGIN")
        yield db if is_made else None


def _is_understood(db: apsw.Connection, version: int) -> bool:
    """Whether events can be read from a layout: of this version, an older one, or a newer one that has kept their table."""
    return version >= 1 and {row[1] for row in db.execute("PRAGMA table_info(events)")} >= COLUMNS


def _opened(path: Path) -> apsw.Connection | None:
    """A connection that reads; None where that needs to write and nothing can be written."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        db.execute("PRAGMA busy_timeout=5000").fetchall()
        db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return db
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        db.close()
        return None
