"""Labelled lines that wrap under their values, at whatever width the widget has."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.view.format import Line, hang


class Hanging(Widget):
    """Text as tall as its lines need; `indent` is where a line goes on."""

    def __init__(self, indent: int, lines: list[Line] | None = None, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._indent = indent
        self._lines = lines or []

    def show(self, lines: list[Line]) -> None:
        """Replace the lines."""
        if lines != self._lines:
            self._lines = lines
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._rows(width)))

    def render(self) -> Content:
        return paint_lines(self._rows(self.content_size.width))

    def _rows(self, width: int) -> list[Line]:
        return [row for line in self._lines for row in hang(line, max(self._indent + 8, width), self._indent)]
