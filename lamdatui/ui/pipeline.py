"""The models of a run by lineage, as rows of a tree. Pure: state in, nodes out, no textual."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size

from lamdatui.objects import ModelObject
from lamdatui.state import RunState, Trial
from lamdatui.ui.state import ViewState
from lamdatui.ui.words import Line, Mark, Span, Tone, interval, mark, score, signed

Json = dict[str, Any]


@dataclass(slots=True)
class Node:
    """One row: a base model or a trial. `scores` is task → mean of the search split."""

    key: str
    sign: Mark
    name: str
    note: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    gain: Json | None = None
    best: bool = False
    trial: int | None = None
    children: list[Node] = field(default_factory=list)

    def flat(self, depth: int = 0) -> list[tuple[int, Node]]:
        """This node and all below it, with depths."""
        return [(depth, self), *(pair for child in self.children for pair in child.flat(depth + 1))]


def lineage(view: ViewState) -> list[Node]:
    """Base models with their descendants below them, then what has no parent yet.

    A merge stands below its first parent; its name lists all of them.
    """
    state, roots, by_model = view.run, list[Node](), dict[str, Node]()
    for model in state.pool.models:
        if model.trial is None:
            node = Node(f"model:{model.id}", Mark("●", "base model", "plain"), model.id, scores=_scores(state, model.id))
            node.note = "" if node.scores else "base model"
            by_model[model.id] = node
            roots.append(node)
    best = view.best_trial()
    for trial in state.trials.values():
        node = _trial_node(state, trial, trial is best)
        parent = next((by_model[name] for name in model_inputs(state, trial.action) if name in by_model), None)
        (parent.children if parent else roots).append(node)
        if trial.model:
            by_model.setdefault(trial.model, node)
    return roots


def model_inputs(state: RunState, action: Json | None) -> list[str]:
    """The models among an action's inputs, in slot order."""
    names = [name for ids in (action or {}).get("inputs", {}).values() for name in ids]
    return [name for name in names if isinstance(state.pool.items.get(name), ModelObject)]


def tasks(state: RunState) -> list[str]:
    """Tasks that have a score, in the order in which they came."""
    seen: dict[str, None] = {}
    for scores in state.scores.values():
        seen.update(dict.fromkeys(scores))
    for trial in state.trials.values():
        seen.update(dict.fromkeys(trial.scores or {}))
    return list(seen)


def _scores(state: RunState, model: str) -> dict[str, float]:
    found = state.scores.get(model, {})
    return {task: splits["search"]["mean"] for task, splits in found.items() if "search" in splits}


def _trial_node(state: RunState, trial: Trial, best: bool) -> Node:
    sign = mark("cached" if trial.cached and trial.status == "done" else trial.status)
    action = trial.action or {}
    models = model_inputs(state, trial.action)
    others = [name for ids in action.get("inputs", {}).values() for name in ids if name not in models]
    name = f"{trial.number} {action.get('type', '…')}"
    if len(models) > 1:
        name += f" {'+'.join(models)}"
    if others:
        name += f" {'+'.join(others)}"
    node = Node(f"trial:{trial.number}", sign, name, gain=trial.gain, best=best, trial=trial.number)
    node.scores = {task: splits["search"]["mean"] for task, splits in (trial.scores or {}).items() if "search" in splits}
    if trial.model and not node.scores:
        node.scores = _scores(state, trial.model)
    node.note = _note(trial, sign)
    return node


def _note(trial: Trial, sign: Mark) -> str:
    if trial.status == "done":
        return f"→ {trial.dataset}" if trial.dataset else ""
    if trial.status == "failed" and trial.error:
        return f"failed: {trial.error.get('class', 'unknown')}"
    reason = (trial.decision or {}).get("reason")
    if trial.status in ("vetoed", "rejected") and reason:
        return f"{sign.word}: {reason}"
    return sign.word


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns fit, and how wide they are; the name takes what is left."""

    tasks: tuple[tuple[str, int], ...]
    gain: int = 0
    interval: int = 0

    @property
    def width(self) -> int:
        return sum(width for _, width in self.tasks) + self.gain + self.interval


def columns(names: list[str], width: int, nodes: list[Node], guide: int) -> Columns:
    """The columns that fit: gain first, then tasks, then the interval.

    The deepest row keeps at least 16 cells for its name; the interval comes only where it cuts no name.
    """
    placed = [pair for node in nodes for pair in node.flat()]
    room = width - max(depth * guide for depth, _ in placed) - 16
    longest = max(depth * guide + len(node.name) + 5 for depth, node in placed)
    if room < 6:
        return Columns(())
    room -= 6
    chosen: list[tuple[str, int]] = []
    for name in names:
        need = max(5, min(len(name), 10) + 1)
        if need > room and room >= 6:
            need = 6
        if need > room:
            break
        chosen.append((name, need))
        room -= need
    used = 6 + sum(size for _, size in chosen)
    spare = min(room, width - longest - used)
    return Columns(tuple(chosen), 6, 15 if spare >= 15 and len(chosen) == len(names) else 0)


def header(found: Columns, width: int) -> str:
    """The line above the tree: names of the columns, right-aligned like their values."""
    text = "".join(f" {_short(name, size - 1):>{size - 1}}" for name, size in found.tasks)
    if found.gain:
        text += f"{'gain':>{found.gain}}"
    if found.interval:
        text += f"{'95% interval':>{found.interval}}"
    return f"{'model':<{max(0, width - len(text))}}{text}"[:width]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def row(node: Node, found: Columns, width: int) -> Line:
    """One tree label of exactly `width` cells: glyph, name or note on the left, columns on the right."""
    right = _cells(node, found) if node.scores or node.gain else []
    room = width - sum(len(text) for text, _ in right)
    left: list[Span] = [(f"{node.sign.glyph} ", node.sign.tone), (node.name, "strong" if node.best else "plain")]
    if node.best:
        star = " ★ best" if cell_len(node.name) + 9 <= room else " ★"
        left[1] = fit([left[1]], min(cell_len(node.name), room - 2 - len(star)))[0]
        left.append((star, "wait"))
    if node.note:
        left.append((f"  {node.note}", node.sign.tone))
    return (*fit(left, room), *right)


def _cells(node: Node, found: Columns) -> list[Span]:
    cells: list[Span] = [(f"{score(node.scores.get(name)):>{size}}", "plain") for name, size in found.tasks]
    mean = (node.gain or {}).get("mean")
    tone: Tone = "plain" if mean is None else "good" if mean > 0 else "bad" if mean < 0 else "plain"
    if found.gain:
        cells.append((f"{signed(mean) if mean is not None else '':>{found.gain}}", tone))
    if found.interval:
        cells.append((f"{interval((node.gain or {}).get('interval'), True):>{found.interval}}", "dim"))
    return cells


def fit(spans: list[Span], width: int) -> list[Span]:
    """`spans` cut with an ellipsis, or padded, to `width` cells."""
    kept: list[Span] = []
    room = width
    for text, tone in spans:
        if cell_len(text) > room:
            kept.append((set_cell_size(text, room - 1) + "…" if room > 0 else "", tone))
            room = 0
            break
        kept.append((text, tone))
        room -= cell_len(text)
    return [*kept, (" " * room, "plain")] if room else kept
