"""Clocks on a running step: how long it may take, and how long it may show no sign of progress."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lamdatui.inputs.profile import StepsSpec

LOOK_SECONDS = 1.0
OVER_LIMIT, STALLED, OUT_OF_TIME = VERDICTS = ("limit", "stalled", "time")
"""Error classes of steps that are ended: over their own limit, without progress, without time left in the run's budget."""
GRACE_SECONDS = 60.0
"""How long a step that was asked to end may take before it is killed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a step is to be ended: an error's class, and the message."""

    kind: str
    message: str


class Watch:
    """Of one step, from the moment at which this engine follows it. `now` gives seconds; time that the machine sleeps is not counted.

    What counts as progress is that one of its files grows. `until`: when the time of its run is over, on the clock of `now`.
    """

    def __init__(
        self,
        files: Sequence[Path],
        limits: StepsSpec,
        report: Callable[[str], None],
        now: Callable[[], float],
        until: float = math.inf,
    ) -> None:
        self._files = files
        self._limits = limits
        self._report = report
        self._now = now
        self._until = until
        self._began = self._looked = self._moved = now()
        self._sizes = self._measure()
        self._is_reported = False

    def look(self, process: psutil.Process | None) -> Verdict | None:
        """Why the step has to end now, or None; reports one that stalls, once until it moves again."""
        now = self._now()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        limit, patience = self._limits.limit_minutes, self._limits.stall_minutes
        if limit is not None and now - self._began >= limit * 60:
            return Verdict(OVER_LIMIT, f"it took longer than {limit:g} minutes (steps.limit_minutes)")
        if now >= self._until:
            return Verdict(OUT_OF_TIME, "the time of the run is over (budget)")
        if (sizes := self._measure()) != self._sizes:
            self._sizes, self._moved, self._is_reported = sizes, now, False
        if now - self._moved < patience * 60:
            return None
        told = f"no sign of progress for {patience:g} minutes{_state_of(process)}"
        if self._limits.on_stall == "stop":
            return Verdict(STALLED, f"{told} (steps.stall_minutes)")
        if not self._is_reported:
            self._is_reported = True
            self._report(told)
        return None

    def _measure(self) -> list[int]:
        return [file.stat().st_size if file.exists() else 0 for file in self._files]


def _state_of(process: psutil.Process | None) -> str:
    with contextlib.suppress(psutil.Error):
        if process is not None and process.status() == psutil.STATUS_STOPPED:
            return f"; its process {process.pid} is stopped by a signal (kill -CONT {process.pid} lets it go on)"
    return ""
