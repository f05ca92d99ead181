"""The layout of a run's database by number, and how an older one becomes the newest.

| version | what came with it |
|---|---|
| 1 | events and projections |
| 2 | every event has its hash, which covers its text and the hash of the one before it |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from lamdatui.base.faults import fault
from lamdatui.base.jsonio import fsync_dir

SCHEMA_VERSION = 2
CHAINED = 2
"""The version from which on no event is without its hash."""
_CHAIN = "CREATE TABLE IF NOT EXISTS chain (seq INTEGER PRIMARY KEY, hash TEXT NOT NULL);"
SCHEMA = f"""
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, wall REAL NOT NULL, mono REAL NOT NULL, data TEXT NOT NULL);
CREATE TABLE projections (name TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
{_CHAIN}
"""
COLUMNS = frozenset(("seq", "kind", "wall", "mono", "data"))
"""Of the table of events: with these, a database of a newer version can be read."""


def link(before: str, row: tuple[Any, ...]) -> str:
    """The hash of an event: of the one before it, and of the row as it is stored."""
    seq, kind, wall, mono, data = row
    return blake2b(f"{before}\n{seq}\n{kind}\n{wall!r}\n{mono!r}\n{data}".encode(), digest_size=16).hexdigest()


def version_of(db: apsw.Connection) -> int:
    """The number of a database's layout; 0 for one without tables."""
    return next(iter(db.execute("PRAGMA user_version")))[0]


def _chain(db: apsw.Connection) -> None:
    """Give hashes to the events that have none. Some databases of version 1 have hashes up to where that version went on with them."""
    db.execute(_CHAIN)
    seq, last = next(iter(db.execute("SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1")), (0, ""))
    # Read as they come: the events of a long run are hundreds of megabytes.
    for row in db.execute("SELECT seq, kind, wall, mono, data FROM events WHERE seq > ? ORDER BY seq", (seq,)):
        last = link(last, row)
        db.execute("INSERT INTO chain VALUES (?,?)", (row[0], last))


MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {2: _chain}
"""Version → what makes it of the one before it. Each is done within the one transaction of `migrate`."""


def migrate(path: Path, db: apsw.Connection, version: int) -> bool:
    """Make the database the newest version, in one transaction; whether there was anything to do.

    A copy of the file as it was stays beside it until that has succeeded. Raises apsw.Error or OSError: then nothing has changed.
    """
    kept = path.with_name(f"{path.name}.before-{SCHEMA_VERSION}")
    if version >= SCHEMA_VERSION:
        # Of one who was killed once it had succeeded.
        kept.unlink(missing_ok=True)
        return False
    _copy(db, kept)
    fault("migrate.kept")
    with db:
        for number in range(version + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[number](db)
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        fault("migrate.before-commit")
    fault("migrate.after-commit")
    kept.unlink()
    return True


def _copy(db: apsw.Connection, target: Path) -> None:
    """The database as another file, whole or not at all, with what is in the log beside it."""
    made = target.with_name(f".new-{target.name}")
    made.unlink(missing_ok=True)
    copy = apsw.Connection(str(made))
    with copy.backup("main", db, "main") as backup:
        while not backup.done:
            backup.step(1000)
    copy.close()
    with made.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(made, target)
    fsync_dir(target.parent)
