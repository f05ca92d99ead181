"""`lamdatui check PROFILE --machine "cuda 24GiB"`: what a search would offer on a machine that is not this one, from headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lamdatui.actionkit.costs import answering, generation
from lamdatui.actionkit.timings import Timings
from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import PROCESS_BYTES, BoundType, Estimate
from lamdatui.domain.objects import ObjectPool
from lamdatui.engine.fitting import PACKAGE, children, example, fitted
from lamdatui.engine.machine import Machine, judge_bytes
from lamdatui.inputs.profile import Profile
from lamdatui.inputs.workspace import Workspace

Json = dict[str, Any]
TOLD = re.compile(r"\s*(cuda|cpu)\s+(\d+(?:\.\d+)?)\s*(GiB|GB|MiB|MB)?\s*(?:x\s*(\d+))?\s*", re.IGNORECASE)
UNITS = {"gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6}
EVALUATION = "evaluation"
"""What every model goes through, among the actions."""


@dataclass(frozen=True, slots=True)
class Told:
    """A machine in words: so many devices of one kind, each with so much memory."""

    device: str
    memory_bytes: int
    count: int


def read_machine(text: str) -> Told:
    """`cuda 24GiB`, `cuda 80 GiB x 2`, `cpu 64GB`. Raises LamdatuiError."""
    found = TOLD.fullmatch(text)
    if found is None or not float(found[2]) or found[4] == "0":
        raise LamdatuiError(
            f"{text!r} is no machine", where="--machine", fix='say it as "cuda 24GiB", "cuda 80GiB x 2" or "cpu 64GiB"'
        )
    size = int(float(found[2]) * UNITS[(found[3] or "GiB").lower()])
    return Told(found[1].lower(), size, int(found[4] or 1))


def on_machine(told: Told, profile: Profile, space: Workspace) -> Json:
    """What each action type of a profile would need there, at its defaults, and whether it would be offered.

    Of models that trials make there are two, of each base; what this machine measured is left out.
    """
    dtype = profile.dtype if profile.dtype != "auto" else "bfloat16" if told.device == "cuda" else "float32"
    judges = judge_bytes(space.judges, dtype)
    machine = Machine(told.device, dtype, told.memory_bytes, None, Timings(), judge_bytes=judges)
    largest = max(space.models.values(), key=lambda model: model.parameters)
    pool = ObjectPool({**space.models, **space.datasets})
    # The largest comes first: an action that fits it fits all.
    pool.items = {largest.id: largest, **pool.items, **{child.id: child for child in children(largest, 3)}}
    types = fitted(space.types, profile.actions, pool, machine, packages=True)
    actions = {name: _action(bound, pool, machine) for name, bound in types.items()}
    first = next(iter(types.values()))
    call = replace(machine.call(first, {}, {}, ObjectPool()), models={"model": (largest,)}, datasets={})
    rows = sum(len(split) for task in space.tasks.values() for split in task.rows.values())
    cost = generation(
        call, "model", rows=rows, new_tokens=max((task.max_new_tokens for task in space.tasks.values()), default=1)
    )
    cost = replace(cost, memory_bytes=max(int(PROCESS_BYTES + answering(largest, call.width)), judges))
    actions[EVALUATION] = _told(machine, cost, machine.lacks(cost), "")
    return {"device": told.device, "memory_bytes": told.memory_bytes, "count": told.count, "actions": actions}


def _action(bound: BoundType, pool: ObjectPool, machine: Machine) -> Json:
    inputs = example(bound, pool, machine.device)
    if inputs is None:
        return {
            "offered": False,
            "reason": "the profile has no object for one of its slots",
            "plan": None,
            **dict.fromkeys(("seconds", "gpu_bytes", "ram_bytes", "disk_bytes")),
        }
    params = bound.defaults()
    if "replay_fraction" in params and not inputs.get("replay"):
        params["replay_fraction"] = 0.0
    call = machine.call(bound, inputs, params, pool)
    plan, cost = machine.plan(bound, call)
    missing = [text for text in bound.problems(inputs, params, pool, machine.device) if PACKAGE not in text]
    method = f"method {params['method']}" if "method" in params else ""
    words = ", ".join(filter(None, (method, plan.describe() if plan else "")))
    reason = missing[0] if missing else machine.lacks(cost, plan)
    return _told(machine, cost, reason, words)


def _told(machine: Machine, cost: Estimate, reason: str | None, plan: str) -> Json:
    gpu = machine.device == "cuda"
    return {
        "offered": reason is None,
        "reason": reason or "",
        "plan": plan or None,
        "seconds": cost.seconds,
        "gpu_bytes": cost.memory_bytes if gpu else 0,
        "ram_bytes": cost.ram_bytes if gpu else cost.memory_bytes,
        "disk_bytes": cost.disk_bytes,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """A table of `on_machine` for people."""
    gpu = found["device"] == "cuda"
    many = f" x {found['count']}" if found["count"] > 1 else ""
    place = f"on {found['device']} {found['memory_bytes'] / 2**30:.0f} GiB{many}"
    if not found["actions"]:
        return [f"{place}: not known before what is bad above is there"]
    rows = [f"{place}, by formula:"]
    for name, one in found["actions"].items():
        size = one["gpu_bytes"] if gpu else one["ram_bytes"]
        parts = [
            f"{size / 2**30:5.1f} GiB" if size else "",
            f"{one['seconds']:,.0f} s" if one["seconds"] else "",
            one["plan"] or "",
        ]
        told = " · ".join(filter(None, parts))
        rows.append(f"{'yes' if one['offered'] else 'no':3}  {name:22} {told}{'' if one['offered'] else ': ' + one['reason']}")
    return rows
