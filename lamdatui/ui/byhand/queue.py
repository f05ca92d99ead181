"""The actions that people queued, oldest first, each of which can be withdrawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.kit.stack import DIALOG_STYLES
from lamdatui.ui.view.format import Line, call_text
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.subject import action_fields

if TYPE_CHECKING:
    from lamdatui.domain.records import Queued

EMPTY = "No action waits. e, f, r or n in the pipeline pane makes one."


class QueueScreen(ModalScreen[None]):
    """Shows the queue as it changes."""

    CSS_PATH = DIALOG_STYLES
    AUTO_FOCUS = "OptionList"
    BINDINGS = [*bindings("queue")]

    def __init__(self, view: ViewState, ask: Callable[..., Awaitable[Any]]) -> None:
        super().__init__(classes="live-screen")
        self._view = view
        self._ask = ask
        self._ids: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = "Queued by hand"
            box.border_subtitle = Content(f"{shown('queue-withdraw')} withdraws · {shown('queue-back')} goes back")
            yield OptionList(markup=False, id="queue-list")
            yield Static(EMPTY, markup=False, id="queue-empty")

    def on_mount(self) -> None:
        self.update_view()

    def update_view(self) -> None:
        """Show the state again."""
        queue, rows = self._view.run.queue, self.query_one(OptionList)
        at = rows.highlighted or 0
        self._ids = list(queue)
        rows.set_options([Option(paint(queue_line(item))) for item in queue.values()])
        rows.highlighted = min(at, len(self._ids) - 1) if self._ids else None
        rows.display = bool(self._ids)
        self.query_one("#queue-empty", Static).display = not self._ids

    def action_withdraw(self) -> None:
        place = self.query_one(OptionList).highlighted
        if place is None or not self._ids:
            self.app.bell()
            return
        self.run_worker(self._withdraw(self._ids[place]), group="queue")

    async def _withdraw(self, name: str) -> None:
        try:
            await self._ask("withdraw", id=name)
        except LamdatuiError as error:
            self.notify(one_line(error.what), title="withdraw refused", severity="error", markup=False)


def queue_line(item: Queued) -> Line:
    """`q1  sft(base, mix)  learning_rate 0.001 …  by person: why`."""
    action = item.get("action") or {}
    fields = action_fields(action)
    params = "  ".join(f"{name} {fields[name]}" for name in action.get("params") or {})
    note = f": {item['note']}" if item.get("note") else ""
    spans: Line = ((f"{item.get('id', '?')}  ", "dim"), (call_text(action), "strong"))
    return (*spans, (f"  {params}", "plain"), (f"  by {item.get('by', '?')}{note}", "dim"))
