"""Whether an action can be run now: one judge for what policies enumerate, what people ask for, and what they change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamdatui.domain import budget
from lamdatui.domain.actions import Action, BoundType, Estimate, Inputs, Records, Value, make_action
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.records import ToldOf
from lamdatui.domain.schemes import GENERATORS, SCHEME
from lamdatui.domain.state import RunState
from lamdatui.domain.training import in_steps
from lamdatui.domain.trials import Trial
from lamdatui.engine.machine import Machine

UNSURE = 3.0
"""A forecast from formulas alone may be so many times too long."""


def blocked(action: Action, constraints: Mapping[str, ToldOf]) -> str | None:
    """The text of the constraint that forbids an action, if one does."""
    for constraint in constraints.values():
        if matches(action, constraint["match"]):
            return constraint["text"]
    return None


def matches(action: Action, match: Mapping[str, object]) -> bool:
    """Whether a rule or a constraint covers an action: same type, and the same objects in each slot it names."""
    inputs = {slot: list(ids) for slot, ids in action.inputs.items()}
    return match["type"] == action.type and match["inputs"] == inputs


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record: digests that are not proposed again, the hyperparameters behind every digest, and the time that is left."""

    tried: frozenset[str] = frozenset()
    records: Records = lambda _: None
    scheme: int = SCHEME
    seconds_left: float = math.inf
    """For trials, of the run's budget."""
    evaluation_seconds: float = 0.0
    """What scoring one model takes."""
    generator: str = GENERATORS[0]

    @classmethod
    def of(cls, state: RunState, machine: Machine) -> Known:
        """Of a run and of its store."""
        actions = [item["action"] for item in state.queue.values()]
        for trial in state.trials.values():
            actions += [trial.action] if trial.action else []
            actions += [trial.proposal["action"]] if trial.proposal else []
        params = {action["digest"]: action["params"] for action in actions}

        def records(digest: str) -> Mapping[str, Value] | None:
            return params[digest] if digest in params else machine.recorded(digest)

        return cls(
            frozenset(tried_digests(state)),
            records,
            state.scheme,
            budget.seconds_left(state),
            budget.evaluation_seconds(state),
            machine.generator,
        )

    def takes_too_long(self, bound: BoundType, estimate: Estimate) -> bool:
        """Whether an action would not end within the run's budget; a forecast that no measured step supports has to be far over it."""
        if estimate.seconds is None:
            return False
        needed = estimate.seconds + (self.evaluation_seconds if bound.type.output == "model" else 0.0)
        return needed / (1 if estimate.measured else UNSURE) > self.seconds_left

    def action(
        self, bound: BoundType, inputs: Inputs, params: Mapping[str, Any], pool: ObjectPool, *, seed: int, dtype: str
    ) -> Action:
        """`make_action` with what is on record."""
        known = {"generator": self.generator, "records": self.records, "scheme": self.scheme}
        return make_action(bound, inputs, params, pool, seed=seed, dtype=dtype, **known)


def undone(state: RunState, trial: Trial) -> bool:
    """Whether nobody said anything about the action itself: a stop cut it off, or there was nobody to ask."""
    return trial.status == "stopped" or (trial.status == "rejected" and state.mode != "read-only")


def done_by(state: RunState) -> dict[str, int]:
    """Digest of each action that was run, or is about to be → its trial."""
    ran = ("awaiting", "approved", "running", "done", "failed")
    return {t.action["digest"]: t.number for t in state.trials.values() if t.action and t.status in ran}


def tried_digests(state: RunState) -> set[str]:
    """Digests of every action that was proposed, run or queued in this run; one that a stop cut off may come again."""
    found = {item["action"]["digest"] for item in state.queue.values()}
    for trial in state.trials.values():
        if undone(state, trial):
            continue
        if trial.action:
            found.add(trial.action["digest"])
        if trial.proposal:
            found.add(trial.proposal["action"]["digest"])
    return found


@dataclass(frozen=True)
class Judged:
    """Why an action can't be run (`problems`); what it would be and cost, where that can be told."""

    problems: tuple[str, ...]
    action: Action | None = None
    estimate: Estimate | None = None


def judge(
    bound: BoundType, inputs: Inputs, params: dict[str, Value], state: RunState, machine: Machine, known: Known, *, seed: int
) -> Judged:
    """Every reason why an action with these hyperparameters (all of them) can't be run now, from its slots to memory and
    constraints. Whether it was run before is for the caller to say."""
    lost = [f"{name} is lost: {state.lost[name]}" for ids in inputs.values() for name in ids if name in state.lost]
    problems = lost or bound.problems(inputs, params, state.pool, machine.device)
    if problems:
        return Judged(tuple(problems))
    try:
        params = in_steps(
            bound, machine.call(bound, inputs, params, state.pool), lambda call: machine.estimate(bound, call).seconds
        )
    except ValueError as error:
        return Judged((str(error),))
    action = known.action(bound, inputs, params, state.pool, seed=seed, dtype=machine.dtype)
    plan, estimate = machine.plan(bound, machine.call(bound, inputs, params, state.pool))
    if lacking := machine.lacks(estimate, plan):
        problems.append(lacking)
    if text := blocked(action, state.constraints):
        problems.append(f"a constraint forbids it: {text}")
    return Judged(tuple(problems), action, estimate)
