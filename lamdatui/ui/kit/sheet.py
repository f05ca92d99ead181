"""Lines of text in a pane that scrolls."""

from __future__ import annotations

from textual.widgets import Static

from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.view.format import Line


class Sheet(Static):
    """The style sheet makes it at least as tall as its pane: only lines that have no room there lay the screen out anew."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(markup=False, id=id, classes="sheet")
        self._lines: list[Line] = []
        self._rows = 0

    def show(self, lines: list[Line], room: int) -> None:
        """Replace the lines; `room` is the height of the pane. The same lines again paint nothing."""
        if lines == self._lines:
            return
        rows = max(len(lines), room)
        self.update(paint_lines(lines), layout=rows != self._rows)
        self._lines, self._rows = lines, rows
