"""The probe: reads GPU and host, each in a thread of its own, and waits for neither longer than the time-out.

A driver or a file system that hangs keeps its thread, not the engine: the threads are daemons, the other reading goes on,
and the frame says what is late and since when.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from lamdatui.hardware.gpu import read_gpus
from lamdatui.hardware.processes import Owners, OwnProcesses, describe
from lamdatui.hardware.system import read_host

TIMEOUT_SECONDS = 3.0
LATE_SECONDS = 0.05
"""How long a reading that is late already is waited for again."""

Json = dict[str, Any]
T = TypeVar("T")
ReadGpus = Callable[[], tuple[list[Json], str]]


class Late(Exception):
    """The reading has been under way for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.0f} s")
        self.seconds = seconds


class _Source(Generic[T]):
    """One thing that is read, at most once at a time, in a daemon thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._future: asyncio.Future[T] | None = None
        self._began = 0.0

    async def take(self, read: Callable[[], T]) -> T:
        """The next reading. Raises Late when it takes too long, and whatever `read` raises."""
        if self._future is None:
            self._future, self._began = asyncio.get_running_loop().create_future(), time.monotonic()
            threading.Thread(target=self._run, args=(read, self._future), name=self._name, daemon=True).start()
        patience = max(LATE_SECONDS, TIMEOUT_SECONDS - (time.monotonic() - self._began))
        done, _ = await asyncio.wait({self._future}, timeout=patience)
        if not done:
            raise Late(time.monotonic() - self._began)
        future, self._future = self._future, None
        return future.result()

    def _run(self, read: Callable[[], T], future: asyncio.Future[T]) -> None:
        try:
            tell = partial(_settle, future, read(), None)
        except Exception as error:  # noqa: BLE001 (it is raised where the reading is taken)
            tell = partial(_settle, future, None, error)
        try:
            future.get_loop().call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop was closed while the driver hung: nobody waits any more.
            return


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _nobody() -> Owners:
    return {}


class Probe:
    """`await read()` gives a `hardware` frame. `owners` names this run's processes; it is asked on the caller's thread.

    With `recording`, the GPUs are a recording's and the frame says so; the host is still this machine's.
    """

    def __init__(
        self, folder: Path, owners: Callable[[], Owners] = _nobody, recording: ReadGpus | None = None, title: str = ""
    ) -> None:
        self._folder = folder
        self._owners = owners
        self._recording = recording
        self._title = title
        self._gpus: _Source[tuple[list[Json], str]] = _Source("probe-gpu")
        self._host: _Source[Json] = _Source("probe-host")
        self._own = OwnProcesses()
        self._last_host: Json = {}

    async def read(self) -> Json:
        """A reading; what hangs is replaced by the reason (GPU) or by the reading before (host)."""
        owners = dict(self._owners())
        (gpus, reason), host = await asyncio.gather(self._read_gpus(owners), self._read_host(owners))
        frame = {"type": "hardware", "gpus": gpus, "reason": reason, "host": host}
        return frame | {"recorded": self._title} if self._recording else frame

    async def _read_gpus(self, owners: Owners) -> tuple[list[Json], str]:
        if self._recording:
            return self._recording()

        def read() -> tuple[list[Json], str]:
            gpus, reason = read_gpus()
            describe(gpus, owners)
            return gpus, reason

        try:
            return await self._gpus.take(read)
        except Late as late:
            return [], f"the NVIDIA driver has not answered for {late.seconds:.0f} s"
        except Exception as error:  # noqa: BLE001 (one reading that fails must not end the readings)
            return [], f"the GPUs can't be read: {type(error).__name__} {error}"

    async def _read_host(self, owners: Owners) -> Json:
        def read() -> Json:
            return {**read_host(self._folder), "processes": self._own.read(owners)}

        try:
            self._last_host = await self._host.take(read)
        except Late as late:
            return {**self._last_host, "late_seconds": round(late.seconds)}
        except Exception as error:  # noqa: BLE001 (the run directory may be gone; the next reading may work)
            told = error.strerror if isinstance(error, OSError) else ""
            return {**self._last_host, "error": told or f"{type(error).__name__} {error}"}
        return self._last_host
