"""`lamdatui doctor RUN`: each thing that it finds, each repair, a repair that is killed, and runs of newer and older versions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.cli import runchecks
from lamdatui.cli.runchecks import doctor_run
from lamdatui.cli.show import print_run
from lamdatui.store.artifacts import Store
from lamdatui.store.audit import audit
from lamdatui.store.journal import Journal, read_state
from lamdatui.store.schema import SCHEMA_VERSION
from lamdatui.wire.rundir import take_lock
from tests.landed import Landed, unpack
from tests.test_journal import fill

Found = dict[str, tuple[str, str]]


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three trials with its store, as this version has it."""
    place = unpack(tmp_path)
    monkeypatch.chdir(place / "project")
    run_dir = place / "runs" / "finished"
    Store(run_dir.parent / "store").sweep()
    Journal(run_dir / "run.db").close()
    return run_dir


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A run of 14 events without a store."""
    (tmp_path / "runs" / "r").mkdir(parents=True)
    journal = Journal(tmp_path / "runs" / "r" / "run.db")
    fill(journal)
    journal.close()
    return tmp_path / "runs" / "r"


def looked(
    run_dir: Path, capsys: pytest.CaptureFixture[str], *, repair: bool = False, quick: bool = False
) -> tuple[bool, Found, list[str]]:
    """Whether all is well, subject → (status, detail), and what was repaired."""
    capsys.readouterr()
    well = doctor_run(run_dir.name, run_dir.parent, repair=repair, quick=quick, as_json=True)
    told = json.loads(capsys.readouterr().out)
    return well, {each["subject"]: (each["status"], each["detail"]) for each in told["checks"]}, told["repaired"]


def change(run_dir: Path, *statements: str) -> None:
    db = apsw.Connection(str(run_dir / "run.db"))
    for statement in statements:
        db.execute(statement)
    db.close()


def bad(found: Found) -> set[str]:
    return {subject for subject, (status, _) in found.items() if status == "bad"}


def test_a_sound_run_is_well_and_nothing_of_it_changes(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in finished.parent.rglob("*") if path.is_file() and "run.db-" not in path.name}
    well, found, repaired = looked(finished, capsys)
    assert well and not repaired and {status for status, _ in found.values()} == {"ok"}
    assert set(found) == {"database", "record", "summary", "profile", "evaluations", "objects", "leftovers"}
    assert found["evaluations"][1].startswith("12 are there") and "to the byte" in found["objects"][1]
    after = {path: path.read_bytes() for path in finished.parent.rglob("*") if path.is_file() and "run.db-" not in path.name}
    assert after == before
    assert "of the right size" in looked(finished, capsys, quick=True)[1]["objects"][1]


def test_the_record_is_cut_before_its_first_broken_event(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = read_state(finished / "run.db")
    journal = Journal(finished / "run.db")
    at = next(event.seq for event in journal.events() if event.kind == "trial.proposed" and event.data["number"] == 3)
    journal.close()
    change(finished, f"UPDATE events SET wall = wall + 1 WHERE seq = {at}")
    damaged = (finished / "run.db").read_bytes()
    well, found, _ = looked(finished, capsys)
    assert not well and bad(found) >= {"record"}
    assert f"event {at} is not what was written" in found["record"][1]
    assert f"lost: {state.last_seq - at + 1} events, of trials 3" in found["record"][1]
    well, found, repaired = looked(finished, capsys, repair=True)
    assert well and f"made anew of its {at - 1} whole events" in repaired[0]
    (kept,) = (path for path in finished.glob("run.db.broken-*") if not path.name.endswith("-wal"))
    assert kept.name in repaired[0] and kept.read_bytes() == damaged
    after = read_state(finished / "run.db")
    assert after.last_seq == at - 1 and after.trials[3].status == "proposing"
    # What the lost events told of would be taken for the outcome of whatever trial 3 does next.
    assert any(told.startswith("repaired: step 3/1: ") for told in repaired) and not (finished / "steps" / "3" / "1").exists()
    assert looked(finished, capsys, repair=True)[::2] == (True, [])


def test_a_file_that_sqlite_calls_damaged_is_made_anew_of_what_is_whole(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(small, "PRAGMA wal_checkpoint(TRUNCATE)")
    db = apsw.Connection(str(small / "run.db"))
    ((root,),) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'projections'")
    ((size,),) = db.execute("PRAGMA page_size")
    db.close()
    with (small / "run.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    last = audit(small / "run.db").whole
    well, found, _ = looked(small, capsys)
    assert not well and bad(found) == {"database"} and last == 14
    well, _, repaired = looked(small, capsys, repair=True)
    assert well and f"{last} whole events" in repaired[0] and read_state(small / "run.db").last_seq == last


def test_nothing_is_made_of_a_record_without_a_whole_event(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(small, "UPDATE events SET wall = 1 WHERE seq = 1")
    before = (small / "run.db").read_bytes()
    well, found, repaired = looked(small, capsys, repair=True)
    assert not well and not repaired and bad(found) == {"record"} and (small / "run.db").read_bytes() == before
    (small / "run.db").write_bytes(b"not a database" * 1000)
    well, found, _ = looked(small, capsys, repair=True)
    assert not well and "nothing of it can be read" in found["record"][1]


@pytest.mark.parametrize("body", ["{}", "replace(body, '\"seed\":1', '\"seed\":2')"])
def test_the_summary_is_made_again_from_the_events(small: Path, capsys: pytest.CaptureFixture[str], body: str) -> None:
    stored = audit(small / "run.db").projections
    change(small, f"UPDATE projections SET body = {body if body != '{}' else chr(39) + 'x' + chr(39)}")
    well, found, _ = looked(small, capsys)
    assert not well and bad(found) == {"summary"}
    well, found, repaired = looked(small, capsys, repair=True)
    assert well and len(repaired) == 1 and audit(small / "run.db").projections == stored
    change(small, "DELETE FROM projections")
    assert "not there" in looked(small, capsys)[1]["summary"][1]


def test_a_profile_that_is_gone_is_written_as_it_is_on_record(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = finished / "profile.yaml"
    text = profile.read_text()
    profile.write_text(text.replace("seed: ", "seed: 4", 1))
    well, found, repaired = looked(finished, capsys, repair=True)
    assert not well and bad(found) == {"profile"} and not repaired, "what somebody has written is not replaced"
    profile.unlink()
    assert bad(looked(finished, capsys)[1]) == {"profile"}
    well, _, repaired = looked(finished, capsys, repair=True)
    assert well and repaired == ["repaired: profile: profile.yaml was written as it is on record"]


def test_damage_in_the_store_is_put_aside_and_made_again_later(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, store = read_state(finished / "run.db"), finished.parent / "store"
    model = next(item for item in state.pool.models if item.trial is not None)
    weights = max((store / "objects" / model.digest).iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    keys = state.keys[model.id]
    task = next(iter(keys))
    evaluation = store / "evaluations" / f"{keys[task]['search']}.json"
    evaluation.write_text(evaluation.read_text()[:-20])
    base = store / "evaluations" / f"{state.keys['base'][task]['search']}.json"
    base.unlink()
    staged = Store(store).staging()
    lock = store / "staging" / "dead.lock"
    lock.touch()
    (store / "staging" / "dead").mkdir()
    with staged as alive:
        well, found, _ = looked(finished, capsys)
        assert not well and bad(found) == {f"score of {model.id}", f"object {model.id}"}
        assert weights.name in found[f"object {model.id}"][1] and found["score of base"][0] == "warn"
        assert found["leftovers"] == ("warn", "1 of processes that were killed")
        # Its size is right.
        assert f"object {model.id}" not in bad(looked(finished, capsys, quick=True)[1])
        well, found, repaired = looked(finished, capsys, repair=True)
        assert well and len(repaired) == 3 and alive.exists() and not lock.exists()
    assert found[f"object {model.id}"] == ("warn", "it is not in the store; it is made again when it is needed")
    assert len(list((store / "damaged").iterdir())) == 2 and not evaluation.exists()


def test_an_evaluation_with_another_score_is_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, store = read_state(finished / "run.db"), Store(finished.parent / "store")
    task, splits = next(iter(state.keys["base"].items()))
    value = store.evaluation(splits["search"])
    assert value is not None
    store.record_evaluation(
        splits["search"], {**value, "rows": [{**row, "score": row["score"] / 2 + 0.1} for row in value["rows"]]}
    )
    well, found, repaired = looked(finished, capsys, repair=True)
    assert not well and not repaired and f"{task} (search): its rows give" in found["score of base"][1]


def test_an_object_that_nobody_can_make_is_bad(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(finished.parent / "store" / "objects")
    (finished.parent / "store" / "objects").mkdir()
    assert not bad(looked(finished, capsys)[1])
    # Only the first version's record, which has no hashes, can lack events unseen.
    change(finished, "DROP TABLE chain", "PRAGMA user_version=1", "DELETE FROM events WHERE kind = 'trial.closed'")
    found = looked(finished, capsys)[1]
    assert "object m1" in bad(found) and "no trial of this run made it" in found["object m1"][1]


def test_steps_whose_process_is_gone_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = unpack(tmp_path) / "runs" / "killed"
    well, found, _ = looked(killed, capsys)
    assert well and found["step 2/1"] == ("warn", "its process is gone; the next engine closes it and goes on")
    assert found["version"][0] == "info" and found["summary"] == ("ok", "as an older version made it")


def test_a_run_at_work_is_looked_at_and_not_repaired(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(small, "DELETE FROM projections")
    lock = take_lock(small)
    assert lock is not None
    with lock:
        assert looked(small, capsys)[1]["engine"] == ("info", "an engine is at work on this run")
        with pytest.raises(LamdatuiError, match="nothing was repaired") as refused:
            doctor_run("r", small.parent, repair=True, quick=False, as_json=False)
    assert refused.value.exit_code == 1 and audit(small / "run.db").projections == []


@pytest.mark.parametrize(
    "point", ["repair.made", "repair.named", "repair.kept", "repair.cleared", "repair.switched", "doctor.repaired"]
)
def test_a_repair_that_is_killed_is_done_by_the_next_one(small: Path, capsys: pytest.CaptureFixture[str], point: str) -> None:
    change(small, "UPDATE events SET wall = 1 WHERE seq = 6")
    script = "from lamdatui.cli.runchecks import doctor_run; doctor_run('r', path, repair=True, quick=False, as_json=False)"
    if point != "doctor.repaired":
        script = "from lamdatui.store.audit import cut; cut(path / 'r' / 'run.db', 5)"
    command = [
        sys.executable,
        "-c",
        f"import sys; from pathlib import Path; path = Path(sys.argv[1]); {script}",
        str(small.parent),
    ]
    done = subprocess.run(command, env={**os.environ, "LAMDATUI_FAULTS": f"{point}=kill"})
    assert done.returncode == -signal.SIGKILL
    if point in ("repair.named", "repair.kept", "repair.cleared"):
        with pytest.raises(LamdatuiError, match="a repair of this run was broken off"):
            Journal(small / "run.db")
        assert "broken off" in looked(small, capsys)[1]["record"][1]
    well, found, _ = looked(small, capsys, repair=True)
    assert well and found["record"] == ("ok", "5 events, 1 trials") and found["leftovers"][0] == "ok"
    kept = [path for path in small.glob("run.db.broken-*") if path.suffix != ".broken" and not path.name.endswith("-wal")]
    assert len(kept) == 1 and audit(kept[0]).whole == 5 and audit(kept[0]).lost == 9
    journal = Journal(small / "run.db")
    journal.append(("trial.opened", {"number": 9}))
    journal.close()
    assert looked(small, capsys, repair=True)[::2] == (True, [])


@pytest.mark.parametrize("point", ["migrate.kept", "migrate.before-commit", "migrate.after-commit", ""])
def test_an_older_layout_becomes_the_newest_whole_or_not_at_all(small: Path, point: str) -> None:
    change(small, "DROP TABLE chain", "PRAGMA user_version=1")
    before = read_state(small / "run.db")
    script = (
        "import sys; from pathlib import Path; from lamdatui.store.journal import Journal; Journal(Path(sys.argv[1])).close()"
    )
    command = [sys.executable, "-c", script, str(small / "run.db")]
    done = subprocess.run(command, env={**os.environ, "LAMDATUI_FAULTS": f"{point}=kill" if point else ""})
    assert done.returncode == (-signal.SIGKILL if point else 0)
    copy = small / f"run.db.before-{SCHEMA_VERSION}"
    assert copy.exists() == bool(point)
    if point:
        assert read_state(copy).run_json() == before.run_json() and audit(copy).version == 1
    assert audit(small / "run.db").version == (1 if point in ("migrate.kept", "migrate.before-commit") else SCHEMA_VERSION)
    Journal(small / "run.db").close()
    found = audit(small / "run.db")
    assert (found.version, found.is_sound, found.whole, copy.exists()) == (SCHEMA_VERSION, True, 14, False)
    assert found.state.run_json() == before.run_json()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("PRAGMA user_version=9", "schema 9"),
        ("INSERT INTO events VALUES (15, 'step.dreamt', 1, 1, '{}')", "unknown event kind 'step.dreamt'"),
        ("UPDATE events SET data = json_set(data, '$.colour', 'red') WHERE seq = 4", "trial.proposed carries"),
        ("UPDATE events SET data = json_set(data, '$.scheme', 99) WHERE seq = 1", "scheme 99"),
    ],
)
def test_a_run_of_a_newer_version_is_shown_and_not_written(
    small: Path, capsys: pytest.CaptureFixture[str], statement: str, why: str
) -> None:
    # A version that hashes as this one does has hashed it.
    change(small, statement, *(() if "user_version" in statement else ("DROP TABLE chain", "PRAGMA user_version=1")))
    before = (small / "run.db").read_bytes()
    capsys.readouterr()
    print_run("r", small.parent, planner=False, as_json=True)
    told = capsys.readouterr()
    shown = json.loads(told.out)
    assert why in shown["newer"] and len(shown["trials"]) == 2
    assert told.err.count("newer version of lamdatui") == 1
    with pytest.raises(LamdatuiError, match="newer version of lamdatui") as refused:
        Journal(small / "run.db")
    assert refused.value.exit_code == 2
    with pytest.raises(LamdatuiError, match="can only be looked at"):
        doctor_run("r", small.parent, repair=True, quick=False, as_json=False)
    well, found, _ = looked(small, capsys)
    assert well and found["version"][0] == "warn"
    view = Journal(small / "run.db", view=True)
    assert len(view.state.trials) == 2 and [seq for seq, _, _ in view.lines(11, 13)] == [12, 13]
    with pytest.raises(LamdatuiError, match="newer version of lamdatui"):
        view.append(("trial.opened", {"number": 9}))
    view.close()
    assert (small / "run.db").read_bytes() == before


def test_reading_what_is_large_is_told(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runchecks, "TOLD_BYTES", 1)
    doctor_run("finished", finished.parent, repair=False, quick=False, as_json=False)
    told = capsys.readouterr()
    assert "reading m1, 1 of 3: " in told.err and "ok    objects" in told.out


def test_commands_on_a_run_of_a_newer_version(landed: Landed) -> None:
    for name in ("finished", "killed"):
        newest = read_state(landed.runs / name / "run.db").last_seq
        change(landed.runs / name, f"INSERT INTO events VALUES ({newest + 1}, 'step.dreamt', 1, 1, '{{}}')")
    shown = landed.cli("attach", "finished", "--no-console")
    assert shown.returncode == 0 and shown.stderr.count("newer version of lamdatui") == 1, shown.stderr
    refused = [
        landed.cli("attach", "killed", "--no-console"),
        landed.cli("fork", "finished", "--at", "1", "--headless", "--mode", "auto"),
        landed.cli("doctor", "killed", "--repair"),
    ]
    for done in refused:
        assert done.returncode == 2 and done.stderr.startswith("error: this run was written by a newer version"), done.stderr
        assert done.stderr.count("\n") == 3
    assert landed.cli("doctor", "--repair").returncode == 2 == landed.cli("doctor", "nobody").returncode
