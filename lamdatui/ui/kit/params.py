"""Fields for hyperparameters, one row each, checked while they are typed. The edit form and the action form share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Label, Static

from lamdatui.base.text import clean
from lamdatui.ui.view.drafts import hint
from lamdatui.ui.view.format import number

if TYPE_CHECKING:
    from lamdatui.domain.actions import Param, Value


class ParamFields(VerticalScroll, can_focus=False):
    """Rows for the declared hyperparameters. `before` is what a changed value is marked against."""

    class Changed(Message):
        """Something was typed."""

    def __init__(self, declared: Sequence[Param], before: Mapping[str, Value], now: Mapping[str, Value]) -> None:
        super().__init__(id="edit-rows")
        self._declared = list(declared)
        self._before = dict(before)
        self._now = dict(now)
        # Held, not queried: when the form is left while it opens, its rows go before they are all there.
        self._inputs = [Input(number(now[param.name]), compact=True, id=f"edit-{i}") for i, param in enumerate(declared)]
        self._hints = [Static(hint(param), markup=False, classes="edit-hint") for param in declared]

    def compose(self) -> ComposeResult:
        for param, field, line in zip(self._declared, self._inputs, self._hints, strict=True):
            with Vertical(classes="edit-row"):
                with Horizontal(classes="edit-line"):
                    yield Label(param.name, markup=False, classes="edit-name")
                    yield field
                yield line

    def on_mount(self) -> None:
        self.mark()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.mark()
        self.post_message(self.Changed())

    def read(self) -> tuple[dict[str, Value], dict[int, str]]:
        """All values, and the problem of each row that can't be used (its value stays as it was)."""
        values, problems = dict(self._before), dict[int, str]()
        for index, param in enumerate(self._declared):
            typed = self._inputs[index].value
            try:
                # `number` shortens what it shows, so an untouched field keeps its exact value.
                same = typed == number(self._now[param.name])
                values[param.name] = self._now[param.name] if same else param.parse(typed)
            except ValueError as error:
                problems[index] = clean(str(error))
        return values, problems

    def mark(self) -> None:
        """Mark what was changed and what can't be used."""
        values, problems = self.read()
        for index, param in enumerate(self._declared):
            line = self._hints[index]
            line.update(f"✗ {problems[index]}" if index in problems else hint(param))
            line.set_class(index in problems, "-invalid")
            changed = index not in problems and values[param.name] != self._before[param.name]
            self._inputs[index].set_class(changed, "-changed")
