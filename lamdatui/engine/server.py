"""The engine's end of the socket: the same user only, frames of a bounded length, every event in order."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.client import COMMANDS, FRAME_BYTES, PROTOCOL, decode, encode
from lamdatui.errors import LamdatuiError
from lamdatui.store.journal import Journal

BACKLOG = 20_000
"""Frames that may wait for one client before it is cut off: it can attach again and catch up from the journal."""

Handler = Callable[[str, dict[str, Any], str], Any]


@dataclass(eq=False)
class Peer:
    """One connected client."""

    writer: asyncio.StreamWriter
    queue: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(BACKLOG))
    role: str = "viewer"


class Server:
    """Sends events and readings to every client and hands their commands to the engine."""

    def __init__(self, path: Path, journal: Journal, handler: Handler) -> None:
        self._path = path
        self._journal = journal
        self._handler = handler
        self._server: asyncio.Server | None = None
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
        """Queue a frame for everyone; a client that does not read is cut off."""
        for peer in list(self.peers):
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
        peer: socket.socket = writer.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", raw)[1] == os.getuid()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._same_user(writer):
            writer.close()
            return
        peer = Peer(writer)
        newest = self._journal.state.last_seq
        self.peers.add(peer)
        sender = asyncio.create_task(self._send(peer, newest))
        try:
            while line := await reader.readline():
                await self._command(peer, line)
        except (ConnectionError, ValueError):
            pass
        finally:
            self.peers.discard(peer)
            self.last_peer_left = asyncio.get_running_loop().time()
            sender.cancel()
            writer.close()

    async def _send(self, peer: Peer, newest: int) -> None:
        state = self._journal.state
        try:
            hello = {"type": "hello", "protocol": PROTOCOL, "run": state.name, "pid": os.getpid(), "seq": newest}
            peer.writer.write(encode(hello))
            for event in self._journal.events():
                if event.seq > newest:
                    break
                peer.writer.write(encode({"type": "event", "event": event.to_json()}))
                await peer.writer.drain()
            peer.writer.write(encode({"type": "live"}))
            while True:
                peer.writer.write(encode(await peer.queue.get()))
                await peer.writer.drain()
        except ConnectionError:
            return

    async def _command(self, peer: Peer, line: bytes) -> None:
        frame = decode(line)
        reply: dict[str, Any] = {"type": "reply", "id": frame.get("id"), "ok": True, "result": None}
        try:
            command, args = frame.get("command"), frame.get("args", {})
            if frame["type"] != "command" or command not in COMMANDS:
                raise LamdatuiError(f"no command {command!r}")
            if not isinstance(args, dict) or not set(args) <= set(COMMANDS[command]):
                raise LamdatuiError(f"{command} takes {', '.join(COMMANDS[command]) or 'nothing'}")
            if command == "attach":
                peer.role = str(args["role"])
            else:
                result = self._handler(command, args, peer.role)
                reply["result"] = await result if inspect.isawaitable(result) else result
        except LamdatuiError as error:
            reply |= {"ok": False, "error": error.what}
        except KeyError as error:
            reply |= {"ok": False, "error": f"missing argument {error}"}
        except Exception as error:  # noqa: BLE001 (whatever a command does, the engine goes on and says so)
            traceback.print_exc()
            reply |= {"ok": False, "error": f"the engine could not do it: {type(error).__name__}: {error}"}
        await peer.queue.put(reply)
