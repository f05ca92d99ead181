"""The main screen: status row, four panes, the approval card. It renders the view state and asks the app to act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Click, DescendantFocus, Resize
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList

from lamdatui.domain.objects import DatasetObject
from lamdatui.ui.console.activity import ActivityPane
from lamdatui.ui.hardware.pane import HardwarePane
from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.stack import LiveScreen, TrialAsked, attempt, open_over
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.kit.tabs import PANES, Tab, TabStrip
from lamdatui.ui.lineage.pane import LineageTree, PipelinePane
from lamdatui.ui.logs.pane import LogsPane
from lamdatui.ui.logs.sources import cause
from lamdatui.ui.logs.sources import keys as log_keys
from lamdatui.ui.logs.sources import line as log_row
from lamdatui.ui.view.state import ALL_PARTS, Part, ViewState

if TYPE_CHECKING:
    from lamdatui.ui.card.card import ApprovalCard
    from lamdatui.ui.card.controller import Deciding
    from lamdatui.ui.console.result import ResultPanel
    from lamdatui.ui.logs.view import LogView
    from lamdatui.ui.planner.screen import PlannerScreen
    from lamdatui.ui.view.format import Line

AUTO_CARD_SECONDS = 1.0


class ConsoleScreen(Screen[None]):
    """One DOM for all sizes; only the style sheet knows narrow, medium and wide."""

    AUTO_FOCUS = "#lineage"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (30, "-tall")]
    BINDINGS = [
        *bindings("console"),
    ]

    @dataclass
    class ViewChanged(Message):
        """The view state changed in these parts."""

        parts: frozenset[Part]

    def __init__(self, view: ViewState, run_dir: Path, clock: Callable[[], float], ask: Callable[..., Awaitable[Any]]) -> None:
        super().__init__(id="console")
        self.ask = ask
        self._view = view
        self._run_dir = run_dir
        self._clock = clock
        self._planner: PlannerScreen | None = None
        self._return_to = "pipeline"
        self.active = "pipeline"

    @cached_property
    def _deciding(self) -> Deciding:
        # Imported and made after the first paint, which does without it.
        from lamdatui.ui.card.controller import Deciding

        return Deciding(self._view, self._clock, self.ask)

    @property
    def card(self) -> ApprovalCard:
        """The approval card."""
        return self._deciding.card

    @property
    def log_view(self) -> LogView:
        """The view in the logs pane."""
        return self.query_one(LogsPane).log_view

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        yield TabStrip(self._view)
        with Container(id="panes"):
            yield PipelinePane(self._view)
            yield ActivityPane(self._view)
            yield HardwarePane(self._view)
            yield LogsPane(self._view, self._run_dir)

    def on_mount(self) -> None:
        self._activate(self.active)
        self.call_after_refresh(self._mount_rest)

    async def _mount_rest(self) -> None:
        """What the first paint does without: it comes a third sooner so. Nothing where the console was left already."""
        if not self.is_attached:
            return
        # Imported after the first paint, like the card.
        from lamdatui.ui.console.result import ResultPanel

        await self.mount(ResultPanel(self._view), self._deciding, KeyFooter())
        await self.query_one(LogsPane).fill()
        # A footer that comes late has missed the signal that fills it.
        self.refresh_bindings()
        self._refresh_parts(ALL_PARTS)

    @on(ViewChanged)
    def _view_changed(self, message: ViewChanged) -> None:
        self._refresh_parts(message.parts)

    def on_screen_resume(self) -> None:
        if self.query("#card"):
            # Keys of the other screen that come late must decide nothing.
            self.card.restart_grace()

    def on_resize(self, event: Resize) -> None:
        self.query_one(TabStrip).show(self.active)

    @property
    def is_current(self) -> bool:
        """Whether any of it is seen: not under a screen that lets nothing through.

        Textual would lay it out and paint it there at each event, and paint all of the other screen again for it.
        """
        # This is the app's first screen.
        return super().is_current and all(screen.styles.background.a < 1 for screen in self.app.screen_stack[1:])

    def _refresh_parts(self, parts: frozenset[Part]) -> None:
        updates: dict[Part, Callable[[], object]] = {
            "status": self._update_status,
            "pipeline": self.query_one(PipelinePane).update_view,
            "activity": self.query_one(ActivityPane).update_view,
            "logs": self._update_logs,
            "hardware": self.query_one(HardwarePane).update_view,
            "card": self._update_card,
            "planner": self._update_planner,
        }
        for part in updates:
            if part in parts:
                attempt(self, part, updates[part])
        if parts & {"pipeline", "status"}:
            self._update_live()
        self._see(self.active)
        self.query_one(TabStrip).show(self.active)

    def _update_logs(self) -> None:
        self.query_one(LogsPane).update_view()
        while self._view.failures:
            step = self._view.run.steps[self._view.failures.popleft()]
            text = f"{cause(step)}. E shows its log at the error."
            self.notify(text, title=f"step {step.key} failed", severity="error", timeout=15, markup=False)

    def _update_live(self) -> None:
        for screen in self.app.screen_stack:
            if screen.has_class("live-screen") and isinstance(screen, LiveScreen):
                attempt(self, "node", screen.update_view)

    def _update_status(self) -> None:
        for panel in self.query("#result"):
            cast("ResultPanel", panel).update_view()
        for screen in self.app.screen_stack:
            for row in screen.query(StatusRow):
                row.refresh()

    def _update_planner(self) -> None:
        if self._planner is not None:
            self._planner.update_view()

    def _update_card(self) -> None:
        if not self.query("#card"):
            return
        waiting = self._view.waiting
        if waiting and self._view.run.mode == "auto" and not self.card.display:
            # In auto the engine answers at once; a card that flashes at each trial would only move the panes.
            self.set_timer(AUTO_CARD_SECONDS, self._show_card)
            return
        self._show_card()

    def _show_card(self) -> None:
        self._deciding.update_view()

    def _see(self, pane: str) -> None:
        self._view.read(pane)
        if not (self.has_class("-narrow") or self.has_class("-zoom")):
            self._view.unread.clear()

    def _activate(self, pane: str) -> None:
        self.active = pane
        for name in PANES:
            self.query_one(f"#{name}").set_class(name == pane, "-active")
        self._see(pane)
        self.query_one(TabStrip).show(pane)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        for node in event.widget.ancestors_with_self:
            if node.id in PANES and node.id != self.active:
                self._activate(node.id)

    def on_click(self, event: Click) -> None:
        """A pane's border or header stands for the pane."""
        for node in event.widget.ancestors_with_self if event.widget else ():
            if node.id in PANES and isinstance(node, Widget) and not node.has_focus_within:
                self._focus_pane(node.id)

    @on(Tab.Chosen)
    def _tab_chosen(self, message: Tab.Chosen) -> None:
        self.action_pane(message.pane)

    def action_pane(self, pane: str) -> None:
        self._activate(pane)
        self._focus_pane(pane)

    def _focus_pane(self, pane: str) -> None:
        self.card.fill_screen(False)
        if pane == "logs" and not self.log_view.is_attached:
            # In the moment before it is filled.
            self.call_after_refresh(self._focus_pane, pane)
            return
        target = self.query_one({"pipeline": "#lineage", "logs": "#log-view"}.get(pane, f"#{pane}"))
        if all(node.display for node in target.ancestors_with_self if isinstance(node, Widget)):
            # At once: a key that is typed right behind this one is meant for the pane.
            self.set_focus(target)
        else:
            # In narrow mode the pane is only about to be shown, and what is hidden can't be focused.
            self.call_after_refresh(target.focus)

    def action_zoom(self) -> None:
        self.toggle_class("-zoom")

    def action_unzoom(self) -> None:
        if self.has_class("-zoom") or not self.query_one(PipelinePane).clear_filter():
            self.remove_class("-zoom")

    def action_log_source(self) -> None:
        from lamdatui.ui.kit.pick import PickScreen

        pane, view = self.query_one(LogsPane), self._view
        names = log_keys(view.run, self._run_dir)
        screen = PickScreen("Choose a log", names, lambda key: log_row(key, view), [pane.key])
        open_over(self, screen, self._log_chosen)

    def _log_chosen(self, picked: tuple[str, ...] | None) -> None:
        if picked:
            self.query_one(LogsPane).choose(picked[0])
            self.action_pane("logs")
        self._card_again()

    def action_log_failure(self) -> None:
        failed = next((step for step in reversed(self._view.run.steps.values()) if cause(step)), None)
        if failed is None:
            self.notify("No step has failed.")
            return
        self.action_pane("logs")
        self.query_one(LogsPane).show_error(failed.key)

    def action_review(self) -> None:
        if not self.card.display:
            self.notify("No proposal waits for you.")
            return
        if not self.card.has_focus_within:
            self._return_to = self.active
            self.card.grab()

    def action_progress(self) -> None:
        from lamdatui.ui.progress.screen import ProgressScreen

        open_over(self, ProgressScreen(self._view, self._run_dir), self._other_left)

    def action_planner(self) -> None:
        self._open_planner(at_said=False)

    def _open_planner(self, *, at_said: bool) -> None:
        from lamdatui.ui.planner.screen import PlannerScreen

        screen = PlannerScreen(self._view, self.ask, at_said=at_said)
        if open_over(self, screen, self._planner_left):
            self._planner = screen

    def _planner_left(self, result: str | None) -> None:
        self._planner = None
        self._other_left(result)

    def _other_left(self, result: str | None) -> None:
        """Another screen was left, with `review` for the waiting proposal."""
        if result == "review":
            self.action_review()
        else:
            self._card_again()

    def _card_again(self) -> None:
        """Back from another screen: keys of it that come late must decide nothing."""
        if self.card.has_focus_within:
            self.card.grab()

    def on_approval_card_left(self) -> None:
        self._focus_pane(self._return_to)

    def on_deciding_rules_asked(self) -> None:
        self._open_planner(at_said=True)

    @on(LineageTree.Asked)
    def _node_asked(self, message: LineageTree.Asked) -> None:
        if message.verb == "open":
            self._show_node(message.key)
        elif message.verb == "compare":
            from lamdatui.ui.node.compare_screen import CompareScreen

            open_over(
                self,
                CompareScreen(self.query_one(PipelinePane).pipeline.marked, message.key, self._view, self._run_dir),
                self._came_back,
            )
        else:
            self._act_by_hand(self, message.verb, message.key, self._came_back)

    def _act_by_hand(self, screen: Screen[Any], verb: str, key: str, closed: Callable[[Any], None]) -> None:
        from lamdatui.ui.byhand.verbs import ByHand

        ByHand(screen, self._view, self.ask).do(verb, key, closed)

    def _show_node(self, key: str) -> None:
        kind, _, number = key.partition("@")[0].partition(":")
        if kind == "trial" and int(number) in self._view.brief:
            self.post_message(TrialAsked(int(number), partial(self._show_whole_node, key)))
        else:
            self._show_whole_node(key)

    def _show_whole_node(self, key: str) -> None:
        from lamdatui.ui.node.screen import NodeScreen

        pane = self.query_one(PipelinePane)
        open_over(self, NodeScreen(key, self._view, pane, self._run_dir, self._act_by_hand), self._came_back)

    def _came_back(self, result: object) -> None:
        if result == "review":
            self.action_review()
        else:
            self._card_again()

    @on(OptionList.OptionSelected, "#activity")
    def _row_selected(self) -> None:
        row = self.query_one(ActivityPane).selected_row
        if row is None:
            return
        if row.trial is not None and row.trial in self._view.run.trials and not row.head.startswith("step"):
            self._show_trial(row.trial)
        else:
            self._show_text(row.head, [((row.detail, "plain"),)])

    def action_rows(self) -> None:
        """Rows of what waits to be decided."""
        trial = self._view.waiting
        action = ((trial and trial.proposal) or {}).get("action", {})
        names = [
            name
            for ids in action.get("inputs", {}).values()
            for name in ids
            if isinstance(self._view.run.pool.items.get(name), DatasetObject)
        ]
        if names:
            self._show_rows(names)
        else:
            self.notify("No proposal with a dataset waits.")

    @work(group="rows", exclusive=True)
    async def _show_rows(self, names: list[str]) -> None:
        """The first rows of datasets as they will be trained; of those that actions made, where they lie."""
        from lamdatui.ui.kit import commandline

        self.notify(f"Reading rows of {', '.join(names)}…", markup=False)
        lines: list[Line] = []
        for name in names:
            item = self._view.run.pool.items[name]
            if item.trial is not None:
                lines.append(((f"{name} was made by trial {item.trial}: enter on it in the pipeline shows its files", "dim"),))
                continue
            for row in ("1", "2"):
                shown = await commandline.run("data", "show", str(self._run_dir / "profile.yaml"), name, "--row", row)
                said = shown.output.splitlines() if shown.code == 0 else [*shown.errors][-2:]
                for line in (*said, ""):
                    lines.append(((line, "plain"),))
        self._show_text("Rows as they will be trained", lines)

    def _show_trial(self, number: int) -> None:
        self._show_node(f"trial:{number}")

    def _show_text(self, title: str, lines: list[Line], indent: int = 0) -> None:
        from lamdatui.ui.kit.dialogs import TextScreen

        open_over(self, TextScreen(title, lines, indent))
