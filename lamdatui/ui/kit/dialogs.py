"""Small modal screens: choose one of a few things, read a text."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.stack import leave
from lamdatui.ui.view.format import Line


class ChoiceScreen(ModalScreen[str]):
    """A question with a few answers; the first is the default, escape gives an empty string."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS = [*bindings("dialog")]

    def __init__(self, title: str, text: str, choices: dict[str, str]) -> None:
        super().__init__(classes="choice-screen")
        self._title = title
        self._text = text
        self._choices = choices

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"enter chooses · {shown('dialog-back')} goes back")
            if self._text:
                yield Static(self._text, markup=False, classes="dialog-text")
            yield OptionList(*(Option(Content(label), id=key) for key, label in self._choices.items()), markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        leave(self, event.option.id or "")

    def action_move(self, by: int) -> None:
        choices = self.query_one(OptionList)
        (choices.action_cursor_down if by > 0 else choices.action_cursor_up)()

    def action_cancel(self) -> None:
        leave(self, "")


class ConfirmScreen(ChoiceScreen):
    """A question over a text that may be longer than the screen: it scrolls, and not a word of it is left out."""

    AUTO_FOCUS = "OptionList"

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -confirm") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"enter chooses · tab reads · {shown('dialog-back')} goes back")
            with VerticalScroll(id="confirm-text"):
                yield Static(self._text, markup=False, classes="dialog-text")
            yield OptionList(*(Option(Content(label), id=key) for key, label in self._choices.items()), markup=False)


class TextScreen(ModalScreen[None]):
    """A text to read in full."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS = [*bindings("text")]

    def __init__(self, title: str, lines: list[Line], indent: int = 0) -> None:
        super().__init__()
        self._title = title
        self._lines = lines
        self._indent = indent

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -text") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"{shown('text-back')} goes back")
            yield Hanging(self._indent, self._lines)

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)
