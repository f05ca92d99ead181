"""The console's connection to the engine: connect, attach, coalesce frames, come back. No textual here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.client import Client
from lamdatui.errors import EXIT_FAILED, LamdatuiError
from lamdatui.ui.sanitize import clean_json

Json = dict[str, Any]

FLUSH_SECONDS = 0.1
RETRY_SECONDS = (0.3, 0.6, 1.0, 2.0)


class EngineLink:
    """Delivers frames in batches, at most ten times a second, and reconnects until it is cancelled.

    What happens to the connection itself is delivered too, as `{"type": "link", "status", "detail"}` frames.
    """

    def __init__(self, run_dir: Path, deliver: Callable[[list[Json]], None]) -> None:
        self._run_dir = run_dir
        self._deliver = deliver
        self._pending: list[Json] = []
        self._timer: asyncio.TimerHandle | None = None
        self._client: Client | None = None

    async def run(self) -> None:
        """Watch the engine for ever."""
        failures = 0
        while True:
            try:
                self._client = await Client.connect(self._run_dir)
                failures = 0
                await self._watch(self._client)
                detail = "the engine closed the connection"
            except (LamdatuiError, OSError) as error:
                detail = error.what if isinstance(error, LamdatuiError) else str(error)
            finally:
                self._client = None
            self._take({"type": "link", "status": "lost", "detail": detail})
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    async def command(self, command: str, **args: Any) -> Any:
        """Send a command; its reply, cleaned. Raises LamdatuiError when it is refused or when no engine takes it."""
        if self._client is None:
            raise LamdatuiError("no engine is connected", where=command, exit_code=EXIT_FAILED)
        try:
            return clean_json(await self._client.command(command, **args))
        except (ConnectionError, OSError) as error:
            raise LamdatuiError("the engine went away before it answered", where=command, exit_code=EXIT_FAILED) from error

    async def _watch(self, client: Client) -> None:
        attach = asyncio.create_task(self._attach(client))
        try:
            async for frame in client.frames():
                self._take(frame)
        finally:
            attach.cancel()
            await client.close()

    async def _attach(self, client: Client) -> None:
        try:
            await client.command("attach", role="console")
        except LamdatuiError as error:
            self._take({"type": "link", "status": "refused", "detail": error.what})
        except (ConnectionError, OSError):
            return

    def _take(self, frame: Json) -> None:
        self._pending.append(frame)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        frames, self._pending = self._pending, []
        self._deliver(frames)
