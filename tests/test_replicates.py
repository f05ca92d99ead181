"""Replicates: the best pipelines done again with other seeds; intervals over rows and seeds."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lamdatui.domain import baselines, replicates
from lamdatui.domain.budget import ledgers, pipeline_seconds
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.replicates import FINALISTS, SEEDS, finalists
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import REPLICATE, Trial
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state
from lamdatui.tasks.stats import gain_over_seeds, paired_gain
from tests.conftest import Commands
from tests.test_recovery import wait_for

Points = dict[str, dict[str, float]]


def rows(values: Any) -> Points:
    return {"t": {str(number): float(value) for number, value in enumerate(values)}}


# --- the interval


def test_the_mean_is_over_the_seeds_and_the_interval_over_rows_and_seeds() -> None:
    rng = np.random.default_rng(1)
    base, one, two = (rows(rng.random(60) < share) for share in (0.3, 0.5, 0.8))
    found = gain_over_seeds([one, two], base, {"t": 2.0})
    each = [paired_gain(seed, base, {"t": 2.0}) for seed in (one, two)]
    assert found["mean"] == pytest.approx(sum(gain["mean"] for gain in each) / 2)
    low, high = found["interval"]
    assert low < min(gain["mean"] for gain in each) < max(gain["mean"] for gain in each) < high
    alike = gain_over_seeds([one, one, one], base, {"t": 2.0})["interval"]
    assert alike[1] - alike[0] == pytest.approx(each[0]["interval"][1] - each[0]["interval"][0], rel=0.1), "rows alone are left"
    with pytest.raises(ValueError, match="two"):
        gain_over_seeds([one], base, {"t": 1.0})
    with pytest.raises(KeyError, match="differ"):
        gain_over_seeds([one, rows([1.0])], base, {"t": 1.0})


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (2, 0.05), (3, 0.1)])
def test_it_holds_the_gain_of_the_pipeline_in_95_of_100_searches(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(2)
    hits, searches, n = 0, 400, 80
    for _ in range(searches):
        easy = rng.uniform(0.2, 0.5, n)
        base = rows(rng.random(n) < easy)
        ours = [rows(rng.random(n) < easy + 0.25 + spread * rng.standard_normal()) for _ in range(seeds)]
        low, high = gain_over_seeds(ours, base, {"t": 1.0})["interval"]
        hits += low <= 0.25 <= high
    assert hits / searches > 0.93


# --- which, and for how long


@pytest.fixture
def state() -> RunState:
    """Of the base m1 was trained; m2 merges m1 with the base; m3 merges two bases; m4 was trained of m2 on d5, a part of the data."""
    made = RunState(name="r", max_trials=9, wall_seconds=900.0, status="running", winner="m4")
    types = {"sft": "supervised", "linear": "merge", "sample": "data"}
    made.types = {name: {"family": family} for name, family in types.items()}  # type: ignore[typeddict-item]
    made.profile = {"budget": {"baselines": 0.5, "replicates": 0.25}}
    for name in ("base", "other"):
        made.pool.add(ModelObject(name, f"d-{name}", "llama", "l", "/w"))
    made.pool.add(DatasetObject("mix", "dm", "sft", 9, "/mix"))
    steps = (
        ("sft", ["base", "mix"], 1),
        ("linear", ["base", "m1"], 2),
        ("linear", ["base", "other"], 3),
        ("sft", ["m2", "d5"], 4),
    )
    for kind, inputs, number in (*steps, ("sample", ["mix"], 5)):
        action = {"type": kind, "inputs": {"of": inputs}, "params": {}, "seed": 1, "digest": f"d{number}"}
        trial = Trial(number, "done", action=action, seconds={"execute": 10.0 * number})  # type: ignore[arg-type]
        if kind == "sample":
            trial.dataset = "d5"
            made.pool.add(DatasetObject("d5", "d5", "sft", 4, "store:d5", trial=5))
        else:
            trial.model, trial.objective = f"m{number}", 0.1 * number
            made.pool.add(ModelObject(f"m{number}", f"d{number}", "llama", "l", f"store:d{number}", trial=number))
        made.trials[number] = trial
    return made


def test_the_winner_first_then_the_best_of_those_that_train_something(state: RunState) -> None:
    objectives = {f"m{number}": 0.1 * number for number in (1, 2, 3, 4)}
    assert finalists(state, objectives) == ["m4", "m2"] and FINALISTS == 2, "m3 is no training"
    state.lost = {"m2": "gone"}
    assert finalists(state, objectives) == ["m4", "m1"]
    state.winner = "m3"
    assert finalists(state, objectives) == [], "a merge of what the profile names is the same with every seed"
    state.winner = "m4"
    assert pipeline_seconds(state, "m4") == 10 + 20 + 40 + 50


def test_they_have_a_share_of_their_own(state: RunState) -> None:
    reserved = next(one.reserved for one in ledgers(state) if one.name == "wall")
    assert reserved == pytest.approx(900 * 0.75 / 1.75), "beside the share of the baselines"
    assert replicates.seconds_left(state, 0.0) == 0.0, "the search is not over"
    state.searched = {"status": "done", "reason": "", "trials": 9, "seconds": 400.0, "replicated": 0.0}
    state.used_seconds = 460.0
    assert (replicates.seconds_left(state), baselines.seconds_left(state)) == (100.0, 140.0)
    state.replicate_seconds = 60.0
    assert (replicates.seconds_left(state), baselines.seconds_left(state)) == (40.0, 200.0), "what one takes is not the other's"
    state.profile = {"budget": {"replicates": 0.25, "wall_minutes": 8}}
    state.wall_seconds = 480.0
    assert replicates.seconds_left(state) == 20.0, "the run's own limit"
    state.finishing = {"reason": ""}
    assert replicates.seconds_left(state) == math.inf


# --- in a run

SCRIPT = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 30 } }
    - { type: dpo, inputs: { model: m1, dataset: prefer }, params: { max_steps: 15 } }
"""


def test_the_best_pipelines_are_done_again_with_other_seeds_also_after_a_kill(lab_profile: Any, cli: Commands) -> None:
    profile = lab_profile(
        ("policy: { name: hybrid }", SCRIPT),
        ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 2, baselines: 0, replicates: 10 }"),
        ("rows: { search: 100, sealed: 200 }", "rows: { search: 30, sealed: 40 }"),
    )
    words = ["run", str(profile), "--name", "r", "--headless", "--mode", "auto"]
    process = cli.popen(*words)
    state = wait_for(cli, "r", lambda state: any(step.purpose == REPLICATE for step in state.steps.values()))
    assert state.engine_pid
    os.kill(state.engine_pid, signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs([psutil.Process(state.engine_pid)] if psutil.pid_exists(state.engine_pid) else [], timeout=10)
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert f"over {SEEDS} seeds" in done.stderr

    shown = cli.show("r")
    assert shown["status"] == "done" and shown["replicates_missing"] == {} and len(shown["trials"]) == 2
    winner = shown["winner"]["model"]
    assert set(shown["replicates"]) == {"m1", "m2"} and next(iter(shown["replicates"])) == winner
    own = {trial["model"]: trial["action"] for trial in shown["trials"]}
    store = Store(Path(cli.runs / "store"))
    for model, one in shown["replicates"].items():
        length = {"m1": 1, "m2": 2}[model]
        assert [made["shift"] for made in one["made"]] == [1, 2]
        for made in one["made"]:
            assert [action["seed"] for action in made["actions"]] == [own["m1"]["seed"] + made["shift"]] * length
            assert made["actions"][-1]["params"] == own[model]["params"] and made["digest"] != own[model]["digest"]
            assert all(splits["sealed"]["n"] == 40 and splits["search"]["n"] == 30 for splits in made["scores"].values())
            assert store.find(made["digest"]) is None, "its weights are not kept"
        report = one["gain"]["sealed"]
        assert len(report["each"]) == SEEDS and report["objective"]["mean"] == pytest.approx(np.mean(report["each"]), abs=1e-5)
        assert report["tasks"].keys() == shown["winner"]["scores"].keys()
    assert shown["replicates"][winner]["gain"]["sealed"]["each"][0] == shown["gain"]["sealed"]["objective"]["mean"]
    assert {model["model"] for model in shown["models"]} == {"llama", "phi", "m1", "m2"}, "the pool is the search's alone"
    steps = [step for step in read_state(cli.runs / "r" / "run.db").steps.values() if step.purpose == REPLICATE and step.digest]
    trained = [step.digest for step in steps if step.digest[:8] in step.key and step.status == "ok" and not step.cached]
    assert len(trained) == len(set(trained)) == 4, "m1 with another seed is trained once: for itself, and for m2"
    assert f"the pipeline of {winner}; its seeds:" in cli("show", "r").stdout
    page = cli("report", "r", "--to", "r.md")
    assert page.returncode == 0 and "| pipeline of | seeds | gain |" in (cli.folder / "r.md").read_text()

    # With what it made is dropped, nothing is made twice on demand.
    steps = len(json.dumps(shown["replicates"]))
    again = cli("baselines", "r", "--json")
    assert again.returncode == 0, again.stderr
    assert len(json.dumps(json.loads(again.stdout)["replicates"])) == steps
