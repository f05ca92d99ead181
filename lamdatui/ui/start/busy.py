"""A command that runs while one waits: what it says, and its error with the fix when it fails."""

from __future__ import annotations

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from lamdatui.base.errors import CONFIRM_TITLE, UNCONFIRMED
from lamdatui.base.text import one_line
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit import commandline
from lamdatui.ui.kit.stack import DIALOG_STYLES, leave, open_over

LINES = 6


class BusyScreen(ModalScreen[str | None]):
    """Gives the command's output, or None when it failed or was left; leaving ends the command.

    One that ends because a profile has to be confirmed first asks for that, and goes on after a yes.
    """

    CSS_PATH = DIALOG_STYLES
    BINDINGS = [*bindings("dialog")]

    def __init__(self, title: str, arguments: list[str]) -> None:
        super().__init__(classes="busy-screen")
        self._title = title
        self._arguments = arguments
        self._said: list[str] = []
        self._whole: list[str] = []
        """All that it said, as it said it."""
        self._asks = False
        """Whether a question waits until nothing covers this screen any more."""
        self._output: str | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(one_line(self._title))
            box.border_subtitle = Content(f"{shown('dialog-back')} gives it up")
            yield Static("one moment…", markup=False, id="busy-text")

    def on_mount(self) -> None:
        self._run()

    @work
    async def _run(self) -> None:
        ended = await commandline.run(*self._arguments, said=self._hear)
        if ended.code == 0:
            self._output = ended.output.strip()
            self.on_screen_resume()
            return
        if any(line.startswith(f"error: {UNCONFIRMED}") for line in ended.errors) and "--trust" not in self._arguments:
            self._confirm()
            return
        told = [line for line in ended.errors if line][-LINES:] or [f"it ended with status {ended.code}"]
        box = self.query_one(".dialog", Vertical)
        box.add_class("-failed")
        box.border_title = Content(f"✗ {one_line(self._title)}: failed")
        box.border_subtitle = Content(f"{shown('dialog-back')} goes back")
        self.query_one("#busy-text", Static).update("\n".join(told))

    def _confirm(self) -> None:
        from lamdatui.ui.kit.dialogs import ConfirmScreen

        asked = self._whole[self._whole.index(CONFIRM_TITLE) :] if CONFIRM_TITLE in self._whole else self._whole
        text = "\n".join(line for line in asked if not line.startswith(("error: ", "  where: ", "  fix: ")))
        choices = {"": "No, start nothing", "trust": "Yes, run and reach this from now on"}
        self._asks = not open_over(self, ConfirmScreen("Confirm what the profile names", text, choices), self._confirmed)

    def _confirmed(self, choice: str | None) -> None:
        if choice != "trust":
            leave(self, None)
            return
        self._arguments = [*self._arguments, "--trust"]
        self._whole = []
        self._run()

    def on_screen_resume(self) -> None:
        # Where help or a question covers it when the command ends, it closes after that.
        if self._output is not None:
            leave(self, self._output)
        elif self._asks:
            self._confirm()

    def _hear(self, line: str) -> None:
        self._whole.append(line)
        if line.strip():
            self._said = [*self._said, one_line(line)][-LINES:]
            self.query_one("#busy-text", Static).update("\n".join(self._said))

    def action_cancel(self) -> None:
        leave(self, None)

    def action_move(self, by: int) -> None:
        """There is nothing to move in."""
