"""A chart on the screen, or its table where there is no room or the person wants text. Imports the plotting library."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.app import ComposeResult, RenderResult
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.strip import Strip
from textual.widgets import Static
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter
from textual_plot.plot_widget import Legend

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.progress.charts import Chart, Look, described, ranges, table_lines, thinned

LEAST_WIDTH, LEAST_HEIGHT = 34, 9
"""Below this a chart has no room beside its axes: the table is shown."""
MARKERS: dict[Look, str] = {"dots": "o", "marks": "◆", "faint": "┄"}
DASHES = 60
DOTS_IN_CELL = 2
"""Dots that a braille character has side by side."""


class Ticks(NumericAxisFormatter):
    """Ticks at round values, written as short as they can be."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """One label a tick."""
        return [described(tick) for tick in ticks]


class StyledCanvas(Canvas):
    """A canvas all of whose segments have a style: the filter for NO_COLOR fails on one that has none."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        return Strip([Segment(text, style or self.rich_style, control) for text, style, control in strip], strip.cell_length)


class Plot(PlotWidget, inherit_bindings=False, can_focus=False):
    """The library's plot in the theme's colours; the panel around it has the keys."""

    COMPONENT_CLASSES = {"plot--line", "plot--faint", "plot--dots", "plot--marks"}

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)
        self._chart: Chart | None = None
        self._columns = 0

    def on_mount(self) -> None:
        self.margin_top, self.margin_left = 0, 9
        self.set_x_formatter(Ticks())
        self.set_y_formatter(Ticks())

    def compose(self) -> ComposeResult:
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield StyledCanvas(1, 1, id=name)
        yield Legend(id="legend")

    def show(self, chart: Chart, columns: int) -> None:
        """Draw a chart with at least one point; a line has no more points than its part of `columns` cells can tell apart."""
        self._chart, self._columns = chart, columns
        (left, right), (low, high) = ranges(chart)
        self.clear()
        self.set_xlimits(left, right)
        self.set_ylimits(low, high)
        self.set_xlabel(chart.x)
        for series in chart.series:
            style = str(self.get_component_rich_style(f"plot--{series.look}"))
            if series.look in MARKERS:
                xs, ys = dashed(series.xs, series.ys) if series.look == "faint" else (series.xs, series.ys)
                self.scatter(xs, ys, marker=MARKERS[series.look], marker_style=style)
            else:
                xs, ys = thinned(series.xs, series.ys, DOTS_IN_CELL * columns)
                self.plot(xs, ys, line_style=style, hires_mode=HiResMode.BRAILLE)

    def notify_style_update(self) -> None:
        """Draw again in the colours of the new theme."""
        super().notify_style_update()
        if self._chart is not None and self.is_mounted:
            self.show(self._chart, self._columns)

    def render(self) -> RenderResult:
        try:
            return super().render()
        except (ValueError, ZeroDivisionError, IndexError, OverflowError):
            # A chart that can't be drawn at some odd size must not end the console; the table says the same.
            return "no room for a chart: t shows the numbers"


def dashed(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Points on the line from the first to the last one: it is told from a curve without colour, too."""
    parts = [place / (DASHES - 1) for place in range(DASHES)]
    return [xs[0] + (xs[-1] - xs[0]) * part for part in parts], [ys[0] + (ys[-1] - ys[0]) * part for part in parts]


class ChartPanel(VerticalScroll):
    """One chart with its heading and its note; `t` turns all of them into tables."""

    BINDINGS = [*bindings("scroll")]

    def __init__(self, name: str) -> None:
        super().__init__(id=f"progress-{name}", classes="progress-pane progress-chart")
        self._chart: Chart | None = None
        self._wants_table = False
        self._title = ""
        # Until there is a chart: axes without anything would say that there is nothing.
        self._heading = Static("reading…", markup=False, classes="chart-heading")
        self._plot = Plot()
        self._plot.display = False
        self._table = Static(markup=False, classes="chart-table")
        self._note = Static(markup=False, classes="chart-note")

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self._plot
        yield self._table
        yield self._note

    @property
    def has_chart(self) -> bool:
        """Whether a chart is drawn, not its table."""
        return bool(self._plot.display)

    def show(self, chart: Chart, table: bool) -> None:
        """Replace the chart."""
        if (chart, table) == (self._chart, self._wants_table):
            return
        self._chart, self._wants_table = chart, table
        self._draw()

    def on_resize(self, event: Resize) -> None:
        if self._chart is not None:
            self._draw()

    def _draw(self) -> None:
        chart = self._chart
        if chart is None:
            return
        if chart.title != self._title:
            self._title = chart.title
            self.border_title = Content(chart.title)
        room = self.container_size if self.size.width == 0 else self.size
        drawn = bool(chart.series) and not self._wants_table and room.width >= LEAST_WIDTH and room.height >= LEAST_HEIGHT
        self._plot.display, self._table.display = drawn, not drawn
        self._heading.display = bool(chart.series)
        _say(self._heading, chart.y if drawn else f"{chart.y}, by {chart.x}")
        self._note.display = bool(chart.note) and bool(chart.series)
        _say(self._note, chart.note)
        if drawn:
            self._plot.show(chart, room.width)
        else:
            _say(self._table, "\n".join(table_lines(chart)))


def _say(line: Static, text: str) -> None:
    """The same words again lay nothing out."""
    if text != line.content:
        line.update(text)
