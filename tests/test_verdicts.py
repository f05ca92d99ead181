"""What is said of gains: of which split, after how many looks, and only what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from bench.nulls import rates
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import beats_base, corrected, direction, looks, tied, verdict, winner_gain

UP: dict[str, Any] = {"mean": 0.10, "interval": [0.02, 0.18]}


def test_an_interval_is_widened_for_what_it_was_picked_from() -> None:
    assert corrected(UP, 1) == pytest.approx((0.02, 0.18))
    low, high = corrected(UP, 20) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.10 - 0.08 * 3.1755 / 1.96, 0.10 + 0.08 * 3.1755 / 1.96), abs=1e-4)
    assert (direction(UP, 1), direction(UP, 20)) == (1, 0)
    assert direction({"mean": -0.3, "interval": [-0.4, -0.2]}, 100) == -1
    for odd in (None, {}, {"mean": None, "interval": [0, 1]}, {"mean": 1, "interval": [1]}, {"mean": 1, "interval": "ab"}):
        assert corrected(odd, 3) is None and direction(odd, 3) == 0


def run(**gains: tuple[float, float, float]) -> RunState:
    """Trials m1, m2, …: gain, half its interval, seconds."""
    state = RunState(scores={"base": {}})
    for number, (name, (mean, half, seconds)) in enumerate(gains.items(), 1):
        gain = {"mean": mean, "interval": [mean - half, mean + half]}
        trial = Trial(number, "done", model=name, objective=1 + mean, gain=gain, seconds={"execute": seconds})
        state.trials[number] = trial
        state.scores[name] = {}
    return state


def test_models_that_are_not_told_from_the_best_are_named_the_cheapest_first() -> None:
    state = run(m1=(0.30, 0.05, 90.0), m2=(0.28, 0.05, 10.0), m3=(0.02, 0.05, 1.0))
    assert [trial.model for trial in tied(state)] == ["m2", "m1"]
    assert looks(state) == 3
    assert tied(RunState()) == [] and looks(RunState()) == 1


def test_only_the_sealed_split_says_that_a_model_beats_the_base() -> None:
    state = run(m1=(0.1, 0.05, 1.0), m2=(0.2, 0.05, 1.0))
    search = {"search": {"objective": UP, "tasks": {}}}
    assert beats_base(search) is None and beats_base(None) is None
    state.gain = search
    assert winner_gain(state) == ("search", UP)
    assert verdict(state) == "the sealed split was not opened; on the rows that picked it from 2 models:"
    for low, beats, words in (
        (0.01, True, "beats the base on the sealed split"),
        (-0.01, False, "does not tell it from the base"),
    ):
        state.gain = {**search, "sealed": {"objective": {"mean": 0.1, "interval": [low, 0.2]}, "tasks": {}}}
        assert beats_base(state.gain) is beats and words in verdict(state)
        assert (winner_gain(state) or ("",))[0] == "sealed"
    state.gain = None
    assert verdict(state) == "" and winner_gain(state) is None


@pytest.mark.parametrize("k", [6, 20])
def test_where_nothing_works_little_is_green(k: int) -> None:
    """Under no effect; `python -m bench.nulls` has more searches, and what a true gain needs."""
    found = rates(120, k, rows=48, sealed=120, keep=0.5, better=0.0, seed=3)
    # 5% of 120, and what chance adds to it in 1 of 1,000 such tests.
    assert found["green, widened"] <= 0.13 and found["beats_base"] <= 0.13
    assert found["green, plain"] > found["green, widened"]
