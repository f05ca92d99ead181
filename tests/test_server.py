"""The socket: garbage, floods and strangers' words do not disturb the engine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.paths import socket_path
from lamdatui.domain.events import event_from_json
from lamdatui.engine.server import Server
from lamdatui.store.journal import Journal
from lamdatui.wire.client import Client
from lamdatui.wire.protocol import COMMANDS, FRAME_BYTES, encode
from lamdatui.wire.snapshot import Restored
from tests.test_journal import PROPOSAL, fill


class Asked:
    """Remembers what the server passed on."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any], str]] = []
        self.by = ""

    def __call__(self, command: str, args: dict[str, Any], role: str, by: str) -> str:
        if command == "pause":
            raise LamdatuiError("not now")
        self.by = by
        self.commands.append((command, args, role))
        return "done"


@pytest.fixture
async def served(tmp_path: Path):
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    asked = Asked()
    server = Server(socket_path(tmp_path), journal, asked, asyncio.Event())
    await server.start()
    yield tmp_path, journal, server, asked
    await server.close()


async def test_who_comes_to_an_engine_that_is_leaving_is_not_greeted_and_who_is_there_stays(tmp_path: Path) -> None:
    journal, closing = Journal(tmp_path / "run.db"), asyncio.Event()
    fill(journal)
    server = Server(socket_path(tmp_path), journal, Asked(), closing)
    await server.start()
    before = await Client.connect(tmp_path)
    frames = before.frames()
    assert (await anext(frames))["type"] == "hello"
    closing.set()
    after = await Client.connect(tmp_path)
    assert [frame async for frame in after.frames()] == []
    attach = asyncio.create_task(before.command("attach", role="viewer"))
    assert (await anext(frames))["type"] == "event"
    attach.cancel()
    await after.close()
    await before.close()
    await server.close()


async def replayed(client: Client, **past: Any) -> list[dict[str, Any]]:
    """Everything up to `live` for a client that attaches."""
    attach = asyncio.create_task(client.command("attach", role="viewer", **past))
    frames = []
    async for frame in client.frames():
        frames.append(frame)
        if frame["type"] == "live":
            break
    attach.cancel()
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


async def test_a_client_that_knows_a_part_gets_only_what_is_newer(served) -> None:
    folder, journal, _, _ = served
    client = await Client.connect(folder)
    frames = await asyncio.wait_for(replayed(client, after=5), 10)
    assert [f["event"]["seq"] for f in frames if f["type"] == "event"] == list(range(6, journal.state.last_seq + 1))
    await client.close()


async def test_nothing_is_missing_between_a_snapshot_and_what_comes_after_it(served) -> None:
    folder, journal, server, _ = served
    for number in range(3, 400):
        journal.append(("trial.opened", {"number": number}), ("trial.proposed", {"number": number, "proposal": PROPOSAL}))
    client = await Client.connect(folder)
    frames = client.frames()
    assert (await anext(frames))["seq"] == journal.state.last_seq
    attach = asyncio.create_task(client.command("attach", role="viewer", snapshot=True))
    seen, state = [], None
    while journal.state.last_seq < 1300 or state is None or state.last_seq < journal.state.last_seq:
        if journal.state.last_seq < 1300:
            # While the snapshot is under way the run goes on.
            for event in journal.append(("mode.changed", {"mode": "auto", "by": str(journal.state.last_seq)})):
                server.publish({"type": "event", "event": event.to_json()})
        frame = await asyncio.wait_for(anext(frames), 10)
        seen.append(frame["type"])
        match frame:
            case {"type": "snapshot", "part": "run"}:
                restored = Restored(frame)
            case {"type": "snapshot", "part": "trials"}:
                restored.add(frame["trials"])
            case {"type": "snapshot", "part": "end"}:
                state = restored.end()
            case {"type": "event"} if state:
                assert frame["event"]["seq"] == state.last_seq + 1
                state.apply(event_from_json(frame["event"]))
    assert seen.index("snapshot") < seen.index("past") < seen.index("live") < seen.index("event")
    assert state.trials.keys() == journal.state.trials.keys()
    attach.cancel()
    await client.close()


async def test_a_viewer_may_look_at_a_trial_and_at_the_planners_worth(served) -> None:
    folder, journal, _, asked = served
    client = await Client.connect(folder)
    reading = asyncio.create_task(collect(client))
    assert (await client.command("trial", number=1))["proposal"] == journal.state.trials[1].proposal
    assert (await client.command("worth"))["lines"]
    with pytest.raises(LamdatuiError, match="no trial 99"):
        await client.command("trial", number=99)
    assert asked.commands == []
    reading.cancel()
    await client.close()


async def test_only_this_user_may_open_the_socket(served) -> None:
    folder = served[0]
    assert socket_path(folder).stat().st_mode & 0o077 == 0


CALLER = """
import json, os, socket, sys
path, user = sys.argv[1], int(sys.argv[2])
if user != os.getuid():
    os.setuid(user)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect(path)
try:
    connection.sendall(json.dumps({"type": "command", "id": 1, "command": "stop", "args": {"when": "now"}}).encode() + b"\\n")
    lines = connection.makefile("rb")
    # The greeting, then the answer; nothing where the engine hangs up.
    heard = [json.loads(line)["type"] for line in (lines.readline(), lines.readline()) if line]
except (BrokenPipeError, ConnectionResetError):
    heard = []
print(json.dumps(heard))
"""


async def called(path: Path, user: int) -> list[str]:
    """What a process of that user hears from a socket that everybody may open; it sends a command."""
    path.chmod(0o777)
    line = [sys.executable, "-c", CALLER, str(path), str(user)]
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return json.loads(output)


async def test_another_user_is_not_answered_even_where_the_socket_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="lamdatui-", dir="/tmp") as folder:
        # pytest's folders are closed to others.
        Path(folder).chmod(0o711)
        journal, asked = Journal(tmp_path / "run.db"), Asked()
        fill(journal)
        server = Server(Path(folder) / "socket", journal, asked, asyncio.Event())
        await server.start()
        assert await called(Path(folder) / "socket", os.getuid()) == ["hello", "reply"]
        assert asked.commands == [("stop", {"when": "now"}, "viewer")]
        asked.commands.clear()
        other = 65534 if os.getuid() == 0 else os.getuid()
        if os.getuid() != 0:
            # Nobody but root can become somebody else: then it is the engine that has another user's id.
            monkeypatch.setattr(os, "getuid", lambda: other + 1)
        assert await called(Path(folder) / "socket", other) == []
        assert asked.commands == [] and server.peers == set()
        await server.close()


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
    writer.write(encode({"type": "command", "id": 1, "command": "attach", "args": {"role": "viewer"}}))
    while not any(peer.sender for peer in server.peers):
        await asyncio.sleep(0.01)
    for number in range(40_000):
        server.publish({"type": "metric", "metric": {"step": number, "text": "x" * 200}})
        if number % 1000 == 0:
            await asyncio.sleep(0)
    assert server.peers == set()
    writer.close()


@pytest.mark.parametrize(
    ("name", "by"), [(None, "person"), ("ana@pts/3", "ana@pts/3"), ("a.b+c@pid-7", "a.b+c@pid-7")], ids=["none", "tty", "pid"]
)
async def test_what_a_client_asks_carries_its_name(served, name: str | None, by: str) -> None:
    folder, _, _, asked = served
    client = await Client.connect(folder)
    reading = asyncio.create_task(_drain(client))
    await client.command("attach", role="console", **({"name": name} if name else {}))
    await client.command("hint", text="x")
    assert asked.by == by
    reading.cancel()
    await client.close()


@pytest.mark.parametrize("name", ["mode auto", "facts", "a@b\x1b[2J", "a" * 40 + "@b", "@b", 7, "ana@pts/3\n"])
async def test_a_name_that_could_be_taken_for_something_else_is_refused(served, name: object) -> None:
    folder, _, _, _ = served
    client = await Client.connect(folder)
    reading = asyncio.create_task(_drain(client))
    with pytest.raises(LamdatuiError, match="USER@TERMINAL"):
        await client.command("attach", role="console", name=name)
    reading.cancel()
    await client.close()


async def _drain(client: Client) -> None:
    async for _ in client.frames():
        pass
