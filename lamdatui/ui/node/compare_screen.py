"""Two nodes side by side. It only reads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.kit.section import Curves, Section
from lamdatui.ui.kit.stack import Asked, TrialAsked, leave, open_over
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.node.compare_text import FIRST, SECOND, cost_rows, made_lines, score_rows
from lamdatui.ui.node.evidence import losses_of, places
from lamdatui.ui.view.format import LABEL
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.subject import subject

SECTIONS = 4


class CompareScreen(Screen[str]):
    """Gives `review` when the person wants to go to the waiting proposal, else an empty string."""

    CSS_PATH = "node.tcss"
    AUTO_FOCUS = "#compare-body"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    BINDINGS = [*bindings("compare")]

    def __init__(self, one: str, other: str, view: ViewState, run_dir: Path) -> None:
        super().__init__(classes="live-screen")
        self._keys = (one, other)
        self._view = view
        self._run_dir = run_dir
        self._losses: list[list[float]] = [[], []]
        self._flips: list[dict[str, Any]] = []

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        yield Static(markup=False, id="compare-head")
        with VerticalScroll(id="compare-body"):
            yield Section("compare-scores", "Scores", LABEL)
            yield Section("compare-made", "How they were made", LABEL)
            yield Section("compare-costs", "Cost", LABEL)
            yield Curves("compare-loss", "Loss")
        yield KeyFooter()

    def on_mount(self) -> None:
        self.update_view()
        self.run_worker(self._look(), group="evidence")
        for number in {item.trial.number for key in self._keys if (item := subject(self._view.run, key)) and item.trial}:
            if number in self._view.brief:
                self.post_message(TrialAsked(number, self.update_view))
        self._ask_flips()

    def _ask_flips(self) -> None:
        """How the second one's rows differ from the first one's."""
        self._flips = []
        keys, run = self._keys, self._view.run
        one, other = (item.model if (item := subject(run, key)) else None for key in keys)
        if one and other:
            args = {"model": other, "against": one}
            self.post_message(Asked("answers", args, lambda found: self._flips_came(keys, found)))

    def _flips_came(self, keys: tuple[str, str], found: dict[str, Any] | None) -> None:
        if self.is_attached and found is not None and keys == self._keys:
            self._flips = found["tasks"]
            self.update_view()

    def update_view(self) -> None:
        """Show the state again; nothing while the screen is not whole: what was asked for may come when it is being left."""
        if len(self.query("#compare-head, .section")) <= SECTIONS:
            return
        run = self._view.run
        one, other = (subject(run, key) for key in self._keys)
        if one is None or other is None:
            self.query_one("#compare-head", Static).update("One of them is no longer part of the run.")
            return
        self.query_one("#compare-head", Static).update(
            paint([(f" {FIRST} {one.name}", "strong"), ("  against  ", "dim"), (f"{SECOND} {other.name}", "strong")])
        )
        self.query_one("#compare-scores", Section).show(score_rows(run, one, other, self._flips))
        self.query_one("#compare-made", Section).show(made_lines(run, one, other))
        self.query_one("#compare-costs", Section).show(cost_rows(one, other))
        self.query_one("#compare-loss", Curves).show([(one.name, self._losses[0]), (other.name, self._losses[1])])

    async def _look(self) -> None:
        for place, key in enumerate(self._keys):
            if item := subject(self._view.run, key):
                self._losses[place] = await asyncio.to_thread(losses_of, places(self._view.run, item, self._run_dir))
        self.update_view()

    def action_swap(self) -> None:
        """The other one first."""
        self._keys = (self._keys[1], self._keys[0])
        self._losses.reverse()
        self._ask_flips()
        self.update_view()

    def action_rows(self) -> None:
        """The second one's answers, row by row, beside the first one's."""
        one, other = (item.model if (item := subject(self._view.run, key)) else None for key in self._keys)
        if not one or not other:
            self.notify("One of them has no model that was asked.")
            return
        from lamdatui.ui.node.answers_screen import AnswersScreen

        open_over(self, AnswersScreen(other, one, self._view))

    def action_back(self) -> None:
        leave(self, "")

    def action_scroll(self, by: int) -> None:
        self.query_one("#compare-body").scroll_relative(y=by, animate=False)
