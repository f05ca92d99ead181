"""The pause in which keys that were meant for something else decide nothing."""

from __future__ import annotations

from collections.abc import Callable

GRACE_SECONDS = 0.35


class Grace:
    """Starts when the card gains focus or shows another proposal; each swallowed key starts it again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0

    def restart(self) -> None:
        """From now on, `GRACE_SECONDS` long."""
        self._until = self._clock() + GRACE_SECONDS

    def end(self) -> None:
        """Now: what comes next was chosen on purpose."""
        self._until = self._clock()

    @property
    def active(self) -> bool:
        """Whether keys are to be ignored."""
        return self._clock() < self._until

    def swallow(self) -> bool:
        """Whether to ignore the key that came now."""
        if self.active:
            self.restart()
            return True
        return False
