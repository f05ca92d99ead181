"""Orders: actions that a person asks for. Read, judged as any other action is, and numbered with a seed that is free."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import Action, BoundType, Inputs
from lamdatui.domain.state import RunState
from lamdatui.engine.judging import Judged, Known, done_by, judge
from lamdatui.engine.machine import Machine

OWN = "their own action"
"""The reason of a decision that nobody has to be asked for: who wants the action is who approves it."""
NOTE_CHARS = 300
MOST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Order:
    """What was asked for, as it came: hyperparameters that differ from the defaults, and a seed where one was named."""

    type: str
    inputs: Inputs
    params: dict[str, Any]
    seed: int | None = None


def read_order(data: Any) -> Order:
    """An order from a command's arguments. Raises LamdatuiError when it does not have the shape of an action."""
    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise LamdatuiError("an action names its type")
    inputs, params, seed = data.get("inputs") or {}, data.get("params") or {}, data.get("seed")
    if not isinstance(inputs, Mapping) or not isinstance(params, Mapping):
        raise LamdatuiError("an action's inputs and params are objects: name → value")
    named: Inputs = {}
    for slot, ids in inputs.items():
        several = [ids] if isinstance(ids, str) else ids
        if not isinstance(several, list | tuple) or not all(isinstance(one, str) for one in several):
            raise LamdatuiError(f"{slot} takes ids of objects")
        named[str(slot)] = tuple(several)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED):
        raise LamdatuiError(f"a seed is a whole number from 0 to {MOST_SEED}, not {seed!r}")
    return Order(data["type"], named, dict(params), seed)


def judge_order(types: Mapping[str, BoundType], order: Order, state: RunState, machine: Machine) -> Judged:
    """Whether an order can be run now: every reason why not, those of its own form first."""
    bound = types.get(order.type)
    if bound is None:
        close = difflib.get_close_matches(order.type, types, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(types)}"
        return Judged((f"this run has no action type {order.type!r}; {hint}",))
    slots = {slot.name for slot in bound.type.slots}
    problems = [f"{order.type} has no input {name!r}; it has {', '.join(slots)}" for name in order.inputs if name not in slots]
    problems += _wrong_params(bound, order.params)
    if problems:
        return Judged(tuple(problems))
    seed = state.seed if order.seed is None else order.seed
    return judge(bound, order.inputs, bound.fill(order.params), state, machine, Known.of(state, machine), seed=seed)


def _wrong_params(bound: BoundType, params: Mapping[str, Any]) -> Iterator[str]:
    for name, value in params.items():
        try:
            bound.fill({name: value})
        except ValueError as error:
            yield str(error)


def fresh(types: Mapping[str, BoundType], order: Order, state: RunState, machine: Machine) -> Action:
    """The action of an order, with the next seed that is free where this very action was run before: a re-run.

    Raises LamdatuiError when it can't be run, or when the seed that it names is taken.
    """
    judged = judge_order(types, order, state, machine)
    if judged.problems or judged.action is None:
        raise LamdatuiError("; ".join(judged.problems), where=f"action {order.type}")
    taken = done_by(state) | {item["action"]["digest"]: item["id"] for item in state.queue.values()}
    action, known = judged.action, Known.of(state, machine)
    if order.seed is not None and action.digest in taken:
        who = taken[action.digest]
        told = f"trial {who} is exactly this" if isinstance(who, int) else "exactly this is queued already"
        raise LamdatuiError(f"{told}; leave the seed out, or name another one")
    while action.digest in taken:
        seed = (action.seed + 1) % (MOST_SEED + 1)
        action = known.action(types[order.type], order.inputs, action.params, state.pool, seed=seed, dtype=machine.dtype)
    return action


def waiting(types: Mapping[str, BoundType], item: Mapping[str, Any], state: RunState, machine: Machine) -> Action:
    """The action of a queued order whose turn has come, judged again. Raises LamdatuiError when it can't be run any more."""
    order = replace(read_order(item["action"]), seed=item["action"]["seed"])
    judged = judge_order(types, order, state, machine)
    if judged.problems or judged.action is None:
        raise LamdatuiError("; ".join(judged.problems))
    if (trial := done_by(state).get(judged.action.digest)) is not None:
        raise LamdatuiError(f"trial {trial} did exactly this meanwhile")
    return judged.action
