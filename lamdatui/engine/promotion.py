"""Promotion: the last share of a search trains its best pipelines for longer.

A search compares many short trainings, and one plain fine-tuning that gets all of their time may be better than the best of them. As successive halving
gives its best configurations more of a resource (Jamieson & Talwalkar 2016, arXiv 1502.07943), the last trials do two pipelines again with more
steps: the best one, and the best one that is a single training, because what is best when it is short need not be best when it is long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lamdatui.domain.actions import BoundType, Inputs, Value
from lamdatui.domain.baselines import TRAINS, family, training_seconds
from lamdatui.domain.budget import evaluation_seconds, ledgers, seconds_left, seconds_of
from lamdatui.domain.choice import Proposal
from lamdatui.domain.lineage import lineage, model_inputs
from lamdatui.domain.replicates import trains
from lamdatui.domain.scores import is_per_hour
from lamdatui.domain.scripts import scaled
from lamdatui.domain.state import RunState, details_of
from lamdatui.domain.trials import Trial
from lamdatui.engine.candidates import legal
from lamdatui.engine.machine import Machine

NAME = "promotion"
LEAST = 1.5
"""What is trained for less than this many times its length is not worth a trial."""
PLANS = 2
"""So many pipelines are promoted, for each budget of trials."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline that is promoted: its model, how many times as long it trains, and the budget of trials that it is for."""

    model: str
    scale: float
    budget: int

    def details(self, trial: Trial) -> dict[str, Any]:
        """What a proposal records of it: it does `trial` again."""
        return {"promotes": self.model, "scale": self.scale, "budget": self.budget, "again": trial.number}


def promoted_step(
    state: RunState, objectives: Mapping[str, float], types: Mapping[str, BoundType], machine: Machine, now: float | None = None
) -> Proposal | None:
    """The next step of a promotion; None where none is due, or possible. The same state gives the same step."""
    if not _is_due(state, now):
        return None
    begun = _begun(state)
    plans = [plan for plan in begun if plan.budget == state.max_trials]
    for plan in plans:
        if found := _next(plan, state, types, machine):
            return found
    if len(plans) >= PLANS:
        return None
    targets = _targets(state, objectives, {plan.model for plan in begun}, len(plans))
    # What would train hardly longer with its share leaves all of it to the others.
    while targets and min(_scale(state, target, len(targets), now) for target in targets) < LEAST:
        targets.pop()
    for place, target in enumerate(targets):
        plan = Plan(target, _scale(state, target, len(targets) - place, now), state.max_trials)
        if found := _next(plan, state, types, machine):
            return found
    return None


def _is_due(state: RunState, now: float | None) -> bool:
    """Whether the search is in its last share, of trials or of time."""
    share = float((state.profile.get("budget") or {}).get("promotion") or 0.0)
    # Longer trainings are not what gains most per hour.
    if not share or is_per_hour(state.profile) or (state.profile.get("policy") or {}).get("name") == "scripted":
        return False
    limited = [(one.used, one.limit - one.reserved) for one in ledgers(state, now) if one.unit == "s" and one.limit is not None]
    limited.append((state.counted - 1, state.max_trials))  # the open trial is counted
    return any(limit > 0 and used >= limit * (1 - share) - 1e-9 for used, limit in limited)


def _of_promotions(state: RunState) -> list[tuple[Trial, dict[str, Any]]]:
    """Trials that promotions proposed, with what their proposals recorded."""
    told = [(trial, details_of(trial.proposal or {})) for trial in state.trials.values()]
    return [(trial, details) for trial, details in told if "promotes" in details]


def _begun(state: RunState) -> list[Plan]:
    """A plan stays what it was when its step was stopped: a checkpoint is one of that very action."""
    found = [Plan(told["promotes"], told["scale"], told["budget"]) for _, told in _of_promotions(state)]
    return list(dict.fromkeys(found))


def _targets(state: RunState, objectives: Mapping[str, float], begun: Collection[str], plans: int) -> list[str]:
    """The models whose pipelines are promoted, after so many plans: the best of one training step, which takes one trial, then the best of
    all, as far as it fits into the trials that are left; not what a promotion made."""
    promotions = {trial.number for trial, _ in _of_promotions(state)}
    made = [
        trial.model
        for trial in state.trials.values()
        if trial.status == "done"
        and trial.model in objectives
        and trial.model not in state.lost
        and trial.number not in promotions
    ]
    free = [name for name in made if name and name not in begun]
    order = sorted(free, key=lambda name: (-objectives[name], state.pool.items[name].trial or 0))
    # A lineage may be long: only as many are looked at as it takes.
    single = next((name for name in order if _is_single(state, name)), None) if plans == 0 else None
    targets = [single] if single else []
    left = state.max_trials - state.counted + 1 - len(targets)  # the open trial is counted
    best = next((name for name in order if trains(state, name)), None)
    if best and best != single and len(_steps(state, best)) <= left:
        targets.append(best)
    return targets


def _is_single(state: RunState, model: str) -> bool:
    """Whether one training of bases made a model, and no other model stands behind it."""
    action = state.trials[state.pool.items[model].trial or 0].action
    of_bases = all(state.pool.items[name].trial is None for name in model_inputs(state, action))
    return of_bases and trains(state, model) and len(_steps(state, model)) == 1


def _steps(state: RunState, model: str) -> list[Trial]:
    """The trials of a model's lineage that made models; what made its data is not done again."""
    return [trial for trial in lineage(state, model) if trial.model]


def _scale(state: RunState, model: str, left: int, now: float | None) -> float:
    """How many times as long a pipeline may train, where `left` of them share what is left: as many seconds as the search has trained, and no more
    than it has time for."""
    promotions = [trial for trial, _ in _of_promotions(state) if family(state, trial.action or {"type": ""}) in TRAINS]
    spent = sum(seconds_of(trial) for trial in promotions)
    steps = _steps(state, model)
    once = sum(seconds_of(trial) for trial in steps if family(state, trial.action or {"type": ""}) in TRAINS)
    if once <= 0:
        return 0.0
    most = (seconds_left(state, now) - evaluation_seconds(state) * len(steps)) / left
    return round(min(max(0.0, training_seconds(state) - 2 * spent) / left, most) / once, 2)


def _next(plan: Plan, state: RunState, types: Mapping[str, BoundType], machine: Machine) -> Proposal | None:
    """The first step of a plan that is not done, None where there is none or where it can't be done."""
    did = {
        told["again"]: trial
        for trial, told in _of_promotions(state)
        if told["promotes"] == plan.model and trial.status != "stopped"
    }
    stands: dict[str, str] = {}
    line = _steps(state, plan.model)
    for place, trial in enumerate(line):
        assert trial.action is not None
        inputs = {slot: tuple(stands.get(name, name) for name in ids) for slot, ids in trial.action["inputs"].items()}
        params = scaled(state, trial.action, types.get(trial.action["type"]), plan.scale)
        again = did.get(trial.number) or _same(state, trial.action["type"], inputs, params)
        if again is None:
            found = legal(types, trial.action["type"], inputs, params, state, machine)
            if isinstance(found, str):
                return None
            kind = "the best so far" if len(line) > 1 else "the best of one training step"
            reason = (
                f"the pipeline of {plan.model}, {kind}, again with {plan.scale:g} times the steps ({place + 1} of {len(line)})"
            )
            return Proposal(found.action, reason, NAME, details=plan.details(trial))
        if again.status != "done" or again.model is None:
            return None
        stands[trial.model or ""] = again.model
    return None


def _same(state: RunState, kind: str, inputs: Inputs, params: Mapping[str, Value]) -> Trial | None:
    """A trial that has done just this."""
    for trial in state.trials.values():
        action: Mapping[str, Any] = trial.action or {"type": "", "inputs": {}, "params": {}}
        given = {slot: tuple(ids) for slot, ids in action["inputs"].items()}
        if trial.status == "done" and (action["type"], given, dict(action["params"])) == (kind, inputs, dict(params)):
            return trial
    return None
