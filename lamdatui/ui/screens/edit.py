"""The edit form: one row per declared hyperparameter, checked while it is typed. Nothing runs from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from lamdatui.actions import Param, Value
from lamdatui.ui.sanitize import clean
from lamdatui.ui.words import number

Json = dict[str, Any]


class EditScreen(ModalScreen[Json | None]):
    """Gives all hyperparameters with their new values, or None when nothing was changed or it was left."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS = [
        Binding("escape", "cancel", "Back", id="edit-back", tooltip="Close without changing anything"),
        Binding("down", "app.focus_next", "Next", show=False, id="edit-next", tooltip="Next field"),
        Binding("up", "app.focus_previous", "Before", show=False, id="edit-previous", tooltip="Field before"),
    ]

    def __init__(self, title: str, declared: Sequence[Param], proposed: Mapping[str, Value], now: Mapping[str, Value]) -> None:
        super().__init__(classes="edit-screen")
        self._title = title
        self._declared = [param for param in declared if param.name in proposed]
        self._proposed = dict(proposed)
        self._now = dict(now)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = self._title
            box.border_subtitle = "enter uses these values · esc goes back"
            with VerticalScroll(id="edit-rows", can_focus=False):
                for index, param in enumerate(self._declared):
                    with Vertical(classes="edit-row"):
                        with Horizontal(classes="edit-line"):
                            yield Label(param.name, markup=False, classes="edit-name")
                            yield Input(number(self._now[param.name]), compact=True, id=f"edit-{index}")
                        yield Static(hint(param), markup=False, classes="edit-hint", id=f"hint-{index}")
            yield Static("", markup=False, id="edit-verdict")

    def on_mount(self) -> None:
        self._check()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._check()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        values, problems = self._read()
        if problems:
            self._check()
            self.app.bell()
            return
        self.dismiss(values if values != self._proposed else {})

    def action_cancel(self) -> None:
        self.dismiss(None)

    def _read(self) -> tuple[dict[str, Value], dict[int, str]]:
        values, problems = dict(self._proposed), dict[int, str]()
        for index, param in enumerate(self._declared):
            typed = self.query_one(f"#edit-{index}", Input).value
            try:
                # `number` shortens what it shows, so an untouched field keeps its exact value.
                same = typed == number(self._now[param.name])
                values[param.name] = self._now[param.name] if same else param.parse(typed)
            except ValueError as error:
                problems[index] = clean(str(error))
        return values, problems

    def _check(self) -> None:
        values, problems = self._read()
        for index, param in enumerate(self._declared):
            line = self.query_one(f"#hint-{index}", Static)
            line.update(f"✗ {problems[index]}" if index in problems else hint(param))
            line.set_class(index in problems, "-invalid")
            changed = index not in problems and values[param.name] != self._proposed[param.name]
            self.query_one(f"#edit-{index}", Input).set_class(changed, "-changed")
        count = sum(values[param.name] != self._proposed[param.name] for param in self._declared)
        verdict = self.query_one("#edit-verdict", Static)
        verdict.set_class(bool(problems), "-invalid")
        if problems:
            verdict.update(f"✗ {len(problems)} value{'s' if len(problems) > 1 else ''} can't be used yet")
        else:
            verdict.update(f"✓ {count} changed; the card shows the difference before anything runs")


def hint(param: Param) -> str:
    """`peak learning rate · default 0.001 · 1e-05 to 0.1 · search uses 0.0003, 0.001`."""
    parts = [part for part in (param.help, f"default {number(param.default)}") if part]
    if param.low is not None or param.high is not None:
        low, high = (_bound(param, limit) for limit in (param.low, param.high))
        parts.append(f"{low} to {high}{f' {param.unit}' if param.unit else ''}")
    if param.choices:
        parts.append(f"{'one of' if param.type == 'str' else 'search uses'} {', '.join(map(number, param.choices))}")
    return " · ".join(parts)


def _bound(param: Param, limit: float | None) -> str:
    if limit is None:
        return "any"
    return f"{int(limit)}" if param.type == "int" else f"{limit:g}"
