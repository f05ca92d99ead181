"""The node screen: everything about one model or trial, in sections. It only reads, and asks for actions by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.kit.section import Curves, Section
from lamdatui.ui.kit.stack import Asked, OverConsole, open_over
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.node.evidence import Evidence, gather, places
from lamdatui.ui.node.text import (
    action_lines,
    base_of,
    data_lines,
    file_lines,
    head_line,
    lineage_lines,
    score_lines,
    scores_of,
    story_lines,
)
from lamdatui.ui.view.format import LABEL, Line
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.subject import Subject, subject

POLL_SECONDS = 1.0
SECTIONS = ("action", "scores", "lineage", "data", "loss", "story", "log", "files")
TITLES = {
    "action": "1 Action and hyperparameters",
    "scores": "2 Scores against the base",
    "lineage": "3 Lineage",
    "data": "4 Data",
    "loss": "5 Loss",
    "story": "6 Proposed, decided, ran",
    "log": "7 Log",
    "files": "8 Files",
}


class Tree(Protocol):
    """What is asked of the tree that the node is part of."""

    def is_best(self, key: str) -> bool:
        """Whether this is the best node."""
        ...

    def mark(self, key: str) -> str:
        """The other node that is marked already; else "", and this one is marked from now on."""
        ...


class NodeScreen(OverConsole):
    """Gives `review` when the person wants to go to the waiting proposal, else an empty string."""

    CSS_PATH = "node.tcss"
    AUTO_FOCUS = "#node-body"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    BINDINGS = [*bindings("node")]

    def __init__(
        self,
        key: str,
        view: ViewState,
        tree: Tree,
        run_dir: Path,
        act: Callable[[Screen[Any], str, str, Callable[[Any], None]], None],
    ) -> None:
        """`act` does by hand what a verb says, over a screen, for a key."""
        super().__init__(classes="live-screen")
        self._key = key
        self._view = view
        self._tree = tree
        self._run_dir = run_dir
        self._act = act
        self._evidence = Evidence()
        self._flips: list[dict[str, Any]] = []

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        yield Static(markup=False, id="node-head")
        with VerticalScroll(id="node-body"):
            for name in SECTIONS:
                yield Curves("node-loss", TITLES[name]) if name == "loss" else Section(f"node-{name}", TITLES[name], LABEL)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.update_view()
        self.run_worker(self._look(), group="evidence")
        self.set_interval(POLL_SECONDS, self._poll)
        item = self._subject()
        if item and item.trial and item.model and scores_of(self._view.run, item):
            args = {"model": item.model, "against": base_of(self._view.run, item) or ""}
            self.post_message(Asked("answers", args, self._flips_came))

    def _flips_came(self, found: dict[str, Any] | None) -> None:
        if self.is_attached and found is not None:
            self._flips = found["tasks"]
            self.update_view()

    def update_view(self) -> None:
        """Show the state again; nothing while the screen is not whole: not yet, or no longer, because it is being left."""
        if len(self.query("#node-head, .section")) <= len(SECTIONS):
            return
        run, item = self._view.run, self._subject()
        if item is None:
            self.query_one("#node-head", Static).update("This is no longer part of the run.")
            return
        self.query_one("#node-head", Static).update(paint(head_line(run, item, self._tree.is_best(item.key))))
        self._show("action", action_lines(run, item))
        self._show("scores", score_lines(run, item, self._flips))
        self._show("lineage", lineage_lines(run, item))
        self._show("data", data_lines(run, item))
        ran = self._evidence.ran or (item.trial.action if item.trial and item.trial.step else None)
        self._show("story", story_lines(run, item, ran))
        self._show("log", [((line, "plain"),) for line in self._evidence.log] or [(("no step of it has run", "dim"),)])
        self._show("files", file_lines(self._evidence.files))
        self.query_one("#node-loss", Curves).show([(item.name, self._evidence.losses)])

    def _show(self, name: str, lines: list[Line]) -> None:
        self.query_one(f"#node-{name}", Section).show(lines)

    def _subject(self) -> Subject | None:
        return subject(self._view.run, self._key)

    def _poll(self) -> None:
        item = self._subject()
        if item and item.trial and item.trial.is_open:
            self.run_worker(self._look(), group="evidence", exclusive=True)

    async def _look(self) -> None:
        item = self._subject()
        if item is None:
            return
        self._evidence = await asyncio.to_thread(gather, places(self._view.run, item, self._run_dir))
        if self.is_attached:
            self.update_view()

    def action_section(self, name: str) -> None:
        self.query_one("#node-body").scroll_to_widget(self.query_one(f"#node-{name}"), animate=False, top=True)

    def action_ask(self, verb: str) -> None:
        self._act(self, verb, self._key, lambda _: None)

    def action_compare(self) -> None:
        """Compare with the marked node; without one, mark this."""
        marked = self._tree.mark(self._key)
        if not marked:
            self.notify("Marked; open another one, and the same key compares them.", timeout=3)
            return
        from lamdatui.ui.node.compare_screen import CompareScreen

        open_over(self, CompareScreen(marked, self._key, self._view, self._run_dir))

    def action_rows(self) -> None:
        """Its answers, row by row, beside those of the base that its scores are set against."""
        item = self._subject()
        if item is None or item.model is None:
            self.notify("It has no model that was asked.")
            return
        from lamdatui.ui.node.answers_screen import AnswersScreen

        open_over(self, AnswersScreen(item.model, base_of(self._view.run, item) or "", self._view))

    def action_pager(self) -> None:
        """The whole log of the newest attempt in the person's pager."""
        path = self._evidence.log_path
        if path is None:
            self.notify("No step of it has run.")
            return
        from lamdatui.ui.kit.opening import open_pager

        item = self._subject()
        open_pager(self, path, follow=bool(item and item.trial and item.trial.is_open))

    def action_scroll(self, by: int) -> None:
        self.query_one("#node-body").scroll_relative(y=by, animate=False)
