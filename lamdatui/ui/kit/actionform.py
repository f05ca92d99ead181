"""The action form: type, inputs, hyperparameters, checked by the engine while they are chosen. It serves every hand-made action."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.domain.actions import Slot
from lamdatui.domain.declarations import DeclaredType
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.kit.params import ParamFields
from lamdatui.ui.kit.pick import PickScreen
from lamdatui.ui.kit.stack import leave, open_over
from lamdatui.ui.view.drafts import (
    Draft,
    declared_types,
    first_type,
    fitted,
    fitting,
    object_line,
    problems_of,
    verdict_lines,
)
from lamdatui.ui.view.format import Line
from lamdatui.ui.view.state import ViewState

Ask = Callable[..., Awaitable[Any]]
"""Sends a command and gives its cleaned reply: `await ask("try_action", type=...)`. Raises LamdatuiError when it is refused."""
Use = Callable[[Draft], Awaitable[None]]
"""What is done with the finished draft. When it raises LamdatuiError the form stays open and shows why."""

DEBOUNCE_SECONDS = 0.25
NOTE_CHARS = 200


class PickRow(Horizontal, can_focus=True):
    """A named choice that opens a list: enter, space or a click."""

    BINDINGS = [*bindings("pick-row")]

    class Asked(Message):
        """The person wants the list."""

        def __init__(self, row: PickRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self, label: str, value: str, help_text: str, slot: Slot | None = None) -> None:
        super().__init__(classes="pick-row")
        self._label, self._value, self._help = label, value, help_text
        self.slot = slot

    def compose(self) -> ComposeResult:
        yield Label(self._label, markup=False, classes="edit-name")
        yield Static(f"{self._value or 'choose…'} ▾", markup=False, classes="pick-value")
        yield Static(self._help, markup=False, classes="pick-help")

    def on_click(self, event: Click) -> None:
        self.action_ask()

    def action_ask(self) -> None:
        self.post_message(self.Asked(self))


class ActionScreen(ModalScreen[Draft | None]):
    """Gives the draft after `use` took it, or None when it was left. Nothing runs from the form itself.

    Put the class `edit-screen` on it where it belongs to a waiting proposal: it is closed when that proposal goes.
    """

    CSS_PATH = "dialogs.tcss"
    # The form is laid out when the engine has answered; until then there is nothing to type into, and enter sends nothing.
    AUTO_FOCUS = ""
    BINDINGS = [*bindings("form")]

    def __init__(
        self, title: str, draft: Draft, view: ViewState, ask: Ask, use: Use, *, verb: str = "proposes it", classes: str = ""
    ) -> None:
        super().__init__(classes=f"action-screen {classes}".strip())
        self._title = title
        self._draft = draft
        self._view = view
        self._ask = ask
        self._use = use
        self._verb = verb
        self._types: dict[str, DeclaredType] = {}
        self._tried: tuple[Draft, Any] | None = None
        self._timer: Timer | None = None
        self._sending = False
        self._used: Draft | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form -action") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(
                f"{shown('form-send')} or enter in a field {self._verb} · {shown('form-back')} goes back"
            )
            yield Vertical(id="action-inputs")
            yield Vertical(id="action-params")
            with Vertical(id="action-rest"):
                yield self._line("note", self._draft.note, "why; it is kept with the trial", NOTE_CHARS)
                seed = "" if self._draft.seed is None else str(self._draft.seed)
                yield self._line("seed", seed, "empty: the engine chooses one that was not tried", 12)
            yield Static("asking the engine which actions there are…", markup=False, id="action-verdict")

    def _line(self, name: str, value: str, placeholder: str, limit: int) -> Widget:
        field = Input(value, placeholder=placeholder, max_length=limit, compact=True, id=f"action-{name}")
        return Horizontal(Label(name, markup=False, classes="edit-name"), field, classes="edit-line")

    def on_mount(self) -> None:
        self.run_worker(self._begin(), group="form")

    async def _begin(self) -> None:
        try:
            self._types = declared_types(await self._ask("actions"))
        except LamdatuiError as error:
            self._say([((f"✗ {one_line(error.what)}", "bad"),)])
            return
        if not self._types:
            self._say([(("✗ the engine offers no action types", "bad"),)])
            return
        run = self._view.run
        await self._show(fitted(self._draft, first_type(self._draft, self._types, run), run))

    async def _show(self, draft: Draft, focus: str = "") -> None:
        """Lay the form out for a draft."""
        if not self.is_attached:
            return
        self._draft = draft
        spec = self._types[draft.type]
        inputs, params = self.query_one("#action-inputs"), self.query_one("#action-params")
        rows = [PickRow("action", draft.type, spec.summary)]
        rows += [PickRow(slot.name, "+".join(draft.inputs.get(slot.name, ())), slot.describe(), slot) for slot in spec.slots]
        async with self.batch():
            await inputs.remove_children()
            await params.remove_children()
            await inputs.mount(*rows)
            if spec.params:
                await params.mount(ParamFields(spec.params, spec.defaults(), draft.params))
        next((row for row in rows if row.slot and row.slot.name == focus), rows[0]).focus()
        self._changed()

    @on(PickRow.Asked)
    def _pick(self, message: PickRow.Asked) -> None:
        slot = message.row.slot
        if slot is None:
            screen = PickScreen("Which action?", list(self._types), self._type_line, (self._draft.type,))
            open_over(self, screen, self._type_picked)
            return

        def picked(names: tuple[str, ...] | None) -> None:
            if names is not None:
                inputs = {**self._draft.inputs, slot.name: names}
                self.run_worker(self._show(replace(self._read()[0], inputs=inputs), slot.name), group="form")

        run, now = self._view.run, self._draft.inputs.get(slot.name, ())
        title = f"{slot.name}: {slot.describe()}" + (f" · {slot.help}" if slot.help else "")
        open_over(self, PickScreen(title, fitting(run, slot), lambda name: object_line(run, name), now, slot.most), picked)

    def _type_line(self, name: str) -> Line:
        spec = self._types[name]
        return ((f"{name}  ", "strong"), (f"{spec.family}  ", "dim"), (spec.summary, "dim"))

    def _type_picked(self, names: tuple[str, ...] | None) -> None:
        if names and names[0] != self._draft.type:
            spec = self._types[names[0]]
            self.run_worker(self._show(fitted(self._read()[0], spec, self._view.run)), group="form")

    @on(ParamFields.Changed)
    @on(Input.Changed)
    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(DEBOUNCE_SECONDS, self._try_soon)

    def _try_soon(self) -> None:
        self.run_worker(self._try(), group="try", exclusive=True)

    async def _try(self) -> bool:
        """Ask the engine about the draft and show what it says; whether it is legal."""
        if not self._stands:
            return False
        draft, problems = self._read()
        if problems:
            self._say([((f"✗ {text}", "bad"),) for text in problems])
            return False
        if self._tried is not None and self._tried[0].args() == draft.args():
            reply = self._tried[1]
        else:
            try:
                reply = await self._ask("try_action", **draft.args())
            except LamdatuiError as error:
                self._say([((f"✗ {one_line(error.what)}", "bad"),)])
                return False
            self._tried = (draft, reply)
        self._say(verdict_lines(reply, draft))
        return not problems_of(reply)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_send()

    def action_send(self) -> None:
        """Hand the draft over when the engine finds it legal."""
        if self._types and not self._sending and self._used is None:
            self._sending = True
            self.run_worker(self._send(), group="send")

    async def _send(self) -> None:
        try:
            if not await self._try():
                self.app.bell()
                return
            if not self._stands:
                return
            draft = self._read()[0]
            await self._use(draft)
        except LamdatuiError as error:
            self._say([((f"✗ {one_line(error.what)}", "bad"),)])
            self.app.bell()
            return
        finally:
            self._sending = False
        self._used = draft
        self.on_screen_resume()

    def on_screen_resume(self) -> None:
        # Where help or a question covers the form when its draft is taken, it closes after that.
        if self._used is not None:
            leave(self, self._used)

    def action_cancel(self) -> None:
        leave(self, None)

    @property
    def _stands(self) -> bool:
        """Whether the fields are there: when the form is left they go before what waits for the engine ends."""
        return bool(self.query("#action-seed"))

    def _read(self) -> tuple[Draft, list[str]]:
        """The draft as the fields say it, and what can't be used in them."""
        params, problems = dict(self._draft.params), list[str]()
        for fields in self.query(ParamFields):
            params, found = fields.read()
            problems += found.values()
        seed, typed = None, self.query_one("#action-seed", Input).value.strip()
        if typed.isascii() and typed.isdigit():
            seed = int(typed)
        elif typed:
            problems.append("seed is a whole number from 0 on, or empty")
        note = one_line(self.query_one("#action-note", Input).value)
        return replace(self._draft, params=params, note=note, seed=seed), problems

    def _say(self, lines: list[Line]) -> None:
        # The answer may come when the form is gone.
        if self.is_attached:
            self.query_one("#action-verdict", Static).update(paint_lines(lines))
