"""The hardware pane: the running step's progress and loss, GPUs, the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.sheet import Sheet
from lamdatui.ui.view.state import ViewState

if TYPE_CHECKING:
    from lamdatui.ui.hardware.text import Detail

TITLE = "4 GPU · CPU"


class HardwarePane(VerticalScroll):
    """Text that is laid out for the size that the pane has."""

    BINDINGS = [*bindings("hardware", "scroll")]

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="hardware", classes="pane")
        self.border_title = Content(TITLE)
        self._view = view
        self._detail: Detail = "auto"
        self._filled = False
        """The first paint does without the text, and without what lays it out."""
        self._body = Sheet(id="hardware-body")

    def compose(self) -> ComposeResult:
        yield self._body

    def update_view(self) -> None:
        """Show the state again."""
        from lamdatui.ui.hardware.text import hardware_lines

        self._filled = True
        room = self.scrollable_content_region
        # Room for a scrollbar is always left: bars that fill the pane must not wrap when one appears.
        width = room.width - (0 if self.show_vertical_scrollbar else 1)
        self._body.show(hardware_lines(self._view, max(1, width), room.height, self._detail), room.height)

    def on_resize(self, event: Resize) -> None:
        if self._filled:
            self.update_view()

    def action_detail(self) -> None:
        """The next level of detail."""
        from lamdatui.ui.hardware.text import DETAILS

        self._detail = DETAILS[(DETAILS.index(self._detail) + 1) % len(DETAILS)]
        self.border_title = Content(TITLE if self._detail == "auto" else f"{TITLE} · {self._detail}")
        self.update_view()
        self.scroll_home(animate=False)
        if self._detail == "auto":
            self.notify("Detail auto: as much as fits.")
        else:
            self.notify(f"Detail {self._detail}.")
