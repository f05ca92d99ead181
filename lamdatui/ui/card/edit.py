"""The edit form: one row per declared hyperparameter, checked while it is typed. Nothing runs from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from lamdatui.domain.actions import Param, Value
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.params import ParamFields
from lamdatui.ui.kit.stack import DIALOG_STYLES, leave


@dataclass(frozen=True, slots=True)
class Filled:
    """All hyperparameters with their new values; `in_editor`: the person wants to go on in an editor."""

    params: dict[str, Value]
    in_editor: bool = False


class EditScreen(ModalScreen[Filled | None]):
    """Gives the values, or None when it was left."""

    CSS_PATH = DIALOG_STYLES
    AUTO_FOCUS = "Input"
    BINDINGS = [*bindings("edit")]

    def __init__(self, title: str, declared: Sequence[Param], proposed: Mapping[str, Value], now: Mapping[str, Value]) -> None:
        super().__init__(classes="edit-screen")
        self._title = title
        self._proposed = dict(proposed)
        self._fields = ParamFields([param for param in declared if param.name in proposed], proposed, now)
        self._verdict = Static("", markup=False, id="edit-verdict")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(
                f"enter uses these values · {shown('edit-editor')} editor · {shown('edit-back')} goes back"
            )
            yield self._fields
            yield self._verdict

    def on_mount(self) -> None:
        self._check()

    @on(ParamFields.Changed)
    def _changed(self) -> None:
        self._check()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self._give(in_editor=False)

    def action_editor(self) -> None:
        self._give(in_editor=True)

    def _give(self, *, in_editor: bool) -> None:
        values, problems = self._fields.read()
        if problems:
            self._check()
            self.app.bell()
            return
        leave(self, Filled(values, in_editor))

    def action_cancel(self) -> None:
        leave(self, None)

    def _check(self) -> None:
        values, problems = self._fields.read()
        count = sum(values[name] != before for name, before in self._proposed.items())
        verdict = self._verdict
        verdict.set_class(bool(problems), "-invalid")
        if problems:
            verdict.update(f"✗ {len(problems)} value{'s' if len(problems) > 1 else ''} can't be used yet")
        else:
            verdict.update(f"✓ {count} changed; the card shows the difference before anything runs")
