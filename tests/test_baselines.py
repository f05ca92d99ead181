"""Baselines: what a winner is compared with after its search, what that may take, and what is said of it."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base.jsonio import digest
from lamdatui.config.resources import load_registry
from lamdatui.domain import baselines
from lamdatui.domain.baselines import NAMES, board, missing, seconds_left, standing, training_seconds
from lamdatui.domain.budget import ledgers, reserve
from lamdatui.domain.events import Event, check_fields
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import StepRecord, Trial
from lamdatui.engine.baselines import learning_rates
from lamdatui.inputs.fewshot import CHARS, SHOTS, after, examples, fewer
from lamdatui.inputs.taskfiles import load_task
from lamdatui.step.errors import StepError
from lamdatui.step.evaluate import questions
from tests.conftest import Commands
from tests.steps import Lab
from tests.test_recovery import wait_for

SCRIPT = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 40 } }
    - { type: merge_linear, inputs: { models: [llama, m1] } }
    - { type: sft, inputs: { model: m1, dataset: reverse }, params: { max_steps: 20 } }
"""
ROWS = "rows: { search: 100, sealed: 200 }"


def gain(mean: float, half: float = 0.05) -> dict[str, Any]:
    return {"mean": mean, "interval": [mean - half, mean + half]}


# --- what there is to say


@pytest.fixture
def state() -> RunState:
    """An sft of the base, a dpo on it that came from the store, and a merge."""
    types = {"sft": "supervised", "dpo": "preference", "merge_ties": "merge"}
    made = RunState(name="r", max_trials=3, wall_seconds=900.0, status="running")
    made.types = {name: {"family": family} for name, family in types.items()}  # type: ignore[typeddict-item]
    made.profile = {"budget": {"baselines": 0.5}}
    made.pool.add(ModelObject("base", "d0", "llama", "l", "/w"))
    made.pool.add(DatasetObject("mix", "dm", "sft", 9, "/mix"))
    steps = (
        ("sft", ["base"], 0.4, 30.0, False),
        ("dpo", ["m1"], 0.6, 0.0, True),
        ("merge_ties", ["m1", "m2"], 0.5, 2.0, False),
    )
    for number, (kind, models, objective, seconds, cached) in enumerate(steps, start=1):
        made.pool.add(ModelObject(f"m{number}", f"d{number}", "llama", "l", f"store:d{number}", trial=number))
        action = {"type": kind, "inputs": {"model": models}, "params": {}, "seed": 1, "digest": f"d{number}"}
        proposal = {"estimate": {"seconds": 12.0, "memory_bytes": None}}
        decided = {"verdict": "approve", "by": "x", "reason": ""}
        made.trials[number] = Trial(number, "done", action=action, model=f"m{number}", objective=objective, cached=cached)  # type: ignore[arg-type]
        made.trials[number].proposal, made.trials[number].decision = proposal, decided  # type: ignore[assignment]
        made.trials[number].seconds = {"execute": seconds}
    return made


def test_training_of_the_search_is_what_trials_trained_or_would_have_where_the_store_had_it(state: RunState) -> None:
    assert training_seconds(state) == 42.0
    state.trials[1].decision = None
    assert training_seconds(state) == 12.0


def test_the_best_single_step_and_the_best_merge(state: RunState) -> None:
    objectives = {"m1": 0.4, "m2": 0.6, "m3": 0.5}
    assert baselines.best_single_step(state, objectives) == "m1"
    assert baselines.best_merge(state, objectives) == "m3"
    state.lost = {"m1": "gone"}
    assert baselines.best_single_step(state, objectives) is None


def test_the_search_leaves_baselines_their_share_of_its_time(state: RunState) -> None:
    reserved = next(one.reserved for one in ledgers(state) if one.name == "wall")
    assert reserved == pytest.approx(300.0)
    assert seconds_left(state, 0.0) == 0.0, "the search is not over"
    state.used_seconds = 400.0
    state.searched = {"status": "done", "reason": "3 trials", "trials": 3, "seconds": 400.0}
    assert next(one.reserved for one in ledgers(state) if one.name == "wall") == 0.0
    assert seconds_left(state) == pytest.approx(200.0), "half of what the search took"
    state.searched["seconds"], state.used_seconds = 800.0, 850.0
    assert seconds_left(state) == pytest.approx(50.0), "the run's own limit"
    state.searched["seconds"], state.used_seconds, state.earlier_seconds = 100.0, 100.0, 400.0
    assert seconds_left(state) == pytest.approx(250.0), "of all that was searched before it was extended, too"
    state.profile = {"budget": {"baselines": 0.5, "step_minutes": 1.0}}
    assert seconds_left(state) == pytest.approx(60.0), "minutes of steps"
    state.finishing = {"reason": "3 trials"}
    assert seconds_left(state) == math.inf


@pytest.mark.parametrize(
    ("seconds", "reserved"),
    [(0.0, 420.0), (55.0, 420.0), (57.0, 254.1), (83.0, 254.1), (84.0, 0.0)],
    ids=["nothing is known", "both fit", "examples take too long", "a seed just fits", "a seed takes too long"],
)
def test_the_search_leaves_no_time_in_which_nothing_fits(state: RunState, seconds: float, reserved: float) -> None:
    """A search was cut to a fifth of its time, and then none of what that was left for fitted into it."""
    state.profile = {"budget": {"baselines": 0.4, "replicates": 0.35}}
    state.wall_seconds, state.best = 980.0, 1
    # 224 s are for baselines (examples: four times what one split takes), 196 s for replicates (30 s of training, and twice); 254.1 s without baselines.
    for step in ("trial", "search"):
        state.steps[step] = StepRecord(f"{step}/1", step, 1, "d9", status="ok", seconds={"evaluate": seconds})
    found = next(one.reserved for one in ledgers(state) if one.name == "wall") - reserve(state)
    assert found == pytest.approx(reserved, abs=0.1)


def events(*facts: tuple[str, dict[str, Any]]) -> RunState:
    made = RunState()
    created = {"name": "r", "profile": {"budget": {"baselines": 0.5}}, "profile_digest": "", "seed": 1, "mode": "auto"}
    created |= {"policy": "random", "max_trials": 3, "wall_seconds": 600.0, "scheme": 3}
    started = {"pid": 1, "epoch": 1, "boot_id": "", "version": "", "device": {}, "clock": "mono"}
    known: list[tuple[str, dict[str, Any]]] = [("run.created", created), ("engine.started", started), *facts]
    for number, (kind, data) in enumerate(known, start=1):
        check_fields(kind, data)
        made.apply(Event(number, kind, float(number), float(number), data))
    return made


FOUND = {
    "status": "done",
    "reason": "3 trials",
    "winner": "m2",
    "beats_base": True,
    "gain": {"sealed": {"objective": gain(0.3), "tasks": {}}},
}
PLAN = ("baseline.planned", {"name": "sft_all", "plan": {"actions": [], "length": 1.0}})
AGAIN = ("engine.started", {"pid": 2, "epoch": 2, "boot_id": "", "version": "", "device": {}, "clock": "mono"})


@pytest.mark.parametrize("way", ["stopped", "killed", "paused"])
def test_an_engine_that_comes_back_goes_on_with_the_baselines(way: str) -> None:
    between: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "stopped": [("engine.stopped", {"reason": "asked to stop"})],
        "killed": [],
        "paused": [("run.paused", {"by": "person"})],
    }
    state = events(("search.ended", FOUND), PLAN, *between[way], AGAIN, ("run.resumed", {"max_trials": 3}))
    assert state.searched and state.winner == "m2" and state.planned and not state.paused and state.status == "running"
    more = events(("search.ended", FOUND), PLAN, *between[way], AGAIN, ("run.resumed", {"max_trials": 5}))
    assert more.searched is None and more.winner is None and not more.planned and more.max_trials == 5
    assert more.used_seconds == 0.0 and more.earlier_seconds > 0, "its time anew"


def test_a_run_that_is_compared_on_demand_remembers_how_it_had_ended() -> None:
    told = {**FOUND, "status": "stopped", "reason": "stopped by a person", "gain": None, "beats_base": None}
    state = events(("run.ended", told), ("engine.stopped", {"reason": ""}), AGAIN, ("baselines.asked", {"by": "x"}))
    assert state.finishing == told and state.status == "running"
    state = events(
        ("run.ended", told),
        ("baselines.asked", {"by": "x"}),
        ("engine.stopped", {"reason": ""}),
        AGAIN,
        ("run.resumed", {"max_trials": 3}),
    )
    assert state.finishing == told, "an engine that was stopped meanwhile starts no trial"


def test_a_run_without_baselines_keeps_all_its_time(state: RunState) -> None:
    state.profile = {"budget": {}}
    assert next(one.reserved for one in ledgers(state) if one.name == "wall") == 0.0


def test_the_comparison_says_what_the_winner_is_better_and_worse_than(state: RunState) -> None:
    assert board(state) == [] and standing(state) == ""
    state.winner, state.gain = "m2", {"sealed": {"objective": gain(0.3), "tasks": {}}}
    for name, over in (("few_shot", 0.2), ("sft_all", -0.2), ("best_merge", 0.01)):
        report = {"objective": gain(0.1), "tasks": {}}
        state.baselines[name] = {
            "model": "x",
            "digest": "d",
            "what": "w",
            "scores": {},
            "keys": {},
            "gain": report,
            "winner_gain": gain(over),
        }  # type: ignore[typeddict-item]
    state.baselines["sft_all"] |= {"tried": 1, "of": 4, "length": 0.6}  # type: ignore[typeddict-item]
    rows = board(state)
    assert [row.name for row in rows] == [*NAMES, "winner"]
    assert rows[1].what == "w; 1 of 4 settings tried; trained for 60% of the search's training time"
    assert rows[2].missing
    assert standing(state) == "the winner is worse than sft_all; not told from best_merge; better than few_shot"
    state.baselines["sft_all"] |= {"object": {"id": "sft_all"}}  # type: ignore[typeddict-item]
    assert standing(state).endswith("better than few_shot (lamdatui export r --model sft_all)")


def test_why_a_baseline_is_missing(state: RunState) -> None:
    assert set(missing(state).values()) == {"the search is not over"}
    state.status, state.winner = "done", "m2"
    assert "lamdatui baselines r" in missing(state)["sft_all"]
    state.baselines_missing = {"sft_all": "no time"}
    assert missing(state)["sft_all"] == "no time"


def test_two_learning_rates_the_default_and_the_next() -> None:
    bound = load_registry().get("sft")
    assert learning_rates(bound.narrow("learning_rate", 1e-3, [5e-4, 1e-3, 2e-3])) == [1e-3, 2e-3]
    assert learning_rates(bound.narrow("learning_rate", 2e-3, [5e-4, 1e-3, 2e-3])) == [2e-3, 1e-3]
    assert learning_rates(bound.narrow("learning_rate", 2e-3, [2e-3])) == [2e-3]


# --- examples in the prompt


def row(number: int, length: int = 1) -> dict[str, Any]:
    asked = [{"role": "system", "content": "You do."}, {"role": "user", "content": f"question {number} " * length}]
    return {"prompt": asked, "completion": [{"role": "assistant", "content": f"answer {number}"}]}


def test_examples_are_short_rows_of_the_seed_and_what_a_system_says_stands_before_its_question() -> None:
    rows = [row(number, 1 + number % 20) for number in range(400)]
    shown = examples(rows, 3)
    assert shown == examples(rows, 3) != examples(rows, 4)
    assert [message["role"] for message in shown] == ["user", "assistant"] * SHOTS
    assert all(message["content"].startswith("You do.\n\nquestion") for message in shown[::2])
    assert max(len(message["content"]) for message in shown) < 200
    question = after(shown, row(7)["prompt"])
    assert question[:-1] == list(shown) and question[-1] == {"role": "user", "content": "You do.\n\nquestion 7 "}
    assert examples([row(1, CHARS)], 1) == () == examples([], 1)


def test_examples_are_part_of_an_evaluations_key(tmp_path: Path) -> None:
    lines = [
        {"id": str(n), "split": s, "messages": [{"role": "user", "content": f"{s} {n}"}], "reference": "x"}
        for s in ("search", "sealed")
        for n in (1, 2)
    ]
    for number, line in enumerate(lines):
        line["id"] = str(number)
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    task = load_task("t", path, "exact", 8, {})
    asked = task.with_examples(examples([row(1), row(2)], 1))
    assert task.key("m", "search", "float32") != asked.key("m", "search", "float32")
    assert "examples" not in task.request("k", "search") and asked.request("k", "search")["examples"]


# --- all rows of several datasets


def test_concat_takes_every_row_and_equal_ones_once(lab: Path, tmp_path: Path) -> None:
    steps = Lab(lab, tmp_path)
    for name, numbers in (("one", (1, 2, 3)), ("two", (3, 4))):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row(number)) for number in numbers))
        steps.add_dataset(name, path)
    outcome, _, action = steps.attempt("concat", {"datasets": ["one", "two"]})
    assert outcome["status"] == "ok"
    folder = steps.store.find(action["digest"])
    assert folder is not None
    made = [json.loads(line)["completion"][0]["content"] for line in (folder / "data.jsonl").read_text().splitlines()]
    assert made == [f"answer {number}" for number in (1, 2, 3, 4)]
    assert steps.store.manifest(action["digest"])["rows"] == 4


# --- in a run


@pytest.fixture
def profile(lab_profile: Any) -> Path:
    return lab_profile(
        ("policy: { name: hybrid }", SCRIPT),
        ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 2, baselines: 10, replicates: 0 }"),
        (ROWS, "rows: { search: 30, sealed: 40 }"),
    )


def words(profile: Path, trials: int | None = None) -> list[str]:
    more = ["--max-trials", str(trials)] if trials else []
    return ["run", str(profile), "--name", "r", "--headless", "--mode", "auto", "--json", *more]


def test_a_run_makes_its_baselines_and_an_extended_one_counts_its_looks(profile: Path, cli: Commands) -> None:
    done = cli(*words(profile))
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds.index("search.ended") < kinds.index("baseline.recorded") < kinds.index("run.ended")
    shown = cli.show("r")
    assert shown["baselines_missing"] == {} and list(shown["baselines"]) == list(NAMES)
    assert shown["sealed_looks"] == 1
    for name, one in shown["baselines"].items():
        assert one["scores"].keys() == shown["profile"]["tasks"].keys(), name
        assert all(splits["sealed"]["n"] == 40 for splits in one["scores"].values()), name
        assert len(one["winner_gain"]["interval"]) == 2 and one["gain"]["tasks"].keys() == one["scores"].keys(), name
    sft = shown["baselines"]["sft_all"]
    assert (sft["tried"], sft["of"]) == (4, 4) and sft["length"] == 1.0
    assert sft["actions"][-1]["type"] == "sft" and sft["actions"][-1]["params"]["max_steps"] >= 10
    assert shown["baselines"]["best_single_step"]["model"] == "m1"
    assert shown["baselines"]["best_merge"]["model"] == "m2"
    assert {model["model"] for model in shown["models"]} == {"llama", "phi", "m1", "m2"}, "the pool is the search's alone"
    assert "the winner is" in cli("show", "r").stdout

    # Its weights are there for whoever wants them, and prune leaves them alone.
    assert not any("objects" in line for line in cli("prune").stdout.splitlines() if sft["digest"][:12] in line)
    out = cli("export", "r", "--model", "sft_all", "--to", "out")
    assert out.returncode == 0, out.stderr
    assert (cli.folder / "out" / "model.safetensors").exists()
    assert "sft_all" in (cli.folder / "out" / "recipe.yaml").read_text()

    # Each row behind the scores, beside another model's.
    told = cli("rows", "r", "winner", "--against", "few_shot", "--split", "sealed", "--json")
    assert told.returncode == 0, told.stderr
    for one in json.loads(told.stdout):
        score = shown["winner"]["scores"][one["task"]]["sealed"]
        assert one["mean"] == pytest.approx(score["mean"]) and one["n"] == len(one["rows"]) == 40
        assert one["won"] + one["lost"] + one["alike"] == 40 and 0 <= one["p"] <= 1
        assert one["won"] == sum("won" in row["kinds"] for row in one["rows"])
        assert all(row["asked"] and row["wanted"] and "answer" in row["other"] for row in one["rows"])
    lost = cli("rows", "r", "m1", "--against", "base", "--only", "lost", "--task", "copy", "--limit", "1")
    assert lost.returncode == 0 and "exact sign test" in lost.stdout and lost.stdout.count("wanted:") <= 1
    for wrong in (["m9"], ["m1", "--task", "cpy"], ["m1", "--only", "won"], ["m1", "--only", "good"], ["m1", "--split", "x"]):
        refused = cli("rows", "r", *wrong)
        assert (
            (refused.returncode, refused.stdout) == (2, "") and "fix:" in refused.stderr
        ) or "--only takes" in refused.stderr

    again = cli(*words(profile, 3))
    assert again.returncode == 0, again.stderr
    later = cli.show("r")
    winners = {shown["winner"]["model"], later["winner"]["model"]}
    assert later["sealed_looks"] == len(winners)
    assert later["baselines_missing"] == {}, "they are made anew: the search has trained longer"
    seconds = sum(trial["seconds"]["execute"] for trial in later["trials"] if trial["action"]["type"] == "sft")
    assert later["baselines"]["sft_all"]["actions"][-1]["params"]["max_steps"] > sft["actions"][-1]["params"]["max_steps"] * 0.5
    assert seconds > 0


def test_what_does_not_fit_is_missing_and_made_on_demand(lab_profile: Any, cli: Commands) -> None:
    profile = lab_profile(
        ("policy: { name: hybrid }", SCRIPT),
        ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 2, baselines: 0 }"),
        (ROWS, "rows: { search: 30, sealed: 40 }"),
    )
    assert cli("baselines", "r").returncode == 2
    done = cli(*words(profile))
    assert done.returncode == 0, done.stderr
    shown = cli.show("r")
    assert shown["baselines"] == dict.fromkeys(NAMES) and set(shown["baselines_missing"]) == set(NAMES)
    assert "lamdatui baselines r" in shown["baselines_missing"]["few_shot"]
    made = cli("baselines", "r", "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["baselines_missing"] == {} and all(told["baselines"].values())
    after = cli.show("r")
    assert (after["status"], after["reason"], after["winner"]) == ("done", shown["reason"], shown["winner"])
    assert len(after["trials"]) == 2 and after["sealed_looks"] == 1
    events = len(cli("baselines", "r").stdout.splitlines())
    assert events == len(NAMES) + 3 + 3, "a second call makes nothing, and prints all, with other seeds of two pipelines"


@pytest.mark.slow  # that of one that had ended is shown above, how it is remembered without a run
def test_a_stopped_run_is_compared_on_demand(profile: Path, cli: Commands) -> None:
    process = cli.popen(*words(profile))
    wait_for(cli, "r", lambda state: 1 in state.trials and state.trials[1].status == "done")
    cli("stop", "r")
    process.communicate(timeout=120)
    before = cli.show("r")
    assert before["status"] == "stopped" and before["sealed_looks"] == 0 and before["beats_base"] is None
    made = cli("baselines", "r", "--json")
    assert made.returncode == 0, made.stderr
    after = cli.show("r")
    assert (after["status"], after["sealed_looks"]) == ("stopped", 1), "the search itself is not over"
    assert after["beats_base"] is not None and after["baselines"]["sft_all"]


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        (False, signal.SIGKILL),
        *(pytest.param(True, number, marks=pytest.mark.slow) for number in (signal.SIGKILL, signal.SIGTERM)),
    ],
)
def test_an_engine_that_is_killed_goes_on_with_its_baselines(
    profile: Path, cli: Commands, asked: bool, number: signal.Signals
) -> None:
    command = words(profile)
    if asked:
        done = cli(*command, "--set", "budget.baselines=0")
        assert done.returncode == 0, done.stderr
        command = ["baselines", "r"]
    process = cli.popen(*command)
    state = wait_for(cli, "r", lambda state: any(step.purpose == "baseline" for step in state.steps.values()))
    assert state.engine_pid
    os.kill(state.engine_pid, number)
    process.communicate(timeout=60)
    psutil.wait_procs([psutil.Process(state.engine_pid)] if psutil.pid_exists(state.engine_pid) else [], timeout=10)
    again = cli(*command)
    assert again.returncode == 0, again.stderr
    shown = cli.show("r")
    assert shown["baselines_missing"] == {} and shown["status"] == "done" and len(shown["trials"]) == 2
    after = wait_for(cli, "r", lambda state: state.has_ended)
    assert not [step.key for step in after.steps.values() if step.status in ("intended", "running")], "no step is left alone"
    trained = {
        step.digest for step in after.steps.values() if step.key.startswith("sft_all-") and not step.key.startswith("sft_all-s")
    }
    assert trained == {action["digest"] for action in after.planned["sft_all"]["actions"]}, "as it was planned at first"


def test_a_stop_leaves_the_winner_and_says_what_is_missing(profile: Path, cli: Commands) -> None:
    process = cli.popen(*words(profile))
    wait_for(cli, "r", lambda state: any(step.purpose == "baseline" for step in state.steps.values()))
    cli("stop", "r", "--now")
    process.communicate(timeout=120)
    shown = cli.show("r")
    assert shown["status"] == "done" and shown["winner"] and shown["beats_base"] is not None
    assert "sft_all" in shown["baselines_missing"]


def test_nothing_is_compared_where_nothing_was_made(lab_profile: Any, cli: Commands) -> None:
    profile = lab_profile(("dtype: float32", "dtype: float32\n"))
    process = cli(*words(profile), "--mode", "read-only")
    assert process.returncode == 0, process.stderr
    refused = cli("baselines", "r")
    assert refused.returncode == 1 and "no trial of the run made a model" in refused.stderr


def test_as_many_examples_as_fit_into_the_models_positions(tmp_path: Path) -> None:
    rows = [{"id": n, "split": "search", "messages": [{"role": "user", "content": f"q{n}"}], "reference": "x"} for n in (1, 2)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    shown = list(examples([row(number) for number in range(20)], 1))
    request = {"path": str(path), "split": "search", "rows": 2, "rows_digest": digest(rows), "task": "t", "examples": shown}

    def asked(most: int) -> list[int]:
        return [len(one["prompt"]) for one in questions(request, lambda found: len(found[0]["prompt"]) <= most)[1]]

    assert asked(99) == [2 * SHOTS + 1] * 2 and asked(5) == [5, 5]
    with pytest.raises(StepError, match="no example fits"):
        asked(1)
    turns = [
        {"role": role, "content": str(n)}
        for n, role in enumerate(("user", "assistant", "tool", "assistant", "user", "assistant"))
    ]
    assert [message["content"] for message in fewer(turns)] == ["4", "5"]
