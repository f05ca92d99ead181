"""The socket: garbage, floods and strangers' words do not disturb the engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lamdatui.client import COMMANDS, FRAME_BYTES, Client
from lamdatui.engine.server import Server
from lamdatui.errors import LamdatuiError
from lamdatui.paths import socket_path
from lamdatui.store.journal import Journal
from tests.test_journal import fill


class Asked:
    """Remembers what the server passed on."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any], str]] = []

    def __call__(self, command: str, args: dict[str, Any], role: str) -> str:
        if command == "pause":
            raise LamdatuiError("not now")
        self.commands.append((command, args, role))
        return "done"


@pytest.fixture
async def served(tmp_path: Path):
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    asked = Asked()
    server = Server(socket_path(tmp_path), journal, asked)
    await server.start()
    yield tmp_path, journal, server, asked
    await server.close()


async def replayed(client: Client) -> list[dict[str, Any]]:
    frames = []
    async for frame in client.frames():
        frames.append(frame)
        if frame["type"] == "live":
            return frames
    return frames


async def test_a_client_gets_every_event_in_order_then_what_comes(served) -> None:
    folder, journal, server, _ = served
    client = await Client.connect(folder)
    frames = await asyncio.wait_for(replayed(client), 10)
    assert frames[0]["type"] == "hello"
    assert [f["event"]["seq"] for f in frames if f["type"] == "event"] == list(range(1, journal.state.last_seq + 1))
    server.publish({"type": "hardware", "gpus": []})
    following = client.frames()
    assert (await asyncio.wait_for(anext(following), 10))["type"] == "hardware"
    await client.close()


async def test_only_this_user_may_open_the_socket(served) -> None:
    folder = served[0]
    assert socket_path(folder).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "line", [b"\x00\xff\n", b"[]\n", b'{"type": 3}\n', b"{" * 1000 + b"\n", b"x" * (FRAME_BYTES + 10) + b"\n"]
)
async def test_garbage_costs_only_its_own_connection(served, line: bytes) -> None:
    folder, _, _, asked = served
    reader, writer = await asyncio.open_unix_connection(str(socket_path(folder)), limit=FRAME_BYTES)
    writer.write(line)
    try:
        await asyncio.wait_for(writer.drain(), 10)
        while await asyncio.wait_for(reader.readline(), 10):
            pass
    except ConnectionError:
        pass
    writer.close()
    client = await Client.connect(folder)
    assert (await asyncio.wait_for(replayed(client), 10))[-1]["type"] == "live"
    assert asked.commands == []
    await client.close()


async def test_commands_are_checked_and_refusals_come_back_as_errors(served) -> None:
    folder, _, _, asked = served
    client = await Client.connect(folder)
    reading = asyncio.create_task(collect(client))
    assert await client.command("mode", mode="auto") == "done"
    await client.command("attach", role="console")
    assert await client.command("stop", when="now") == "done"
    assert asked.commands == [("mode", {"mode": "auto"}, "viewer"), ("stop", {"when": "now"}, "console")]
    for name, args in (("explode", {}), ("mode", {"mode": "auto", "colour": 1}), ("pause", {}), ("attach", {})):
        with pytest.raises(LamdatuiError):
            await client.command(name, **args)
    assert set(COMMANDS) >= {"decide", "pause", "resume", "mode", "stop", "revoke"}
    reading.cancel()
    await client.close()


async def collect(client: Client) -> None:
    async for frame in client.frames():
        json.dumps(frame)


async def test_a_client_that_never_reads_is_cut_off_and_nobody_waits(served) -> None:
    folder, _, server, _ = served
    _, writer = await asyncio.open_unix_connection(str(socket_path(folder)))
    await asyncio.sleep(0.1)
    assert len(server.peers) == 1
    for number in range(40_000):
        server.publish({"type": "metric", "metric": {"step": number, "text": "x" * 200}})
        if number % 1000 == 0:
            await asyncio.sleep(0)
    assert server.peers == set()
    writer.close()
