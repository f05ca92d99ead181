"""Time, injected: everything that waits or stamps asks a Clock, so that tests can own it."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the engine needs of time."""

    def wall(self) -> float:
        """Seconds since the epoch; may jump; only ever shown."""
        ...

    def mono(self) -> float:
        """Seconds that never go back and go on while suspended; every duration and deadline uses it."""
        ...

    def awake(self) -> float:
        """Seconds that never go back and stand still while the machine sleeps: for limits on work that sleeps along."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        return time.time()

    def mono(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def awake(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@cache
def boot_id() -> str:
    """Changes at every boot: makes a pid and a monotonic stamp from another boot recognisable."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return f"boot-{int(psutil.boot_time())}"
