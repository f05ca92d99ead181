"""Any line of a log file of any size, without reading the file into memory. No textual.

The file is divided into pieces of `PIECE` bytes; kept is how many line ends come before each piece, 8 bytes a piece.
A line is found by bisection and one read. Lines end with a newline; the last one may still be unfinished.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE = 32 * 1024
LINE_BYTES = 16 * 1024
"""Of a longer line, this much of its beginning and of its end is read."""
_BLOCK_BYTES = 1024 * 1024
_TRACE = 64


class LogIndex:
    """Where the lines of a growing file are. A file that is absent, cut or replaced is read anew, never an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        """Grows when what was read before is no longer what the file holds."""
        self._clear()

    def _clear(self) -> None:
        self.size = 0
        """Bytes that were taken in."""
        self.end = 0
        """Offset behind the last line end."""
        self.ends = 0
        """Line ends that were taken in, so also the number of whole lines."""
        self.file_size = 0
        self._before = array("Q", [0])
        self._trace = b""
        self._inode = (0, 0)

    @property
    def count(self) -> int:
        """Lines, the unfinished last one too."""
        return self.ends + (self.size > self.end)

    @property
    def is_behind(self) -> bool:
        """Whether the file has more than was taken in at the last `advance`."""
        return self.size < self.file_size

    def advance(self, limit: int = 8 * PIECE) -> bool:
        """Take in at most `limit` bytes that are new; whether anything changed."""
        before = self.size, self.generation
        try:
            with self.opened() as file:
                self._check(file)
                self._take(file, limit)
        except OSError:
            if self.size:
                self._restart()
        return before != (self.size, self.generation)

    def read(self, first: int, count: int) -> list[bytes]:
        """Lines from number `first` (from 0) on without their ends; fewer where the file has no more.

        Of a line longer than two `LINE_BYTES` the middle is left out.
        """
        count = min(count, self.count - first)
        if count <= 0:
            return []
        try:
            with self.opened() as file:
                begin, end = self._start(file, first), self._start(file, first + count)
                if end - begin > _BLOCK_BYTES:
                    return [self._long(file, number) for number in range(first, first + count)]
                lines = os.pread(file, end - begin, begin).split(b"\n")[:count]
                return [_shorten(line) for line in lines] + [b""] * (count - len(lines))
        except OSError:
            return [b""] * count

    def start(self, number: int) -> int:
        """Offset at which a line begins; of the one behind the last, where the file was read up to."""
        with self.opened() as file:
            return self._start(file, number)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The file, for `os.pread`. Raises OSError where it is not there."""
        # Without blocking: a log that somebody replaced by a pipe must not stop the screen.
        file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)

    def _check(self, file: int) -> None:
        status = os.fstat(file)
        inode = (status.st_dev, status.st_ino)
        same = inode == self._inode and status.st_size >= self.size
        if self.size and not (same and self._is_as_before(file, status.st_size)):
            self._restart()
        self._inode, self.file_size = inode, status.st_size

    def _is_as_before(self, file: int, size: int) -> bool:
        """Whether what was read last still stands there: a file may be cut and grow again between two looks."""
        return size == self.file_size or os.pread(file, len(self._trace), self.size - len(self._trace)) == self._trace

    def _restart(self) -> None:
        self._clear()
        self.generation += 1

    def _take(self, file: int, limit: int) -> None:
        while limit > 0 and self.size < self.file_size:
            wanted = min(PIECE - self.size % PIECE, self.file_size - self.size, limit)
            data = os.pread(file, wanted, self.size)
            if not data:
                break
            limit -= len(data)
            found = data.rfind(b"\n")
            if found >= 0:
                self.end = self.size + found + 1
                self.ends += data.count(b"\n")
            self.size += len(data)
            self._trace = (self._trace + data[-_TRACE:])[-_TRACE:]
            if self.size % PIECE == 0:
                self._before.append(self.ends)

    def _start(self, file: int, number: int) -> int:
        if number <= 0:
            return 0
        if number > self.ends:
            return self.size
        piece = bisect_left(self._before, number) - 1
        data = os.pread(file, min(PIECE, self.size - piece * PIECE), piece * PIECE)
        parts = data.split(b"\n", number - self._before[piece])
        return piece * PIECE + len(data) - len(parts[-1])

    def _long(self, file: int, number: int) -> bytes:
        begin, end = self._start(file, number), self._start(file, number + 1) - (number < self.ends)
        if end - begin <= 2 * LINE_BYTES:
            return os.pread(file, max(0, end - begin), begin)
        head, tail = os.pread(file, LINE_BYTES, begin), os.pread(file, LINE_BYTES, end - LINE_BYTES)
        return _join(head, tail, end - begin - 2 * LINE_BYTES)


def _shorten(line: bytes) -> bytes:
    if len(line) <= 2 * LINE_BYTES:
        return line
    return _join(line[:LINE_BYTES], line[-LINE_BYTES:], len(line) - 2 * LINE_BYTES)


def _join(head: bytes, tail: bytes, left_out: int) -> bytes:
    return head + f" … {left_out} bytes … ".encode() + tail
