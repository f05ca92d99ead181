"""When to call a person who looks elsewhere, and the bytes that do it. Pure: times in, terminal text out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from lamdatui.base.text import one_line

BLOCKED_SECONDS = 1.0
"""A proposal that is decided sooner (by a mode or a rule) calls nobody."""
AWAY_SECONDS = 20.0
"""Who pressed no key for so long may look elsewhere, even if the terminal reports no loss of focus."""
TITLE_CHARS = 80

Waiting = tuple[int, str, str]
"""Trial, digest and action type of a proposal that waits for a person."""


class Attention:
    """Says what to write to the terminal: a title at once, a bell and a notification only for a person who is away.

    `how` is the setting `notifications`: `full`, `bell` (no desktop notification) or `off`.
    """

    def __init__(self, clock: Callable[[], float], how: str = "full", environment: Mapping[str, str] = os.environ) -> None:
        self.is_on = how != "off"
        self._desktop = how == "full"
        self._clock = clock
        self._tmux = bool(environment.get("TMUX"))
        self._touched = clock()
        self._focused = True
        self._shown: Waiting | None = None
        self._since = 0.0
        self._called = False
        self._title = ""

    def touched(self) -> None:
        """The person pressed a key or used the mouse."""
        self._touched = self._clock()

    def focus(self, focused: bool) -> None:
        """The terminal reported that its window has the focus, or not."""
        self._focused = focused
        if focused:
            self.touched()

    @property
    def idle_seconds(self) -> float:
        """How long ago the person last pressed a key, used the mouse or came back."""
        return self._clock() - self._touched

    @property
    def is_away(self) -> bool:
        """Whether the person looks elsewhere, as far as the terminal and the keys tell."""
        return not self._focused or self.idle_seconds >= AWAY_SECONDS

    def due(self, waiting: Waiting | None, run: str) -> str:
        """What to write now, given the proposal that waits; an empty string most of the time."""
        now = self._clock()
        if waiting != self._shown:
            self._shown, self._since, self._called = waiting, now, False
        blocked = waiting is not None and now - self._since >= BLOCKED_SECONDS
        if not self.is_on:
            return self._entitle("")
        if waiting is None or not blocked:
            return "" if waiting else self._entitle(f"lamdatui: {one_line(run)}" if run else "")
        text = f"lamdatui: approve {one_line(waiting[2])}?"
        found = self._entitle(f"● {text}")
        if self.is_away and not self._called:
            self._called = True
            found += "\a" + (self._notification(text) if self._desktop else "")
        return found

    def _entitle(self, title: str) -> str:
        title = title[:TITLE_CHARS]
        if title == self._title:
            return ""
        self._title = title
        return f"\x1b]2;{title}\x1b\\"

    def _notification(self, text: str) -> str:
        """OSC 9, which terminals show as a desktop notification; tmux passes it on where it is allowed to."""
        command = f"\x1b]9;{text[:TITLE_CHARS]}\a"
        return f"\x1bPtmux;{command.replace(chr(27), chr(27) * 2)}\x1b\\" if self._tmux else command
