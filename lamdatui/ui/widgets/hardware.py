"""The hardware pane: the running step's progress and loss, GPUs, the host."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from lamdatui.ui.hardware import DETAILS, Detail, hardware_lines
from lamdatui.ui.keys import bindings
from lamdatui.ui.state import ViewState
from lamdatui.ui.widgets.paint import paint_lines
from lamdatui.ui.words import Line

TITLE = "4 GPU · CPU"


class HardwarePane(VerticalScroll):
    """Text that is laid out for the size that the pane has."""

    BINDINGS = [*bindings("hardware", "scroll")]

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="hardware", classes="pane")
        self.border_title = Content(TITLE)
        self._view = view
        self._detail: Detail = "auto"
        self._body = Static(markup=False, id="hardware-body")
        self._lines: list[Line] = []
        self._rows = 0

    def compose(self) -> ComposeResult:
        yield self._body

    def update_view(self) -> None:
        """Show the state again."""
        room = self.scrollable_content_region
        # Room for a scrollbar is always left: bars that fill the pane must not wrap when one appears.
        width = room.width - (0 if self.show_vertical_scrollbar else 1)
        lines = hardware_lines(self._view, max(1, width), room.height, self._detail)
        if lines == self._lines:
            return
        # The body is never less tall than the pane: only more lines than there is room for lay the screen out anew.
        rows = max(len(lines), room.height)
        self._body.update(paint_lines(lines), layout=rows != self._rows)
        self._lines, self._rows = lines, rows

    def on_resize(self, event: Resize) -> None:
        self.update_view()

    def action_detail(self) -> None:
        """The next level of detail."""
        self._detail = DETAILS[(DETAILS.index(self._detail) + 1) % len(DETAILS)]
        self.border_title = Content(TITLE if self._detail == "auto" else f"{TITLE} · {self._detail}")
        self.update_view()
        self.scroll_home(animate=False)
        if self._detail == "auto":
            self.notify("Detail auto: as much as fits.")
        else:
            self.notify(f"Detail {self._detail}.")
