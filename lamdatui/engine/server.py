"""The engine's end of the socket: the same user only, frames of a bounded length, every event in order."""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.surrogates import without
from lamdatui.domain.decisions import AUTHOR
from lamdatui.domain.planner_report import told, worth
from lamdatui.engine.approval import PERSON
from lamdatui.store.journal import Journal
from lamdatui.wire.protocol import COMMANDS, FRAME_BYTES, PROTOCOL, decode, encode
from lamdatui.wire.rundir import peer_of
from lamdatui.wire.snapshot import CHUNK_BYTES, Snapshots, Taken

BACKLOG = 20_000
"""Frames that may wait for one client before it is cut off: it can attach again and catch up from the journal."""
RECENT_EVENTS = 200
"""Events that come with a snapshot, for the list of what happened."""
RECENT_CALLS = 20
CALLS_WITHIN = 4000
"""The newest questions to the planner come with it too, as far as they are among this many events."""

Handler = Callable[[str, dict[str, Any], str, str], Any]
"""Command, arguments, the peer's role, and who is recorded as its author."""


@dataclass(eq=False)
class Peer:
    """One connected client. It gets events from the moment on at which it attaches."""

    writer: asyncio.StreamWriter
    queue: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(BACKLOG))
    role: str = "viewer"
    by: str = PERSON
    sender: asyncio.Task[None] | None = None


class Server:
    """Sends events and readings to every client and hands their commands to the engine."""

    def __init__(self, path: Path, journal: Journal, handler: Handler, closing: asyncio.Event) -> None:
        self._path = path
        self._journal = journal
        self._handler = handler
        self._closing = closing
        """Set when the engine is leaving: who comes from then on is not greeted, and waits for the next engine."""
        self._server: asyncio.Server | None = None
        self._snapshots = Snapshots()
        self.peers: set[Peer] = set()
        self.last_peer_left: float | None = None

    async def start(self) -> None:
        """Listen; only this user may connect."""
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=FRAME_BYTES)
        finally:
            os.umask(old)

    def publish(self, frame: dict[str, Any]) -> None:
        """Queue a frame for everyone who attached; a client that does not read is cut off."""
        for peer in list(self.peers):
            if peer.sender is None:
                continue
            try:
                peer.queue.put_nowait(frame)
            except asyncio.QueueFull:
                peer.writer.close()
                self.peers.discard(peer)

    async def close(self) -> None:
        """Send what is queued, close every connection, remove the socket."""
        for peer in list(self.peers):
            for _ in range(50):
                if peer.queue.empty():
                    break
                await asyncio.sleep(0.02)
            peer.writer.close()
        if self._server:
            self._server.close()
        self._path.unlink(missing_ok=True)

    def _same_user(self, writer: asyncio.StreamWriter) -> bool:
        return peer_of(writer.get_extra_info("socket"))[1] == os.getuid()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing.is_set() or not self._same_user(writer):
            writer.close()
            return
        peer = Peer(writer)
        self.peers.add(peer)
        state = self._journal.state
        hello = {"type": "hello", "protocol": PROTOCOL, "run": state.name, "pid": os.getpid(), "seq": state.last_seq}
        writer.write(encode(hello))
        try:
            while line := await reader.readline():
                await self._command(peer, line)
        except (ConnectionError, ValueError):
            pass
        finally:
            self.peers.discard(peer)
            self.last_peer_left = asyncio.get_running_loop().time()
            if peer.sender:
                peer.sender.cancel()
            writer.close()

    def _attach(self, peer: Peer, args: dict[str, Any]) -> None:
        """Send what happened, then what happens: all events after `after`, or a snapshot in place of the events up to now."""
        after = args.get("after", 0)
        if type(after) is not int or not 0 <= after < 2**63:
            raise LamdatuiError(f"attach.after is the number of an event, not {str(after)[:100]!r}")
        if (name := args.get("name")) is not None and not (isinstance(name, str) and AUTHOR.fullmatch(name)):
            raise LamdatuiError(f"attach.name is USER@TERMINAL, not {str(name)[:100]!r}")
        peer.role, peer.by = str(args["role"]), name or PERSON
        if peer.sender is None:
            past = self._snapshot() if args.get("snapshot") else self._events(after, self._journal.state.last_seq)
            peer.sender = asyncio.create_task(self._send(peer, past))

    def _events(self, after: int, upto: int) -> Iterator[bytes]:
        chunk = bytearray()
        for _, _, text in self._journal.lines(after, upto):
            chunk += f'{{"type":"event","event":{text}}}\n'.encode()
            if len(chunk) > CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk)

    def _snapshot(self) -> Iterator[bytes]:
        # Taken before the first event that comes from now on; written while the loop goes on.
        return self._written(self._snapshots.take(self._journal.state, self._journal.take_touched()))

    def _written(self, taken: Taken) -> Iterator[bytes]:
        yield from self._snapshots.write(taken)
        found = list(self._journal.lines(max(0, taken.seq - CALLS_WITHIN), taken.seq))
        calls = [seq for seq, kind, _ in found if kind == "planner.answered"][-RECENT_CALLS:]
        recent = [text for seq, _, text in found if seq > taken.seq - RECENT_EVENTS or seq in calls]
        yield "".join(f'{{"type":"past","event":{text}}}\n' for text in recent).encode()

    async def _send(self, peer: Peer, past: Iterator[bytes]) -> None:
        try:
            for chunk in past:
                peer.writer.write(chunk)
                await peer.writer.drain()
                # A turn of the loop between two chunks: a long history keeps nobody else waiting.
                await asyncio.sleep(0)
            peer.writer.write(encode({"type": "live"}))
            while True:
                peer.writer.write(encode(await peer.queue.get()))
                await peer.writer.drain()
        except ConnectionError:
            return

    async def _command(self, peer: Peer, line: bytes) -> None:
        frame = without(decode(line))
        number = frame.get("id")
        reply: dict[str, Any] = {"type": "reply", "id": number if type(number) is int else None, "ok": True, "result": None}
        try:
            command, args = frame.get("command"), frame.get("args", {})
            if frame["type"] != "command" or not isinstance(command, str) or command not in COMMANDS:
                raise LamdatuiError(f"no command {str(command)[:100]!r}")
            if not isinstance(args, dict) or not set(args) <= set(COMMANDS[command]):
                raise LamdatuiError(f"{command} takes {', '.join(COMMANDS[command]) or 'nothing'}")
            if command == "attach":
                self._attach(peer, args)
            elif command in ("trial", "worth"):
                reply["result"] = self._look(command, args)
            else:
                result = self._handler(command, args, peer.role, peer.by)
                reply["result"] = await result if inspect.isawaitable(result) else result
        except LamdatuiError as error:
            reply |= {"ok": False, "error": error.what}
        except KeyError as error:
            reply |= {"ok": False, "error": f"missing argument {error}"}
        except Exception as error:  # noqa: BLE001 (whatever a command does, the engine goes on and says so)
            traceback.print_exc()
            reply |= {"ok": False, "error": f"the engine could not do it: {type(error).__name__}: {error}"}
        try:
            encode(reply)
        except ValueError as error:
            # It would end the connection, and whoever asked would hear nothing.
            reply |= {"ok": False, "result": None, "error": f"the answer is too long: {error}"}
        if peer.sender is None:
            peer.writer.write(encode(reply))
        else:
            await peer.queue.put(reply)

    def _look(self, command: str, args: dict[str, Any]) -> Any:
        """What a client asks to see; it may be a viewer, and the run may be over."""
        state = self._journal.state
        if command == "worth":
            report = worth(state)
            return {"sign": report.difference.sign, "lines": told(report)}
        number = args["number"]
        trial = state.trials.get(number) if type(number) is int else None
        if trial is None:
            raise LamdatuiError(f"there is no trial {repr(number)[:100]}")
        return asdict(trial)
