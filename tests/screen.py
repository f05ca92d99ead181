"""A real terminal under test: a program on a pseudo-terminal, and the screen that it drew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
import pytest

COLUMNS, ROWS = 120, 40


class Terminal:
    """A command on a pseudo-terminal and the screen that it drew."""

    def __init__(self, line: list[str], folder: Path, columns: int = COLUMNS, rows: int = ROWS) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.child = pexpect.spawn(line[0], line[1:], cwd=str(folder), env=environment, dimensions=(rows, columns), timeout=5)
        # A burst goes out in one write, without pexpect's pause before it.
        self.child.delaybeforesend = None
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def read(self) -> None:
        """Take in what was drawn since."""
        while True:
            try:
                data = self.child.read_nonblocking(65536, timeout=0.05)
            except (pexpect.TIMEOUT, pexpect.EOF):
                return
            self.raw += data
            # pyte does not know the terminal's mode reports and window queries; they draw nothing.
            self.stream.feed(data)

    @property
    def text(self) -> str:
        """The screen as text."""
        return "\n".join(self.screen.display).replace("\u00a0", " ")

    def until(self, condition: Callable[[str], bool], seconds: float = 60) -> str:
        """The screen once the condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read()
            if condition(self.text):
                return self.text
        pytest.fail(f"the screen did not get there:\n{self.text}")

    def press(self, keys: str) -> None:
        """Type, all of it in one write."""
        self.child.send(keys)
