"""An engine that speaks the frames over a real unix socket and does nothing else: what it is told it records."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lamdatui.base.paths import socket_path
from lamdatui.domain.events import Event, check_fields
from lamdatui.domain.state import RunState
from lamdatui.wire.protocol import FRAME_BYTES, PROTOCOL, decode, encode
from lamdatui.wire.snapshot import Snapshots

Json = dict[str, Any]
WALL = 1_760_000_000.0
Answer = Callable[[Json], Any]


class FakeEngine:
    """Holds a scripted journal; sends it to whoever attaches; answers commands with `refusals`, `answers` or `ok`.

    An answer takes the command's arguments and gives the reply's result; it may emit events. `script.answer_orders` has
    answers for what a person can order.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.events: list[Event] = []
        self.extra: list[Json] = []
        self.commands: list[tuple[str, Json]] = []
        self.refusals: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        self.snapshots = Snapshots()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._walls = itertools.count()

    async def start(self) -> None:
        """Listen where the console looks."""
        path = socket_path(self.run_dir)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=FRAME_BYTES)

    async def stop(self) -> None:
        """Close the socket and every connection, as an engine that ends does."""
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        socket_path(self.run_dir).unlink(missing_ok=True)

    def add(self, kind: str, **data: Any) -> Event:
        """Append a checked event to the journal without sending it."""
        check_fields(kind, data)
        seq = len(self.events) + 1
        event = Event(seq, kind, WALL + 7 * next(self._walls), float(seq), data)
        self.events.append(event)
        return event

    def emit(self, kind: str, **data: Any) -> None:
        """Append an event and send it to everybody."""
        event = self.add(kind, **data)
        self.send({"type": "event", "event": event.to_json()})

    def send(self, frame: Json) -> None:
        """Send a frame to everybody."""
        for writer in self._writers:
            writer.write(encode(frame))

    def sent(self, command: str) -> list[Json]:
        """Arguments of the commands of one kind that came in."""
        return [args for name, args in self.commands if name == command]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writer.write(encode({"type": "hello", "protocol": PROTOCOL, "run": "lab", "pid": 1, "seq": len(self.events)}))
        try:
            while line := await reader.readline():
                self._answer(decode(line), writer)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _attach(self, args: Json, writer: asyncio.StreamWriter) -> None:
        """What the real engine does: a snapshot, or the events after `after`; then live."""
        if args.get("snapshot"):
            writer.writelines(
                self.snapshots.write(self.snapshots.take(self.state, {("trial", str(n)) for n in self.state.trials}))
            )
            for event in self.events[-200:]:
                writer.write(encode({"type": "past", "event": event.to_json()}))
        else:
            for event in self.events[args.get("after", 0) :]:
                writer.write(encode({"type": "event", "event": event.to_json()}))
        writer.write(encode({"type": "live"}))
        for frame in self.extra:
            writer.write(encode(frame))
        self._writers.add(writer)

    @property
    def state(self) -> RunState:
        """What the journal adds up to."""
        state = RunState()
        for event in self.events:
            state.apply(event)
        return state

    def _answer(self, frame: Json, writer: asyncio.StreamWriter) -> None:
        self.commands.append((frame["command"], frame["args"]))
        if frame["command"] == "attach" and writer not in self._writers:
            self._attach(frame["args"], writer)
        refusal, answer = self.refusals.get(frame["command"]), self.answers.get(frame["command"])
        reply: Json = {"type": "reply", "id": frame["id"], "ok": refusal is None}
        if refusal is None:
            reply["result"] = answer(frame["args"]) if answer else None
        else:
            reply["error"] = refusal
        writer.write(encode(reply))


@contextlib.contextmanager
def in_thread(engine: FakeEngine) -> Iterator[FakeEngine]:
    """Serve from another thread, for tests whose event loop is not ours (snapshots, child processes)."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.start(), loop).result(10)
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
