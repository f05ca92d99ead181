"""The tab strip that stands for the panes that a narrow terminal can't show."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Static

from lamdatui.ui.view.state import ViewState

PANES = ("pipeline", "activity", "logs", "hardware")
NAMES = {"pipeline": "Pipeline", "activity": "Activity", "logs": "Logs", "hardware": "GPU"}


class Tab(Static):
    """One name; a click shows its pane."""

    @dataclass
    class Chosen(Message):
        """A tab was clicked."""

        pane: str

    def __init__(self, pane: str) -> None:
        super().__init__(markup=False, id=f"tab-{pane}", classes="tab -active" if pane == PANES[0] else "tab")
        self._pane = pane
        self._shown = ""

    def show(self, text: str) -> None:
        """Show a text; one that is as wide as the one before must not lay the screen out anew."""
        if text != self._shown:
            self.update(text, layout=len(text) != len(self._shown))
            self._shown = text

    def on_click(self) -> None:
        self.post_message(self.Chosen(self._pane))


class TabStrip(Horizontal):
    """Names of the panes with how much is unread in each."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="tabs")
        self._view = view

    def compose(self) -> ComposeResult:
        yield from (Tab(pane) for pane in PANES)

    def show(self, active: str) -> None:
        """Mark the active pane and the unread counts."""
        for place, pane in enumerate(PANES, 1):
            unread = self._view.unread.get(pane, 0)
            tab = self.query_one(f"#tab-{pane}", Tab)
            tab.show(f"{place} {NAMES[pane]}{f' {unread} new' if unread and pane != active else ''}")
            tab.set_class(pane == active, "-active")
