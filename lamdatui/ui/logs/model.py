"""What a view of a log shows: which lines, folded how, with which times and marks. No textual.

Rows are lines, or only those that report a problem. A row takes one row of the screen, or several when lines are
wrapped. Work on the file is done in small portions by `work`, so that whoever calls can stop between two.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from lamdatui.ui.logs.index import LogIndex
from lamdatui.ui.logs.scan import LevelScan, Scan, TextScan
from lamdatui.ui.view.loglines import LogLine, show

CACHED_LINES = 2000
_EMPTY = LogLine("", "", None)


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands on one row of the screen: characters `begin` to `end` of a line. `number` counts lines from 0."""

    row: int
    number: int
    line: LogLine
    begin: int
    end: int


class LogModel:
    """One log file as it is looked at."""

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        self.index = LogIndex(path)
        self.levels = LevelScan(self.index)
        self.search: TextScan | None = None
        self.only_problems = False
        self.wants_levels = False
        """Whether errors are to be known though nothing is filtered."""
        self.wrap = False
        self.mark: int | None = None
        """The line that is pointed at."""
        self._wall = wall
        self._cache: dict[int, LogLine] = {}
        self._generation = 0
        self._caught_up = False
        self._seen_lines = array("Q")
        self._seen_walls = array("d")

    # --- work on the file ----------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Look whether the file has changed; whether it had."""
        changed = self.index.advance()
        if self._generation != self.index.generation:
            self._generation = self.index.generation
            self._cache.clear()
            self._seen_lines, self._seen_walls = array("Q"), array("d")
            self.mark = None
        if not self.index.is_behind:
            self._note_arrival()
            self._caught_up = True
        return changed

    def work(self) -> bool:
        """Do one portion of what is to do; whether more is left."""
        if self.index.is_behind:
            self.look()
            return True
        scan = next((scan for scan in self._scans() if not scan.is_done), None)
        if scan:
            scan.advance()
        return scan is not None

    @property
    def is_busy(self) -> bool:
        """Whether `work` has something to do."""
        return self.index.is_behind or any(not scan.is_done for scan in self._scans())

    def _scans(self) -> list[Scan]:
        wanted: list[Scan] = [self.search] if self.search else []
        return [*wanted, self.levels] if self.only_problems or self.wants_levels else wanted

    def _note_arrival(self) -> None:
        """When lines were first seen, to the second; nothing is known of those that were there before."""
        now = self._wall()
        if not self._caught_up:
            self._seen_lines.append(self.index.ends)
            self._seen_walls.append(0.0)
        elif self.index.ends > self._seen_lines[-1] if self._seen_lines else self.index.ends:
            if self._seen_walls and now - self._seen_walls[-1] < 1.0:
                self._seen_lines[-1] = self.index.ends
            else:
                self._seen_lines.append(self.index.ends)
                self._seen_walls.append(now)

    def seen(self, number: int) -> float | None:
        """When a line was first seen; None for one that was there before."""
        place = bisect_right(self._seen_lines, number)
        return (self._seen_walls[place] or None) if place < len(self._seen_walls) else None

    # --- rows ----------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """How many rows there are to scroll over."""
        return len(self.levels.hits) if self.only_problems else self.index.count

    def number(self, row: int) -> int:
        """The line of a row."""
        return self.levels.hits[row] if self.only_problems else row

    def row(self, number: int) -> int:
        """The row of a line, or of the last one before it that is shown."""
        return max(0, bisect_right(self.levels.hits, number) - 1) if self.only_problems else number

    def lines(self, first: int, count: int) -> list[LogLine]:
        """The lines of some rows."""
        count = max(0, min(count, self.rows - first))
        if self.only_problems:
            return [self._line(self.levels.hits[row]) for row in range(first, first + count)]
        known = [self._cache.get(number) for number in range(first, first + count)]
        if not any(line is None for line in known):
            return [line or _EMPTY for line in known]
        return [self._keep(first + place, raw) for place, raw in enumerate(self.index.read(first, count))]

    def _line(self, number: int) -> LogLine:
        if (known := self._cache.get(number)) is not None:
            return known
        return next((self._keep(number, raw) for raw in self.index.read(number, 1)), _EMPTY)

    def _keep(self, number: int, raw: bytes) -> LogLine:
        line = show(raw)
        if number < self.index.ends:
            if len(self._cache) >= CACHED_LINES:
                self._cache.clear()
            self._cache[number] = line
        return line

    # --- the screen ----------------------------------------------------------------------------------------------

    def page(self, top: int, height: int, width: int) -> list[Piece]:
        """What stands on the screen when row `top` is the first one."""
        found: list[Piece] = []
        for place, line in enumerate(self.lines(top, height)):
            if len(found) >= height:
                break
            found += self._pieces(top + place, line, width)
        return found[:height]

    def last_page(self, height: int, width: int) -> list[Piece]:
        """What stands on the screen when the last row ends it."""
        return self._page_before(self.rows, height, width)[-height:]

    def top_before(self, row: int, height: int, width: int) -> int:
        """The first row of the page that ends above `row`."""
        whole = self._page_before(row, height, width)
        # A line that would begin above the screen begins one page further up.
        cut = len(whole) > height and whole[0].row + 1 < row
        return whole[0].row + cut if whole else 0

    def last_top(self, height: int, width: int) -> int:
        """How far the rows scroll."""
        if not self.wrap:
            return max(0, self.rows - height)
        whole = self._page_before(self.rows, height, width)
        return whole[0].row if whole else 0

    def _page_before(self, row: int, height: int, width: int) -> list[Piece]:
        found: list[Piece] = []
        first = max(0, row - height)
        for place, line in reversed(list(enumerate(self.lines(first, row - first)))):
            found = self._pieces(first + place, line, width) + found
            if len(found) >= height:
                break
        return found

    def _pieces(self, row: int, line: LogLine, width: int) -> list[Piece]:
        number = self.number(row)
        if not self.wrap:
            return [Piece(row, number, line, 0, len(line.text))]
        return [Piece(row, number, line, begin, end) for begin, end in folds(line.text, width)]


def folds(text: str, width: int) -> list[tuple[int, int]]:
    """Where a line is cut so that each part fits `width` cells; one empty part for an empty line."""
    width = max(2, width)
    if text.isascii():
        return [(at, min(at + width, len(text))) for at in range(0, len(text), width)] or [(0, 0)]
    found, begin, used = [], 0, 0
    for at, character in enumerate(text):
        cells = cell_len(character)
        if used + cells > width:
            found.append((begin, at))
            begin, used = at, 0
        used += cells
    return [*found, (begin, len(text))]
