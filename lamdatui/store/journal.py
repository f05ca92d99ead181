"""The run's database: append-only events, chained by their hashes, and projections that are updated in the same transaction.

The hash of an event covers its text and the hash of the one before it; whoever reads events compares them. Events of the first
version get their hashes when a writer opens the run. SQLite through apsw, because the standard library's build may predate 3.51.3, which fixed a corrupting race in WAL mode.
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
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from lamdatui.base.clock import Clock, SystemClock
from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.jsonio import canonical, fsync_dir, sealed, unsealed
from lamdatui.base.surrogates import escaped
from lamdatui.domain.events import Event, check_fields
from lamdatui.domain.state import RunState, run_from_json

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, wall REAL NOT NULL, mono REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE projections (name TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
"""
_CHAIN = "CREATE TABLE IF NOT EXISTS chain (seq INTEGER PRIMARY KEY, hash TEXT NOT NULL)"
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

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Open or create. Raises LamdatuiError when the file is not a journal of this version or is damaged."""
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
        _make(path)
        with _telling(path, "the run's database can't be read"):
            # Before the first pragma, which would write a header into an emptied file.
            has_lost = _has_lost(path)
            self._db = apsw.Connection(str(path))
            self._prepare(has_lost)
            self._chain_older()
            self._read()

    def _prepare(self, has_lost: bool) -> None:
        for pragma in _PRAGMAS:
            self._db.execute(pragma).fetchall()
        version = next(iter(self._db.execute("PRAGMA user_version")))[0]
        if version == 0 and not has_lost:
            with self._db:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version == 0:
            raise _empty(self.path)
        elif version != SCHEMA_VERSION:
            raise _other_version(self.path, version)

    def _chain_older(self) -> None:
        """Give hashes to the events that a writer of the first version has left without."""
        with self._db:
            self._db.execute(_CHAIN)
            seq, last = next(iter(self._db.execute("SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1")), (0, ""))
            # Read as they come: the events of a long run are hundreds of megabytes.
            for row in self._db.execute("SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? ORDER BY seq", (seq,)):
                last = _link(last, row)
                self._db.execute("INSERT INTO chain VALUES (?,?)", (row[0], last))

    def _read(self) -> None:
        """Make the state from what is on disk."""
        self.state, self._hash = RunState(), ""
        for row, link in _chained(self._db):
            self.state.apply(_event(row))
            self._hash = link

    def append(self, *facts: tuple[str, dict[str, Any]]) -> list[Event]:
        """Commit events and their projections in one transaction; when this returns they survive a power cut.

        Raises ValueError for a fact of the wrong shape, and JournalFailed when the disk fails: then nothing has changed, on disk
        or in memory, and whoever watches `on_failure` has heard of it.
        """
        if self.failure is not None:
            raise self.failure
        events, rows = [], []
        for offset, (kind, data) in enumerate(facts, 1):
            check_fields(kind, data)
            event = Event(self.state.last_seq + offset, kind, self.clock.wall(), self.clock.mono(), data)
            text = escaped(json.dumps(data, ensure_ascii=False, allow_nan=False))
            events.append(event)
            rows.append((event.seq, kind, event.wall, event.mono, text))
        last, touched = self._hash, set[tuple[str, str]]()
        try:
            with self._db:
                for event, row in zip(events, rows, strict=True):
                    last = _link(last, row)
                    self._db.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
                    self._db.execute("INSERT INTO chain VALUES (?,?)", (event.seq, last))
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
        # Read without the events by whoever lists runs.
        body = canonical(sealed({**self.state.run_json(), "trial_count": len(self.state.trials)}))
        self._db.execute("INSERT OR REPLACE INTO projections VALUES ('run', 'run', ?)", (body,))

    def rebuild(self) -> None:
        """Throw the projections away and make them again from the events."""
        self.state = RunState()
        with self._db:
            self._db.execute("DELETE FROM projections")
            for row, _ in _chained(self._db):
                self.state.apply(_event(row))
            self._project()

    def projections(self) -> list[tuple[str, str, str]]:
        """All (name, id, body) rows, sorted."""
        return list(self._db.execute("SELECT name, id, body FROM projections ORDER BY name, id"))

    def events(self, after: int = 0) -> Iterator[Event]:
        """Events with seq > `after`, in order. Raises LamdatuiError at one that is not what was written."""
        return (_event(row) for row, _ in _chained(self._db, after))

    def lines(self, after: int = 0, upto: int | None = None) -> Iterator[tuple[int, str, str]]:
        """(seq, kind, JSON of the event) for the events with `after` < seq <= `upto`; nothing is parsed on the way.

        Raises LamdatuiError at one that is not what was written.
        """
        for (seq, kind, wall, mono, data), _ in _chained(self._db, after, self.state.last_seq if upto is None else upto):
            yield seq, kind, f'{{"seq":{seq},"kind":"{kind}","wall":{wall!r},"mono":{mono!r},"data":{data}}}'

    def take_touched(self) -> set[tuple[str, str]]:
        """(part, id) of what was changed since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _make(path: Path) -> None:
    """Make an empty database, whole or not at all."""
    if path.exists():
        return
    with _telling(path, "the run's database can't be made"):
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            made = Path(folder) / path.name
            db = apsw.Connection(str(made))
            db.execute(_PRAGMAS[0]).fetchall()
            with db:
                db.execute(_SCHEMA)
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


_FIX = "put a copy of the file back, or start another run with --name: finished work comes from the store"
_FREE = "free some space, then start it again: what was recorded is kept"


def _full(path: Path, error: Exception) -> str:
    """That the disk is full, where that is what an error says; else ""."""
    if isinstance(error, apsw.FullError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({shutil.disk_usage(path.parent).free / 2**20:.1f} MiB free)"
    return ""


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
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


def _link(before: str, row: tuple[Any, ...]) -> str:
    """The hash of an event: of the one before it, and of the row as it is stored."""
    seq, kind, wall, mono, data = row
    return blake2b(f"{before}\n{seq}\n{kind}\n{wall!r}\n{mono!r}\n{data}".encode(), digest_size=16).hexdigest()


def _chained(db: apsw.Connection, after: int = 0, upto: int | None = None) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Rows of the events with `after` < seq <= `upto`, each with its hash once that fits. Raises LamdatuiError at one that is damaged.

    A run that only the first version has written has no hashes: its rows are given as they are, with none.
    """
    has_chain = bool(list(db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'")))
    most = 2**62 if upto is None else upto
    if not has_chain:
        # Only readers meet such a run: a writer has given it hashes first.
        asked = "SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? AND seq <= ? ORDER BY seq"
        for row in db.execute(asked, (after, most)):
            yield row, ""
        return
    before = next((found for (found,) in db.execute("SELECT hash FROM chain WHERE seq = ?", (after,))), "")
    rows: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT e.seq, e.kind, e.wall, e.mono, e.data, c.hash FROM events e LEFT JOIN chain c ON c.seq = e.seq "
        "WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq",
        (after, most),
    )
    expected, is_chained = after, True
    for *row, found in rows:
        expected += 1
        # What the first version appends after this one is at the end, and has no hash.
        is_chained = is_chained and found is not None
        before = _link(before, tuple(row)) if is_chained else ""
        if row[0] != expected or before != (found or ""):
            raise _not_as_written(db, expected)
        yield tuple(row), before
    last = next(iter(db.execute("SELECT max(seq) FROM chain WHERE seq <= ?", (most,))))[0]
    if last is not None and last > expected:
        raise _not_as_written(db, expected + 1)


def _not_as_written(db: apsw.Connection, seq: int) -> LamdatuiError:
    what = f"the run's record is damaged: event {seq} is not what was written"
    return LamdatuiError(what, where=db.filename, fix=_FIX, exit_code=EXIT_FAILED)


def _event(row: tuple[Any, ...]) -> Event:
    seq, kind, wall, mono, data = row
    return Event(seq, kind, wall, mono, json.loads(data))


def read_state(path: Path, seen: Callable[[Event], None] = lambda _: None) -> RunState:
    """The state of a run that this process does not own. `seen` is told of each event. Raises LamdatuiError when there is no readable journal."""
    state = RunState()
    with _reading(path) as db:
        for row, _ in _chained(db) if db else ():
            event = _event(row)
            seen(event)
            state.apply(event)
    return state


def copy_events(source: Path, target: Path, upto: int) -> None:
    """Begin the journal `target` with the events of `source` with seq <= `upto`, as they stand there: so their hashes are the same.

    Raises LamdatuiError where they can't be read, or written.
    """
    _make(target)
    with _reading(source) as db, _telling(target, "the record can't be written"):
        made = apsw.Connection(str(target))
        with contextlib.closing(made), made:
            made.execute(_CHAIN)
            last = ""
            for row, _ in _chained(db, 0, upto) if db else ():
                last = _link(last, row)
                made.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
                made.execute("INSERT INTO chain VALUES (?,?)", (row[0], last))


def read_run(path: Path) -> tuple[RunState, int]:
    """The run itself, without what belongs to its trials, and how many trials it has: at once, however long it is.

    Raises LamdatuiError when there is no readable journal.
    """
    with _reading(path) as db:
        if db is None:
            return RunState(), 0
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM projections WHERE name = 'run'")]
        trials = next(iter(db.execute("SELECT count(*) FROM projections WHERE name = 'trial'")))[0]
        if not bodies:
            return RunState(), 0
        # The first version wrote no seal.
        run = unsealed(bodies[0], frozenset(bodies[0]) if "trial_count" not in bodies[0] else frozenset())
        return run_from_json(run), run.get("trial_count", trials)


@contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection | None]:
    """The database for reading, also on a disk that can't be written; None where an engine was killed while it made the file.

    Raises LamdatuiError.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise LamdatuiError("the path of a run must be UTF-8", where=str(path), fix="rename the folder") from error
    with _telling(path, "no readable run"), contextlib.ExitStack() as stack:
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
        if is_made and version != SCHEMA_VERSION:
            raise _other_version(path, version)
        # One moment of the database, while its engine goes on writing.
        db.execute("BEGIN")
        yield db if is_made else None


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
