"""The planner's screen: who proposes, what it was asked and told, and whether it is worth its tokens. It only asks the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.domain.planner_report import worth
from lamdatui.domain.policies import SUMMARIES
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.dialogs import ChoiceScreen, TextScreen
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.kit.stack import OverConsole, attempt, open_over, send
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.kit.write import LineScreen, PageScreen
from lamdatui.ui.planner.text import (
    Said,
    choice_lines,
    exchange_line,
    exchange_lines,
    memory_lines,
    report_lines,
    said,
    worth_lines,
)
from lamdatui.ui.view.format import LABEL, Line
from lamdatui.ui.view.state import Exchange, ViewState

HINT_CHARS, MEMORY_CHARS = 300, 480
"""The engine cuts what is longer."""
HINT_TEXT = (
    "One line for the planner; its questions carry the newest hints until you revoke them. It orders nothing: a veto does."
)
MEMORY_TEXT = "The planner reads this before each choice, and may rewrite it after a trial."

Item = TypeVar("Item", Said, Exchange)


class LinesPane(VerticalScroll):
    """Lines to read; as many as there are."""

    BINDINGS = [*bindings("scroll")]

    def __init__(self, name: str, title: str, indent: int) -> None:
        super().__init__(id=f"planner-{name}", classes="planner-pane")
        self.border_title = Content(title)
        self._body = Hanging(indent)

    def compose(self) -> ComposeResult:
        yield self._body

    def show(self, lines: list[Line]) -> None:
        """Replace the lines."""
        self._body.show(lines)


class ItemOption(Option, Generic[Item]):
    """An option that remembers what it stands for."""

    def __init__(self, item: Item, line: Line) -> None:
        super().__init__(paint(line))
        self.item = item


class ListPane(OptionList, Generic[Item]):
    """Items, one row each. The cursor stays on its item when others come or go."""

    BINDINGS = [*bindings("pane")]

    def __init__(self, name: str, title: str, empty: str, line: Callable[[Item], Line]) -> None:
        super().__init__(id=f"planner-{name}", classes="planner-pane", markup=False)
        self.border_title = Content(title)
        self._empty = empty
        self._line = line
        self._items: list[Item] = []

    @property
    def selected(self) -> Item | None:
        """What the cursor is on."""
        return self._items[self.highlighted] if self.highlighted is not None and self._items else None

    def show(self, items: Sequence[Item]) -> None:
        """Replace the items."""
        if list(items) == self._items and self.option_count:
            return
        before, place = self.selected, self.highlighted or 0
        self._items = list(items)
        if not self._items:
            self.set_options([Option(paint([(self._empty, "dim")]), disabled=True)])
            return
        self.set_options([ItemOption(item, self._line(item)) for item in self._items])
        self.highlighted = self._items.index(before) if before in self._items else min(place, len(self._items) - 1)


class PlannerScreen(OverConsole):
    """Gives `review` when the person wants to go to the waiting proposal, else an empty string."""

    CSS_PATH = "planner.tcss"
    AUTO_FOCUS = "#planner-choice"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (30, "-tall")]
    BINDINGS = [*bindings("planner")]

    def __init__(self, view: ViewState, ask: Callable[..., Awaitable[Any]], *, at_said: bool = False) -> None:
        super().__init__(name="planner")
        self._view = view
        self._ask = ask
        self._weighed: object = None
        self._at_said = at_said
        self._choice = LinesPane("choice", "Who proposes", LABEL)
        self._worth = LinesPane("worth", "Is the planner worth its tokens?", LABEL)
        self._memory = LinesPane("memory", "Memory", 0)
        self._said = ListPane[Said]("said", "Hints, constraints, rules", "Nothing is in force; h gives a hint.", _said_line)
        self._exchanges = ListPane[Exchange](
            "exchanges", "Questions to the planner", "It was not asked anything.", exchange_line
        )
        self._edited_memory = ""

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        with Container(id="planner-panes"):
            yield self._choice
            yield self._said
            yield self._memory
            yield self._worth
            yield self._exchanges
        yield KeyFooter()

    def on_mount(self) -> None:
        self._choice.add_class("-active")
        attempt(self, "planner", self.update_view)
        if self._at_said:
            self._said.focus()

    def update_view(self) -> None:
        """Show the state again."""
        run = self._view.run
        self._choice.show(choice_lines(self._view))
        self._update_worth()
        self._memory.show(memory_lines(run))
        self._said.show(said(run))
        self._exchanges.show(list(reversed(self._view.exchanges)))
        for screen in self.app.screen_stack:
            if isinstance(screen, PageScreen) and run.memory != self._edited_memory:
                by = one_line(run.memory_by) or "somebody"
                screen.warn(f"{by} rewrote the memory while you edited it; what you save replaces that.")

    def _update_worth(self) -> None:
        """The report takes all trials together, so it is made only when a trial has got on."""
        run = self._view.run
        newest = next(reversed(run.trials.values()), None)
        seen = (newest.number, newest.status, len(newest.shadows)) if newest else None, run.winner, run.planner_tokens
        if seen == self._weighed:
            return
        self._weighed = seen
        if self._view.brief:
            # What it stands on was left out of the snapshot; the engine has it.
            self._fetch_worth()
        else:
            self._worth.show(worth_lines(worth(run)))

    @work(group="worth", exclusive=True)
    async def _fetch_worth(self) -> None:
        try:
            found = await self._ask("worth")
            lines = [(str(label), str(text)) for label, text in found["lines"]]
            self._worth.show(report_lines(lines, found["sign"]))
        except (LamdatuiError, KeyError, TypeError, ValueError):
            self._weighed = None
            self._worth.show([(("The engine makes this report; it does not answer.", "dim"),)])

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        for pane in self.query(".planner-pane"):
            pane.set_class(pane is event.widget, "-active")

    @on(OptionList.OptionSelected, "#planner-said")
    def _said_selected(self) -> None:
        if item := self._said.selected:
            open_over(self, TextScreen(f"{item.kind} {item.id}", [((item.text, "plain"),), ((item.by, "dim"),)]))

    @on(OptionList.OptionSelected, "#planner-exchanges")
    def _exchange_selected(self) -> None:
        if item := self._exchanges.selected:
            open_over(self, TextScreen("Question to the planner", exchange_lines(item), LABEL))

    def action_hint(self) -> None:
        if self._can_steer():
            self._ask_hint("")

    def action_memory(self) -> None:
        if self._can_steer():
            self._ask_memory(one_line(self._view.run.memory))

    def action_policy(self) -> None:
        if not self._can_steer():
            return
        now = self._view.run.policy
        # The first answer is the default, and that must change nothing.
        names = sorted(SUMMARIES, key=lambda name: name != now)
        choices = {name: f"{name}{' (now)' if name == now else ''}: {SUMMARIES[name]}" for name in names}
        open_over(self, ChoiceScreen("Who proposes?", "From the next trial on.", choices), self._policy_chosen)

    def action_revoke(self) -> None:
        if not self._can_steer():
            return
        item = self._said.selected
        if item is None:
            self.notify("There is nothing to revoke.")
        elif not self._said.has_focus:
            self._said.focus()
            self.notify(f"Go to what you want to revoke, then press {shown('planner-revoke')} again.")
        else:
            self._send("revoke", {"id": item.id})

    def _can_steer(self) -> bool:
        if self._view.is_over:
            self.notify("The run has ended; it can only be looked at.")
        return not self._view.is_over

    def _ask_hint(self, value: str) -> None:
        self.app.push_screen(LineScreen("Hint to the planner", HINT_TEXT, HINT_CHARS, value), self._hint_given)

    def _hint_given(self, text: str | None) -> None:
        if text:
            self._send("hint", {"text": text}, partial(self._ask_hint, text))

    def _ask_memory(self, value: str) -> None:
        self._edited_memory = self._view.run.memory
        self.app.push_screen(PageScreen("The planner's memory", MEMORY_TEXT, MEMORY_CHARS, value), self._memory_written)

    def _memory_written(self, text: str | None) -> None:
        if text is not None:
            self._send("memory", {"text": text}, partial(self._ask_memory, text))

    def _policy_chosen(self, name: str | None) -> None:
        if name and name != self._view.run.policy:
            self._send("policy", {"name": name})

    def _send(self, command: str, args: dict[str, Any], refused: Callable[[], None] | None = None) -> None:
        """Have the app send a command; what a person has written comes back when the engine refuses it."""
        send(self.app, self._ask, command, args, refused=refused)


def _said_line(item: Said) -> Line:
    return item.line
