"""The socket client: what the console and the headless command use to watch and steer an engine. Frames: `lamdatui.wire.protocol`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.paths import socket_path
from lamdatui.wire.protocol import FRAME_BYTES, decode, encode

ANSWER_SECONDS = 30.0
"""How long an engine may take to answer a command."""


def _reply_id(frame: dict[str, Any]) -> int:
    """Which command a reply answers. Raises ValueError on a reply of another shape."""
    number, answer = frame.get("id"), "result" if frame.get("ok") is True else "error"
    if type(number) is not int or answer not in frame or (answer == "error" and not isinstance(frame["error"], str)):
        raise ValueError("a reply has the id of a command, ok, and a result or an error")
    return number


class Client:
    """One connection to an engine. Use `await Client.connect(run_dir)`, iterate `frames()`, call `command()`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        read: Callable[[bytes], dict[str, Any]] = decode,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._read = read
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def connect(cls, run_dir: Path, read: Callable[[bytes], dict[str, Any]] = decode) -> Client:
        """Connect to the engine of a run; `read` makes a frame of a line. Raises LamdatuiError when none answers."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket_path(run_dir)), limit=FRAME_BYTES)
        except OSError as error:
            raise LamdatuiError(
                "no engine answers for this run",
                where=str(run_dir),
                fix="start it again with `lamdatui run PROFILE --name NAME`",
                exit_code=EXIT_FAILED,
            ) from error
        return cls(reader, writer, read)

    async def frames(self) -> AsyncIterator[dict[str, Any]]:
        """Every frame but replies, until the engine closes the connection. Must be iterated for `command` to return."""
        try:
            while line := await self._reader.readline():
                frame = self._read(line)
                if frame["type"] != "reply":
                    yield frame
                    continue
                future = self._waiting.pop(_reply_id(frame), None)
                if future and not future.done():
                    future.set_result(frame)
        except (ConnectionError, ValueError):
            return
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the engine closed the connection"))

    async def command(self, command: str, **args: Any) -> Any:
        """Send a command, return its result: what it does is on record then.

        Raises LamdatuiError when it is refused, or not answered in `ANSWER_SECONDS`; ConnectionError when cut off.
        """
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._writer.write(encode({"type": "command", "id": number, "command": command, "args": args}))
        await self._writer.drain()
        # The reply to `attach` comes behind everything that was there, however long that takes to read.
        seconds = None if command == "attach" else ANSWER_SECONDS
        try:
            reply = await asyncio.wait_for(future, seconds)
        except TimeoutError:
            self._waiting.pop(number, None)
            raise LamdatuiError(
                f"the engine has not answered in {seconds:.0f} s; whether it still does what was asked is not known",
                where=command,
                fix="look at the run with `lamdatui show RUN`; a stopped engine goes on after kill -CONT PID",
                exit_code=EXIT_FAILED,
            ) from None
        if reply.get("ok") is not True:
            raise LamdatuiError(reply["error"], where=command, exit_code=EXIT_FAILED)
        return reply["result"]

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass
