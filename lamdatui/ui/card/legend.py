"""What the approval card's last rows say: its keys, and the question that comes before a decision. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lamdatui.ui.card.text import rule_text, veto_text
from lamdatui.ui.kit.legend import Groups

Named = tuple[tuple[str, str], ...]
KEYS: tuple[Named, ...] = (
    (
        ("card-approve", "approve"),
        ("card-remember", "always…"),
        ("card-edit", "edit"),
        ("card-editor", "editor"),
        ("card-other", "other…"),
        ("card-own", "own"),
    ),
    (
        ("card-veto", "deny…"),
        ("card-skip", "skip"),
        ("card-stop", "stop…"),
        ("card-rules", "rules"),
        ("card-expand", "all"),
        ("card-leave", "back"),
    ),
)
FEW: Named = (
    ("card-approve", "approve"),
    ("card-veto", "deny…"),
    ("card-edit", "edit"),
    ("card-skip", "skip"),
    ("card-stop", "stop…"),
    ("card-leave", "back"),
    ("help", "keys"),
)
"""For a card that has no room for all of them."""
ANSWERS: dict[str, tuple[str, ...]] = {
    "rule": ("enter approve and remember", "esc back"),
    "veto": ("enter deny (may be empty)", "esc back"),
    "stop": ("enter stop the run", "esc back"),
    "sending": ("sent, waiting for the engine…",),
}


def rows_of(mode: str, grabbed: bool, name: Callable[[str], str]) -> Groups:
    """The keys that count now; `name` says which key an id has by now."""
    if mode in ANSWERS:
        return Groups((ANSWERS[mode],))
    if not grabbed:
        answer = f"{name('review')} to answer it"
        return Groups(((f"{answer};", "until then your keys stay where you are"),), (answer,), " ")
    return Groups(tuple(_named(group, name) for group in KEYS), _named(FEW, name))


def _named(group: Named, name: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(f"{name(key)} {label}" for key, label in group)


def question(mode: str, number: int, proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> str:
    """What is asked before the decision is sent; empty where nothing is."""
    match mode:
        case "rule":
            return (
                f"rule to remember: {rule_text(proposal, edited)}. It can be taken back: r on the card lists what is in force."
            )
        case "veto":
            return f"constraint: {veto_text(proposal)}"
        case "stop":
            return f"Stop the run? Trial {number} does not run, and the run ends; `lamdatui run` can go on with it later."
        case _:
            return ""
