"""Promotion: the last share of a search trains its best pipelines for longer, as the same state always says."""

from __future__ import annotations

from typing import Any

import pytest

from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import make_action
from lamdatui.domain.choice import Proposal
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState, details_of
from lamdatui.domain.trials import Trial
from lamdatui.engine.candidates import OPENING, opening
from lamdatui.engine.machine import Machine
from lamdatui.engine.promotion import NAME, promoted_step
from lamdatui.store.journal import read_state
from tests.conftest import Commands

MACHINE = Machine("cpu", "float32", 16 * 2**30)
REGISTRY = load_registry()
TYPES = {name: REGISTRY.get(name) for name in ("sft", "dpo", "merge_linear", "concat")}


class Search:
    """A search of 9 trials, of which the last three are promotions', told trial by trial."""

    def __init__(self, trials: int = 9) -> None:
        self.state = RunState(name="r", seed=1, max_trials=trials, status="running")
        self.state.types = {name: {"family": bound.type.family} for name, bound in TYPES.items()}  # type: ignore[typeddict-item]
        self.state.profile = {"budget": {"promotion": 1 / 3}, "policy": {"name": "hybrid"}}
        self.state.pool.add(ModelObject("base", "d-base", "llama", "l", "/base", (), 1000))
        for name, form in (("calls", "sft"), ("notes", "sft"), ("pairs", "preference")):
            self.state.pool.add(DatasetObject(name, f"d-{name}", form, 90, f"/{name}"))

    def did(self, objective: float, kind: str, inputs: dict[str, Any], seconds: float = 10.0, **params: Any) -> Trial:
        filled = TYPES[kind].fill(params)
        given = {slot: (ids,) if isinstance(ids, str) else ids for slot, ids in inputs.items()}
        return self.took(make_action(TYPES[kind], given, filled, self.state.pool, seed=1, dtype="float32"), objective, seconds)

    def took(
        self, action: Any, objective: float, seconds: float = 10.0, status: str = "done", by: str = "", **told: Any
    ) -> Trial:
        number = len(self.state.trials) + 1
        trial = Trial(number, status, action=action.to_json(), proposed_by=by, seconds={"execute": seconds})
        trial.proposal = {"action": action.to_json(), "details": told, "estimate": {"seconds": seconds}}  # type: ignore[typeddict-item]
        trial.decision = {"verdict": "approve", "by": "auto", "reason": ""}  # type: ignore[typeddict-item]
        if status == "done" and TYPES[action.type].type.output == "dataset":
            trial.dataset = f"d{number}"
            self.state.pool.add(DatasetObject(trial.dataset, f"d{number}", "sft", 180, f"store:d{number}", trial=number))
        elif status == "done":
            trial.model, trial.objective = f"m{number}", objective
            self.state.pool.add(ModelObject(trial.model, f"d{number}", "llama", "l", f"store:d{number}", (), 1000, number))
        self.state.trials[number] = trial
        return trial

    def next(self, now: float | None = None) -> Proposal | None:
        """What the next trial promotes, asked as the loop does: with that trial open."""
        number = len(self.state.trials) + 1
        self.state.trials[number] = Trial(number)
        objectives = {trial.model: trial.objective for trial in self.state.trials.values() if trial.model}
        try:
            return promoted_step(self.state, objectives, TYPES, MACHINE, now)  # type: ignore[arg-type]
        finally:
            del self.state.trials[number]

    def follow(self, objective: float, status: str = "done", seconds: float = 10.0) -> Proposal:
        found = self.next()
        assert found is not None and found.proposed_by == NAME
        self.took(found.action, objective, seconds, status, NAME, **found.details)
        return found


@pytest.fixture
def search() -> Search:
    """m1 and m2 are single trainings, m3 merges them, m4 follows m2 and is the best; six of nine trials are over."""
    made = Search()
    made.did(0.3, "sft", {"model": "base", "dataset": "calls"}, max_steps=20)
    made.did(0.4, "sft", {"model": "base", "dataset": "notes"}, max_steps=30)
    made.did(0.2, "merge_linear", {"models": ("m1", "m2")}, seconds=1.0)
    made.did(0.6, "dpo", {"model": "m2", "dataset": "pairs"}, seconds=20.0, max_steps=10)
    made.did(0.1, "sft", {"model": "m4", "dataset": "calls"}, max_steps=20)
    assert made.next() is None, "five of nine trials are over"
    made.did(0.1, "dpo", {"model": "m1", "dataset": "pairs"}, seconds=20.0, max_steps=10)
    return made


def test_the_best_single_training_has_all_the_time_where_the_best_pipeline_would_gain_little(search: Search) -> None:
    found = search.follow(0.5, seconds=70.0)
    # 70 s were trained, m2 took 10; half of it would train the 30 s of m4 for hardly longer.
    assert found.details == {"promotes": "m2", "scale": 7.0, "budget": 9, "again": 2}
    assert found.action.inputs == {"model": ("base",), "dataset": ("notes",), "replay": ()}
    assert found.action.params["max_steps"] == 210 and "m2" in found.reason and "7 times" in found.reason
    assert search.next() is None, "the time is over"


def test_a_pipeline_is_done_again_step_by_step_on_what_was_made_again(search: Search) -> None:
    search.state.trials[1].seconds = {"execute": 100.0}
    assert search.follow(0.5, seconds=80.0).details["promotes"] == "m2"
    first = search.follow(0.55)
    assert (first.details["promotes"], first.details["again"]) == ("m4", 2) and first.details["scale"] == 2.67
    assert first.action.params["max_steps"] == 80
    second = search.follow(0.7)
    assert second.action.type == "dpo" and second.action.inputs["model"] == ("m8",) and second.action.params["max_steps"] == 27
    assert (second.details["again"], second.details["scale"]) == (4, 2.67)
    assert search.next() is None, "both are done"
    search.state.max_trials = 30
    for _ in range(11):
        search.did(0.1, "sft", {"model": "base", "dataset": "calls"}, max_steps=200 + len(search.state.trials))
    found = search.next()
    assert found is not None and found.details["budget"] == 30, "a budget that was extended has promotions of its own"
    assert found.details["promotes"] not in ("m2", "m4", "m7", "m9"), "and not of what was promoted"


@pytest.mark.parametrize("status", ["failed", "rejected"])
def test_a_step_that_failed_or_was_vetoed_ends_its_plan_alone(search: Search, status: str) -> None:
    search.state.trials[1].seconds = {"execute": 200.0}
    assert search.follow(0.0, status, seconds=0.0).details["promotes"] == "m2"
    assert search.follow(0.0, status, seconds=0.0).details["promotes"] == "m4"
    assert search.next() is None


def test_a_stopped_step_comes_again(search: Search) -> None:
    first = search.follow(0.0, "stopped")
    again = search.next()
    assert again is not None and again.action == first.action and again.details == first.details


def test_what_does_not_train_is_taken_as_it_is() -> None:
    search = Search()
    search.state.pool.add(ModelObject("other", "d-other", "llama", "l", "/other", (), 1000))
    search.did(0.2, "merge_linear", {"models": ("base", "other")}, seconds=1.0)
    search.did(0.5, "sft", {"model": "m1", "dataset": "calls"}, max_steps=20)
    for steps in (11, 12, 13, 14):
        search.did(0.1, "sft", {"model": "m1", "dataset": "notes"}, max_steps=steps)
    found = search.next()
    assert found is not None and found.action.type == "sft" and found.action.inputs["model"] == ("m1",)
    assert found.details == {"promotes": "m2", "scale": 5.0, "budget": 9, "again": 2}


def test_a_pipeline_of_more_steps_than_trials_are_left_is_not_begun(search: Search) -> None:
    search.state.trials[1].seconds = {"execute": 200.0}
    search.did(0.9, "dpo", {"model": "m4", "dataset": "pairs"}, max_steps=12)
    found = search.follow(0.5)
    assert (found.details["promotes"], found.details["scale"]) == ("m2", 27.0), "two trials are left, and m7 is three steps"


def test_time_is_a_budget_too(search: Search) -> None:
    search.state.max_trials, search.state.wall_seconds = 100, 300.0
    search.state.meter, search.state.engine_since = "mono", 0.0
    assert search.next(100.0) is None
    found = search.next(220.0)
    assert found is not None and found.details["scale"] == 7.0
    late = search.next(260.0)
    assert late is not None and late.details["scale"] == 4.0, "40 s are left"
    assert search.next(290.0) is None, "there is no time for one and a half times the training"


def test_a_run_without_promotion_and_a_script_have_none(search: Search) -> None:
    search.state.profile = {"budget": {}, "policy": {"name": "hybrid"}}
    assert search.next() is None, "a run of an older version"
    search.state.profile = {"budget": {"promotion": 0.5}, "policy": {"name": "scripted"}}
    assert search.next() is None
    search.state.profile = {"budget": {"promotion": 0.5}, "policy": {"name": "hybrid"}, "objective": {"per_hour": True}}
    assert search.next() is None


def test_the_opening_makes_data_of_all_datasets_and_trains_on_it_once() -> None:
    search = Search()
    types = {name: TYPES[name] for name in ("sft", "concat")}

    def opens() -> Any:
        found = opening(types, search.state, MACHINE, {})
        assert found is not None
        search.took(found.action, 0.1, by=OPENING)
        return found.action

    assert opens().inputs["dataset"] == ("calls",)
    search.state.pool.add(DatasetObject("more", "d-more", "sft", 9, "/more"))
    assert opens().inputs == {"datasets": ("calls", "notes", "more")}
    trained = opens()
    assert trained.type == "sft" and trained.inputs == {"model": ("base",), "dataset": ("d2",), "replay": ()}
    assert opening(types, search.state, MACHINE, {}) is not None, "three datasets are a third of nine trials"
    assert opens().inputs["dataset"] == ("notes",)
    assert opens().inputs["dataset"] == ("more",)
    assert opening(types, search.state, MACHINE, {}) is None


def test_with_many_datasets_and_few_trials_the_opening_does_not_train_on_each() -> None:
    search = Search(trials=5)
    found = opening({"sft": TYPES["sft"]}, search.state, MACHINE, {})
    assert found is not None
    search.took(found.action, 0.1, by=OPENING)
    assert opening({"sft": TYPES["sft"]}, search.state, MACHINE, {}) is None
    search.state.max_trials = 6
    assert opening({"sft": TYPES["sft"]}, search.state, MACHINE, {}) is not None


def test_a_run_promotes_in_its_last_trials(lab_profile: Any, cli: Commands) -> None:
    run = lab_profile(
        ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 6, promotion: 0.34, baselines: 0, replicates: 0 }"),
        ("choices: [40, 120, 240]", "choices: [10, 20]"),
        ("max_steps: { default: 40", "max_steps: { default: 10"),
    )
    done = cli("run", str(run), "--headless", "--mode", "auto", "--name", "r")
    assert done.returncode == 0, done.stderr
    trials = read_state(cli.runs / "r" / "run.db").trials
    by = [trial.proposed_by for trial in trials.values()]
    assert by[:3] == ["opening"] * 3 and NAME not in by[:4] and by[4] == NAME
    promoted, again = trials[5], trials[details_of(trials[5].proposal or {})["again"]]
    assert promoted.action and again.action and promoted.status == "done"
    assert promoted.action["params"]["max_steps"] > again.action["params"]["max_steps"]
