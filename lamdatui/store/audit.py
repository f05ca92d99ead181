"""What a run's database still holds, and its repair: the whole events at its beginning, as a new file in the place of the damaged one.

The damaged file, with the log beside it, stays as `run.db.broken-TIME`. A repair can be killed at any moment: until `run.db.repaired` is whole nothing has
changed; from then on no writer opens the run (`Journal`), and the next repair goes on from there (`switch`).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from lamdatui.base.faults import fault
from lamdatui.base.jsonio import SEAL, fsync_dir, parse_json, unsealed
from lamdatui.domain.state import RunState
from lamdatui.store.journal import REPAIRED, Broken, Journal, chained, copy_events, event_of, projection, reading, take
from lamdatui.store.schema import SCHEMA_VERSION, version_of

TEMPORARY = ".new-"
"""How the folders begin in which a database is made before it gets its name."""


@dataclass(slots=True)
class Audit:
    """What a look at a run's database has found. `state`: what the whole events add up to."""

    version: int = 0
    problems: list[str] = field(default_factory=list)
    """What SQLite says of the file."""
    state: RunState = field(default_factory=RunState)
    whole: int = 0
    """The last event before the first broken one."""
    broken: str = ""
    """What is wrong with the event after that; empty where there is none."""
    lost: int = 0
    """How many events from the broken one on can still be counted."""
    lost_trials: list[int] = field(default_factory=list)
    """Those which they say something of."""
    projections: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, id, body), as stored."""

    @property
    def is_sound(self) -> bool:
        """Whether file and events are as they were written."""
        return not self.problems and not self.broken


def audit(path: Path) -> Audit:
    """Look at a run's database as it is at this moment. Raises LamdatuiError where nothing of it can be read."""
    found = Audit()
    with reading(path) as db:
        if db is None:
            return found
        found.version = version_of(db)
        try:
            found.problems = [text for (text,) in db.execute("PRAGMA integrity_check(10)") if text != "ok"]
        except apsw.Error as error:
            found.problems = [str(error)]
        if found.version > SCHEMA_VERSION:
            found.state.newer = f"schema {found.version}, this one knows {SCHEMA_VERSION}"
        try:
            for row, _ in chained(db):
                take(found.state, event_of(row))
                found.whole = row[0]
        except Broken as error:
            found.broken = error.what
            # Of a gap it tells the first event that is not there.
            found.whole = error.seq - 1
        except (apsw.Error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            found.broken = f"event {found.whole + 1} can't be read ({type(error).__name__}: {error})"[:300]
        if found.broken:
            _lost(db, found)
        with contextlib.suppress(apsw.Error):
            found.projections = list(db.execute("SELECT name, id, body FROM projections ORDER BY name, id"))
    return found


def _lost(db: apsw.Connection, found: Audit) -> None:
    trials: set[int] = set()
    with contextlib.suppress(apsw.Error):
        for kind, data in db.execute("SELECT kind, data FROM events WHERE seq > ? ORDER BY seq", (found.whole,)):
            found.lost += 1
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                number = parse_json(data).get("number")
                trials |= {number} if str(kind).startswith("trial.") and isinstance(number, int) else set()
    found.lost_trials = sorted(trials)


def projection_problem(found: Audit) -> str:
    """How the stored summary differs from the one that the events give, in words; empty where it says the same.

    One that an older version has stored has fewer fields; one of the first version is taken as it is.
    """
    made = projection(found.state)
    stored = {(name, key): body for name, key, body in found.projections}
    if not found.state.last_seq and not stored:
        return ""
    text = stored.get(("run", "run"))
    if text is None:
        return "it is not there"
    if text == made:
        return ""
    try:
        record = parse_json(text)
        if "trial_count" not in record and SEAL not in record:
            # Of the first version, which wrote no seal and judged otherwise.
            return ""
        says, new = unsealed(record), json.loads(made)
    except (ValueError, TypeError) as error:
        return f"it is damaged ({error})"[:200]
    wrong = [name for name, value in says.items() if name in new and value != new[name]]
    is_older = says.keys() < new.keys() - {SEAL}
    return "" if is_older and not wrong else f"it says otherwise of: {', '.join(wrong) or 'the run'}"


def is_as_made(found: Audit) -> bool:
    """Whether the stored summary is the one that this version makes, bit for bit."""
    return found.projections == [("run", "run", projection(found.state))]


def rebuild(path: Path) -> None:
    """Make the stored summary again from the events. Raises LamdatuiError."""
    journal = Journal(path)
    try:
        journal.rebuild()
    finally:
        journal.close()


def cut(path: Path, upto: int) -> Path:
    """Make the database anew of its events with seq <= `upto`; where the old one is now. Raises LamdatuiError or OSError: then nothing has changed."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=TEMPORARY) as folder:
        made = Path(folder) / path.name
        copy_events(path, made, upto)
        rebuild(made)
        fault("repair.made")
        os.rename(made, path.with_name(REPAIRED))
    fsync_dir(path.parent)
    return switch(path)


def switch(path: Path) -> Path:
    """Put the repaired database in its place; where the old one is now. May be done again after a kill. Raises OSError."""
    fault("repair.named")
    kept = next((each for each in path.parent.glob(f"{path.name}.broken-*") if each.samefile(path)), None)
    if kept is None:
        kept = aside(path, "broken")
        os.link(path, kept)
    log, kept_log = path.with_name(f"{path.name}-wal"), kept.with_name(f"{kept.name}-wal")
    if log.exists() and not kept_log.exists():
        os.link(log, kept_log)
    fsync_dir(path.parent)
    fault("repair.kept")
    # The old log would be applied to the new file.
    for name in ("wal", "shm"):
        path.with_name(f"{path.name}-{name}").unlink(missing_ok=True)
    fsync_dir(path.parent)
    fault("repair.cleared")
    os.replace(path.with_name(REPAIRED), path)
    fsync_dir(path.parent)
    fault("repair.switched")
    return kept


def aside(path: Path, why: str) -> Path:
    """A free name beside a file that tells when: `run.db.broken-20260102T030405Z`."""
    first = f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number, found = 1, path.with_name(first)
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{first}-{number}")
    return found
