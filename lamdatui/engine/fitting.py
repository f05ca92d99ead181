"""Action types as a machine can carry them out: where an adapter over whole weights has no room, one over 4-bit weights is taken."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace

from lamdatui.domain.actions import BoundType, Call, Inputs
from lamdatui.domain.objects import ModelObject, ObjectPool
from lamdatui.engine.machine import Machine

OVER, INSTEAD = "lora", "qlora"
TRIES = 8
"""Objects of a slot that are looked at."""
PACKAGE = "bitsandbytes"


def example(bound: BoundType, pool: ObjectPool, device: str) -> Inputs | None:
    """Objects that fill a type's slots, and pass its check where some do; None where there are too few."""
    options = []
    for slot in bound.type.slots:
        if slot.takes_models:
            fitting = [model.id for model in pool.models if model.trial is None or not slot.base_only]
            # A merge is of what trials made.
            fitting.sort(key=lambda name: slot.kind == "models" and pool.items[name].trial is None)
        else:
            fitting = [data.id for data in pool.datasets if not slot.formats or data.format in slot.formats]
        options.append(list(itertools.islice(itertools.combinations(fitting, slot.least), TRIES)))
    first = None
    for picked in itertools.islice(itertools.product(*options), TRIES**2):
        inputs = {slot.name: ids for slot, ids in zip(bound.type.slots, picked, strict=True)}
        first = first or inputs
        if not any(PACKAGE not in problem for problem in bound.problems(inputs, bound.defaults(), pool, device)):
            return inputs
    return first


def has_room(bound: BoundType, call: Call, machine: Machine) -> bool:
    """Whether the smallest plan of the work fits into the machine's memory."""
    plan, cost = machine.plan(bound, call)
    return machine.lacks(cost, plan) is None


def fitted(
    types: Mapping[str, BoundType],
    given: Mapping[str, Collection[str] | None],
    pool: ObjectPool,
    machine: Machine,
    *,
    packages: bool = False,
) -> dict[str, BoundType]:
    """The types, with `method: qlora` as default of those that have room for nothing else on a GPU with the largest base.

    `given`: hyperparameters that the profile sets, by type; what it sets stays. `packages`: take it that bitsandbytes is installed.
    """
    found = dict(types)
    if not machine.device.startswith("cuda") or not (packages or importlib.util.find_spec(PACKAGE)):
        return found
    for name, bound in types.items():
        method = next((param for param in bound.params if param.name == "method"), None)
        if method is None or method.default != OVER or "method" in (given.get(name) or ()):
            continue
        if (inputs := example(bound, pool, machine.device)) is None:
            continue
        other = bound.narrow("method", INSTEAD)
        calls = (machine.call(each, inputs, each.defaults(), pool) for each in (bound, other))
        if not has_room(bound, next(calls), machine) and has_room(other, next(calls), machine):
            found[name] = other
    return found


def children(base: ModelObject, count: int) -> list[ModelObject]:
    """Models as trials would make them of a base: what a type that takes several needs to be judged before there are any."""
    return [
        replace(base, id=f"m{n}", digest=f"{n}", adapters=(*base.adapters, f"store:{n}"), trial=n) for n in range(1, count + 1)
    ]
