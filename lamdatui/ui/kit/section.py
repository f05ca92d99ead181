"""Parts of a page that is read: bordered lines, and a chart of losses that is as wide as its place."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Resize
from textual.widget import Widget

from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.view.format import Line, Span

FIRST, SECOND, BOTH = "●", "○", "◉"
"""What draws the first curve, the second, and where they meet."""
LABELS = 10
"""Cells of the labels beside a chart."""


class Section(Hanging):
    """Lines with a title."""

    def __init__(self, name: str, title: str, indent: int) -> None:
        super().__init__(indent, id=name)
        self.add_class("section")
        self.border_title = Content(title)


class Curves(Widget):
    """One or two loss curves on one scale."""

    def __init__(self, name: str, title: str) -> None:
        super().__init__(id=name, classes="section -curves")
        self.border_title = Content(title)
        self._series: list[tuple[str, Sequence[float]]] = []

    def show(self, series: list[tuple[str, Sequence[float]]]) -> None:
        """Replace the curves."""
        if series != self._series:
            self._series = series
            self.refresh()

    def on_resize(self, event: Resize) -> None:
        self.refresh()

    def render(self) -> Content:
        return paint_lines(curves(self._series, self.content_size.width, max(2, self.content_size.height - 1)))


def curves(series: Sequence[tuple[str, Sequence[float]]], width: int, height: int) -> list[Line]:
    """Loss curves over each other on one scale: `●` the first, `○` the second, `◉` where they meet.

    Each curve has the whole width for its steps, so that runs of another length can be compared by shape.
    """
    drawn = [list(values) for _, values in series]
    known = [value for values in drawn for value in values]
    if not known or width < LABELS + 2 or height < 2:
        return [(("no losses were written", "dim"),)]
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    room = width - LABELS
    grid: list[list[int]] = [[0] * room for _ in range(height)]
    for bit, values in enumerate(drawn, 1):
        for column in range(room if values else 0):
            value = values[min(len(values) - 1, column * len(values) // room)]
            grid[height - 1 - round((value - low) / span * (height - 1))][column] |= bit
    lines: list[Line] = []
    for place, cells in enumerate(grid):
        label = _label(high) if place == 0 else _label(low) if place == height - 1 else " " * LABELS
        lines.append(((label, "dim"), *_runs(cells)))
    names: list[Span] = [(" " * LABELS, "plain")]
    for glyph, (name, values) in zip((FIRST, SECOND), series, strict=False):
        last = f", last {values[-1]:.3f}" if values else ", no losses"
        names.append((f"{glyph} {name}: {len(values)} steps{last}   ", "dim"))
    return [*lines, tuple(names)]


def _label(value: float) -> str:
    text = f"{value:.3g}" if len(f"{value:.3g}") < LABELS else f"{value:.0e}"
    return f"{text:>{LABELS - 1}} "


def _runs(cells: Sequence[int]) -> list[Span]:
    shown: dict[int, Span] = {0: (" ", "plain"), 1: (FIRST, "run"), 2: (SECOND, "wait"), 3: (BOTH, "strong")}
    spans: list[Span] = []
    for cell in cells:
        text, tone = shown[cell]
        if spans and spans[-1][1] == tone:
            spans[-1] = (spans[-1][0] + text, tone)
        else:
            spans.append((text, tone))
    return spans
