"""Lineage: what objects were made from, and the trials that led to them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial


def parents(state: RunState, object_id: str) -> list[str]:
    """Ids of the models and datasets that an object was made from; empty for what the profile names."""
    trial = state.pool.items[object_id].trial
    if trial is None:
        return []
    action = state.trials[trial].action or {"inputs": {}}
    found = [name for ids in (action.get("inputs") or {}).values() for name in ids if name in state.pool.items]
    return list(dict.fromkeys(found))


def lineage(state: RunState, object_id: str) -> list[Trial]:
    """The trials that lead from what the profile names to this model or dataset, each after those it needs."""
    seen: set[str] = set()
    waiting = [object_id]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += parents(state, name)
    # A trial can only have used what trials before it had made.
    numbers = {trial for name in seen if (trial := state.pool.items[name].trial) is not None}
    return [state.trials[number] for number in sorted(numbers)]


def ancestry(state: RunState, name: str, depth: int = 4) -> str:
    """How an object came to be: `base → sft(mix) → dpo(prefs)`; empty for what the profile names."""
    item = state.pool.items.get(name)
    if item is None or item.trial is None or item.trial not in state.trials:
        return ""
    action = state.trials[item.trial].action or {}
    names = [other for ids in action.get("inputs", {}).values() for other in ids]
    models = [other for other in names if isinstance(state.pool.items.get(other), ModelObject)]
    data = "+".join(other for other in names if other not in models)
    step = f"{action.get('type', '?')}({data})" if data else str(action.get("type", "?"))
    if len(models) > 1 or depth == 0:
        return f"{step} of {'+'.join(models)}"
    if not models:
        return step
    before = ancestry(state, models[0], depth - 1)
    return f"{before or models[0]} → {step}"


def model_inputs(state: RunState, action: Mapping[str, Any] | None) -> list[str]:
    """The models among an action's inputs, in slot order."""
    return [name for name in _inputs(action) if isinstance(state.pool.items.get(name), ModelObject)]


def _inputs(action: Mapping[str, Any] | None) -> list[str]:
    return [name for ids in (action.get("inputs") or {}).values() for name in ids] if action else []
