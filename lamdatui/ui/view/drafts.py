"""An action as a person puts it together: a draft, what fits a slot, what the engine says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.lineage import ancestry
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState
from lamdatui.ui.view.format import Line, Span, count, number, score
from lamdatui.ui.view.proposals import expected_text, forecast

if TYPE_CHECKING:
    from lamdatui.domain.actions import Param, Slot, Value
    from lamdatui.domain.declarations import DeclaredType

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An action that is not sent yet. `seed` None lets the engine choose one."""

    type: str = ""
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""
    seed: int | None = None

    def args(self) -> Json:
        """The arguments of `try_action`; `propose` has the note too."""
        inputs = {name: list(ids) for name, ids in self.inputs.items() if ids}
        return {"type": self.type, "inputs": inputs, "params": dict(self.params), "seed": self.seed}


def draft_of(action: Mapping[str, Any] | None, *, seed: bool = False) -> Draft:
    """A draft that starts as an action of the journal."""
    action = action or {}
    inputs = {str(name): tuple(map(str, ids)) for name, ids in (action.get("inputs") or {}).items()}
    number = action.get("seed") if seed else None
    return Draft(
        str(action.get("type") or ""),
        inputs,
        dict(action.get("params") or {}),
        seed=number if isinstance(number, int) else None,
    )


def declared_types(reply: Any) -> dict[str, DeclaredType]:
    """The types of an `actions` reply by name. Raises LamdatuiError where it is of another shape."""
    from lamdatui.domain.declarations import declared_type
    from lamdatui.wire.validation import check_types

    try:
        check_types(reply)
    except TypeError as error:
        raise LamdatuiError(f"the engine's answer can't be read: {error}") from error
    return {name: declared_type(name, told) for name, told in reply["types"].items()}


def fitting(state: RunState, slot: Slot) -> list[str]:
    """Objects of the pool that a slot takes: the best models first, then the newest."""
    if not slot.takes_models:
        return [item.id for item in reversed(state.pool.datasets) if not slot.formats or item.format in slot.formats]

    def rank(model: ModelObject) -> tuple[float, int]:
        trial = state.trials.get(model.trial) if model.trial is not None else None
        objective = trial.objective if trial else None
        return (-objective if objective is not None else float("inf"), -(model.trial or 0))

    models = [model for model in state.pool.models if model.trial is None or not slot.base_only]
    return [model.id for model in sorted(models, key=rank)]


def object_line(state: RunState, name: str) -> Line:
    """`m6  base → sft(mix)  0.405`, `mix  sft, 800 rows`."""
    item = state.pool.items.get(name)
    if isinstance(item, DatasetObject):
        made = f", {origin}" if (origin := ancestry(state, name)) else ""
        return ((f"{name}  ", "strong"), (f"{item.format}, {item.rows} rows{made}", "dim"))
    if not isinstance(item, ModelObject):
        return ((f"{name}  ", "strong"), ("not in the pool", "bad"))
    trial = state.trials.get(item.trial) if item.trial is not None else None
    size = f"base, {count(item.parameters)} parameters" if item.parameters else f"base, {item.architecture}"
    shown: list[Span] = [(f"{name}  ", "strong")]
    if trial and trial.objective is not None:
        shown.append((f"{score(trial.objective)}  ", "plain"))
    return (*shown, (ancestry(state, name) or size, "dim"))


def fitted(draft: Draft, spec: DeclaredType, state: RunState) -> Draft:
    """The draft for this type: what fits of its inputs and values is kept, the rest is at its defaults.

    Inputs are kept by slot name, then by kind: a model in `model` goes to `models` of a merge.
    """
    left = [name for ids in draft.inputs.values() for name in ids]
    inputs: dict[str, tuple[str, ...]] = {}
    for slot in spec.slots:
        legal = set(fitting(state, slot))
        wanted = [*draft.inputs.get(slot.name, ()), *left]
        kept = list(dict.fromkeys(name for name in wanted if name in legal and (name in left)))[: slot.most]
        if not kept and slot.least == 1 and len(legal) == 1:
            kept = list(legal)
        if slot.least or slot.name in draft.inputs:
            inputs[slot.name] = tuple(kept)
            left = [name for name in left if name not in kept]
    params: dict[str, Value] = {}
    for param in spec.params:
        try:
            params[param.name] = param.parse(draft.params.get(param.name, param.default))
        except ValueError:
            params[param.name] = param.default
    return replace(draft, type=spec.name, inputs=inputs, params=params)


def first_type(draft: Draft, specs: Mapping[str, DeclaredType], state: RunState) -> DeclaredType:
    """The type that a form begins with: the draft's own, else one that takes all of its inputs, supervised ones first."""
    if draft.type in specs:
        return specs[draft.type]
    wanted = {name for ids in draft.inputs.values() for name in ids}

    def rank(spec: DeclaredType) -> tuple[bool, bool]:
        placed = {name for ids in fitted(draft, spec, state).inputs.values() for name in ids}
        return (not wanted <= placed, spec.family != "supervised")

    return min(specs.values(), key=rank)


def verdict_lines(reply: Any, draft: Draft) -> list[Line]:
    """What the engine says of a draft: its problems; else forecast, predicted objective, whether it was tried."""
    told: Json = reply if isinstance(reply, dict) else {}
    if problems := problems_of(told):
        return [((f"✗ {problem}", "bad"),) for problem in problems]
    lines: list[Line] = [(("✓ legal  ", "good"), *forecast(told.get("estimate") or {}))]
    if text := expected_text(told):
        lines.append((("  predicted objective  ", "dim"), (text, "plain")))
    trial = told.get("trial")
    if trial is not None:
        after = "with another seed it runs again" if draft.seed is None else "the same seed gives its result again"
        lines.append(((f"! trial {trial} did exactly this; {after}", "wait"),))
    elif told.get("cached"):
        lines.append((("= another run of this directory did exactly this; its result is reused", "wait"),))
    return lines


def problems_of(reply: Any) -> list[str]:
    """Why an action can't be used, in the engine's words."""
    found = reply.get("problems") if isinstance(reply, dict) else None
    return [str(item) for item in found] if isinstance(found, list) else []


def hint(param: Param) -> str:
    """`peak learning rate · default 0.001 · 1e-05 to 0.1 · search uses 0.0003, 0.001`."""
    parts = [part for part in (param.help, f"default {number(param.default)}") if part]
    if param.low is not None or param.high is not None:
        low, high = (_bound(param, limit) for limit in (param.low, param.high))
        parts.append(f"{low} to {high}{f' {param.unit}' if param.unit else ''}")
    if param.type == "str" and (legal := param.allowed or param.choices):
        parts.append(f"one of {', '.join(map(number, legal))}")
    elif param.choices:
        parts.append(f"search uses {', '.join(map(number, param.choices))}")
    return " · ".join(parts)


def _bound(param: Param, limit: float | None) -> str:
    if limit is None:
        return "any"
    return f"{int(limit)}" if param.type == "int" else f"{limit:g}"
