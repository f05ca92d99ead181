"""The planner's process and client, against llama.cpp with a real model and against local servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner import grammar
from lamdatui.planner.client import PlannerClient, PlannerError
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings
from tests.conftest import Commands

MESSAGES = [{"role": "user", "content": "Choose."}]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(client: PlannerClient, **changes):
    given_ = {"grammar": None, "schema": None, "max_tokens": 24, "temperature": 0.7, "seed": 1} | changes
    return await client.chat(MESSAGES, **given_)


@contextlib.asynccontextmanager
async def listening(serve: Serve, **changes) -> AsyncIterator[PlannerClient]:
    """A client of a real socket server that treats each connection with `serve`."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits = {"first_token_seconds": 5.0, "idle_seconds": 5.0, "total_seconds": 20.0} | changes
    client = PlannerClient(PlannerSettings(backend="openai", url=url, model="m", **limits), url, model="m")
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def request_of(reader: asyncio.StreamReader) -> dict:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
    return json.loads(await reader.readexactly(length))


def stream(*chunks: object) -> bytes:
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body.encode()


def delta(text: str, finish: str | None = None) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def replying(*replies: bytes, seen: list[dict] | None = None) -> Serve:
    """Answers the n-th connection with the n-th reply (the last one again and again) and closes."""
    left = list(replies)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        if seen is not None:
            seen.append(request)
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    return serve


def test_a_streamed_answer_is_collected_and_a_schema_is_sent():
    async def body() -> None:
        seen: list[dict] = []
        usage = {"choices": [], "usage": {"total_tokens": 31}}
        async with listening(replying(stream(delta("s"), delta("ft", "stop"), usage), seen=seen)) as client:
            answer = await ask(client, grammar='root ::= "sft"', schema={"type": "object"})
        assert (answer.text, answer.tokens) == ("sft", 31)
        assert "grammar" not in seen[0]
        assert seen[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}

    asyncio.run(body())


def test_a_hung_server_meets_the_first_token_limit():
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def body() -> None:
        async with listening(hang, first_token_seconds=0.4) as client:
            started = time.monotonic()
            with pytest.raises(PlannerError, match=r"no first token within 0\.4 s"):
                await ask(client)
            assert time.monotonic() - started < 3

    asyncio.run(body())


def test_pings_without_tokens_do_not_count_as_an_answer():
    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(stream({"choices": [{"delta": {"role": "assistant", "content": None}}]}))
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b": ping\n\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    async def body() -> None:
        async with listening(ping, first_token_seconds=0.5) as client:
            with pytest.raises(PlannerError, match="no first token"):
                await ask(client)

    asyncio.run(body())


def test_silence_in_the_middle_meets_the_idle_limit():
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(stream(delta("s")))
        await writer.drain()
        await reader.read()
        writer.close()

    async def body() -> None:
        async with listening(stall, idle_seconds=0.3, first_token_seconds=10) as client:
            with pytest.raises(PlannerError, match=r"silent for 0\.3 s"):
                await ask(client)

    asyncio.run(body())


def test_an_endless_answer_meets_the_total_limit():
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(stream())
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(f"data: {json.dumps(delta('x'))}\n\n".encode())
                await writer.drain()
                await asyncio.sleep(0.02)

    async def body() -> None:
        async with listening(babble, total_seconds=0.5) as client:
            with pytest.raises(PlannerError, match=r"more than 0\.5 s"):
                await ask(client)

    asyncio.run(body())


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
        stream("not an object"),
        stream({"choices": [3]}),
        stream({"choices": [{"delta": []}], "usage": {"total_tokens": "many"}}),
        stream({"choices": [], "usage": {"total_tokens": float("inf")}}),
        stream({"choices": [], "usage": {"total_tokens": -5}}),
        stream({"choices": [], "usage": {"total_tokens": 10**30}}),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: " + b"[" * 100_000 + b"\n\n",
        b"HTTP/1.1 400 no\r\nConnection: close\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: {broken\n\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\xff\xfe\x00" + b"x" * 5000,
        b"220 mail.example ready\r\n",
    ],
    ids=[
        "html",
        "string",
        "number",
        "wrong-types",
        "infinite",
        "negative",
        "huge",
        "deep",
        "deep-refusal",
        "half-json",
        "binary",
        "not-http",
    ],
)
def test_garbage_is_an_error_in_plain_words(reply):
    async def body() -> None:
        async with listening(replying(reply)) as client:
            with pytest.raises(PlannerError, match="planner"):
                await ask(client)

    asyncio.run(body())


def letters(logprob: object) -> dict:
    """An answer "A" with one log-probability that is as given."""
    top = [{"token": "A", "logprob": -0.5}, {"token": "B", "logprob": logprob}]
    shown = {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": top}]}
    return {"choices": [{"index": 0, "delta": {"content": "A"}, "logprobs": shown, "finish_reason": "stop"}]}


@pytest.mark.parametrize("logprob", [float("nan"), float("inf"), 0.7, 5, 10**400, "-1.0", "NaN", True, None, [-1.0], {}])
def test_what_is_no_log_probability_makes_the_answer_unusable(logprob):
    async def body() -> None:
        async with listening(replying(stream(letters(logprob)))) as client:
            with pytest.raises(PlannerError, match="as a log-probability"):
                await ask(client, top_logprobs=5)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("logprob", "taken"), [(-2, -2.0), (0, 0.0), (1e-6, 0.0), (-math.inf, -math.inf), (-(10**400), -math.inf)]
)
def test_log_probabilities_are_taken_as_they_are_but_for_rounding(logprob, taken):
    async def body() -> None:
        async with listening(replying(stream(letters(logprob)))) as client:
            answer = await ask(client, top_logprobs=5)
        assert answer.choices[0].top == (("A", -0.5), ("B", taken))

    asyncio.run(body())


def test_a_run_goes_on_with_the_fallback_and_tells_what_the_server_sent(lab_profile, cli: Commands):
    def plain(status: str, body: bytes) -> bytes:
        return b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = plain("200 OK", b'{"data": [{"id": "m"}]}') if head.startswith(b"GET /v1/models") else plain("404 no", b"")
        writer.write(stream(letters(float("nan"))) if head.startswith(b"POST") else found)
        await writer.drain()
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        section = f"policy: {{name: lamdagent, opening: false}}\nplanner: {{backend: openai, url: '{url}'}}\n"
        profile = str(lab_profile(("policy: { name: hybrid }\n", section)))
        run = ("run", profile, "--name", "x", "--headless", "--mode", "read-only", "--max-trials", "1")
        done = await asyncio.to_thread(cli, *run)
        server.close()
        assert done.returncode == 0, done.stderr

    asyncio.run(body())
    (trial,) = cli.show("x")["trials"]
    assert "planner failed: the planner's server sent 'nan' as a log-probability" in trial["proposed_by"]


def test_an_error_inside_the_stream_is_told():
    async def body() -> None:
        async with listening(replying(stream({"error": {"message": "out of\nmemory"}}))) as client:
            with pytest.raises(PlannerError, match="out of memory"):
                await ask(client)

    asyncio.run(body())


def test_a_busy_server_is_asked_at_most_three_times():
    async def body() -> None:
        seen: list[dict] = []
        busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
        async with listening(replying(busy, seen=seen)) as client:
            with pytest.raises(PlannerError, match="HTTP 503: busy"):
                await ask(client)
        assert len(seen) == 3
        seen.clear()
        async with listening(replying(busy, stream(delta("ok", "stop")), seen=seen)) as client:
            assert (await ask(client)).text == "ok"
        assert len(seen) == 2

    asyncio.run(body())


def test_a_server_without_logprobs_is_asked_without_them():
    async def body() -> None:
        seen: list[dict] = []
        refusal = b'HTTP/1.1 400 Bad\r\nContent-Length: 31\r\n\r\n{"error": "no logprobs for you"}'
        async with listening(replying(refusal, stream(delta("ok", "stop")), seen=seen)) as client:
            assert (await ask(client, top_logprobs=60)).text == "ok"
        assert seen[0]["top_logprobs"] == 20
        assert "logprobs" not in seen[1]

    asyncio.run(body())


def test_an_external_server_is_only_looked_at(tmp_path):
    async def body() -> None:
        models = b'{"data": [{"id": "qwen"}]}'

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(models), models))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        host = planner_server(PlannerSettings(backend="openai", url=url), tmp_path / "log")
        await host.start()
        assert (host.model, host.identity, host.alive) == ("qwen", None, True)
        await host.close()
        server.close()

    asyncio.run(body())


def test_an_unreachable_server_exits_with_the_planner_code(tmp_path):
    host = planner_server(PlannerSettings(backend="openai", url="http://127.0.0.1:1"), tmp_path / "log")
    with pytest.raises(LamdatuiError, match="no planner answers") as caught:
        asyncio.run(host.start())
    assert caught.value.exit_code == EXIT_PLANNER


def test_a_broken_model_file_is_reported_with_the_log(tmp_path):
    model = tmp_path / "broken.gguf"
    model.write_text("junk")
    host = planner_server(PlannerSettings(model=str(model)), tmp_path / "log")
    with pytest.raises(LamdatuiError, match=r"exit code 1.*could not serve") as caught:
        asyncio.run(host.start())
    assert caught.value.exit_code == EXIT_PLANNER
    assert not host.alive
    with pytest.raises(LamdatuiError, match="not there"):
        asyncio.run(planner_server(PlannerSettings(model=str(tmp_path / "none")), tmp_path / "log").start())


@contextlib.asynccontextmanager
async def llama(gguf, tmp_path, **changes) -> AsyncIterator[tuple[PlannerServer, PlannerClient]]:
    settings_ = PlannerSettings(model=str(gguf), context=1024, **changes)
    host = planner_server(settings_, tmp_path / "planner.log")
    await host.start()
    client = PlannerClient(settings_, host.url, model=host.model, key=host.key)
    try:
        yield host, client
    finally:
        await client.close()
        await host.close()


TRICKY = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=6)


def test_the_grammar_admits_exactly_the_ids(gguf, tmp_path):
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        _, client = runner.run(stack.enter_async_context(llama(gguf, tmp_path)))
        try:

            @settings(max_examples=12, deadline=None)
            @given(st.lists(TRICKY, min_size=1, max_size=4, unique=True), st.integers(0, 2**30))
            def exactly(ids: list[str], seed: int) -> None:
                form = grammar.one_of(ids)
                answer = runner.run(ask(client, grammar=form, temperature=3.0, seed=seed, max_tokens=64))
                assert answer.text in ids

            exactly()
            for name in ("m1", "m10", 'a"b', "a\\b", "merge_ties"):
                assert runner.run(ask(client, grammar=grammar.one_of([name]))).text == name
            for words in ("ABCDEFGHIJKL", ("Yes", "No")):
                form = grammar.one_of(words)
                for seed in range(5):
                    # One token is asked for, and its alternatives are told before the grammar takes them away.
                    answer = runner.run(ask(client, grammar=form, seed=seed, temperature=2.0, max_tokens=1, top_logprobs=60))
                    assert any(word.startswith(answer.text) for word in words)
                    assert answer.choices[0].text == answer.text
                    assert len(answer.choices[0].top) == 60
                whole = runner.run(ask(client, grammar=form, temperature=2.0, max_tokens=16))
                assert whole.text in words
            memory = runner.run(ask(client, grammar=grammar.free_text(40), max_tokens=120, temperature=2.0))
            assert 1 <= len(memory.text) <= 40
            assert "\n" not in memory.text
        finally:
            runner.run(stack.aclose())


def test_llama_cpp_counts_tokens_gives_logprobs_and_refuses_strangers(gguf, tmp_path):
    async def body() -> None:
        async with llama(gguf, tmp_path) as (host, client):
            answer = await ask(client, grammar=grammar.one_of(["A", "B"]), top_logprobs=60)
            assert answer.tokens > 2
            assert answer.choices[0].text == answer.text
            assert len(answer.choices[0].top) == 60
            stranger = PlannerClient(PlannerSettings(model=str(gguf)), host.url, model="m")
            with pytest.raises(PlannerError, match="HTTP 401"):
                await ask(stranger)
            with pytest.raises(PlannerError, match="exceeds the available context"):
                await client.chat(
                    [{"role": "user", "content": "word " * 2000}],
                    grammar=None,
                    schema=None,
                    max_tokens=4,
                    temperature=0.0,
                    seed=1,
                )
            await stranger.close()

    asyncio.run(body())


def test_a_killed_planner_is_noticed_at_once(gguf, tmp_path):
    async def body() -> None:
        async with llama(gguf, tmp_path) as (host, client):
            assert host.identity is not None
            os.kill(host.identity[0], signal.SIGKILL)
            started = time.monotonic()
            with pytest.raises(PlannerError, match="planner"):
                await ask(client)
            assert time.monotonic() - started < 10
            assert await host.death() == "the planner's process was killed by signal SIGKILL"
            assert not host.alive

    asyncio.run(body())


def gone(pid: int, start_time: float, within: float = 10.0) -> bool:
    """Whether exactly this process ends within `within` seconds; a zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            process = psutil.Process(pid)
            if process.create_time() != start_time or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_closing_reaps_the_process(gguf, tmp_path):
    async def body() -> tuple[int, float]:
        async with llama(gguf, tmp_path) as (host, _):
            assert host.identity is not None
            return host.identity

    identity = asyncio.run(body())
    with pytest.raises(psutil.NoSuchProcess):
        if psutil.Process(identity[0]).create_time() != identity[1]:
            raise psutil.NoSuchProcess(identity[0])


PARENT = """
import asyncio, json, sys
from pathlib import Path
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings

async def main():
    host = planner_server(PlannerSettings(model=sys.argv[1], context=512), Path(sys.argv[2]))
    await host.start()
    print(json.dumps(host.identity), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_planner_dies_with_its_parent(gguf, tmp_path):
    command = [sys.executable, "-c", PARENT, str(gguf), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            pid, start_time = json.loads(parent.stdout.readline())
            assert not gone(pid, start_time, within=0.2)
        finally:
            parent.kill()
        assert gone(pid, start_time)


def test_the_planner_ends_when_its_stdin_does(gguf):
    command = [sys.executable, "-m", "lamdatui.planner.llamacpp", "--model", str(gguf), "--context", "512"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert set(json.loads(line)) == {"url", "key", "model"}
            process.stdin.close()
            assert process.wait(10) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
