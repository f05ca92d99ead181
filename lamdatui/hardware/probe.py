"""The probe: reads GPU and host in a thread of its own and gives up on a driver that hangs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lamdatui.hardware.gpu import read_gpus
from lamdatui.hardware.host import read_host

TIMEOUT_SECONDS = 3.0


class Probe:
    """`await read()` gives a `hardware` frame and never takes longer than the time-out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._running: asyncio.Future[dict[str, Any]] | None = None

    def _read(self) -> dict[str, Any]:
        gpus, reason = read_gpus()
        return {"type": "hardware", "gpus": gpus, "reason": reason, "host": read_host(self._folder)}

    async def read(self) -> dict[str, Any]:
        """A reading; when the driver hangs, the host's part and the reason."""
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().run_in_executor(self._pool, self._read)
        try:
            return await asyncio.wait_for(asyncio.shield(self._running), TIMEOUT_SECONDS)
        except TimeoutError:
            reason = f"the NVIDIA driver did not answer within {TIMEOUT_SECONDS:g} s"
            return {"type": "hardware", "gpus": [], "reason": reason, "host": read_host(self._folder)}

    def close(self) -> None:
        """Let the thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
