"""The progress screen: the step, the run and the budget in words; loss, reward, rate, best so far and cost as charts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, VerticalScroll
from textual.events import DescendantFocus, Resize
from textual.message import Message
from textual.widgets import Static

from lamdatui.base.clock import SystemClock
from lamdatui.domain.budget import ledgers
from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.sheet import Sheet
from lamdatui.ui.kit.stack import OverConsole, attempt
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.progress.chart import ChartPanel
from lamdatui.ui.progress.charts import (
    AXES,
    Axis,
    Chart,
    best_chart,
    cost_chart,
    loss_chart,
    rate_chart,
    reward_chart,
    reward_metrics,
)
from lamdatui.ui.progress.results import Results, Tally
from lamdatui.ui.progress.text import overview_lines
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.stepfiles import read_metrics, step_folder

REFRESH_SECONDS = 1.0
"""However many events come: a number that changes faster is not read, and charts of a long run take their time."""
STEPS_BACK = 30
NAMES = {"overview": "Overview", "loss": "Loss", "reward": "Reward", "rate": "Rate", "best": "Best", "cost": "Cost"}
STEP_CHARTS = ("loss", "reward", "rate")
RUN_CHARTS = ("best", "cost")


class PanelTab(Static):
    """The name of a panel; a click shows it."""

    @dataclass
    class Chosen(Message):
        """A name was clicked."""

        panel: str

    def __init__(self, panel: str) -> None:
        super().__init__(NAMES[panel], markup=False, id=f"progress-tab-{panel}", classes="tab")
        self._panel = panel

    def on_click(self) -> None:
        self.post_message(self.Chosen(self._panel))


class OverviewPanel(VerticalScroll):
    """Step, run and budget in words."""

    BINDINGS = [*bindings("scroll")]

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="progress-overview", classes="progress-pane")
        self.border_title = "Step, run, budget"
        self._view = view
        self._found: Results | None = None
        """None until the trials were read: that is not the same as none with a score."""
        self._body = Sheet()

    def compose(self) -> ComposeResult:
        yield self._body

    def update_view(self, found: Results | None = None) -> None:
        """Show the state again, with newer results where there are some."""
        self._found = found or self._found
        room = self.scrollable_content_region
        width = room.width - (0 if self.show_vertical_scrollbar else 1)
        run = self._view.run
        clock = SystemClock()
        now = (clock.mono() if run.meter == "mono" else clock.wall()) if self._view.connection == "live" else None
        self._body.show(overview_lines(self._view, ledgers(run, now), self._found, max(1, width)), room.height)

    def on_resize(self, event: Resize) -> None:
        self.update_view()


class ProgressScreen(OverConsole):
    """Gives `review` when the person wants to go to the waiting proposal, else an empty string.

    One panel at a time in a narrow terminal; the words, a chart of the step and one of the run in a medium one; all in a
    wide one.
    """

    CSS_PATH = "progress.tcss"
    AUTO_FOCUS = "#progress-overview"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (30, "-tall")]
    BINDINGS = [*bindings("progress")]

    def __init__(self, view: ViewState, run_dir: Path) -> None:
        super().__init__()
        self._view = view
        self._run_dir = run_dir
        self._overview = OverviewPanel(view)
        self._panels = {name: ChartPanel(name) for name in (*STEP_CHARTS, *RUN_CHARTS)}
        self.active = "overview"
        self.tables = False
        self._axis: Axis = "trials"
        self._metric = ""
        self._step_chart, self._run_chart = "loss", "best"
        self._tally = Tally()
        self._drawn: dict[str, object] = {}

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        with Horizontal(id="progress-tabs"):
            yield from (PanelTab(name) for name in NAMES)
        with Container(id="progress-panes"):
            yield self._overview
            yield from self._panels.values()
        yield KeyFooter()

    def on_mount(self) -> None:
        self._load_last_step()
        self._activate("overview")
        self.set_interval(REFRESH_SECONDS, self._refresh)
        self.call_after_refresh(self._refresh)

    def _load_last_step(self) -> None:
        """The curves of the newest step that trained, when it ended before this console attached: they are in its file."""
        if self._view.progress is not None:
            return
        for key in list(reversed(self._view.run.steps))[:STEPS_BACK]:
            folder = step_folder(self._run_dir, key)
            metrics = read_metrics(folder / "metrics.jsonl") if folder else []
            if any("loss" in metric for metric in metrics):
                self._view.take_metrics(key, metrics)
                return

    def _refresh(self) -> None:
        attempt(self, "progress", self._update)

    def _update(self) -> None:
        progress, found = self._view.progress, self._tally.take(self._view.run)
        self._overview.update_view(found)
        step_key = (progress.step, progress.trained, self._metric) if progress else ()
        run_key = (found, self._axis)
        makers: dict[str, Callable[[], Chart]] = {
            "loss": lambda: loss_chart(self._view),
            "reward": lambda: reward_chart(self._view, self._metric),
            "rate": lambda: rate_chart(self._view),
            "best": lambda: best_chart(found, self._axis),
            "cost": lambda: cost_chart(found),
        }
        for name, panel in self._panels.items():
            key = (step_key if name in STEP_CHARTS else run_key, self.tables)
            if panel.display and panel.region and self._drawn.get(name) != key:
                self._drawn[name] = key
                panel.show(makers[name](), self.tables)

    def _activate(self, name: str) -> None:
        self.active = name
        if name in STEP_CHARTS:
            self._step_chart = name
        elif name in RUN_CHARTS:
            self._run_chart = name
        for other in NAMES:
            panel = self.query_one(f"#progress-{other}")
            panel.set_class(other == name, "-active")
            panel.set_class(other in ("overview", self._step_chart, self._run_chart), "-chosen")
            self.query_one(f"#progress-tab-{other}").set_class(other == name, "-active")
        self.call_after_refresh(self._refresh)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        for node in event.widget.ancestors_with_self:
            name = (node.id or "").removeprefix("progress-")
            if name in NAMES and name != self.active:
                self._activate(name)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._refresh)

    @on(PanelTab.Chosen)
    def _tab_chosen(self, message: PanelTab.Chosen) -> None:
        self._go(message.panel)

    def _go(self, name: str) -> None:
        self._activate(name)
        # What is only about to be shown can't be focused yet.
        self.call_after_refresh(self.query_one(f"#progress-{name}").focus)

    def action_move(self, by: int) -> None:
        """The next panel, or the one before."""
        names = list(NAMES)
        self._go(names[(names.index(self.active) + by) % len(names)])

    def action_tables(self) -> None:
        """Numbers in place of charts, or charts again."""
        self.tables = not self.tables
        self._refresh()

    def action_axis(self) -> None:
        """What the best so far is drawn over: trials, seconds of steps, seconds of the run."""
        axes = list(AXES)
        self._axis = axes[(axes.index(self._axis) + 1) % len(axes)]
        self._go("best")

    def action_metric(self) -> None:
        """The next of the values that the step reports beside its loss."""
        known = reward_metrics(self._view.progress)
        if not known:
            self.notify("This step reports no reward.")
            return
        now = self._metric if self._metric in known else known[0]
        self._metric = known[(known.index(now) + 1) % len(known)]
        self._go("reward")
