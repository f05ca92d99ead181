"""Small modal screens to write in: a line, a text. Nothing is sent from here."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from lamdatui.base.text import one_line
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.stack import leave


class LineScreen(ModalScreen[str | None]):
    """One line that says something, or None when it was left."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS = [*bindings("line")]

    def __init__(self, title: str, text: str, limit: int, value: str = "") -> None:
        super().__init__(classes="line-screen")
        self._title = title
        self._text = text
        self._limit = limit
        self._value = value

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"enter sends · {shown('line-back')} goes back")
            yield Static(self._text, markup=False, classes="dialog-text")
            yield Input(self._value, max_length=self._limit, compact=True, classes="dialog-line")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if said := one_line(event.value):
            leave(self, said)
        else:
            self.app.bell()

    def action_cancel(self) -> None:
        leave(self, None)


class PageScreen(ModalScreen[str | None]):
    """A text, which may be empty, or None when it was left."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "TextArea"
    BINDINGS = [*bindings("page")]

    def __init__(self, title: str, text: str, limit: int, value: str = "") -> None:
        super().__init__(classes="page-screen")
        self._title = title
        self._text = text
        self._limit = limit
        self._value = value

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -page") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"{shown('page-save')} saves · {shown('page-back')} goes back")
            yield Static(self._text, markup=False, classes="dialog-text")
            yield TextArea(self._value, soft_wrap=True, compact=True)
            yield Static("", markup=False, id="page-verdict")

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        self._count()

    @on(TextArea.Changed)
    def _changed(self) -> None:
        self._count()

    def warn(self, text: str) -> None:
        """Say something about what is edited, above it."""
        line = self.query_one(".dialog-text", Static)
        line.update(text)
        line.add_class("-warning")

    def action_save(self) -> None:
        text = one_line(self.query_one(TextArea).text)
        if len(text) > self._limit:
            self.app.bell()
            return
        leave(self, text)

    def action_cancel(self) -> None:
        leave(self, None)

    def _count(self) -> None:
        used = len(one_line(self.query_one(TextArea).text))
        verdict = self.query_one("#page-verdict", Static)
        verdict.set_class(used > self._limit, "-invalid")
        over = f" · ✗ {used - self._limit} too many" if used > self._limit else ""
        verdict.update(f"{used} of {self._limit} characters{over}")
