"""The run's database: append-only events, and projections that are updated in the same transaction.

SQLite through apsw, because the standard library's build may predate 3.51.3, which fixed a corrupting race in WAL mode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from lamdatui.clock import Clock, SystemClock
from lamdatui.errors import EXIT_FAILED, LamdatuiError
from lamdatui.events import Event, check_fields
from lamdatui.faults import fault
from lamdatui.jsonio import canonical
from lamdatui.state import RunState, run_from_json
from lamdatui.surrogates import escaped

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, wall REAL NOT NULL, mono REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE projections (name TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
"""
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA busy_timeout=5000",
)


class Journal:
    """The only writer of a `run.db`. `state` is always what the committed events add up to."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Open or create. Raises LamdatuiError when the file is not a journal of this version or is damaged."""
        if apsw.sqlitelibversion() < "3.51.3":
            raise LamdatuiError(
                f"SQLite {apsw.sqlitelibversion()} can corrupt a WAL database", fix="pip install -U apsw", exit_code=EXIT_FAILED
            )
        self.path = path
        self.clock = clock or SystemClock()
        self.state = RunState()
        self._touched: set[tuple[str, str]] = set()
        try:
            self._db = apsw.Connection(str(path))
            self._prepare()
            for event in _events(self._db):
                self.state.apply(event)
        except apsw.Error as error:
            raise LamdatuiError(
                f"the run's database can't be read: {error}",
                where=str(path),
                fix="keep a copy of the file; start another run, its finished work comes from the store",
                exit_code=EXIT_FAILED,
            ) from error

    def _prepare(self) -> None:
        for pragma in _PRAGMAS:
            self._db.execute(pragma).fetchall()
        version = next(iter(self._db.execute("PRAGMA user_version")))[0]
        if version == 0:
            with self._db:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise LamdatuiError(
                f"this run was written by another version (schema {version}, this one knows {SCHEMA_VERSION})",
                where=str(self.path),
                fix="open it with the lamdatui that made it",
            )

    def append(self, *facts: tuple[str, dict[str, Any]]) -> list[Event]:
        """Commit events and their projections in one transaction; when this returns they survive a power cut.

        Raises ValueError for a fact of the wrong shape and apsw.Error when the disk fails: then nothing was written
        and the journal must not be used any more.
        """
        events = []
        for offset, (kind, data) in enumerate(facts, 1):
            check_fields(kind, data)
            events.append(Event(self.state.last_seq + offset, kind, self.clock.wall(), self.clock.mono(), data))
        with self._db:
            for event in events:
                self._db.execute(
                    "INSERT INTO events VALUES (?,?,?,?,?)",
                    (
                        event.seq,
                        event.kind,
                        event.wall,
                        event.mono,
                        escaped(json.dumps(event.data, ensure_ascii=False, allow_nan=False)),
                    ),
                )
                self.state.apply(event)
                self._project()
                self._touched |= self.state.touched
            fault("journal.before-commit")
        fault("journal.after-commit")
        return events

    def _project(self) -> None:
        for name, key in self.state.touched:
            body = canonical(self.state.projection(name, key))
            self._db.execute("INSERT OR REPLACE INTO projections VALUES (?,?,?)", (name, key, body))

    def rebuild(self) -> None:
        """Throw the projections away and make them again from the events."""
        self.state = RunState()
        with self._db:
            self._db.execute("DELETE FROM projections")
            for event in _events(self._db):
                self.state.apply(event)
                self._project()

    def projections(self) -> list[tuple[str, str, str]]:
        """All (name, id, body) rows, sorted."""
        return list(self._db.execute("SELECT name, id, body FROM projections ORDER BY name, id"))

    def events(self, after: int = 0) -> Iterator[Event]:
        """Events with seq > `after`, in order."""
        return _events(self._db, after)

    def lines(self, after: int = 0, upto: int | None = None) -> Iterator[tuple[int, str, str]]:
        """(seq, kind, JSON of the event) for the events with `after` < seq <= `upto`; nothing is parsed on the way."""
        rows: Iterable[tuple[Any, ...]] = self._db.execute(
            "SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? AND seq <= ? ORDER BY seq",
            (after, self.state.last_seq if upto is None else upto),
        )
        for seq, kind, wall, mono, data in rows:
            yield seq, kind, f'{{"seq":{seq},"kind":"{kind}","wall":{wall!r},"mono":{mono!r},"data":{data}}}'

    def take_touched(self) -> set[tuple[str, str]]:
        """(projection table, id) of what was changed since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _events(db: apsw.Connection, after: int = 0) -> Iterator[Event]:
    rows: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? ORDER BY seq", (after,)
    )
    for seq, kind, wall, mono, data in rows:
        yield Event(seq, kind, wall, mono, json.loads(data))


def read_state(path: Path) -> RunState:
    """The state of a run that this process does not own; an empty one while its engine is only making the file.

    Raises LamdatuiError when there is no readable journal.
    """
    state = RunState()
    with _reading(path) as db:
        for event in _events(db) if db else ():
            state.apply(event)
    return state


def read_run(path: Path) -> tuple[RunState, int]:
    """The run itself, without what belongs to its trials, and how many trials it has: at once, however long it is.

    Raises LamdatuiError when there is no readable journal.
    """
    with _reading(path) as db:
        if db is None:
            return RunState(), 0
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM projections WHERE name = 'run'")]
        trials = next(iter(db.execute("SELECT count(*) FROM projections WHERE name = 'trial'")))[0]
    return (run_from_json(bodies[0]) if bodies else RunState()), trials


@contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection | None]:
    """The database for reading; None while its engine is only making the file. Raises LamdatuiError."""
    try:
        str(path).encode()
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.execute("PRAGMA busy_timeout=5000").fetchall()
            is_made = next(iter(db.execute("PRAGMA user_version")))[0] != 0
            yield db if is_made else None
        finally:
            db.close()
    except UnicodeEncodeError as error:
        raise LamdatuiError("the path of a run must be UTF-8", where=str(path), fix="rename the folder") from error
    except apsw.Error as error:
        raise LamdatuiError(f"no readable run: {error}", where=str(path), fix="see `lamdatui runs`") from error
