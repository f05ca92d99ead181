"""The socket client: what the console and the headless command use to watch and steer an engine.

Frames are JSON objects, one a line, at most `FRAME_BYTES` long. The engine sends

- `{"type": "hello", "protocol", "run", "pid", "seq"}` once; `seq` is the newest event at that moment; then it waits for `attach`,
- `{"type": "event", "event": {...}}` for each event after `attach.after`, then live,
- in place of those, with `attach.snapshot`, the frames of `lamdatui.snapshot` and some `{"type": "past", "event": {...}}`: the newest events
  that the snapshot already counts,
- `{"type": "live"}` when all that was there at `attach` was sent,
- `{"type": "hardware", "gpus": [...], "reason", "host": {...}}` about once a second while somebody watches; `recorded` names the
  recording (`run --fake-gpu`) that the GPUs come from; fields: `lamdatui.hardware`; a process's `owner` is "" for a stranger's,
- `{"type": "metric", "step", "metric": {...}}` for each line that the running step adds to its metrics.jsonl,
- `{"type": "reply", "id", "ok", "result" | "error"}` to each command.

A client sends `{"type": "command", "id", "command", "args": {...}}`; the commands are listed in `COMMANDS`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lamdatui.errors import EXIT_FAILED, LamdatuiError
from lamdatui.paths import socket_path
from lamdatui.surrogates import escaped

PROTOCOL = 2
FRAME_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 30.0
"""How long an engine may take to answer a command."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "attach": ("role", "name", "after", "snapshot"),
    "trial": ("number",),
    "worth": (),
    "decide": ("number", "digest", "verdict", "params", "action", "reason", "remember"),
    "actions": (),
    "try_action": ("type", "inputs", "params", "seed"),
    "propose": ("type", "inputs", "params", "note", "seed"),
    "withdraw": ("id",),
    "more": ("trials",),
    "pause": (),
    "resume": (),
    "mode": ("mode",),
    "policy": ("name",),
    "hint": ("text",),
    "memory": ("text",),
    "stop": ("when",),
    "revoke": ("id",),
}
"""Command → arguments. `attach.role`: `console` (may approve), `headless` or `viewer`; `attach.name`:
who acts, as `USER@TERMINAL`: what is recorded as `by` (`person` without it); `attach.after`: events up to this one are not sent;
`attach.snapshot`: true for a snapshot in place of old events. `trial` gives the whole of a trial, `worth` the lines of the report on the
planner; both may be asked by viewers and after the run's end. `decide.digest` is the digest of
the action that was shown: a decision about another one is refused; `decide.action` {"type", "inputs", "params", "seed"} is what runs in its
place. `actions` lists the run's action types with their slots and hyperparameters; `try_action` says what an action would cost and bring,
and why it can't be run (`problems`); `propose` queues a person's own action for the next trial and gives {"id", "action", "trials_left"}, where
`trials_left` says how many trials of the budget are left for it; `withdraw` takes it back. An action that was run before gets another seed
unless it brings its own. `more` allows that many trials more, also after the run's end. `stop.when`: `after-step` or `now`. `policy` names who proposes from
the next trial on; `hint` tells the planner something, `memory` rewrites its memory; `revoke` takes back a rule, a constraint or a
hint by its id."""


def encode(frame: dict[str, Any]) -> bytes:
    """One frame as bytes. Raises ValueError above the length cap."""
    data = escaped(json.dumps(frame, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"
    if len(data) > FRAME_BYTES:
        raise ValueError(f"frame of {len(data)} bytes; at most {FRAME_BYTES}")
    return data


def decode(line: bytes) -> dict[str, Any]:
    """One frame from bytes. Raises ValueError on anything but a JSON object with a `type`."""
    # As UTF-8 whatever it begins with: what is checked in these bytes must be what is read.
    frame = json.loads(line.decode())
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ValueError("a frame is a JSON object with a type")
    return frame


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
        if not reply["ok"]:
            raise LamdatuiError(reply["error"], where=command, exit_code=EXIT_FAILED)
        return reply["result"]

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass
