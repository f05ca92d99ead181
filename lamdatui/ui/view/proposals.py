"""What a proposal says of itself, read from the engine's JSON and put into words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamdatui.base.jsonio import finite
from lamdatui.domain.state import details_of
from lamdatui.ui.view.format import Span, duration, size

if TYPE_CHECKING:
    from lamdatui.domain.actions import Param


def params_of(proposal: Mapping[str, Any]) -> tuple[Param, ...]:
    """The declared hyperparameters, as the objects that validate them; none where the proposal has no declaration."""
    # Imported late: the first paint does not need it.
    from lamdatui.domain.declarations import declared_type

    told = proposal.get("declaration")
    return declared_type("", told).params if told else ()


def rivals(proposal: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was weighed beside the proposed action."""
    own = proposal.get("action", {}).get("digest")
    return [item for item in alternatives(proposal) if item.get("digest") != own or own is None]


def runnable(item: Mapping[str, Any]) -> bool:
    """Whether an alternative says all that is needed to run it."""
    return isinstance(item.get("type"), str) and isinstance(item.get("inputs"), dict) and isinstance(item.get("params"), dict)


def alternatives(proposal: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What else was weighed, the chosen one among it."""
    return [item for item in proposal.get("alternatives") or [] if isinstance(item, dict)]


def expected_text(item: Mapping[str, Any]) -> str:
    """`0.412\xa0±\xa00.030`: what the surrogate predicts; empty where it was not asked."""
    expected, std = finite(item.get("expected")), finite(item.get("std"))
    if expected is None:
        return ""
    # No-break spaces: a value must not be parted from its spread where the card wraps.
    return f"{expected:.3f}" if std is None else f"{expected:.3f}\xa0±\xa0{std:.3f}"


def weighed_text(item: Mapping[str, Any]) -> str:
    """`dpo(m1, preferences) 31%, 0.412 ± 0.030`."""
    chance, expected = finite(item.get("probability")), expected_text(item)
    numbers = ", ".join(part for part in ("" if chance is None else f"{chance:.0%}", expected) if part)
    return f"{item.get('action', '?')} {numbers}".rstrip()


def by_text(proposal: Mapping[str, Any]) -> str:
    """`hybrid (its planner SmolLM2 chose, share 30%)`: the policy, and who chose within it where that is told."""
    name, told = proposer(proposal), details_of(proposal)
    model, share = told.get("planner"), finite(told.get("share"))
    if told.get("chooser") == "planner":
        return f"{name} (its planner{f' {model}' if model else ''} chose{'' if share is None else f', share {share:.0%}'})"
    if told.get("chooser") == "surrogate" and name != "surrogate":
        return f"{name} (its surrogate chose)"
    return f"{name} ({model})" if model else name


def proposer(proposal: Mapping[str, Any]) -> str:
    """Who proposed it, without the failure that the engine appends for a fallback."""
    name = str(proposal.get("proposed_by") or "unknown")
    return name.split(" (planner failed", 1)[0] if proposal.get("fallback") else name


def forecast(estimate: Mapping[str, Any]) -> list[Span]:
    """`about 38 s · 2.0 GB memory · unknown disk (from 3 measured steps)`."""
    seconds = estimate.get("seconds")
    parts = [
        "unknown time" if seconds is None else f"about {duration(seconds)}",
        f"{size(estimate.get('memory_bytes'))} memory",
        f"{size(estimate.get('disk_bytes'))} disk",
    ]
    if plan := estimate.get("plan"):
        parts.append(str(plan))
    steps = estimate.get("measured")
    grounds = f" (from {steps} measured step{'s' if steps != 1 else ''})" if steps else ""
    return [(" · ".join(parts), "plain"), (grounds, "dim")]
