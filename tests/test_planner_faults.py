"""A real llama.cpp server over HTTP that answers garbage, hangs and is killed in the middle of a run: the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Commands

GARBAGE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"choices": [{"delta": \x00\xff<<<\n\n'
)


class Relay:
    """A loopback port that passes everything on to a server, or answers garbage in its place."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self.garbage = False
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above, below = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._ask(reader, below, writer), self._pump(above, writer))

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.garbage:
                    back.write(GARBAGE)
                    back.close()
                    break
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def server(gguf: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """(process, address, key) of a llama.cpp server that is not the engine's own."""
    command = [sys.executable, "-m", "lamdatui.planner.llamacpp", "--model", str(gguf), "--context", "2048"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    yield process, ready["url"], ready["key"]
    process.kill()
    process.wait(10)


def test_a_server_that_lies_hangs_and_dies_costs_choices_and_never_the_run(lab_profile, cli: Commands, server) -> None:
    process, url, key = server
    relay = Relay(url)
    planner = (
        f"policy: {{ name: hybrid, share: 1.0, adapt: false }}\n"
        f"planner: {{ backend: openai, url: 'http://127.0.0.1:{relay.port}', api_key_env: PLANNER_KEY, shortlist: 2, style: yes-no,"
        f" first_token_seconds: 20, idle_seconds: 4 }}\n"
    )
    profile = lab_profile(("policy: { name: hybrid }\n", planner))
    run = cli.popen(
        "run", str(profile), "--name", "f", "--mode", "auto", "--max-trials", "7", "--json", "--trust", PLANNER_KEY=key
    )  # fmt: skip
    assert run.stdout is not None
    chosen: dict[int, dict] = {}
    for line in run.stdout:
        event = json.loads(line)
        if event["kind"] != "trial.proposed":
            continue
        number, proposal = event["data"]["number"], event["data"]["proposal"]
        chosen[number] = proposal
        # The step of this trial takes longer than these lines; the next question comes after it.
        relay.garbage = number == 4
        if number == 5:
            os.kill(process.pid, signal.SIGSTOP)
        if number == 6:
            process.kill()
    assert run.wait(30) == 0, run.stderr.read() if run.stderr else ""
    relay.close()

    assert sorted(chosen) == [1, 2, 3, 4, 5, 6, 7]
    assert [chosen[number]["proposed_by"] for number in (1, 2, 3)] == ["opening"] * 3
    assert chosen[4]["proposed_by"] == "hybrid"
    assert chosen[4]["details"]["chooser"] == "planner"
    told = {5: "not a streamed chat completion", 6: "no first token within 20 s", 7: "broke off|nothing answers|no planner"}
    for number, reason in told.items():
        assert chosen[number]["proposed_by"].startswith("surrogate (planner failed: ")
        assert any(part in chosen[number]["fallback"] for part in reason.split("|")), chosen[number]["fallback"]
    found = cli.show("f")
    assert found["status"] == "done"
    assert [trial["status"] for trial in found["trials"]] == ["done"] * 7
