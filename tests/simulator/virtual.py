"""Time that jumps to whatever is due next."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Stuck(Exception):
    """Nothing is due any more, and the run has not ended."""


HOURS = 24
"""On its own clock: a run that takes longer does not get to its end."""


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time that would pass has passed."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stuck("nothing is due any more")
        self.now += timeout
        if self.now > HOURS * 3600:
            raise Stuck(f"it has not ended after {HOURS} hours")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own, which jumps to whatever is due next. What is asked of threads is done at once."""

    def __init__(self) -> None:
        self._time = _Selector()
        self._threads = ThreadPoolExecutor(1)
        super().__init__(self._time)

    def time(self) -> float:
        return self._time.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            # In a thread all the same: a shadow policy starts an event loop of its own.
            future.set_result(self._threads.submit(func, *args).result())
        except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
            future.set_exception(error)
        return future

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """Signals are for whoever simulates."""

    def close(self) -> None:
        self._threads.shutdown()
        super().close()


class SimulatedClock:
    """`lamdatui.base.clock.Clock` on a virtual loop. The wall clock jumps now and then."""

    def __init__(self, loop: VirtualLoop, draw: random.Random) -> None:
        self._loop, self._draw, self._jump = loop, draw, 0.0

    def wall(self) -> float:
        if self._draw.random() < 0.01:
            self._jump += self._draw.uniform(-4_000, 4_000)
        return 1_700_000_000 + self._loop.time() + self._jump

    def mono(self) -> float:
        return self._loop.time()

    def awake(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
