"""Ledgers: what was used, what the final evaluation still needs, and that cached work costs nothing."""

from __future__ import annotations

import math

import pytest

from lamdatui.cli.show import spent
from lamdatui.domain.budget import evaluation_seconds, grace_seconds, ledgers, reserve, seconds_left, worked
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import StepRecord, Trial

TASKS = {"a": {"rows": {"search": 10, "sealed": 30}}, "b": {"rows": {"search": 10, "sealed": None}}}


def step(state: RunState, key: str, purpose: str, execute: float, evaluate: float, status: str = "ok") -> None:
    seconds = {"execute": execute, "evaluate": evaluate}
    state.steps[key] = StepRecord(key, purpose, None, "d", status, seconds=seconds)


def scored(state: RunState, model: str, *splits: str) -> None:
    state.scores[model] = {task: {split: {"mean": 0.5, "n": 10} for split in splits} for task in TASKS}


@pytest.fixture
def state() -> RunState:
    """A base and two trials, of which the second came from the store."""
    made = RunState(max_trials=9, wall_seconds=600.0, status="running", profile={"tasks": TASKS}, device={"device": "cpu"})
    made.pool.add(ModelObject("base", "d0", "llama", "l", "/w"))
    made.pool.add(ModelObject("m1", "d1", "llama", "l", "store:d1", trial=1, bytes=700))
    made.pool.add(DatasetObject("d2", "d2", "sft", 9, "store:d2", trial=2, bytes=300))
    made.trials = {1: Trial(1, "done", model="m1", objective=0.5), 2: Trial(2, "done", dataset="d2", cached=True)}
    made.best = 1
    step(made, "base-base/1", "search", 0.0, 2.0)
    step(made, "1/1", "trial", 10.0, 4.0)
    for model in ("base", "m1"):
        scored(made, model, "search")
    return made


def numbers(state: RunState, now: float | None = None) -> dict[str, tuple[float, float, float | None]]:
    return {one.name: (one.used, one.reserved, one.limit) for one in ledgers(state, now)}


def test_every_ledger_says_what_was_used_of_what(state: RunState) -> None:
    state.used_seconds, state.engine_since, state.last_wall = 50.0, 1000.0, 1007.0
    state.planner_tokens = 1200
    # Two models, 3 s each on search; the sealed split has 40 rows for 20.
    assert numbers(state) == {
        "trials": (2, 0, 9),
        "wall": (57.0, 12.0, 600.0),
        "step time": (16.0, 12.0, None),
        "planner tokens": (1200, 0, None),
        "disk": (700, 0, None),
    }
    assert numbers(state, now=1010.0)["wall"][0] == 60.0
    assert worked(state, now=990.0) == 50.0


def test_time_on_a_gpu_is_called_so(state: RunState) -> None:
    state.device = {"device": "cuda"}
    assert "GPU time" in numbers(state)


def test_a_trial_that_a_stop_cut_off_does_not_count(state: RunState) -> None:
    state.trials[3] = Trial(3, "stopped")
    assert numbers(state)["trials"][0] == 2


def test_the_reserve_shrinks_as_the_end_comes(state: RunState) -> None:
    assert reserve(state) == 12.0
    scored(state, "base", "search", "sealed")
    assert reserve(state) == 6.0
    scored(state, "m1", "search", "sealed")
    assert reserve(state) == 0.0
    # A better one came after the first end: it needs its own.
    state.trials[3] = Trial(3, "done", model="m3", objective=0.9)
    state.best = 3
    scored(state, "m3", "search")
    assert reserve(state) == 6.0
    state.status = "done"
    assert reserve(state) == 0.0


def test_the_reserve_takes_each_model_as_it_was_measured(state: RunState) -> None:
    state.steps["base-base/1"].digest, state.steps["1/1"].digest = "d0", "d1"
    assert reserve(state) == 2 * 2.0 + 2 * 4.0
    state.steps["1/1"].digest = "other"
    assert reserve(state) == 2 * 2.0 + 2 * 3.0


def test_what_is_left_for_trials(state: RunState) -> None:
    state.used_seconds = 100.0
    assert seconds_left(state) == 600 - 100 - 12
    assert grace_seconds(state) == pytest.approx(18)
    state.profile |= {"budget": {"step_minutes": 1}}
    assert seconds_left(state) == 60 - 16 - 12
    assert grace_seconds(state) == pytest.approx(1.8)
    assert seconds_left(RunState()) == grace_seconds(RunState()) == math.inf


def test_a_limit_is_reached_with_what_is_reserved(state: RunState) -> None:
    def spent_ones() -> list[str]:
        return [one.limit_text() for one in ledgers(state) if one.is_spent]

    assert spent_ones() == []
    state.profile |= {"budget": {"step_minutes": 0.5, "planner_tokens": 900, "disk_gib": 1.0}}
    state.used_seconds, state.planner_tokens = 587.9, 899
    assert spent_ones() == []
    state.used_seconds, state.planner_tokens, state.max_trials = 588.0, 900, 2
    step(state, "3/1", "other", 2.0, 0.0)
    state.pool.add(ModelObject("m3", "d3", "llama", "l", "store:d3", trial=3, bytes=2**30))
    assert spent_ones() == ["2 trials", "10 minutes", "0.5 minutes of step time", "900 planner tokens", "1 GiB on the disk"]
    # The first trial is run however little there is: without it there would be nothing to score.
    fresh = RunState(status="running", wall_seconds=1.0, max_trials=1)
    assert not any(one.is_spent for one in ledgers(fresh))


def test_before_anything_was_measured_nothing_is_reserved() -> None:
    assert reserve(RunState(status="running")) == 0.0
    assert evaluation_seconds(RunState()) == 0.0


def test_failed_and_sealed_steps_say_nothing_of_an_evaluation_on_search(state: RunState) -> None:
    step(state, "2/1", "trial", 1.0, 50.0, status="failed")
    step(state, "sealed-base/1", "sealed", 0.0, 70.0)
    assert evaluation_seconds(state) == 3.0


def test_a_profile_without_counts_takes_the_splits_as_alike(state: RunState) -> None:
    state.profile = {"tasks": {"a": {"rows": {}}, "b": {}}}
    assert reserve(state) == 6.0


def test_ledgers_in_words(state: RunState) -> None:
    state.planner_tokens = 1200
    assert [spent(one.to_json()) for one in ledgers(state)] == [
        "trials 2 of 9",
        "wall 0.0 s of 600.0 s (12.0 s reserved)",
        "step time 16.0 s (12.0 s reserved)",
        "planner tokens 1200",
        "disk 0.0 MiB",
    ]
