"""Rows of the pipeline as lines: lineage marks, guides, glyph and word, columns. Pure: rows in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from lamdatui.base.text import one_line
from lamdatui.domain.verdicts import corrected, direction, looks
from lamdatui.ui.lineage.forest import Facts, Forest, TreeRow
from lamdatui.ui.view.format import Line, Span, Tone, fit, interval, score, signed

GUTTER = 2
"""Cells before a row: whether it is marked, and whether it is the best model or leads to it."""
LEFT = GUTTER + 3
"""Cells of a row beside guides and name: gutter, fold sign, glyph and its space."""
NAME = 16
"""Cells that a name keeps at the least."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns fit, and how wide they are; the name takes what is left. `guides` caps the guides of deep rows."""

    tasks: tuple[tuple[str, int], ...]
    gain: int = 0
    interval: int = 0
    cost: int = 0
    guides: int = 8

    @property
    def width(self) -> int:
        """Cells of all columns."""
        return sum(width for _, width in self.tasks) + self.gain + self.interval + self.cost


def columns(names: Iterable[str], width: int, depth: int) -> Columns:
    """The columns that fit: gain first, then tasks, the gain's interval, cost."""
    guides = min(2 * depth, max(6, width // 4))
    room = width - guides - LEFT - NAME
    if room < 6:
        return Columns((), guides=guides)
    room -= 6
    names, chosen = list(names), list[tuple[str, int]]()
    for name in names:
        need = max(5, min(len(name), 10) + 1)
        if need > room and room >= 6:
            need = 6
        if need > room:
            break
        chosen.append((name, need))
        room -= need
    complete = len(chosen) == len(names)
    between = 15 if complete and room >= 15 else 0
    return Columns(tuple(chosen), 6, between, 6 if complete and room - between >= 6 else 0, guides)


def header(found: Columns, width: int, left: str) -> str:
    """The line above the rows: what they are, and names of the columns, right-aligned like their values."""
    text = "".join(f" {_right(_short(name, size - 1), size - 1)}" for name, size in found.tasks)
    for name, size in (("gain", found.gain), ("95%, search", found.interval), ("cost", found.cost)):
        text += f"{name:>{size}}" if size else ""
    room = max(0, width - cell_len(text))
    return set_cell_size(set_cell_size(f"   {_short(left, room - 3)}", room) + text, width)


def row_line(row: TreeRow, pipeline: Forest, found: Columns, width: int) -> Line:
    """One line of exactly `width` cells."""
    node, facts, reference = row.node, row.node.facts, row.above is not None
    best = pipeline.best is node and not reference
    gutter: list[Span] = [("◆" if node.key == pipeline.marked else " ", "wait"), _lineage(row, pipeline, best)]
    guide, hidden = _guide(row, pipeline, found.guides), pipeline.hidden(row)
    right = [] if reference else _cells(facts, found, looks(node.run))
    room = width - GUTTER - cell_len(guide) - sum(cell_len(text) for text, _ in right)
    if reference:
        left: list[Span] = [("↳ ", "dim"), (one_line(f"{node.model or node.number} (merge)"), "dim")]
        return (*gutter, (guide, "dim"), *fit(left, room))
    faint = pipeline.matching is not None and node.key not in pipeline.matching
    name = facts.name if pipeline.order == "number" else facts.full
    tone: Tone = "dim" if faint else "strong" if best else "plain"
    left = [(f"{facts.sign.glyph} ", "dim" if faint else facts.sign.tone), (name, tone)]
    if best:
        star = " best" if cell_len(name) + 7 <= room else ""
        left.append((star, "wait"))
    if hidden:
        left.append((f" +{hidden}", "run"))
    used = sum(cell_len(text) for text, _ in left)
    # That a model is done is told by its scores too; the word comes where it cuts nothing.
    if facts.note and (facts.note not in ("done", "cached") or used + len(facts.note) + 2 <= room):
        left.append((f"  {facts.note}", "dim" if facts.note == "done" or faint else facts.sign.tone))
    return (*gutter, (guide, "dim"), *fit(left, room), *right)


def _lineage(row: TreeRow, pipeline: Forest, best: bool) -> Span:
    if best:
        return ("★", "wait")
    return ("┃", "wait") if row.node.key in pipeline.path and row.above is None else (" ", "plain")


def _guide(row: TreeRow, pipeline: Forest, most: int) -> str:
    """Guides and fold sign; of a deep row the levels that are left out are counted: `12›│ ├▾`."""
    sign = "─" if row.depth else " "
    if pipeline.foldable(row):
        sign = "▸" if pipeline.hidden(row) else "▾"
    if not row.depth:
        return sign
    *before, last = pipeline.lasts(row)
    guide = "".join("  " if done else "│ " for done in before) + ("└" if last else "├")
    if len(guide) > most:
        count = f"{row.depth}›"
        guide = count + guide[len(guide) - max(1, most - len(count)) :]
    return guide + sign


def guide_cells(row: TreeRow, found: Columns) -> int:
    """Cells before the fold sign."""
    return min(max(0, 2 * row.depth - 1), max(found.guides, len(f"{row.depth}›") + 1)) if row.depth else 0


def _cells(node: Facts, found: Columns, count: int) -> list[Span]:
    """Values under the header's names; what has no scores leaves their place to its note. Coloured is what `count` looks leave above or below zero."""
    if not (node.scores or node.gain):
        return [(f"{brief_seconds(node.cost):>{found.cost}}", "dim")] if found.cost and node.cost is not None else []
    cells: list[Span] = [(f"{score(node.scores.get(name)):>{size}}", "plain") for name, size in found.tasks]
    gain = node.gain or {}
    mean = gain.get("mean")
    tone: Tone = ("plain", "good", "bad")[direction(gain, count)]
    if found.gain:
        cells.append((f"{signed(mean) if mean is not None else '':>{found.gain}}", tone))
    if found.interval:
        cells.append((f"{interval(corrected(gain, count), True):>{found.interval}}", "dim"))
    if found.cost:
        cells.append((f"{brief_seconds(node.cost):>{found.cost}}", "dim"))
    return cells


def brief_seconds(seconds: float | None) -> str:
    """`0.4s`, `38s`, `12m`, `3.1h`, for a narrow column; empty where it is unknown."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    if seconds < 5970:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.1f}h" if hours < 99.5 else f"{hours:.0f}h"


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _short(name: str, width: int) -> str:
    name = one_line(name)
    return name if cell_len(name) <= width else f"{set_cell_size(name, width - 1)}…" if width > 0 else ""
