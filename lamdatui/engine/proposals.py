"""A proposal as the journal and the screens have it: the action, its forecast, its declaration, who wants it and why."""

from __future__ import annotations

from typing import Any

from lamdatui.domain.actions import Action, BoundType
from lamdatui.domain.budget import evaluation_seconds
from lamdatui.domain.choice import Proposal
from lamdatui.domain.state import RunState
from lamdatui.engine.candidates import OPENING
from lamdatui.engine.machine import Machine, size_of


def proposal_json(
    number: int,
    proposal: Proposal,
    bound: BoundType,
    state: RunState,
    machine: Machine,
    *,
    fallback: str | None,
    seconds: float,
) -> dict[str, Any]:
    """Everything that a person needs in order to decide; `seconds` is how long the choice took."""
    action = proposal.action
    return {
        "id": f"p{number}",
        "action": action.to_json(),
        "reason": proposal.reason,
        "proposed_by": f"{proposal.proposed_by} (planner failed: {fallback})" if fallback else proposal.proposed_by,
        "alternatives": list(proposal.alternatives),
        "estimate": cost_json(action, bound, state, machine),
        "opening": proposal.proposed_by == OPENING,
        "fallback": fallback,
        "seconds": round(seconds, 3),
        "details": dict(proposal.details),
    }


def cost_json(action: Action, bound: BoundType, state: RunState, machine: Machine) -> dict[str, Any]:
    """Seconds (with the evaluation, as this run's own took), bytes, and on how many measured steps the time stands."""
    call = machine.call(bound, action.inputs, action.params, state.pool)
    plan, estimate = machine.plan(bound, call)
    seconds = estimate.seconds
    if seconds is not None and bound.type.output == "model":
        seconds = round(seconds + evaluation_seconds(state), 1)
    return {
        "seconds": seconds,
        "memory_bytes": estimate.memory_bytes,
        "disk_bytes": estimate.disk_bytes,
        "plan": plan.describe() if plan else "",
        "measured": machine.timings.count(bound.name, machine.device, machine.dtype, size_of(call)),
    }
