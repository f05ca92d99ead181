"""What a model answered, row by row, beside another model's answers. It only reads, through the engine."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.paint import paint, paint_lines
from lamdatui.ui.kit.stack import Asked, leave
from lamdatui.ui.kit.status import StatusRow
from lamdatui.ui.node.answers_text import FILTERS, head_lines, row_line, row_lines
from lamdatui.ui.view.format import LABEL
from lamdatui.ui.view.state import ViewState

Json = dict[str, Any]


class AnswersScreen(Screen[str]):
    """Of `model`, beside those of `against`; the rows that it lost stand first where there is such a model."""

    CSS_PATH = "node.tcss"
    AUTO_FOCUS = "#answers-list"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    BINDINGS = [*bindings("rows")]

    def __init__(self, model: str, against: str, view: ViewState) -> None:
        super().__init__(classes="live-screen")
        self._model = model
        self._against = against if against != model else ""
        self._view = view
        self._tasks: list[Json] = []
        self._place = 0
        self._filter = 0
        self._rows: list[Json] = []
        self._shown: list[Json] = []

    def compose(self) -> ComposeResult:
        yield StatusRow(self._view)
        yield Static("Reading the answers…", markup=False, id="answers-head")
        with Vertical(id="answers"):
            yield OptionList(markup=False, id="answers-list", compact=True)
            with VerticalScroll(id="answers-row", can_focus=False):
                yield Hanging(LABEL, id="answers-text")
        yield KeyFooter()

    def on_mount(self) -> None:
        self.post_message(Asked("answers", {"model": self._model, "against": self._against}, self._came))

    def update_view(self) -> None:
        """Nothing here changes with the run: scores are final."""

    @property
    def _told(self) -> Json | None:
        return self._tasks[self._place % len(self._tasks)] if self._tasks else None

    def _came(self, found: Json | None) -> None:
        if not self.is_attached or found is None:
            return
        # The search rows are those that decide during a run; the sealed ones come first once they were opened.
        self._tasks = sorted(found["tasks"], key=lambda one: one["split"] != "sealed")
        self._ask_rows()

    def _ask_rows(self) -> None:
        told = self._told
        self._rows = []
        if told is None or "error" in told:
            self._fill()
            return
        against = self._against if "won" in told else ""
        args = {"model": self._model, "against": against, "task": told["task"], "split": told["split"]}
        self.post_message(Asked("answers", args, lambda found: self._rows_came(told, found)))

    def _rows_came(self, told: Json, found: Json | None) -> None:
        if self.is_attached and found is not None and told is self._told:
            self._rows = found["rows"]
            self._fill()

    def _fill(self) -> None:
        kind = FILTERS[self._filter]
        self._shown = [row for row in self._rows if kind == "all" or kind in row["kinds"]]
        lines = head_lines(self._model, self._against, self._told, kind, len(self._shown))
        self.query_one("#answers-head", Static).update(paint_lines(lines))
        rows = self.query_one("#answers-list", OptionList)
        rows.set_options([Option(paint(row_line(row))) for row in self._shown])
        self.query_one("#answers-text", Hanging).show([])
        if self._shown:
            rows.highlighted = 0

    @on(OptionList.OptionHighlighted)
    def _chosen(self, event: OptionList.OptionHighlighted) -> None:
        told = self._told
        if told is None or event.option_index >= len(self._shown):
            return
        row = self._shown[event.option_index]
        against = self._against if "won" in told else ""
        args = {"model": self._model, "against": against, "task": told["task"], "split": told["split"], "row": row["row"]}
        self.post_message(Asked("answers", args, lambda found: self._row_came(row, found)))

    def _row_came(self, row: Json, found: Json | None) -> None:
        if not self.is_attached or found is None:
            return
        place = self.query_one("#answers-list", OptionList).highlighted
        # The cursor may have gone on since.
        if place is not None and place < len(self._shown) and self._shown[place] is row:
            self.query_one("#answers-text", Hanging).show(row_lines(found))
            self.query_one("#answers-row", VerticalScroll).scroll_home(animate=False)

    def action_task(self, by: int) -> None:
        """The next task or split."""
        self._place += by
        self._ask_rows()

    def action_filter(self, by: int) -> None:
        """The next kind of rows that there are any of."""
        for _ in FILTERS:
            self._filter = (self._filter + by) % len(FILTERS)
            kind = FILTERS[self._filter]
            if kind == "all" or any(kind in row["kinds"] for row in self._rows):
                break
        self._fill()

    def action_move(self, by: int) -> None:
        rows = self.query_one("#answers-list", OptionList)
        (rows.action_cursor_down if by > 0 else rows.action_cursor_up)()

    def action_read(self, by: int) -> None:
        place = self.query_one("#answers-row", VerticalScroll)
        place.scroll_relative(y=by * max(1, place.size.height - 2), animate=False)

    def action_back(self) -> None:
        leave(self, "")
