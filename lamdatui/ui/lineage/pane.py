"""The pipeline pane: models by lineage with aligned score columns. Only the rows in view are ever drawn."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.lineage.forest import ORDERS, Change, Forest, Node, TreeRow
from lamdatui.ui.lineage.rows import GUTTER, Columns, columns, guide_cells, header, row_line
from lamdatui.ui.view.format import Tone
from lamdatui.ui.view.state import ViewState

EMPTY = "Nothing yet: the base models are measured first, then a trial is proposed."
NO_ENGINE = "No engine answers yet; the pipeline is shown as soon as one does."
COPIED = 200
"""Cells that a row is laid out for when it is copied."""
_STYLED: tuple[Tone, ...] = ("dim", "good", "bad", "wait", "run", "strong")


class LineageTree(ScrollView, can_focus=True):
    """The rows of a `Forest`. Cursor, folds and what is in view stay through updates."""

    BINDINGS = [*bindings("pane", "pipeline")]
    BINDING_GROUP_TITLE = "Pipeline"
    COMPONENT_CLASSES = {*(f"lineage--{tone}" for tone in _STYLED), "lineage--cursor"}
    # Without a layout: a row more moves no other pane, and the room of the scrollbar is always left.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0), repaint=False)

    @dataclass
    class Asked(Message):
        """The person wants something of a node: `open`, `extend`, `fork`, `rerun`, `new`, `queue` or `compare` with the marked one."""

        verb: str
        key: str

    class Arranged(Message):
        """Another order, filter or column layout: what stands above the rows must follow."""

    class FilterAsked(Message):
        """The person wants to type a filter."""

    def __init__(self, pipeline: Forest) -> None:
        super().__init__(id="lineage")
        self.pipeline = pipeline
        self.columns = Columns(())
        self._rows: list[TreeRow] = []
        self._cursor = ""
        self._styles: dict[Tone, Style] = {}

    @property
    def selected(self) -> Node | None:
        """The node under the cursor."""
        return self.pipeline.nodes.get(self._cursor.split("@")[0])

    @property
    def row_width(self) -> int:
        """Cells of a row."""
        return max(8, self.scrollable_content_region.width)

    def take(self, change: Change) -> None:
        """Show what changed."""
        if change.rows:
            self._follow_rows()
        self._fit_columns()
        if change.rows:
            self.post_message(self.Arranged())
        if change.paint or change.rows:
            self.refresh()
        elif change.keys:
            self._refresh_nodes(change.keys)

    def on_resize(self, event: Resize) -> None:
        self._fit_columns()
        self.post_message(self.Arranged())
        self._show_row(self._place())

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        place = y + self.scroll_offset.y
        base, width = self.rich_style, self.row_width
        if place >= len(self._rows):
            return Strip.blank(self.size.width, base)
        row = self._rows[place]
        if row.key == self._cursor:
            base += self.get_component_rich_style("lineage--cursor", partial=True)
        line = row_line(row, self.pipeline, self.columns, width)
        return Strip([Segment(text, base + self._style(tone)) for text, tone in line], width)

    def _style(self, tone: Tone) -> Style:
        if tone not in self._styles:
            known = tone in _STYLED
            self._styles[tone] = self.get_component_rich_style(f"lineage--{tone}", partial=True) if known else Style.null()
        return self._styles[tone]

    def _place(self) -> int:
        return self.pipeline.nearest(self._cursor) or 0

    def _follow_rows(self) -> None:
        """Rows were laid out anew: keep the cursor, and keep what is in view where it is."""
        before, top, height = self._rows, self.scroll_offset.y, max(1, self.size.height)
        places = [place for place in range(top, min(len(before), top + height)) if before[place].key == self._cursor]
        anchor = places[0] if places else min(top, len(before) - 1)
        self._rows = self.pipeline.rows
        self.virtual_size = Size(self.row_width, len(self._rows))
        self._scroll_update(self.virtual_size)
        if not self._cursor or not before:
            self._cursor = self._rows[0].key if self._rows else ""
            return
        place = self.pipeline.nearest(before[anchor].key)
        if place is not None:
            self.scroll_to(y=place - (anchor - top), animate=False, immediate=True)
        if self.pipeline.place(self._cursor) is None and self._rows:
            self._cursor = self._rows[self._place()].key

    def _fit_columns(self) -> None:
        found = columns(self.pipeline.tasks, self.row_width, self.pipeline.depth)
        if found != self.columns:
            self.columns = found
            # Also after a resize: its own repaint may have come before this.
            self.refresh()

    def _refresh_nodes(self, keys: frozenset[str]) -> None:
        top = self.scroll_offset.y
        for place in range(top, min(len(self._rows), top + self.size.height)):
            if self._rows[place].node.key in keys:
                self.refresh_line(place)

    def _show_row(self, place: int) -> None:
        self.scroll_to_region(Region(0, place, 1, 1), animate=False, immediate=True, x_axis=False)

    def move_to(self, place: int) -> None:
        """Put the cursor on a row and show it."""
        if not self._rows:
            return
        place = max(0, min(len(self._rows) - 1, place))
        self._cursor = self._rows[place].key
        self._show_row(place)
        self.refresh()

    def select(self, key: str) -> None:
        """Put the cursor on a node, or on what it is folded into."""
        place = self.pipeline.nearest(key)
        if place is not None:
            self.move_to(place)

    def copy_text(self) -> str:
        """The row under the cursor with all its columns, for `y`."""
        if not self._rows:
            return ""
        found = columns(self.pipeline.tasks, COPIED, self.pipeline.depth)
        line = row_line(self._rows[self._place()], self.pipeline, found, COPIED)
        return " ".join("".join(text for text, _ in line).split())

    def on_click(self, event: Click) -> None:
        place = event.y + self.scroll_offset.y
        if place >= len(self._rows):
            return
        row = self._rows[place]
        sign = GUTTER + guide_cells(row, self.columns)
        if self.pipeline.foldable(row) and event.x in (sign - 1, sign):
            self._fold(row.key)
        elif row.key == self._cursor:
            self.action_open()
        self.move_to(self.pipeline.nearest(row.key) or 0)

    def action_cursor_down(self) -> None:
        self.move_to(self._place() + 1)

    def action_cursor_up(self) -> None:
        self.move_to(self._place() - 1)

    def action_page_down(self) -> None:
        self.move_to(self._place() + max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        self.move_to(self._place() - max(1, self.size.height - 1))

    def action_first(self) -> None:
        self.move_to(0)

    def action_last(self) -> None:
        self.move_to(len(self._rows) - 1)

    def action_best(self) -> None:
        """Go to the best model, unfolding what hides it."""
        best = self.pipeline.best
        if best is None:
            self.app.notify("No model has an objective yet.")
            return
        above = best.parent
        while above is not None:
            self._fold(above.key, fold=False)
            above = above.parent
        self.select(best.key)

    def action_open(self) -> None:
        self._ask("open")

    def action_ask(self, verb: str) -> None:
        self._ask(verb)

    def action_mark(self) -> None:
        """Mark a node for comparison; with another one marked, compare; the same one again, unmark."""
        node, marked = self.selected, self.pipeline.marked
        if node is None:
            return
        if marked and marked != node.key and marked in self.pipeline.nodes:
            self._ask("compare")
            return
        self.pipeline.marked = "" if marked == node.key else node.key
        if self.pipeline.marked:
            self.app.notify(
                f"{node.model or node.number} is marked; the same key on another one compares them.", timeout=3, markup=False
            )
        self.post_message(self.Arranged())
        self.refresh()

    def action_turn(self) -> None:
        if node := self.selected:
            self._fold(node.key)

    def action_fold(self) -> None:
        """Fold, or go to the parent where there is nothing to fold."""
        node = self.selected
        if node and not self._fold(node.key, fold=True) and node.parent:
            self.select(node.parent.key)

    def action_unfold(self) -> None:
        """Unfold, or go to the first child."""
        node = self.selected
        if node and not self._fold(node.key, fold=False) and node.children:
            self.select(node.children[0].key)

    def action_fold_all(self) -> None:
        self.pipeline.fold_all(True)
        self.take(Change(rows=True))

    def action_unfold_all(self) -> None:
        self.pipeline.fold_all(False)
        self.take(Change(rows=True))

    def action_sort(self) -> None:
        """The next order; in every order but the first the rows are a list."""
        order = ORDERS[(ORDERS.index(self.pipeline.order) + 1) % len(ORDERS)]
        self.pipeline.arrange(order=order)
        self.take(Change(rows=True))
        self._show_row(self._place())

    def action_filter(self) -> None:
        self.post_message(self.FilterAsked())

    def _fold(self, key: str, fold: bool | None = None) -> bool:
        changed = self.pipeline.toggle(key, fold)
        if changed:
            self.take(Change(rows=True))
        return changed

    def _ask(self, verb: str) -> None:
        node = self.selected
        self.post_message(self.Asked(verb, node.key if node else ""))


class FilterInput(Input):
    """Where the filter is typed."""

    BINDINGS = [*bindings("filter")]

    def action_leave(self) -> None:
        self.value = ""
        self.display = False
        self.screen.query_one(LineageTree).focus()

    def action_keep(self) -> None:
        self.display = bool(self.value.strip())
        self.screen.query_one(LineageTree).focus()


class PipelinePane(Vertical):
    """Column names above the rows, the filter below them."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="pipeline", classes="pane -active")
        self.border_title = "1 Pipeline"
        self._view = view
        self._said = (False, EMPTY, "")
        """Whether columns are named, what stands above the rows, what below."""
        self.pipeline = Forest()

    def compose(self) -> ComposeResult:
        yield Static(EMPTY, id="lineage-header", markup=False)
        yield LineageTree(self.pipeline)
        found = FilterInput(placeholder="words of a row: dpo failed m12", id="lineage-filter", compact=True)
        found.display = False
        yield found

    def is_best(self, key: str) -> bool:
        """Whether this is the best node."""
        return self.pipeline.best is not None and self.pipeline.best.key == key

    def mark(self, key: str) -> str:
        """The other node that is marked already; else "", and this one is marked from now on."""
        if (marked := self.pipeline.marked) and marked != key:
            return marked
        self.pipeline.marked = key
        return ""

    def update_view(self) -> None:
        """Show what the state changed since the last time."""
        self.query_one(LineageTree).take(self.pipeline.take(self._view))
        self._title()

    def clear_filter(self) -> bool:
        """Take the filter away; whether there was one."""
        if not self.pipeline.query:
            return False
        self.query_one(FilterInput).action_leave()
        return True

    @on(LineageTree.Arranged)
    def _arranged(self) -> None:
        self._title()

    @on(LineageTree.FilterAsked)
    def _filter_asked(self) -> None:
        found = self.query_one(FilterInput)
        found.display = True
        found.focus()

    @on(Input.Changed, "#lineage-filter")
    def _filter_typed(self, event: Input.Changed) -> None:
        event.stop()
        tree = self.query_one(LineageTree)
        self.pipeline.arrange(query=event.value)
        tree.take(Change(rows=True))

    def _title(self) -> None:
        """What stands above and below the rows; painted only where it says something else than before."""
        named, head, below = bool(self.pipeline.nodes), self._head(), ""
        if named:
            below = "★ best  ┃ its lineage" + ("  ◆ marked" if self.pipeline.marked else "")
        headed, said_above, said_below = self._said
        if head != said_above:
            # One row after one row lays nothing out anew; the words that stand there without models may take more.
            self.query_one("#lineage-header", Static).update(head, layout=not (named and headed))
        if below != said_below:
            self.border_subtitle = Content(below)
        self._said = (named, head, below)

    def _head(self) -> str:
        if not self.pipeline.nodes:
            return NO_ENGINE if self._view.connection in ("connecting", "lost") else EMPTY
        tree, parts = self.query_one(LineageTree), [] if self.pipeline.order == "number" else [f"by {self.pipeline.order}"]
        if self.pipeline.query:
            parts.append(f"/{self.pipeline.query}: {len(self.pipeline.matching or ())} of {len(self.pipeline.nodes)}")
        return header(tree.columns, tree.row_width, " · ".join(parts) or "model")
