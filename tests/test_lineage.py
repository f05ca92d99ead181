"""Which trials a model comes from, each after those that it needs."""

from __future__ import annotations

from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial


def model(name: str, trial: int | None = None) -> ModelObject:
    return ModelObject(name, name, "llama", "l", "w", trial=trial)


def made(state: RunState, number: int, *models: str) -> None:
    """Trial `number` made `m<number>` of these models."""
    state.trials[number] = Trial(number, "done", action={"type": "merge", "inputs": {"models": list(models)}, "params": {}})
    state.pool.add(model(f"m{number}", number))


def test_each_trial_comes_after_those_it_needs_and_once() -> None:
    state = RunState()
    state.pool.add(model("base"))
    made(state, 1, "base")
    made(state, 2, "base")
    made(state, 3, "m1")
    made(state, 4, "m2", "m3")
    made(state, 5, "m4", "m1")
    assert [trial.number for trial in lineage(state, "m5")] == [1, 2, 3, 4, 5]
    assert [trial.number for trial in lineage(state, "m3")] == [1, 3]
    assert lineage(state, "base") == []


def test_a_chain_may_be_long() -> None:
    state = RunState()
    state.pool.add(model("base"))
    for number in range(1, 3001):
        made(state, number, f"m{number - 1}" if number > 1 else "base")
    assert [trial.number for trial in lineage(state, "m3000")] == list(range(1, 3001))
