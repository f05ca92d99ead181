"""The console's connection to the engine: connect, attach, coalesce frames, come back. No textual here."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.ui.view.state import ENDED

_OTHER = re.compile(r"[^\w./:+-]")

if TYPE_CHECKING:
    from lamdatui.wire.client import Client

Json = dict[str, Any]

FLUSH_SECONDS = 0.1
SNAPSHOT_EVENTS = 2000
"""When more events than this are missing, a snapshot comes sooner than they do."""
RETRY_SECONDS = (0.3, 0.6, 1.0, 2.0)


class EngineLink:
    """Delivers frames in batches, at most ten times a second, and reconnects until it is cancelled.

    After a pause a frame is delivered at once. `seen` tells the newest event that is known, so that only newer ones are asked for.
    What happens to the connection itself is delivered too, as `{"type": "link", "status", "detail"}` frames.
    """

    def __init__(self, run_dir: Path, deliver: Callable[[list[Json]], None], seen: Callable[[], int]) -> None:
        self._run_dir = run_dir
        self._deliver = deliver
        self._seen = seen
        self._pending: list[Json] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._client: Client | None = None

    async def run(self) -> None:
        """Watch the engine for ever."""
        from lamdatui.wire.client import Client
        from lamdatui.wire.lastwords import last_words
        from lamdatui.wire.protocol import read_frame

        failures = 0
        while True:
            try:
                self._client = await Client.connect(self._run_dir, read_frame)
                failures = 0
                await self._watch(self._client)
                detail = "the engine closed the connection"
            except (LamdatuiError, OSError) as error:
                detail = error.what if isinstance(error, LamdatuiError) else str(error)
            finally:
                self._client = None
            if words := last_words(self._run_dir):
                detail = f"{ENDED}{words.what}"
            self._take({"type": "link", "status": "lost", "detail": detail})
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    async def command(self, command: str, **args: Any) -> Any:
        """Send a command; its reply, cleaned. Raises LamdatuiError when it is refused or when no engine takes it."""
        if self._client is None:
            raise LamdatuiError("no engine is connected", where=command, exit_code=EXIT_FAILED)
        try:
            return await self._client.command(command, **args)
        except (ConnectionError, OSError) as error:
            raise LamdatuiError("the engine went away before it answered", where=command, exit_code=EXIT_FAILED) from error

    async def _watch(self, client: Client) -> None:
        attach: asyncio.Task[None] | None = None
        try:
            async for frame in client.frames():
                self._take(frame)
                if frame["type"] == "hello":
                    if type(seq := frame.get("seq")) is not int:
                        raise LamdatuiError("the engine's greeting can't be read", exit_code=EXIT_FAILED)
                    attach = asyncio.create_task(self._attach(client, seq))
                elif frame["type"] == "snapshot":
                    # Parts of one snapshot are there at once; keys and the screen have their turn between them.
                    await asyncio.sleep(0)
        finally:
            if attach:
                attach.cancel()
            await client.close()

    async def _attach(self, client: Client, newest: int) -> None:
        seen = self._seen()
        # A journal that is shorter than what was seen is another run in the same place.
        after = seen if seen <= newest else 0
        past: Json = {"snapshot": True} if newest - after > SNAPSHOT_EVENTS else {"after": after}
        try:
            await client.command("attach", role="console", name=who(), **past)
        except LamdatuiError as error:
            self._take({"type": "link", "status": "refused", "detail": error.what})
        except (ConnectionError, OSError):
            return

    def _take(self, frame: Json) -> None:
        self._pending.append(frame)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._flushed + FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self._flushed = asyncio.get_running_loop().time()
        frames, self._pending = self._pending, []
        self._deliver(frames)


def who() -> str:
    """User and terminal; without a terminal (a browser, a pipe) the process stands for it."""
    # Imported here: the first paint does without it.
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{_OTHER.sub('-', user).replace('/', '-').replace(':', '-')[:32] or 'user'}@{_terminal()[:32]}"


def _terminal() -> str:
    for descriptor in (0, 1, 2):
        try:
            return _OTHER.sub("-", os.ttyname(descriptor).removeprefix("/dev/"))
        except OSError:
            continue
    return f"pid-{os.getpid()}"
