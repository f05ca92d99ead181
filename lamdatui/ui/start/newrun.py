"""The form for a new run: its name, mode and trials, and what `lamdatui check` finds before it starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label, RadioButton, RadioSet, Static

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.domain.decisions import MODES
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit import commandline
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.stack import DIALOG_STYLES, leave
from lamdatui.ui.start.text import finding_lines, merged, verdict
from lamdatui.ui.view.format import Line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MODE_HINTS = {
    "read-only": "proposes, runs nothing",
    "ask": "asks before each step",
    "ask-risky": "asks before what is long or on a GPU",
    "auto": "asks nothing until the budget is used",
}


class ModeButton(RadioButton):
    """Says whether it is chosen without any colour."""

    @property
    def _button(self) -> Content:
        return Content("(•)" if self.value else "( )")


class ModeSet(RadioSet):
    """An arrow chooses at once; enter is left to the form."""

    class Submitted(Message):
        """Enter was pressed on the modes."""

    def on_focus(self) -> None:
        self._selected = self.pressed_index

    def on_key(self, event: Key) -> None:
        if event.key == "enter":
            event.stop()
            self.post_message(self.Submitted())

    def action_next_button(self) -> None:
        super().action_next_button()
        self._choose()

    def action_previous_button(self) -> None:
        super().action_previous_button()
        self._choose()

    def _choose(self) -> None:
        # The set moves to its first button by itself when it is mounted.
        if self.has_focus and self._selected != self.pressed_index:
            self.action_toggle_button()


class NewRunScreen(ModalScreen[list[str] | None]):
    """Gives the arguments of `lamdatui run`, or None when it was left."""

    CSS_PATH = DIALOG_STYLES
    AUTO_FOCUS = "#newrun-name"
    BINDINGS = [*bindings("newrun")]

    def __init__(self, profile: str, summary: str, runs_dir: Path) -> None:
        super().__init__(classes="newrun-screen")
        self._profile = profile
        self._summary = summary
        self._runs_dir = runs_dir
        self._findings: list[dict[str, Any]] | None = None
        self._wanted = False
        self._warned = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = Content(f"Start a run of {self._profile}")
            box.border_subtitle = Content(f"enter starts · {shown('newrun-back')} goes back")
            if self._summary:
                yield Static(self._summary, markup=False, classes="dialog-text")
            with Horizontal(classes="edit-line"):
                yield Label("name", classes="newrun-label")
                yield Input(placeholder=f"empty: {self._profile}-1, -2, …", compact=True, id="newrun-name", max_length=64)
            with Horizontal(classes="edit-line"):
                yield Label("mode", classes="newrun-label")
                with ModeSet(id="newrun-mode", compact=True):
                    for mode in MODES:
                        yield ModeButton(mode, value=mode == "ask", compact=True)
            yield Static(MODE_HINTS["ask"], markup=False, id="newrun-hint")
            with Horizontal(classes="edit-line"):
                yield Label("trials", classes="newrun-label")
                yield Input(placeholder="empty: as the profile says", compact=True, id="newrun-trials", max_length=7)
            yield Static("checking the profile…", markup=False, id="newrun-verdict")
            with VerticalScroll(id="newrun-findings", can_focus=True):
                yield Hanging(4, id="newrun-lines")

    def on_mount(self) -> None:
        self._check()

    @work
    async def _check(self) -> None:
        try:
            found = await commandline.ask("check", self._profile, "--runs-dir", str(self._runs_dir))
            # What is wrong comes first; what is fine is below it.
            self._findings = sorted(found, key=lambda item: {"bad": 0, "warn": 1, "info": 2}.get(item["status"], 3))
            text = verdict(self._findings)
        except (LamdatuiError, KeyError, TypeError) as error:
            fix = error.where if isinstance(error, LamdatuiError) else ""
            self._findings = [{"status": "bad", "subject": "profile", "detail": one_line(error), "fix": fix}]
            text = "✗ the profile can't be checked"
        lines: list[Line] = [line for item in merged(self._findings) for line in finding_lines(item, 400)]
        self.query_one("#newrun-lines", Hanging).show(lines)
        self._say(text, bad=self._has_problem)
        if self._wanted:
            self.action_start()

    @property
    def _has_problem(self) -> bool:
        return any(item["status"] == "bad" for item in self._findings or [])

    @on(RadioSet.Changed)
    def _mode_changed(self, event: RadioSet.Changed) -> None:
        self.query_one("#newrun-hint", Static).update(MODE_HINTS[MODES[event.index]])

    @on(Input.Submitted)
    @on(ModeSet.Submitted)
    def _submitted(self) -> None:
        self.action_start()

    def action_start(self) -> None:
        problem = self._problem()
        if problem:
            self._wanted = False
            self._say(f"✗ {problem}", bad=True)
            self.app.bell()
        elif self._findings is None:
            self._wanted = True
            self._say("checking the profile… the run starts when nothing is broken")
        elif self._has_problem and not self._warned:
            self._wanted, self._warned = False, True
            self._say(f"{verdict(self._findings)}; again to start anyway", bad=True)
        else:
            leave(self, self._arguments())

    def action_cancel(self) -> None:
        leave(self, None)

    def _problem(self) -> str:
        name, trials = self._value("name"), self._value("trials")
        if name and (not NAME.fullmatch(name) or name == "store"):
            return "a name has letters, digits, dots, dashes and underscores, and is not 'store'"
        if trials and not (trials.isdecimal() and int(trials) >= 1):
            return "trials is a whole number, 1 or more"
        return ""

    def _arguments(self) -> list[str]:
        found = [self._profile, "--mode", MODES[max(0, self.query_one(RadioSet).pressed_index)]]
        found += ["--name", name] if (name := self._value("name")) else []
        return found + (["--max-trials", trials] if (trials := self._value("trials")) else [])

    def _value(self, name: str) -> str:
        return self.query_one(f"#newrun-{name}", Input).value.strip()

    def _say(self, text: str, *, bad: bool = False) -> None:
        line = self.query_one("#newrun-verdict", Static)
        line.update(text)
        line.set_class(bad, "-invalid")
