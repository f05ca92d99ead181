"""Which lines of a log match: found piece by piece, so that whoever looks can stop between two. No textual."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from contextlib import suppress
from typing import Any

from lamdatui.ui.logs.index import LogIndex
from lamdatui.ui.view.loglines import LINE_CHARACTERS, TRACEBACK, is_stamped, level_of, log_line, show

PIECE = 64 * 1024


class Scan(ABC):
    """Numbers of the lines that match, in order, from the start of the file to where it was read."""

    def __init__(self, index: LogIndex) -> None:
        self._index = index
        self._restart()

    def _restart(self) -> None:
        self._generation = self._index.generation
        self._offset = 0
        self._line = 0
        self.hits = array("Q")

    @property
    def is_done(self) -> bool:
        """Whether every whole line was looked at."""
        return self._generation == self._index.generation and self._offset >= self._index.end

    @property
    def progress(self) -> float:
        """Share of the file that was looked at."""
        return min(1.0, self._offset / self._index.end) if self._index.end else 1.0

    def advance(self) -> None:
        """Look at one piece more."""
        if self._generation != self._index.generation:
            self._restart()
        wanted = min(PIECE, self._index.end - self._offset)
        if wanted > 0:
            # Where the file is gone, the index finds out what became of it.
            with suppress(OSError):
                self._look(wanted)

    def _look(self, wanted: int) -> None:
        with self._index.opened() as file:
            data = os.pread(file, wanted, self._offset)
        whole = data.rfind(b"\n") + 1
        if whole:
            self._search(data[:whole])
            self._line += data.count(b"\n", 0, whole)
            self._offset += whole
        elif data:
            # A line longer than a piece: what is shown of it decides, and the next line comes after it.
            self._take(self._line, self._index.read(self._line, 1)[0], sure=False)
            self._line += 1
            self._offset = self._index.start(self._line)

    def after(self, line: int, *, wrap: bool = True) -> int | None:
        """The first hit behind a line; at the end the first of all."""
        place = bisect_right(self.hits, line)
        if place < len(self.hits):
            return self.hits[place]
        return self.hits[0] if wrap and self.hits else None

    def before(self, line: int) -> int | None:
        """The last hit in front of a line; at the start the last of all."""
        place = bisect_left(self.hits, line)
        return self.hits[place - 1] if self.hits else None

    def place(self, line: int) -> int | None:
        """Which hit (from 0) a line is."""
        place = bisect_left(self.hits, line)
        return place if place < len(self.hits) and self.hits[place] == line else None

    def _search(self, data: bytes) -> None:
        hay: Any = self._hay(data)
        newline: Any = "\n" if isinstance(hay, str) else b"\n"
        line, at = self._line, 0
        while (found := self._find(hay, at)) >= 0:
            line += hay.count(newline, at, found)
            end = hay.find(newline, found)
            begin = hay.rfind(newline, 0, found) + 1
            raw = data[begin:end] if isinstance(hay, bytes) else hay[begin:end].encode("utf-8", "replace")
            self._take(line, raw)
            line, at = line + 1, end + 1

    @abstractmethod
    def _hay(self, data: bytes) -> bytes | str:
        """A piece as what is searched."""

    @abstractmethod
    def _find(self, hay: Any, at: int) -> int:
        """Where the next match begins from a place on, or -1."""

    @abstractmethod
    def _take(self, line: int, raw: bytes, *, sure: bool = True) -> None:
        """Keep a line that has a match, if it is one; `sure`: the match was seen in what is shown of it."""


class TextScan(Scan):
    """Lines that hold a text; capitals count only when the text has some."""

    def __init__(self, index: LogIndex, needle: str) -> None:
        super().__init__(index)
        self.needle = needle
        self.exact = needle != needle.lower()
        # Bytes are searched several times as fast as text, but only ASCII has its two cases there.
        self._bytes = self.exact or needle.isascii()
        self._wanted: bytes | str = needle.encode("utf-8", "replace") if self._bytes else needle

    def matches(self, text: str) -> list[tuple[int, int]]:
        """Where the text stands in a line that is shown."""
        found, at = [], 0
        hay = text if self.exact else text.lower()
        if len(hay) != len(text):
            # Some letters become two in lower case; their places would be off.
            return []
        while (at := hay.find(self.needle, at)) >= 0:
            found.append((at, at + len(self.needle)))
            at += max(1, len(self.needle))
        return found

    def _hay(self, data: bytes) -> bytes | str:
        if self._bytes:
            return data if self.exact else data.lower()
        return data.decode("utf-8", "replace").lower()

    def _find(self, hay: Any, at: int) -> int:
        return hay.find(self._wanted, at)

    def _take(self, line: int, raw: bytes, *, sure: bool = True) -> None:
        if not sure or is_stamped(raw) or b"\r" in raw or b"\x1b" in raw or len(raw) > LINE_CHARACTERS:
            # Not all of such a line is on the screen.
            shown = show(raw).text
            if self.needle not in (shown if self.exact else shown.lower()):
                return
        self.hits.append(line)


_WORDS = (b"error", b"traceback", b"exception", b"interrupt", b"critical", b"fatal", b"fault", b"killed", b"memory", b"warn",
          b"deprecated", b" e ", b" w ")  # fmt: skip
_ANY_WORD = re.compile(b"|".join(_WORDS))


class LevelScan(Scan):
    """Lines that report a warning or an error; those in `errors` are errors."""

    def _restart(self) -> None:
        super()._restart()
        self.errors = array("Q")
        self.first_traceback: int | None = None

    def next_error(self, line: int | None) -> int | None:
        """The error after a line, round and round; without a line the first traceback, else the first error."""
        if line is None and self.first_traceback is not None:
            return self.first_traceback
        place = bisect_right(self.errors, -1 if line is None else line)
        return self.errors[place % len(self.errors)] if self.errors else None

    def _hay(self, data: bytes) -> bytes:
        return data.lower()

    def _find(self, hay: Any, at: int) -> int:
        found = _ANY_WORD.search(hay, at)
        return found.start() if found else -1

    def _take(self, line: int, raw: bytes, *, sure: bool = True) -> None:
        text = log_line(raw)
        level = level_of(text)
        if not level:
            return
        self.hits.append(line)
        if level == "error":
            self.errors.append(line)
            if self.first_traceback is None and TRACEBACK in text:
                self.first_traceback = line
