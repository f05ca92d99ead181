"""What the approval card says about a proposal, as lines of text. Pure: JSON in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamdatui.objects import DatasetObject, ModelObject
from lamdatui.state import RunState
from lamdatui.ui.words import Line, Span, count, duration, inputs_text, number, size
from lamdatui.worth import details_of
from lamdatui.worth import number as number_of

if TYPE_CHECKING:
    from lamdatui.actions import Param

Json = dict[str, Any]
LABEL = 11
SHOWN = 6
"""As many are named on the card."""


def params_of(proposal: Mapping[str, Any]) -> list[Param]:
    """The declared hyperparameters, as the objects that validate them. A malformed one is left out."""
    # Imported late: the first paint does not need it.
    from lamdatui.actions import Param

    found = []
    for item in proposal.get("declaration", {}).get("params", []):
        try:
            fields = {key: item[key] for key in ("name", "type", "default", "low", "high", "unit", "help") if key in item}
            choices, allowed = (tuple(item.get(key) or ()) for key in ("choices", "allowed"))
            found.append(Param(**fields, choices=choices, allowed=allowed))
        except (KeyError, TypeError):
            continue
    return found


def title(trial: int, proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> str:
    """`Approve trial 3: sft? · opening`."""
    text = f"Approve trial {trial}: {proposal['action']['type']}?"
    if proposal.get("opening"):
        text += " · opening"
    return text + (" · edited by you" if edited else "")


def facts(state: RunState, proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> list[Line]:
    """What it will do: forecast, inputs with lineage, hyperparameters."""
    action = proposal["action"]
    lines = [labelled("forecast", *forecast(proposal.get("estimate") or {}))]
    for slot, ids in action.get("inputs", {}).items():
        if not ids:
            continue
        parts = [_object(state, name) for name in ids]
        lines.append(labelled(slot, (" + ".join(parts), "plain")))
    lines.append(labelled("params", *_params(proposal, edited)))
    return lines


def grounds(proposal: Mapping[str, Any]) -> list[Line]:
    """Why: the reason, who proposed it, what is expected of it, what replaced a failed planner, the alternatives."""
    lines = [labelled("why", (proposal.get("reason") or "no reason was given", "plain"))]
    by = by_text(proposal)
    if seconds := proposal.get("seconds"):
        by += f", in {duration(seconds)}"
    lines.append(labelled("by", (by, "plain")))
    lines += _expects(proposal)
    if fallback := proposal.get("fallback"):
        lines.append(labelled("fallback", (f"! the planner was replaced: {fallback}", "bad")))
    own = proposal.get("action", {}).get("digest")
    others = [weighed_text(item) for item in alternatives(proposal) if item.get("digest") != own]
    if others:
        more = f" · {len(others) - SHOWN} more on the planner's screen" if len(others) > SHOWN else ""
        lines.append(labelled("instead of", (" · ".join(others[:SHOWN]) + more, "dim")))
    if summary := proposal.get("declaration", {}).get("summary"):
        lines.append(labelled("method", (summary, "dim")))
    return lines


def _expects(proposal: Mapping[str, Any]) -> list[Line]:
    """The surrogate's forecast, the planner's probability for it, and the surrogate's own favourite where that is another."""
    told = details_of(proposal)
    own = proposal.get("action", {}).get("digest")
    parts = [f"objective {text}"] if (text := expected_text(told)) else []
    chances = [number_of(item.get("probability")) for item in alternatives(proposal) if item.get("digest") == own]
    if chances and chances[0] is not None:
        parts.append(f"the planner gave it {chances[0]:.0%}")
    spans: list[Span] = [(", ".join(parts), "plain")]
    rival = told.get("rival")
    if isinstance(rival, dict):
        spans.append((f" · the surrogate's favourite: {weighed_text(rival)}", "dim"))
    return [labelled("expects", *spans)] if parts or rival else []


def alternatives(proposal: Mapping[str, Any]) -> list[Json]:
    """What else was weighed, the chosen one among it."""
    return [item for item in proposal.get("alternatives") or [] if isinstance(item, dict)]


def expected_text(item: Mapping[str, Any]) -> str:
    """`0.412\xa0±\xa00.030`: what the surrogate predicts; empty where it was not asked."""
    expected, std = number_of(item.get("expected")), number_of(item.get("std"))
    if expected is None:
        return ""
    # No-break spaces: a value must not be parted from its spread where the card wraps.
    return f"{expected:.3f}" if std is None else f"{expected:.3f}\xa0±\xa0{std:.3f}"


def weighed_text(item: Mapping[str, Any]) -> str:
    """`dpo(m1, preferences) 31%, 0.412 ± 0.030`."""
    chance, expected = number_of(item.get("probability")), expected_text(item)
    numbers = ", ".join(part for part in ("" if chance is None else f"{chance:.0%}", expected) if part)
    return f"{item.get('action', '?')} {numbers}".rstrip()


def by_text(proposal: Mapping[str, Any]) -> str:
    """`hybrid (its planner SmolLM2 chose, share 30%)`: the policy, and who chose within it where that is told."""
    name, told = proposer(proposal), details_of(proposal)
    model, share = told.get("planner"), number_of(told.get("share"))
    if told.get("chooser") == "planner":
        return f"{name} (its planner{f' {model}' if model else ''} chose{'' if share is None else f', share {share:.0%}'})"
    if told.get("chooser") == "surrogate" and name != "surrogate":
        return f"{name} (its surrogate chose)"
    return f"{name} ({model})" if model else name


def proposer(proposal: Mapping[str, Any]) -> str:
    """Who proposed it, without the failure that the engine appends for a fallback."""
    name = str(proposal.get("proposed_by") or "unknown")
    return name.split(" (planner failed", 1)[0] if proposal.get("fallback") else name


def rule_text(proposal: Mapping[str, Any]) -> str:
    """The rule that approve-and-remember adds, as the engine words it; else what the console knows of it."""
    rule = proposal.get("rule")
    if isinstance(rule, dict) and rule.get("text"):
        return str(rule["text"])
    if isinstance(rule, str) and rule:
        return rule
    action = proposal["action"]
    return f"always {action['type']} on {inputs_text(action)}, with any hyperparameters, in this run"


def veto_text(proposal: Mapping[str, Any]) -> str:
    """The constraint that a veto adds."""
    action = proposal["action"]
    return f"never {action['type']} on {inputs_text(action)}, in this run, because"


def labelled(label: str, *spans: Span) -> Line:
    """A line that starts with its name."""
    return ((f"{label[: LABEL - 1]:<{LABEL}}", "dim"), *spans)


def forecast(estimate: Mapping[str, Any]) -> list[Span]:
    """`about 38 s · 2.0 GB memory · unknown disk (from 3 measured steps)`."""
    seconds = estimate.get("seconds")
    parts = [
        "unknown time" if seconds is None else f"about {duration(seconds)}",
        f"{size(estimate.get('memory_bytes'))} memory",
        f"{size(estimate.get('disk_bytes'))} disk",
    ]
    steps = estimate.get("measured")
    grounds = f" (from {steps} measured step{'s' if steps != 1 else ''})" if steps else ""
    return [(" · ".join(parts), "plain"), (grounds, "dim")]


def _object(state: RunState, name: str) -> str:
    item = state.pool.items.get(name)
    if isinstance(item, DatasetObject):
        made = f", {origin}" if (origin := ancestry(state, name)) else ""
        return f"{name} ({item.format}, {item.rows} rows{made})"
    if not isinstance(item, ModelObject):
        return name
    size_text = f"{count(item.parameters)} parameters" if item.parameters else item.architecture
    return f"{name} ({ancestry(state, name) or f'base, {size_text}'})"


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


def _params(proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> list[Span]:
    defaults = {param.name: param.default for param in params_of(proposal)}
    units = {param.name: param.unit for param in params_of(proposal)}
    spans: list[Span] = []
    for name, value in proposal["action"].get("params", {}).items():
        shown = (edited or {}).get(name, value)
        if spans:
            spans.append(("  ", "plain"))
        # No-break spaces: a name must not be parted from its value where the card wraps.
        spans.append((f"{name}\xa0", "dim"))
        unit = f"\xa0{units[name]}" if units.get(name) else ""
        if shown != value:
            spans.append((f"{number(value)}\xa0→\xa0{number(shown)}{unit}", "wait"))
        elif name in defaults and defaults[name] != value:
            spans.append((f"{number(value)}*{unit}", "strong"))
        else:
            spans.append((f"{number(value)}{unit}", "plain"))
    return spans or [("none", "dim")]
