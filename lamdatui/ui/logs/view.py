"""A view of a log file of any length: it reads and draws the rows that are on the screen, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.actions import SkipAction
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.logs.model import LogModel, Piece
from lamdatui.ui.logs.scan import TextScan
from lamdatui.ui.view.loglines import GLYPHS, clock

POLLS_PER_SECOND = 15
SLICE_SECONDS = 0.004
PAUSE_SECONDS = 0.001
GUTTER = 2
TIME_WIDTH = 10
MAX_COPY_ROWS = 100_000
AHEAD_BYTES = 1024 * 1024
"""While more than this is unread, the end is not shown: it would only flicker past."""
_PARTS = ("error", "warning", "match", "current-match", "mark", "dim")


class LogView(ScrollView, can_focus=True):
    """Follows the end while the reader is there. Posts `Changed` when what it says of itself may have changed."""

    BINDINGS = [*bindings("logs")]
    BINDING_GROUP_TITLE = "Log"
    COMPONENT_CLASSES = {f"log-view--{part}" for part in _PARTS}
    # Without a layout: a log that grew is no reason to lay the whole screen out again.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0), repaint=False)

    @dataclass
    class Changed(Message):
        """Lines came (`new` of them), or the place, a search or a filter changed."""

        new: int = 0

    @dataclass
    class Asked(Message):
        """The person wants something that concerns more than this view: search, pager, before, after."""

        what: str

    def __init__(self) -> None:
        super().__init__(id="log-view")
        self.model: LogModel | None = None
        self.times = False
        self.following = True
        self.behind = 0
        """Lines that came since the reader left the end."""
        self._wrap = False
        self._only_problems = False
        self._width = 0
        self._known = 0
        self._opened = False
        self._pumping = False
        self._placing = False
        """While the view itself moves: that says nothing about where the reader wants to be."""
        self._awaited: int | None = None
        """A search jumps to its first hit from this line on."""
        self._wants_error = False
        self._page: list[Piece] = []
        self._page_key: tuple[object, ...] = ()
        self._painted: list[Piece] | None = None
        self._styles_of: dict[str, Style] = {}

    def on_mount(self) -> None:
        self.set_interval(1 / POLLS_PER_SECOND, self.poll)

    @property
    def only_problems(self) -> bool:
        """Whether lines that report no warning or error are left out."""
        return self._only_problems

    # --- the file ------------------------------------------------------------------------------------------------

    def open(self, path: Path | None) -> None:
        """Show another log, from its end."""
        self.model = LogModel(path) if path else None
        self.following, self.behind, self._width, self._known, self._opened = True, 0, 0, 0, False
        self._awaited, self._wants_error, self._page_key = None, False, ()
        if self.model:
            self.model.wrap, self.model.only_problems = self._wrap, self._only_problems
        self.screen.clear_selection()
        # The extent first: the old log's would say whether this one's end is on the screen.
        with self._place():
            self._set_extent()
            self._scroll_to(x=0, y=0, animate=False, force=True)
        self.poll()
        self._sync()

    def poll(self) -> None:
        """Take in what is new."""
        model = self.model
        if model is None or self._pumping:
            return
        if model.look() and not model.is_busy:
            self._sync()
        elif model.is_busy:
            self._pumping = True
            self.run_worker(self._pump(model), group="log")

    async def _pump(self, model: LogModel) -> None:
        """Work in slices; between two of them keys are answered and the screen is drawn."""
        try:
            drawn = 0.0
            while self.model is model and model.is_busy:
                began = time.perf_counter()
                while time.perf_counter() - began < SLICE_SECONDS and model.work():
                    pass
                if began - drawn > 1 / POLLS_PER_SECOND:
                    drawn = began
                    self._sync()
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._pumping = False
        if self.model is model:
            self._sync()

    def _sync(self) -> None:
        """Bring the screen up to what is known of the file."""
        model = self.model
        came = max(0, model.index.ends - self._known) if model and self._opened else 0
        self._known = model.index.ends if model else 0
        # What a log holds when it is opened is not news.
        self._opened = self._opened or (model is not None and not model.index.is_behind)
        if model:
            self._settle_search(model)
        if model and model.index.file_size - model.index.size > AHEAD_BYTES and self.following:
            self.post_message(self.Changed(came))
            return
        with self._place():
            self._set_extent()
            if self.following:
                self.behind = 0
                self._to_end()
            else:
                self.behind += came
        if self.scroll_y > self.max_scroll_y:
            self.scroll_to(y=self.max_scroll_y)
        self.refresh()
        self.post_message(self.Changed(came))

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Move the view without leaving or reaching the end for the reader: `following` stays what it is."""
        before, self._placing = self._placing, True
        try:
            yield
        finally:
            self._placing = before

    def _set_extent(self) -> None:
        # What is known when it is called: rows that were counted before a wait may be another log's, or too few.
        rows, height = self.model.rows if self.model else 0, self._height
        if self.model and self.model.wrap:
            rows, width = self.model.last_top(height, self._text_width) + height, 0
        else:
            width = self._width + self._left
        size = Size(width, rows)
        if size != self.virtual_size:
            self.virtual_size = size
            self._scroll_update(size)

    def _to_end(self) -> None:
        self._scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def scroll_to(self, x: float | None = None, y: float | None = None, **options: Any) -> None:
        """At once: an animation would run behind a log that grows."""
        options["animate"] = False
        super().scroll_to(x, y, **options)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._placing:
            return
        before = self.following
        self.following = new_value >= self.max_scroll_y
        if self.following:
            self.behind = 0
        if before != self.following:
            self.post_message(self.Changed())

    def on_resize(self, event: Resize) -> None:
        with self._place():
            self._set_extent()
            if self.following:
                self._to_end()
        if not self.following and self.scroll_y >= self.max_scroll_y:
            # Every line is on the screen now: nothing is left to follow to.
            self.following, self.behind = True, 0
            self.post_message(self.Changed())

    # --- painting ------------------------------------------------------------------------------------------------

    @property
    def _left(self) -> int:
        return GUTTER + (TIME_WIDTH if self.times else 0)

    @property
    def _text_width(self) -> int:
        return max(2, self.scrollable_content_region.width - self._left)

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def page(self) -> list[Piece]:
        """What stands on the screen, a piece a row."""
        model = self.model
        if model is None:
            return []
        top = round(self.scroll_y)
        at_end = top >= self.max_scroll_y
        key = (model, model.index.generation, model.index.size, len(model.levels.hits), top, at_end, self._text_width,
               self._height, model.wrap, model.only_problems)  # fmt: skip
        if key != self._page_key:
            self._page_key = key
            if model.wrap and at_end:
                self._page = model.last_page(self._height, self._text_width)
            else:
                self._page = model.page(top, self._height, self._text_width)
            widest = max((len(piece.line.text) for piece in self._page), default=0)
            if widest > self._width:
                self._width = widest
                self.call_later(self._set_extent)
        return self._page

    def render_lines(self, crop: Region) -> list[Strip]:
        # What is the same for all rows is worked out once.
        self._painted = self.page()
        try:
            return super().render_lines(crop)
        finally:
            self._painted = None

    def render_line(self, y: int) -> Strip:
        page = self.page() if self._painted is None else self._painted
        width = self.size.width
        if y >= len(page) or self.model is None:
            return Strip.blank(width, self._style(""))
        piece = page[y]
        marked = piece.number == self.model.mark
        base = self._style("") + self._style("mark") if marked else self._style("")
        tone = base + self._style(piece.line.level) if piece.line.level else base
        left = self.scroll_offset.x if not self.model.wrap else 0
        body = (
            self._body(piece, tone)
            .crop_extend(left, left + width - self._left, base)
            .apply_offsets(piece.begin + left, piece.row)
        )
        return Strip.join([self._gutter(piece, marked, base, tone), body])

    def _gutter(self, piece: Piece, marked: bool, base: Style, tone: Style) -> Strip:
        first = piece.begin == 0
        segments = [Segment(f"{GLYPHS[piece.line.level] if first else ' '}{'▸' if marked and first else ' '}", tone)]
        if self.times:
            told, seen = piece.line.wall, self.model.seen(piece.number) if self.model else None
            stamp = f" {clock(told)} " if told else f"~{clock(seen)} " if seen else " " * TIME_WIDTH
            segments.append(Segment(stamp if first else " " * TIME_WIDTH, base + self._style("dim")))
        return Strip(segments, self._left)

    def _body(self, piece: Piece, style: Style) -> Strip:
        shown = piece.line.text[piece.begin : piece.end]
        marks = self._marks(piece)
        if not marks:
            return Strip([Segment(shown, style)], len(shown) if shown.isascii() else None)
        text = Text(shown, style, no_wrap=True, end="")
        for begin, end, mark in marks:
            text.stylize(mark, max(0, begin - piece.begin), max(0, end - piece.begin))
        return Strip(text.render(self.app.console))

    def _marks(self, piece: Piece) -> list[tuple[int, int, Style]]:
        """Which characters of the line stand out: hits of the search, the selection."""
        found: list[tuple[int, int, Style]] = []
        model = self.model
        if model and model.search:
            style = self._style("current-match" if piece.number == model.mark else "match")
            found = [(begin, end, style) for begin, end in model.search.matches(piece.line.text)]
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(piece.row)) is not None:
            end = len(piece.line.text) if span[1] == -1 else span[1]
            found.append((span[0], end, self.screen.get_component_rich_style("screen--selection")))
        return found

    def _style(self, part: str) -> Style:
        if part not in self._styles_of:
            named = self.get_component_rich_style(f"log-view--{part}", partial=True) if part else self.rich_style
            self._styles_of[part] = named
        return self._styles_of[part]

    def notify_style_update(self) -> None:
        self._styles_of.clear()
        super().notify_style_update()

    # --- selecting -----------------------------------------------------------------------------------------------

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        if self.model is None or not self.model.rows:
            return None
        first = selection.start.y if selection.start else 0
        last = min(selection.end.y if selection.end else self.model.rows, self.model.rows - 1, first + MAX_COPY_ROWS - 1)
        texts = []
        for row, line in enumerate(self.model.lines(first, last - first + 1), first):
            begin, end = selection.get_span(row) or (0, -1)
            texts.append(line.text[begin:] if end == -1 else line.text[begin:end])
        return "\n".join(texts), "\n"

    def on_click(self, event: Click) -> None:
        page = self.page()
        offset = event.get_content_offset(self)
        if self.model and offset and offset.y < len(page) and self.text_selection is None:
            self._point_at(page[offset.y].number)

    def copy_text(self) -> str:
        """The row that is pointed at; without one, the last row when the end is followed, else the first on the screen."""
        if self.model is None or not (page := self.page()):
            return ""
        number = self.model.mark if self.model.mark is not None else page[-1 if self.following else 0].number
        return next((line.text for line in self.model.lines(self.model.row(number), 1)), "")

    def _point_at(self, number: int | None) -> None:
        if self.model:
            self.model.mark = number
            self.refresh()
            self.post_message(self.Changed())

    # --- keys ----------------------------------------------------------------------------------------------------

    def go_to(self, number: int) -> None:
        """Point at a line and have it on the screen."""
        model = self.model
        if model is None:
            return
        model.mark = number
        row, on_screen = model.row(number), {piece.number for piece in self.page()}
        if number not in on_screen:
            self.following = False
            with self._place():
                self._scroll_to(y=max(0, min(row - self._height // 3, self.max_scroll_y)), animate=False, force=True)
        self._page_key = ()
        self.refresh()
        self.post_message(self.Changed())

    @property
    def place(self) -> int:
        """The line that is pointed at, or the first on the screen."""
        if self.model and self.model.mark is not None:
            return self.model.mark
        return page[0].number if (page := self.page()) else 0

    def search(self, needle: str, origin: int) -> None:
        """Search for a text and go to its first hit from line `origin` on; an empty text ends the search."""
        if self.model is None:
            return
        self.model.search = TextScan(self.model.index, needle) if needle else None
        self._awaited = origin if needle else None
        self.poll()
        self.refresh()
        self.post_message(self.Changed())

    def _settle_search(self, model: LogModel) -> None:
        """Jump as soon as it is known where to."""
        if self._awaited is not None and model.search:
            found = model.search.after(self._awaited - 1, wrap=False)
            if found is None and model.search.is_done:
                # Who reads the end wants the last hit, not the first.
                found = model.search.before(self._awaited)
            if found is not None or model.search.is_done:
                self._awaited = None
            if found is not None:
                self.go_to(found)
        if self._wants_error and (model.levels.first_traceback is not None or model.levels.is_done):
            self._wants_error = False
            if (found := model.levels.next_error(None)) is not None:
                self.go_to(found)
            else:
                self.notify("No line of this log reports an error.")

    def action_ask(self, what: str) -> None:
        self.post_message(self.Asked(what))

    def action_find(self, by: int) -> None:
        """The next hit, or the one before."""
        model = self.model
        if model is None or model.search is None:
            self.notify("Nothing is searched for; / begins a search.")
            return
        pointed = model.mark is not None
        found = model.search.after(self.place if pointed else self.place - 1) if by > 0 else model.search.before(self.place)
        if found is None:
            self.notify("Still searching." if not model.search.is_done else "No line has it.", markup=False)
        else:
            self.go_to(found)

    def action_error(self) -> None:
        """The next error: at first the first traceback, else the first error line."""
        model = self.model
        if model is None:
            return
        model.wants_levels = True
        if model.mark is not None and model.levels.place(model.mark) is not None:
            if (found := model.levels.next_error(model.mark)) is not None:
                self.go_to(found)
            return
        self._wants_error = True
        self._settle_search(model)
        self.poll()

    def action_problems(self) -> None:
        """Only warnings and errors, or all lines."""
        if self.model is None:
            return
        place, following = self.place, self.following
        self._only_problems = self.model.only_problems = not self._only_problems
        self.screen.clear_selection()
        with self._place():
            self._set_extent()
            self.poll()
            if not following and self._only_problems:
                self._scroll_to(y=self.model.row(place), animate=False, force=True)
        if not following and not self._only_problems:
            self.model.mark = place
            self.go_to(place)
        self._sync()

    def action_wrap(self) -> None:
        """Fold long lines, or scroll sideways."""
        top = page[0].row if (page := self.page()) else 0
        self._wrap = not self._wrap
        if self.model:
            self.model.wrap = self._wrap
        with self._place():
            self._set_extent()
            self._scroll_to(x=0, y=self.max_scroll_y if self.following else top, animate=False, force=True)
        self._sync()

    def action_times(self) -> None:
        """Times in front of the lines, or not."""
        self.times = not self.times
        if self.times:
            self.notify("Times where the log has them; ~ is when this console saw the line.", markup=False)
        self._sync()

    def action_clear_search(self) -> None:
        model = self.model
        if model is None or (model.search is None and model.mark is None):
            raise SkipAction
        model.search, self._awaited = None, None
        self._point_at(None)

    def action_scroll_end(self) -> None:
        self.following = True
        if self.model:
            self.model.mark = None
        self._sync()

    def action_page_down(self) -> None:
        if self.model and self.model.wrap and (page := self.page()):
            whole = page[-1].end >= len(page[-1].line.text)
            self.scroll_to(y=max(page[-1].row + whole, page[0].row + 1))
        else:
            super().action_page_down()

    def action_page_up(self) -> None:
        if self.model and self.model.wrap and (page := self.page()):
            self.scroll_to(y=min(self.model.top_before(page[0].row, self._height, self._text_width), page[0].row))
        else:
            super().action_page_up()
