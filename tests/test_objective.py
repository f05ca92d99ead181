"""What a run is to keep: a task on which its winner must not fall behind the base, and what is said where it does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.domain.budget import pipeline_seconds
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.rates import most_per_hour, rates, step_seconds
from lamdatui.domain.scores import PENALTY, front, objective, objectives, shortfall, weights_of
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import keeps, losses
from lamdatui.inputs.profile import load_profile
from lamdatui.policy.hybrid import favourite, rank
from tests.conftest import Commands
from tests.views import view


def scored(mean: float, low: float | None = None) -> dict[str, Any]:
    change = {} if low is None else {"change": {"mean": low + 0.05, "interval": [low, low + 0.1]}}
    return {"search": {"mean": mean, "n": 9, "interval": [0.0, 1.0], **change}}


def test_what_a_model_falls_short_is_taken_off_its_objective() -> None:
    weights, keep = {"calls": 1.0, "form": 0.0}, {"form": 0.05}
    fine, short = ({"calls": scored(0.6), "form": scored(0.3, low)} for low in (-0.05, -0.15))
    assert objective(fine, weights, "search", keep) == 0.6
    assert objective(short, weights, "search", keep) == pytest.approx(0.6 - PENALTY * 0.1)
    assert objective(short, weights) == 0.6 and shortfall({"form": scored(0.3)}, keep) == 0.0, "the base has no change"
    assert weights_of({"objective": {"weights": {"calls": 1}, "keep": {"form": 0.05}}}) == weights


@pytest.fixture
def state() -> RunState:
    made = RunState(name="r", winner="m1")
    made.profile = {"objective": {"weights": {"calls": 1.0}, "keep": {"form": 0.05}}}
    for name in ("base", "m1", "m2"):
        made.pool.add(ModelObject(name, name, "llama", "l", "/w", trial=None if name == "base" else 1))
    made.scores = {  # type: ignore[assignment]
        "base": {"calls": scored(0.2), "form": scored(0.5)},
        "m1": {"calls": scored(0.9), "form": scored(0.1, -0.5)},
        "m2": {"calls": scored(0.6), "form": scored(0.5, -0.04)},
    }
    return made


def test_the_best_model_is_one_that_keeps_it(state: RunState) -> None:
    found = objectives(state, weights_of(state.profile))
    assert max(found, key=lambda name: found[name]) == "m2" and found["base"] == 0.2
    assert front(state) == ["m1", "m2"], "the base is bettered on one task and equalled on the other"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_no_model_of_the_front_is_bettered_and_every_other_is(points: list[tuple[int, int, int]]) -> None:
    state = RunState(name="r")
    state.profile = {"objective": {"weights": {"a": 1.0, "b": 1.0, "c": 1.0}}}
    state.scores = {  # type: ignore[assignment]
        f"m{place}": {task: scored(value / 3) for task, value in zip("abc", point, strict=True)}
        for place, point in enumerate(points)
    }
    bettered = {
        f"m{place}"
        for place, point in enumerate(points)
        if any(other != point and all(b >= a for a, b in zip(point, other, strict=True)) for other in points)
    }
    assert set(front(state)) == state.scores.keys() - bettered


def test_a_winner_s_losses_are_named(state: RunState) -> None:
    assert losses(state) == []
    tasks = {"calls": {"mean": 0.3, "interval": [0.2, 0.4]}, "form": {"mean": -0.02, "interval": [-0.06, 0.02]}}
    state.gain = {"sealed": {"objective": tasks["calls"], "tasks": tasks}}
    assert losses(state) == ["not shown to keep form within 0.05: -0.020 [-0.060, +0.020]"]
    tasks["calls"]["interval"], tasks["calls"]["mean"] = [-0.4, -0.2], -0.3
    assert losses(state)[0] == "worse than the base on calls: -0.300 [-0.400, -0.200]"
    assert keeps(state.gain["sealed"], state.profile) == ["form"] and keeps({}, state.profile) == []


def test_a_profile_says_what_is_kept_and_its_identity_is_as_before_where_it_says_nothing(lab_profile: Any) -> None:
    plain = load_profile(lab_profile())
    weights = "weights: { reverse: 1.0, copy: 1.0, call: 1.0 }"
    kept = load_profile(lab_profile((weights, "weights: { call: 1.0 }\n  keep: { reverse: 0.1 }")))
    assert kept.objective.keep == {"reverse": 0.1} and kept.search_digest() != plain.search_digest()
    assert load_profile(lab_profile((weights, f"{weights}\n  keep: {{}}"))).search_digest() == plain.search_digest()
    assert load_profile(lab_profile((weights, f"{weights}\n  per_hour: false"))).search_digest() == plain.search_digest()
    assert load_profile(lab_profile((weights, f"{weights}\n  per_hour: true"))).search_digest() != plain.search_digest()
    for wrong in ("keep: { revers: 0.1 }", "keep: { reverse: 2 }", "keep: { reverse: -1 }"):
        with pytest.raises(Exception, match=r"revers"):
            load_profile(lab_profile((weights, f"{weights}\n  {wrong}")))


SCRIPT = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call }, params: { max_steps: 120, learning_rate: 0.004 } }
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 20 } }
"""


def test_a_run_picks_the_model_that_keeps_and_tells_it_to_its_planner(lab_profile: Any, cli: Commands) -> None:
    def run(name: str, aim: str) -> dict[str, Any]:
        profile = lab_profile(
            ("policy: { name: hybrid }", SCRIPT),
            ("weights: { reverse: 1.0, copy: 1.0, call: 1.0 }", aim),
            ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 2 }"),
        )
        done = cli("run", str(profile), "--name", name, "--headless", "--mode", "auto")
        assert done.returncode == 0, done.stderr
        return cli.show(name)

    free, kept = run("free", "weights: { call: 1.0 }"), run("kept", "weights: { call: 1.0 }\n  keep: { reverse: 0.1 }")
    means = {trial["model"]: trial["scores"]["call"]["search"]["mean"] for trial in free["trials"]}
    assert free["winner"]["model"] == "m1" and means["m1"] > means["m2"], "calls alone make it forget the rest"
    assert kept["winner"]["model"] == "m2", "the same models, from the store"
    score = kept["trials"][0]["scores"]["reverse"]["search"]
    assert score["change"]["interval"][0] < -0.1 and kept["trials"][0]["objective"] < means["m1"]
    assert set(kept["gain"]["sealed"]["tasks"]) == {"call", "reverse"} and "m1" in kept["front"]


# --- gain per hour ---------------------------------------------------------------------------------------------------


@pytest.fixture
def timed() -> RunState:
    """m1 of the base in 36 s, m2 of m1 in 36 s more, m3 a merge of both in 3.6 s, m4 that was in the store and took 18 s when it was made."""
    made = RunState(name="r", winner="m3")
    made.profile = {"objective": {"weights": {"calls": 1.0}, "per_hour": True}}
    made.pool.add(ModelObject("base", "b", "llama", "l", "/w"))
    made.scores = {"base": {"calls": scored(0.2)}}  # type: ignore[dict-item]
    told = {
        1: (["base"], 36.0, 0.2, 0.1),
        2: (["m1"], 36.0, 0.3, 0.2),
        3: (["m1", "m2"], 3.6, 0.35, 0.2),
        4: (["base"], 18.0, 0.15, -0.1),
    }
    for number, (inputs, seconds, mean, low) in told.items():
        name = f"m{number}"
        trial = Trial(number, "done", model=name, objective=0.2 + mean, gain={"mean": mean, "interval": (low, 2 * mean - low)})
        trial.action = {"type": "sft", "inputs": {"models": inputs}, "params": {}, "seed": 1, "digest": name}
        trial.seconds = {"execute": seconds, "evaluate": 900.0}
        trial.cached, trial.proposal = number == 4, {"estimate": {"seconds": seconds}}  # type: ignore[typeddict-item]
        made.trials[number] = trial
        made.pool.add(ModelObject(name, name, "llama", "l", "/w", trial=number))
        made.scores[name] = {"calls": scored(0.2 + mean)}  # type: ignore[assignment]
        trial.scores = made.scores[name]
    return made


def test_a_gain_s_rate_is_of_each_step_of_the_lineage_once_without_evaluation(timed: RunState) -> None:
    assert step_seconds(timed) == {"base": 0.0, "m1": 36.0, "m2": 72.0, "m3": 75.6, "m4": 18.0}
    found = rates(timed, step_seconds(timed))
    assert found["m1"] == {"mean": pytest.approx(20), "interval": (pytest.approx(10), pytest.approx(30))}
    assert found["m2"]["mean"] == pytest.approx(15) and "base" not in found
    timed.trials[4].proposal = None
    assert "m4" not in rates(timed, step_seconds(timed)), "nobody knows how long it took"


def test_the_seconds_of_lineages_that_overlap_are_those_of_each_lineage_by_itself() -> None:
    rng = random.Random(1)
    state = RunState()
    state.pool.add(ModelObject("base", "d", "llama", "l", "/base"))
    for number in range(1, 60):
        # A merge of two of the last five, so that most steps are reached in many ways.
        models = [f"m{rng.randrange(max(1, number - 5), number)}" for _ in range(2)] if number > 1 else ["base"]
        action = {"type": "merge", "inputs": {"models": models}, "params": {}, "seed": 1, "digest": f"d{number}"}
        trial = Trial(number, "done", action=action, model=f"m{number}", seconds={"execute": rng.random()})  # type: ignore[arg-type]
        state.trials[number] = trial
        state.pool.add(ModelObject(f"m{number}", f"d{number}", "llama", "l", "x", trial=number))
    found = step_seconds(state)
    assert found == {name: pytest.approx(pipeline_seconds(state, name), abs=1e-3) for name in state.pool.items}
    assert found["m59"] > 0.5 * sum(trial.seconds["execute"] for trial in state.trials.values())


def test_the_fastest_gain_wins_of_those_that_are_told_to_be_gains(timed: RunState) -> None:
    found = rates(timed, step_seconds(timed))
    assert found["m4"]["mean"] > found["m1"]["mean"] and most_per_hour(timed) == "m1", "m4 may be chance"
    timed.trials[1].gain = {"mean": 0.2, "interval": (0.005, 0.395)}
    assert most_per_hour(timed) == "m3", "of four models one looks so good by chance"
    timed.lost = {"m3": "gone"}
    assert most_per_hour(timed) == "m2"
    timed.profile["objective"]["keep"] = {"calls": 0.0}
    timed.trials[2].scores = {"calls": scored(0.5, -0.1)}  # type: ignore[dict-item]
    assert most_per_hour(timed) is None


def test_what_is_as_good_and_took_less_is_better(timed: RunState) -> None:
    assert front(timed) == ["m3"]
    assert front(timed, step_seconds(timed)) == ["base", "m1", "m2", "m3", "m4"]
    timed.scores["m3"] = timed.scores["m2"]
    assert front(timed, step_seconds(timed)) == ["base", "m1", "m2", "m4"] and front(timed) == ["m2", "m3"]


def test_a_search_for_gain_per_hour_ranks_by_improvement_per_second_of_a_step() -> None:
    made = view()
    dear = rank(made)[0].candidate
    plain = {one.candidate.action.digest: one.forecast for one in rank(made)}

    def costs(item: Any) -> Any:
        seconds = 1e6 if item.action.digest == dear.action.digest else None if item.action.type == "dpo" else 0.01
        return replace(item, estimate=replace(item.estimate, seconds=seconds))

    priced = replace(made, candidates={kind: tuple(map(costs, group)) for kind, group in made.candidates.items()})
    assert rank(priced)[0].candidate.action.digest == dear.action.digest, "unless it is asked for"
    ranking = rank(replace(priced, per_hour=True))
    assert ranking[-1].candidate.action.digest == dear.action.digest
    assert {one.candidate.action.digest: one.forecast for one in ranking} == plain, "what is expected stays"
    assert all(one.worth == one.forecast.improvement for one in ranking[:-1]), "less than a second counts as one"
    assert "per second" in favourite(replace(priced, per_hour=True), ranking, "surrogate").reason


PER_HOUR = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 60 } }
    - { type: sft, inputs: { model: m1, dataset: call_replay }, params: { max_steps: 240 } }
"""


def test_a_run_s_winner_is_the_best_score_unless_the_gain_per_hour_is_asked_for(lab_profile: Any, cli: Commands) -> None:
    shown = {}
    for name, aim in (("score", "weights: { call: 1.0 }"), ("hour", "weights: { call: 1.0 }\n  per_hour: true")):
        profile = lab_profile(
            ("policy: { name: hybrid }", PER_HOUR),
            ("weights: { reverse: 1.0, copy: 1.0, call: 1.0 }", aim),
            ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 2 }"),
        )
        done = cli("run", str(profile), "--name", name, "--headless", "--mode", "auto")
        assert done.returncode == 0, done.stderr
        shown[name] = cli.show(name)
    first, second = (trial["objective"] for trial in shown["score"]["trials"])
    assert second > first and shown["score"]["winner"]["model"] == "m2"
    models = {model["model"]: model for model in shown["score"]["models"]}
    assert 0 < models["m1"]["seconds"] < models["m2"]["seconds"] and models["llama"]["per_hour"] is None
    assert models["m1"]["per_hour"]["mean"] > models["m2"]["per_hour"]["mean"]
    assert shown["hour"]["winner"]["model"] == "m1" and "m1" in shown["hour"]["front"]
    assert "the winner has the highest gain per hour" in cli("show", "hour").stdout
    assert cli("report", "hour", "--to", "out.md").returncode == 0
    assert "gain per hour of these" in (cli.folder / "out.md").read_text()
