"""Runs that begin as another one was when a trial had closed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.cli.forking import _check_kept, _make, cut
from lamdatui.domain.budget import droppable, step_seconds, worked, written
from lamdatui.domain.events import Event
from lamdatui.domain.objects import ModelObject, object_to_json
from lamdatui.domain.state import RunState
from lamdatui.inputs.profile import Profile, load_profile
from lamdatui.store.journal import Journal, read_state
from lamdatui.ui.view.activityrows import rows
from lamdatui.wire.rundir import StartOptions, prepare_run, start_engine
from tests.conftest import Commands
from tests.landed import Landed
from tests.test_journal import ACTION, CREATED, MODEL, HandClock
from tests.test_run import executions, wait_for

AUTO = ("--headless", "--mode", "auto")


def chained(run_dir: Path) -> list[tuple[Any, ...]]:
    """Each event of a run with its hash."""
    db = apsw.Connection(str(run_dir / "run.db"), flags=apsw.SQLITE_OPEN_READONLY)
    found = list(db.execute("SELECT e.*, c.hash FROM events e JOIN chain c ON c.seq = e.seq ORDER BY e.seq"))
    db.close()
    return found


def content(folder: Path) -> dict[str, str]:
    """Hash of each file of a run that holds what it has found."""
    files = [folder / "profile.yaml", *sorted(path for path in folder.glob("steps/**/*") if path.is_file())]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def chosen(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(trial["action"]["digest"], trial["proposed_by"]) for trial in shown["trials"]]


def test_a_run_goes_on_from_a_trial_of_another_one(lab_profile: Any, cli: Commands) -> None:
    changes = [("rows: { search: 100, sealed: 200 }", "rows: { search: 30, sealed: 40 }"), ("trials: 12", "trials: 5")]
    changes += [("choices: [40, 120, 240]", "choices: [20, 40]"), ("choices: [25, 75]", "choices: [10, 25]")]
    profile = str(lab_profile(*changes))
    done = cli("run", profile, "--name", "r", *AUTO)
    assert done.returncode == 0, done.stderr
    # The engine has its last word after the client that followed it.
    wait_for(cli, "r", lambda state: state.engine_pid is None)
    source, events, files = cli.show("r"), chained(cli.runs / "r"), content(cli.runs / "r")
    assert [trial["proposed_by"] for trial in source["trials"]] == ["opening"] * 3 + ["surrogate"] * 2
    done_once = set(executions(cli.runs))

    refused_before_anything_is_written(cli)

    forked = cli("fork", "r", "--at", "3", *AUTO)
    assert forked.returncode == 0, forked.stderr
    assert "r-at-3 goes on from trial 3 of r" in forked.stderr
    same = cli.show("r-at-3")
    assert same["forked_from"] == {"run": "r", "at": 3} and source["forked_from"] is None
    assert chosen(same) == chosen(source), "the same seed and policy choose the same"
    assert [trial["cached"] for trial in same["trials"]] == [False] * 3 + [True] * 2, "nothing is trained again"
    assert same["trials"][:3] == source["trials"][:3] and same["winner"] == source["winner"]
    taken = chained(cli.runs / "r-at-3")
    upto = next(row[0] for row in taken if row[1] == "run.forked") - 1
    assert taken[:upto] == events[:upto] and events[upto - 1][1] == "trial.closed", (
        "its record begins with the other's, to the hash"
    )
    assert [row[0] for row in taken] == list(range(1, len(taken) + 1))
    looks = read_state(cli.runs / "r-at-3" / "run.db").sealed_looks
    winner = source["winner"]["model"]
    assert looks == [winner] if winner in ("m1", "m2", "m3") else [f"r/{winner}", winner]

    kept_trials_can_be_looked_at(cli)

    other = cli("fork", "r", "--at", "3", "--name", "other", "--seed", "2", "--trials", "4", "--policy", "random", *AUTO)
    assert other.returncode == 0, other.stderr
    shown = cli.show("other")
    assert chosen(shown)[:3] == chosen(source)[:3] and chosen(shown)[3] not in chosen(source)
    assert (shown["trials"][3]["action"]["seed"], shown["policy"], shown["profile"]["seed"]) == (2, "random", 2)
    # The one that it comes from opened the sealed rows for a winner that is not among these models, or is the same one.
    assert shown["sealed_looks"] == len({*(looks[:1]), shown["winner"]["model"]})

    first = cli("fork", "r", "--at", "0", "--trials", "1", *AUTO)
    assert first.returncode == 0, first.stderr
    shown = cli.show("r-at-0")
    assert chosen(shown) == chosen(source)[:1] and shown["trials"][0]["cached"]

    again = cli("fork", "r-at-3", "--at", "4", "--name", "third", *AUTO)
    assert again.returncode == 0, again.stderr
    assert cli.show("third")["forked_from"] == {"run": "r-at-3", "at": 4} and chosen(cli.show("third")) == chosen(source)
    more = cli("run", str(cli.runs / "third" / "profile.yaml"), "--name", "third", "--max-trials", "6", *AUTO)
    assert more.returncode == 0 and len(cli.show("third")["trials"]) == 6

    assert (chained(cli.runs / "r"), content(cli.runs / "r")) == (events, files), "it was only read"
    assert cli.show("r") == source
    assert len({*executions(cli.runs)} - done_once) == 2, "the trial of another seed, and a sixth one"
    Journal(cli.runs / "third" / "run.db").close()


def refused_before_anything_is_written(cli: Commands) -> None:
    before = sorted(path.name for path in cli.runs.iterdir())
    for words, told in (
        (("nobody", "--at", "1", *AUTO), "no run 'nobody'"),
        (("r", "--at", "9", *AUTO), "trial 9 of r has not closed: 5 have"),
        (("r", "--at", "3", "--name", "r", *AUTO), "there is a 'r' already"),
        (("r", "--at", "3", "--name", "a/b", *AUTO), "can't name a run"),
        (("r", "--at", "5", *AUTO), "nothing is left to do: 5 trials are kept"),
        (("r", "--at", "3", "--policy", "nobody", *AUTO), "nobody"),
        (("r", "--at", "3", "--headless"), "must name its mode"),
        (("r", "--at", "3"), "needs a terminal"),
        (("r", "--at", "3", "--seed", "-1", *AUTO), "seed"),
        (("r", "--at", "3", "--set", "objective.weights={call: 1}", *AUTO), "objective can't be changed"),
        (("r", "--at", "3", "--set", "datasets.copy.answers=last", *AUTO), "datasets.copy can't be changed"),
        (("r", "--at", "-1", *AUTO), "--at"),
    ):
        refused = cli("fork", *words)
        assert refused.returncode == 2 and told in refused.stderr and "Traceback" not in refused.stderr, (words, refused.stderr)
    assert sorted(path.name for path in cli.runs.iterdir()) == before


def kept_trials_can_be_looked_at(cli: Commands) -> None:
    for key in ("1/1", "3/1"):
        for name in ("log.txt", "action.json", "outcome.json"):
            assert (cli.runs / "r-at-3" / "steps" / key / name).read_bytes() == (
                cli.runs / "r" / "steps" / key / name
            ).read_bytes()
    assert cli("rows", "r-at-3", "m1", "--against", "base").stdout == cli("rows", "r", "m1", "--against", "base").stdout != ""
    dry = cli("step", "r-at-3", "1", "--dry-run")
    assert dry.returncode == 0 and "SFTTrainer" in dry.stdout
    assert "forked from r at trial 3" in cli("show", "r-at-3").stdout
    assert [row["run"] for row in json.loads(cli("runs", "--json").stdout)] == ["r-at-3", "r"]


def test_a_run_that_is_going_is_read_at_a_moment(lab_profile: Any, cli: Commands) -> None:
    profile = lab_profile(
        ("trials: 12", "trials: 2"), ("rows: { search: 100, sealed: 200 }", "rows: { search: 20, sealed: 20 }")
    )
    start_engine(prepare_run(load_profile(profile), "going", cli.runs), StartOptions(mode="ask"))
    wait_for(cli, "going", lambda state: state.phase == "waiting")
    refused = cli("fork", "going", "--at", "1", *AUTO)
    assert refused.returncode == 2 and "trial 1 of going has not closed: 0 have" in refused.stderr
    done = cli("fork", "going", "--at", "0", "--trials", "1", *AUTO)
    assert done.returncode == 0, done.stderr
    (trial,) = cli.show("going-at-0")["trials"]
    assert trial["status"] == "done" and trial["decision"]["by"] == "mode auto"
    waiting = cli.show("going")
    assert (waiting["status"], waiting["trials"][0]["status"], waiting["engine"]["pid"] is not None) == (
        "running",
        "awaiting",
        True,
    )
    assert cli.show("going-at-0")["sealed_looks"] == 1


@pytest.mark.parametrize("name", ["finished", "vetoed", "reuse", "awaiting", "killed"])
def test_a_run_of_the_version_before_is_forked(landed: Landed, name: str) -> None:
    before = landed.show(name)
    kept = next((trial["number"] for trial in before["trials"] if trial["status"] in ("done", "vetoed")), 0)
    done = landed.cli(
        "fork", name, "--at", str(kept), "--name", "forked", "--trials", str(kept + 1), "--headless", "--mode", "auto"
    )
    assert done.returncode == 0, done.stderr
    found = landed.show("forked")
    assert found["status"] == "done" and len(found["trials"]) == kept + 1
    assert found["trials"][:kept] == before["trials"][:kept]
    following = [trial["action"]["digest"] for trial in before["trials"][kept : kept + 1]]
    assert [trial["action"]["digest"] for trial in found["trials"][kept:]][: len(following)] == following
    assert landed.show(name) == before


# --- what is taken over, and what is not ---------------------------------------------------------------------------


class Recorded:
    """A run's journal, made by hand: an engine that works from 1000 s on."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.folder = folder / "r"
        self.folder.mkdir()
        self.journal = Journal(self.folder / "run.db", self.clock)
        started = {"pid": 1, "epoch": 1, "boot_id": "b", "version": "0", "device": {"dtype": "float32"}, "clock": "mono"}
        self.add(
            0, ("run.created", {**CREATED, "max_trials": 9}), ("engine.started", started), ("object.added", {"object": MODEL})
        )

    def add(self, seconds: float, *facts: tuple[str, dict[str, Any]]) -> None:
        """So many seconds later."""
        self.clock.now += seconds
        self.journal.append(*facts)

    def trial(self, number: int, seconds: float) -> None:
        """One that makes a model by a merge in so many seconds."""
        step = {"step": f"{number}/1", "purpose": "trial", "trial": number, "digest": f"d{number}"}
        ended = {"status": "ok", "cached": False, "seconds": {"execute": seconds}, "error": None}
        closed = {
            "status": "done",
            "model": f"m{number}",
            "dataset": None,
            "scores": {},
            "objective": 0.1 * number,
            "gain": None,
        }
        made = object_to_json(
            ModelObject(f"m{number}", f"d{number}", "llama", "l", f"store:d{number}", trial=number, bytes=100)
        )
        action = {**ACTION, "type": "merge_linear", "digest": f"d{number}"}
        decided = {"number": number, "verdict": "approve", "by": "mode auto", "reason": "", "action": action}
        self.add(0, ("trial.opened", {"number": number}), ("trial.decided", decided), ("step.intended", step))
        self.add(seconds, ("step.ended", {"step": f"{number}/1", **ended}), ("object.added", {"object": made}))
        self.add(0, ("trial.closed", {"number": number, **closed, "cached": False, "seconds": {}, "error": None}))

    def forked(self, at: int, folder: Path) -> RunState:
        """The state of a run that begins with this one."""
        found = cut(self.folder, at)
        profile = Profile.model_validate(PROFILE)
        _make(self.folder, folder / f"f{at}", found, profile)
        return read_state(folder / f"f{at}" / "run.db")


PROFILE = {
    "name": "p",
    "seed": 7,
    "models": {"base": {"path": "/w"}},
    "datasets": {"d": {"path": "/d"}},
    "tasks": {"t": {"path": "/t", "scorer": "exact"}},
    "objective": {"weights": {"t": 1}},
    "actions": {"sft": None},
    "budget": {"trials": 5, "wall_minutes": 2},
    "mode": "auto",
}


def test_meters_count_what_is_taken_over_and_not_what_came_after(tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    run.trial(1, 20)
    queued = {"id": "q1", "action": ACTION, "note": "", "by": "person"}
    answered = {"number": 2, "call": "choose", "answer": "a", "tokens": 11, "seconds": 1.0}
    run.add(5, ("planner.answered", answered), ("action.queued", queued), ("run.paused", {"by": "person"}))
    run.trial(2, 30)
    run.add(100, ("planner.answered", answered))
    run.trial(3, 40)
    state = run.forked(2, tmp_path)
    assert (worked(state), worked(state, 10.0**6), state.planner_tokens) == (55, 55, 11), "its engine has not begun"
    assert (step_seconds(state), list(state.trials), list(state.pool.items)) == (50, [1, 2], ["base", "m1", "m2"])
    assert (state.status, state.paused, state.queue, state.engine_pid) == ("running", False, {}, None)
    assert (state.name, state.seed, state.max_trials, state.wall_seconds) == ("f2", 7, 5, 120)
    assert state.device == {"dtype": "float32"}, "results have its dtype: the run keeps it"
    assert worked(run.forked(0, tmp_path)) == 0 and run.forked(1, tmp_path).forked_from == {"run": "r", "at": 1}
    # What is taken over was in the store before, and is the other run's to drop.
    state.types = {"merge_linear": {"family": "merge"}}  # type: ignore[dict-item]
    assert (written(state), droppable(state), written(run.journal.state)) == (0, [], 300)


def test_an_attempt_that_is_not_over_stays_the_other_run_s(tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    run.add(0, ("step.intended", {"step": "remake-1/1", "purpose": "remake", "trial": None, "digest": "d1"}))
    run.trial(1, 5)
    (run.folder / "steps" / "remake-1" / "1").mkdir(parents=True)
    (run.folder / "steps" / "remake-1" / "1" / "busy").write_text("")
    (run.folder / "steps" / "remake-1" / "1" / "log.txt").write_text("a line\n")
    state = run.forked(1, tmp_path)
    assert [(step.key, step.status) for step in state.steps.values()] == [("remake-1/1", "void"), ("1/1", "ok")]
    files = [path.name for path in (tmp_path / "f1" / "steps").glob("*/*/*")]
    assert files == ["log.txt"] and run.journal.state.steps["remake-1/1"].status == "intended"


def test_looks_at_the_sealed_rows_go_along_whenever_they_were(tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    gain = {"sealed": {"objective": {"mean": 0.1, "interval": [0.0, 0.2]}, "tasks": {}}}
    for number in (1, 2, 3):
        run.trial(number, 1)
        if number != 1:
            ended = {"status": "done", "reason": "", "winner": f"m{number}", "beats_base": True, "gain": gain}
            run.add(0, ("run.ended", ended), ("run.resumed", {"max_trials": 9}))
    assert run.forked(1, tmp_path).sealed_looks == ["r/m2", "r/m3"], "it will have models of these names, too"
    state = run.forked(2, tmp_path)
    assert state.sealed_looks == ["m2", "r/m3"] and (state.winner, state.gain) == (None, None)
    again = cut(tmp_path / "f2", 1)
    _make(tmp_path / "f2", tmp_path / "g", again, Profile.model_validate(PROFILE))
    assert read_state(tmp_path / "g" / "run.db").sealed_looks == ["f2/m2", "r/m3"]


def test_the_store_is_as_the_other_run_has_left_it(tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    run.trial(1, 1)
    run.add(0, ("object.dropped", {"id": "m1", "bytes": 5}))
    run.trial(2, 1)
    run.trial(3, 1)
    run.add(0, ("object.restored", {"id": "m1"}), *(("object.dropped", {"id": name, "bytes": 6}) for name in ("m2", "m3")))
    assert run.forked(2, tmp_path).dropped == {"m2": 6}


def test_a_record_that_can_t_be_taken_over_is_one_clear_error(tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    run.trial(1, 1)
    with pytest.raises(LamdatuiError, match="trial 2 of r has not closed: 1 have"):
        cut(run.folder, 2)
    run.journal.close()
    db = apsw.Connection(str(run.folder / "run.db"))
    db.execute("UPDATE events SET data = replace(data, 'merge_linear', 'merge_ties') WHERE kind = 'trial.decided'")
    with pytest.raises(LamdatuiError, match="damaged"):
        cut(run.folder, 1)
    db.execute("DROP TABLE chain")
    db.execute("PRAGMA user_version=1")
    assert cut(run.folder, 1).upto == 9
    # Also where a newer version has written it after that: what it says of looks at the sealed split is not known.
    db.execute("INSERT INTO events VALUES (99, 'step.dreamt', 1, 1, '{}')")
    with pytest.raises(LamdatuiError, match=r"newer version of lamdatui .*step\.dreamt"):
        cut(run.folder, 1)
    db.execute("DELETE FROM events WHERE seq = 99")
    db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(LamdatuiError, match=r"newer version of lamdatui .*schema 9"):
        cut(run.folder, 1)
    Journal(tmp_path / "empty.db").close()
    (tmp_path / "e").mkdir()
    (tmp_path / "empty.db").rename(tmp_path / "e" / "run.db")
    with pytest.raises(LamdatuiError, match="not begun"):
        cut(tmp_path / "e", 0)


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Recorded(tmp_path)
    run.trial(1, 1)
    (tmp_path / "f1").mkdir()
    (tmp_path / "f1" / "mine").write_text("")
    with pytest.raises(LamdatuiError, match="there is a 'f1' already"):
        run.forked(1, tmp_path)
    monkeypatch.setattr("lamdatui.cli.forking._facts", lambda *_: [("run.forked", {})])
    with pytest.raises(ValueError, match=r"run\.forked"):
        run.forked(0, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f1", "home", "r"]


def test_the_console_says_where_a_run_comes_from() -> None:
    told = {**CREATED, "forked_from": {"run": "first", "at": 2}, "looks": []}
    (row,) = rows(Event(1, "run.forked", 0.0, 0.0, told), RunState())
    assert row.text == "r goes on from trial 2 of first: 3 trials, policy random, seed 1, mode auto"


def test_a_dataset_may_be_added_and_what_trials_stand_on_stays() -> None:
    was = Profile.model_validate(PROFILE)
    more = {**PROFILE, "datasets": {"d": {"path": "/d"}, "e": {"path": "/e"}}, "actions": {"dpo": None}}
    _check_kept(was, Profile.model_validate(more), 1)
    for changed in ({"datasets": {"e": {"path": "/e"}}}, {"dtype": "bfloat16"}, {"models": {"base": {"path": "/v"}}}):
        with pytest.raises(LamdatuiError, match="can't be changed"):
            _check_kept(was, Profile.model_validate({**PROFILE, **changed}), 1)
