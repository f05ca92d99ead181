"""The form for a profile of one's own: a model, files of rows, a task; `lamdatui init` does the rest."""

from __future__ import annotations

import shlex

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from lamdatui.base.paths import config_dir
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.stack import DIALOG_STYLES, leave
from lamdatui.ui.start.newrun import NAME

FIELDS = (
    ("name", "of the profile", 64),
    ("model", "its folder, an adapter's, or catalogue:NAME", 4096),
    ("data", "files, folders or patterns of rows; several with spaces between them", 65536),
    ("task", "rows to score on; empty: rows are held out of the data", 4096),
)
"""Field, what is said in it while it is empty, and the characters that it takes."""


class NewProfileScreen(ModalScreen[list[str] | None]):
    """Gives the arguments of `lamdatui init`, or None when it was left."""

    CSS_PATH = DIALOG_STYLES
    AUTO_FOCUS = "#newprofile-name"
    BINDINGS = [*bindings("newprofile")]

    def __init__(self) -> None:
        super().__init__(classes="newrun-screen")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = Content("A profile for your own model and data")
            box.border_subtitle = Content(f"enter makes it · {shown('newprofile-back')} goes back")
            for name, hint, most in FIELDS:
                with Horizontal(classes="edit-line"):
                    yield Label(name, classes="newrun-label")
                    yield Input(
                        placeholder=hint, compact=True, id=f"newprofile-{name}", classes="newprofile-field", max_length=most
                    )
            yield Static(f"It is written to {config_dir() / 'profiles'}, and checked.", markup=False, id="newrun-verdict")

    @on(Input.Submitted)
    def action_make(self) -> None:
        problem, files = self._problem()
        if problem:
            line = self.query_one("#newrun-verdict", Static)
            line.update(f"✗ {problem}")
            line.add_class("-invalid")
            self.app.bell()
            return
        found = [
            "init",
            "--model",
            self._value("model"),
            "--to",
            str(config_dir() / "profiles" / f"{self._value('name')}.yaml"),
            "--yes",
        ]
        for file in files:
            found += ["--data", file]
        leave(self, found + (["--task", task] if (task := self._value("task")) else []))

    def action_cancel(self) -> None:
        leave(self, None)

    def _problem(self) -> tuple[str, list[str]]:
        """What is wrong, and the files."""
        try:
            files = shlex.split(self._value("data"))
        except ValueError as error:
            return f"data: {error}".lower(), []
        if not NAME.fullmatch(self._value("name")):
            return "a name has letters, digits, dots, dashes and underscores", files
        missing = [name for name in ("model", "data") if not self._value(name)]
        return (f"{missing[0]} is empty" if missing else ""), files

    def _value(self, name: str) -> str:
        return self.query_one(f"#newprofile-{name}", Input).value.strip()
