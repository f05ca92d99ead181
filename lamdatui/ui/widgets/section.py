"""Parts of a page that is read: bordered lines, and a chart of losses that is as wide as its place."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Resize
from textual.widget import Widget

from lamdatui.ui.compare import curves
from lamdatui.ui.widgets.hanging import Hanging
from lamdatui.ui.widgets.paint import paint_lines


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
