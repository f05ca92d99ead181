"""The journal: what is committed is there, projections are what the events say, nothing half-written counts."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import apsw
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.state import RunState
from lamdatui.store.journal import Journal, JournalFailed, read_run, read_state

CREATED = {
    "name": "r",
    "profile": {},
    "profile_digest": "d",
    "seed": 1,
    "mode": "auto",
    "policy": "random",
    "max_trials": 3,
    "wall_seconds": None,
}
MODEL = {
    "kind": "model",
    "id": "base",
    "digest": "x",
    "architecture": "llama",
    "layout": "l",
    "weights": "/w",
    "adapters": [],
    "parameters": 1,
    "trial": None,
}
ACTION = {"type": "sft", "inputs": {"model": ["base"]}, "params": {"learning_rate": 0.1}, "seed": 1, "digest": "a"}
COST = {"seconds": None, "memory_bytes": None, "disk_bytes": None, "measured": 0}
PROPOSAL = {"id": "p", "action": ACTION, "proposed_by": "random", "reason": "because", "seconds": 0.1, "alternatives": [], "estimate": COST,
            "opening": False, "fallback": None, "details": {}}  # fmt: skip


class HandClock:
    """Time that stands still unless the test moves it."""

    now = 1000.0

    def wall(self) -> float:
        return self.now

    mono = wall

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def fill(journal: Journal) -> None:
    journal.append(("run.created", CREATED), ("object.added", {"object": MODEL}))
    for number in (1, 2):
        journal.append(("trial.opened", {"number": number}))
        journal.append(("trial.proposed", {"number": number, "proposal": PROPOSAL}))
        decided = {"number": number, "verdict": "veto", "by": "person", "reason": "no", "action": ACTION}
        constraint = {"id": f"c{number}", "text": "t", "match": {}, "by": "person", "trial": number}
        journal.append(("trial.decided", decided), ("constraint.added", constraint))
        step = {"step": f"{number}/1", "purpose": "trial", "trial": number, "digest": "a"}
        journal.append(("step.intended", step))
        score = {"mean": 0.5, "n": 2, "interval": [0.0, 1.0]}
        journal.append(("evaluation.recorded", {"model": "base", "task": "t", "split": "search", "key": "k", "score": score}))


def test_rebuilding_projections_from_events_gives_the_same_bytes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    before = journal.projections()
    assert {name for name, _, _ in before} == {"run"}
    journal._db.execute("INSERT INTO projections VALUES ('trial', '99', '{}')")
    journal.rebuild()
    assert journal.projections() == before


def test_a_reopened_journal_has_the_same_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    written = {key: asdict(trial) for key, trial in journal.state.trials.items()}
    journal.close()
    state = read_state(tmp_path / "run.db")
    assert {key: asdict(trial) for key, trial in state.trials.items()} == written
    assert list(state.constraints) == ["c1", "c2"]


def test_the_time_budget_counts_work_and_not_waiting(tmp_path: Path) -> None:
    clock = HandClock()
    journal = Journal(tmp_path / "run.db", clock)
    started = {"pid": 1, "epoch": 1, "boot_id": "b", "version": "0", "device": {}}

    def phase(name: str) -> tuple[str, dict]:
        return "phase.changed", {"phase": name, "detail": ""}

    ended = {"status": "done", "reason": "", "winner": None, "beats_base": None, "gain": None}
    for seconds, fact in (
        (0, ("run.created", CREATED)),
        (0, ("engine.started", started)),
        (10, phase("waiting")),
        (1000, phase("running")),
        (20, phase("paused")),
        (1000, phase("planning")),
        (5, ("run.ended", ended)),
        (1000, ("engine.stopped", {"reason": ""})),
    ):
        clock.now += seconds
        journal.append(fact)
    assert journal.state.used_seconds == pytest.approx(35)
    clock.now += 7
    journal.append(("engine.started", started), ("run.resumed", {"max_trials": 9}))
    assert journal.state.used_seconds == 0.0


def test_a_journal_that_is_only_being_made_is_an_empty_run(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "run.db")).execute("PRAGMA journal_mode=WAL").fetchall()
    assert read_state(tmp_path / "run.db").status == "new"


def test_events_keep_their_order_and_are_refused_in_the_wrong_shape(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    assert [event.seq for event in journal.events()] == list(range(1, journal.state.last_seq + 1))
    count = journal.state.last_seq
    with pytest.raises(ValueError, match="carries"):
        journal.append(("trial.opened", {"number": 1, "colour": "red"}))
    with pytest.raises(ValueError, match="unknown event kind"):
        journal.append(("trial.imagined", {}))
    assert journal.state.last_seq == count == len(list(journal.events()))


@pytest.mark.parametrize(("point", "survivors"), [("journal.before-commit", 4), ("journal.after-commit", 5)])
def test_a_kill_around_the_commit_leaves_all_or_nothing_of_it(tmp_path: Path, point: str, survivors: int) -> None:
    script = (
        "import sys; from pathlib import Path; from lamdatui.store.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(1, 9): journal.append(('trial.opened', {'number': number}))\n"
    )
    path = tmp_path / "run.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], env={**os.environ, "LAMDATUI_FAULTS": f"{point}=kill@5"})
    assert done.returncode == -signal.SIGKILL
    assert sorted(read_state(path).trials) == list(range(1, survivors + 1))


def test_a_database_of_another_version_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    Journal(path).close()
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version=-1")
    for read in (Journal, read_state, read_run):
        with pytest.raises(LamdatuiError, match="another version"):
            read(path)
    db.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(LamdatuiError, match="newer version of lamdatui") as refused:
        Journal(path)
    assert refused.value.exit_code == 2 and path.read_bytes() == before
    assert read_run(path)[0].newer == read_state(path).newer == "schema 99, this one knows 2"
    # Where events are kept otherwise nothing can be shown.
    db.execute("ALTER TABLE events RENAME COLUMN data TO body")
    db.close()
    with pytest.raises(LamdatuiError, match="another version"):
        read_state(path)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(LamdatuiError, match="can't be read"):
        Journal(tmp_path / "run.db")


def test_a_database_that_can_not_be_made_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback: of SQLite's error, or of the disk's."""
    with pytest.raises(LamdatuiError, match="the run's database can't be made"):
        Journal(tmp_path / "missing" / "run.db")
    for error, told in (
        (apsw.FullError("database or disk is full"), "can't be made: the disk is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "can't be made: the disk is full"),
        (apsw.IOError("disk I/O error"), "can't be made: disk I/O error"),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", fail)
            with pytest.raises(LamdatuiError, match=told) as refused:
                Journal(tmp_path / "run.db")
        assert ("free some space" if "full" in told else "try again") in refused.value.fix
        assert refused.value.where == str(tmp_path / "run.db") and list(tmp_path.glob(".new*")) == []
    Journal(tmp_path / "run.db").close()


def test_the_database_is_durable_by_its_settings(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._db.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert journal._db.execute("PRAGMA cell_size_check").fetchone() == (1,)
    assert journal._db.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_a_run_is_known_without_its_history(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    run, trials = read_run(tmp_path / "run.db")
    assert trials == len(journal.state.trials) == 2
    whole = journal.state.run_json()
    assert {name: getattr(run, name) for name in whole} == whole
    Journal(tmp_path / "new.db").close()
    assert read_run(tmp_path / "new.db") == (RunState(), 0)
    (tmp_path / "bad.db").write_text("not a database, " * 100)
    with pytest.raises(LamdatuiError, match="no readable run"):
        read_run(tmp_path / "bad.db")


def test_lines_are_the_events_as_they_are_sent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    events = [event.to_json() for event in journal.events()]
    assert [json.loads(text) for _, _, text in journal.lines()] == events
    assert [seq for seq, _, _ in journal.lines(2, 4)] == [3, 4]


# --- guards ---------------------------------------------------------------------------------------------------------


def test_a_sqlite_that_can_corrupt_a_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlitelibversion", lambda: "3.51.2")
    with pytest.raises(LamdatuiError, match=r"SQLite 3\.51\.2 can corrupt") as refused:
        Journal(tmp_path / "run.db")
    assert refused.value.exit_code == 1 and list(tmp_path.glob("run.db*")) == []
    monkeypatch.setattr(apsw, "sqlitelibversion", lambda: "3.100.0")
    Journal(tmp_path / "run.db").close()


def test_a_run_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LamdatuiError, match="must be UTF-8"):
        read_state(tmp_path / os.fsdecode(b"\xff") / "run.db")


def test_a_database_that_was_emptied_is_no_new_run(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    path.touch()
    for read in (read_state, read_run):
        with pytest.raises(LamdatuiError, match="the run's database is empty") as refused:
            read(path)
        assert refused.value.where == str(path) and refused.value.exit_code == 1
    # A header without a schema is a new run only as long as nothing was done in it.
    apsw.Connection(str(path)).execute("PRAGMA journal_mode=WAL").fetchall()
    assert read_run(path) == (RunState(), 0)
    made = tmp_path / "made" / "run.db"
    made.parent.mkdir()
    shutil.copyfile(path, made)
    journal = Journal(made)
    fill(journal)
    assert read_state(made).last_seq == journal.state.last_seq
    journal.close()
    (tmp_path / "steps" / "1" / "1").mkdir(parents=True)
    for read in (Journal, read_state, read_run):
        with pytest.raises(LamdatuiError, match="the run's database is empty"):
            read(path)


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9 * 2**20, 6 * 2**20, 3 * 2**20))
    path = tmp_path / "run.db"
    for error in (OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x"), apsw.FullError("x")):
        assert JournalFailed(path, error).what.endswith("the disk is full (3.0 MiB free)")
    failed = JournalFailed(path, apsw.IOError("disk I/O error"))
    assert failed.what.endswith("IOError: disk I/O error") and (failed.where, failed.exit_code) == (str(path), 1)


def test_an_event_that_is_no_json_is_told_where_nothing_is_chained(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path)
    fill(journal)
    journal.close()
    db = apsw.Connection(str(path))
    db.execute("DROP TABLE chain")
    with pytest.raises(LamdatuiError, match="event 1 is not what was written"):
        read_state(path)
    db.execute("PRAGMA user_version=1")
    assert read_state(path).last_seq > 5
    db.execute("UPDATE events SET data = '{' WHERE seq = 5")
    db.close()
    with pytest.raises(LamdatuiError, match=r"no readable run: it is damaged \(JSONDecodeError"):
        read_state(path)
    with pytest.raises(LamdatuiError, match=r"can't be read: it is damaged \(JSONDecodeError"):
        Journal(path)


def test_what_is_read_is_what_was_recorded_and_the_collector_goes_on(tmp_path: Path) -> None:
    """Numbers to the last bit, lone surrogates, large integers: whichever parser reads them."""
    texts = ["\ud800 alone", "é\u2028\0", "plain"]
    match = {"small": 5e-324, "near": 0.1 + 0.2, "minus": -0.0, "large": 2**70, "deep": [[{"a": [None, True, 1.0]}]]}
    journal = Journal(tmp_path / "run.db")
    journal.append(("run.created", CREATED))
    for number, text in enumerate(texts):
        told = {"id": f"c{number}", "text": text, "match": match, "by": "person", "trial": number}
        journal.append(("constraint.added", told))
    journal.close()
    for state in (read_state(tmp_path / "run.db"), Journal(tmp_path / "run.db").state):
        found = list(state.constraints.values())
        assert [each["text"] for each in found] == texts
        assert all(json.dumps(each["match"]) == json.dumps(match) for each in found)
    assert gc.isenabled()
    gc.disable()
    try:
        read_state(tmp_path / "run.db")
        assert not gc.isenabled(), "as whoever reads has it"
    finally:
        gc.enable()


def test_no_number_that_is_none_is_recorded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    answered = {"number": 1, "call": "c", "answer": "a", "tokens": 1, "seconds": float("nan")}
    # The second one is in no projection.
    for fact in (("planner.answered", answered), ("candidates.listed", {"number": 1, "types": {"sft": float("inf")}})):
        with pytest.raises(ValueError, match="Out of range"):
            journal.append(fact)
    assert len(list(journal.events())) == journal.state.last_seq


def test_what_lists_runs_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path)
    fill(journal)
    journal.close()
    whole, trials = read_run(path)
    db = apsw.Connection(str(path))
    ((body,),) = db.execute("SELECT body FROM projections WHERE name = 'run'")
    # The first version had neither the count nor the seal.
    first = {name: value for name, value in json.loads(body).items() if name not in ("seal", "trial_count")}
    for text in (json.dumps({**first, "trial_count": 2}), body.replace('"seed":1', '"seed":2')):
        db.execute("UPDATE projections SET body = ? WHERE name = 'run'", (text,))
        with pytest.raises(LamdatuiError, match="seal"):
            read_run(path)
    db.execute("UPDATE projections SET body = ? WHERE name = 'run'", (json.dumps(first),))
    # It counted the rows of its trials.
    for number in range(1, trials + 1):
        db.execute("INSERT INTO projections VALUES ('trial', ?, '{}')", (str(number),))
    assert read_run(path) == (whole, trials) and trials == 2


def test_what_the_first_version_appends_is_read_and_chained_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path)
    fill(journal)
    last = journal.state.last_seq
    journal.close()
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version=1")
    for number in (1, 2):
        row = (last + number, "trial.opened", 1.0, 1.0, json.dumps({"number": 10 + number}))
        db.execute("INSERT INTO events VALUES (?,?,?,?,?)", row)
    assert {11, 12} <= set(read_state(path).trials)
    journal = Journal(path)
    assert {11, 12} <= set(journal.state.trials)
    journal.append(("trial.opened", {"number": 13}))
    journal.close()
    assert read_state(path).last_seq == last + 3
    # Once the events after it have hashes, one without is damage.
    assert {len(link) for (link,) in db.execute("SELECT hash FROM chain")} == {32}
    db.execute("DELETE FROM chain WHERE seq = ?", (last + 1,))
    db.close()
    with pytest.raises(LamdatuiError, match=f"event {last + 1} is not what was written"):
        read_state(path)


def test_a_long_run_is_read_to_its_end_and_damage_is_told_by_its_event(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = Journal(path)
    journal.append(*(("trial.opened", {"number": number}) for number in range(1, 201)))
    assert [seq for seq, _, _ in journal.lines(197)] == [198, 199, 200] == [event.seq for event in journal.events(197)]
    journal.close()
    assert len(read_state(path).trials) == 200
    for change, event in (
        ("DELETE FROM events WHERE seq = 200", 200),
        ("DELETE FROM events WHERE seq > 190", 191),
        ("UPDATE events SET wall = wall + 1 WHERE seq = 7", 7),
        ("UPDATE events SET kind = 'run.resumed' WHERE seq = 5", 5),
    ):
        db = apsw.Connection(str(path))
        db.execute(change)
        db.close()
        with pytest.raises(LamdatuiError, match=f"damaged: event {event} is not what was written"):
            read_state(path)
