"""What F1 says of a pane or screen, and how its keys are listed. Pure: names and bindings in, lines out, no widgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from lamdatui.ui.view.format import Line

ABOUT = {
    "lineage": "The models of this run by lineage: what each was made from, how it scored, and how much better than the base.",
    "activity": "What happened, newest last. Enter shows a row in full.",
    "logs": "The log of the running step, the engine or the planner. It follows the newest line while you are at its end.",
    "hardware": "The running step's progress and loss, then GPUs, CPU, memory and disk.",
    "card": "The proposal that waits for you. Nothing runs until you answer; keys count only while the card has the focus.",
    "card-reason": "Why this must not run. The reason becomes a constraint that every policy obeys; you can revoke it.",
    "planner-choice": "Who proposes, how it weighed the options, and what it was told.",
    "planner-worth": "Whether the planner's choices were better than what the cheap policies would have done.",
    "planner-said": "What people told the run: hints, constraints and rules. Each can be revoked.",
    "planner-memory": "What the planner remembers of the trials; you can rewrite it.",
    "planner-exchanges": "The newest questions to the planner and its answers. Enter shows one in full.",
    "start-runs": "The runs of this folder: going, unfinished, done. Enter opens one; an unfinished one goes on.",
    "start-profiles": "What can be searched. Enter starts a run of the selected profile.",
    "start-machine": "What this machine has and what is missing. Each problem names its fix; enter shows it in full.",
    "console": "One run: its models, what happened, its log, its hardware, and the proposal that waits.",
    "planner": "The planner: who proposes, what it was told, and whether it is worth its tokens.",
    "start": "Runs, profiles and this machine.",
}
"""Id of a widget, or name of a screen → what it is, in a line or two."""


@dataclass(frozen=True, slots=True)
class HelpEntry:
    """One command: its keys as they are now, its name, what it does."""

    keys: tuple[str, ...]
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """The commands of one place."""

    title: str
    entries: tuple[HelpEntry, ...]


def about(ids: Iterable[str]) -> str:
    """The text of the innermost thing that has one."""
    return next((ABOUT[name] for name in ids if name in ABOUT), "")


def help_lines(groups: Sequence[Group]) -> list[Line]:
    """The groups, their keys in one column."""
    lines: list[Line] = []
    shown = [(group, [(" ".join(entry.keys), entry) for entry in group.entries]) for group in groups if group.entries]
    width = max((cell_len(keys) for _, rows in shown for keys, _ in rows), default=0)
    for group, rows in shown:
        if lines:
            lines.append(((" ", "plain"),))
        lines.append(((group.title, "strong"),))
        for keys, entry in rows:
            what = f"{entry.label}: {entry.text}" if entry.text and entry.label else entry.text or entry.label
            # A no-break space keeps the columns of a row together when it wraps.
            lines.append(((f"{keys}{chr(0xA0) * (width - cell_len(keys))}  ".replace(" ", chr(0xA0)), "run"), (what, "plain")))
    return lines


def indent(groups: Sequence[Group]) -> int:
    """Where a row of `help_lines` goes on when it wraps."""
    return 2 + max((cell_len(" ".join(entry.keys)) for group in groups for entry in group.entries), default=0)
