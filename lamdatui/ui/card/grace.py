"""The pause in which keys that were meant for something else decide nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

GRACE_SECONDS = 0.35


class Grace:
    """Starts when the card gains focus or shows another proposal; each swallowed key starts it again.

    A key counts from when it came, not from when a busy console got round to it: what was typed before is before.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._late = 0.0

    def came(self, at: float) -> None:
        """A key is being handled that came at this monotonic second (Textual's `event.time`)."""
        self._late = max(0.0, time.monotonic() - at)

    def restart(self) -> None:
        """From now on, `GRACE_SECONDS` long."""
        self._until = self._clock() + GRACE_SECONDS
        self._late = 0.0

    def end(self) -> None:
        """Now: what comes next was chosen on purpose."""
        self._until = float("-inf")

    @property
    def active(self) -> bool:
        """Whether keys are to be ignored."""
        return self._clock() - self._late < self._until

    def swallow(self) -> bool:
        """Whether to ignore the key that is being handled."""
        if self.active:
            self.restart()
            return True
        return False
