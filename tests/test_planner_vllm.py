"""vLLM as a planner: its command line, and its process and sleep against a program that speaks vLLM's protocol.

That program stands in for vLLM, which needs a GPU. That vLLM itself understands the command line and the requests is what
`bench/vllm_args.py` checks, here as a slow test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner import vllm
from lamdatui.planner.client import PlannerClient, PlannerError
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings
from tests.conftest import CHECKOUT, REAL_CATALOGUE

STAND_IN = '''#!{python}
"""Answers like `vllm serve` 0.32: a worker that ignores SIGTERM, /health, a key for /v1 only, sleep in developer mode."""
import json, os, pathlib, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
flag = lambda name: words[words.index(name) + 1]
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
print("loading", words[1], flush=True)
if (folder / "broken").exists():
    sys.exit("CUDA out of memory")
if (folder / "endless").exists():
    time.sleep(600)
time.sleep(0.3)
state = {{"asleep": False}}

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, value, status=200, kind="application/json"):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path.startswith("/v1") and self.headers.get("Authorization") != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.answer({{"error": "Unauthorized"}}, 401)
        if path == "/health":
            return self.answer(b"")
        if path == "/version":
            return self.answer({{"version": "0.32.0"}})
        if path == "/v1/models":
            return self.answer({{"data": [{{"id": flag("--served-model-name"), "owned_by": "vllm"}}]}})
        if path == "/v1/chat/completions":
            (folder / "request.json").write_bytes(body)
            top = [{{"token": "B", "logprob": -0.1}}, {{"token": "A", "logprob": -2.4}}, {{"token": "x", "logprob": -9999.0}}]
            choice = {{"index": 0, "delta": {{"reasoning": "hm", "content": "B"}}, "finish_reason": "stop",
                      "logprobs": {{"content": [{{"token": "B", "logprob": -0.1, "top_logprobs": top}}]}}}}
            usage = {{"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}}
            chunks = [{{"choices": [choice]}}, {{"choices": [], "usage": usage}}]
            text = "".join("data: " + json.dumps(chunk) + "\\n\\n" for chunk in chunks) + "data: [DONE]\\n\\n"
            return self.answer(text.encode(), kind="text/event-stream")
        if os.environ.get("VLLM_SERVER_DEV_MODE") == "1" and "--enable-sleep-mode" in words:
            if path == "/is_sleeping":
                return self.answer({{"is_sleeping": state["asleep"]}})
            if path in ("/sleep", "/wake_up"):
                with (folder / "orders").open("a") as orders:
                    orders.write(self.path + "\\n")
                state["asleep"] = path == "/sleep"
                return self.answer({{"status": "sleeping" if state["asleep"] else "awake"}})
        return self.answer({{"detail": "Not Found"}}, 404)

    do_GET = do_POST = handle_any

ThreadingHTTPServer((flag("--host"), int(flag("--port"))), Handler).serve_forever()
'''


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamdatui.planner.reaper.GRACE_SECONDS", 0.3)


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    folder = tmp_path / "vllm-env" / "bin"
    folder.mkdir(parents=True)
    path = folder / "vllm"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


def settings_for(executable: Path, **changes: Any) -> PlannerSettings:
    given = {"model": "/models/Qwen3-4B", "context": 8192, "ready_seconds": 30.0, **changes}
    return PlannerSettings(backend="vllm", executable=str(executable), **given)


@contextlib.asynccontextmanager
async def started(executable: Path, **changes: Any) -> AsyncIterator[PlannerServer]:
    host = planner_server(settings_for(executable, **changes), executable.parent / "planner.log")
    await host.start()
    try:
        yield host
    finally:
        await host.close()


def tree_of(host: PlannerServer) -> list[psutil.Process]:
    assert host.identity is not None
    root = psutil.Process(host.identity[0])
    return [root, *root.children(recursive=True)]


def gone(processes: list[psutil.Process], within: float = 15.0) -> bool:
    return not psutil.wait_procs(processes, timeout=within)[1] or not any(map(alive, processes))


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_command_line_holds_no_key_and_what_is_shown_hides_it(tmp_path: Path) -> None:
    settings = PlannerSettings(backend="vllm", model="Qwen/Qwen3-4B", context=8192, arguments=("--reasoning-parser", "qwen3"))
    line = vllm.command_line(settings, 8123)
    assert line[:7] == ["vllm", "serve", "Qwen/Qwen3-4B", "--host", "127.0.0.1", "--port", "8123"]
    assert line[line.index("--max-model-len") + 1] == "8192"
    assert line[line.index("--gpu-memory-utilization") + 1] == "0.3"
    assert line[-3:] == ["--enable-sleep-mode", "--reasoning-parser", "qwen3"]
    assert "--api-key" not in line
    assert vllm.own_environment(settings, "secret")["VLLM_API_KEY"] == "secret"
    assert vllm.shown(settings, 8123).startswith("VLLM_API_KEY='<hidden>' HF_HUB_OFFLINE=1")
    assert "vllm serve Qwen/Qwen3-4B --host" in vllm.shown(settings, 8123)


def test_sleep_never_leaves_the_developer_endpoints_off() -> None:
    settings = PlannerSettings(backend="vllm", model="/m", sleep="never")
    assert "--enable-sleep-mode" not in vllm.command_line(settings, 1)
    assert "VLLM_SERVER_DEV_MODE" not in vllm.own_environment(settings, "k")


def test_vllm_gets_no_trace_of_our_own_environment() -> None:
    settings = PlannerSettings(backend="vllm", model="/m")
    base = {"PATH": "/usr/bin", "PYTHONPATH": "/ours", "VIRTUAL_ENV": "/ours", "CUDA_VISIBLE_DEVICES": "1"}
    base |= {"VLLM_USE_MODELSCOPE": "1", "HF_HUB_OFFLINE": "0"}
    made = vllm.environment(settings, "k", "/env/bin/vllm", base)
    assert made["PATH"] == "/env/bin:/usr/bin"
    assert made["CUDA_VISIBLE_DEVICES"] == "1"
    assert made["HF_HUB_OFFLINE"] == "1"
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "VLLM_USE_MODELSCOPE"} & set(made)


def test_without_vllm_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host = planner_server(PlannerSettings(backend="vllm", model="/m"), tmp_path / "log")
    with pytest.raises(LamdatuiError, match="there is no vLLM") as caught:
        asyncio.run(host.start())
    assert f"pip install vllm=={vllm.VERSION}" in caught.value.fix
    assert "planner.executable" in caught.value.fix
    assert caught.value.exit_code == EXIT_PLANNER


def test_it_is_started_asked_and_ended(executable: Path) -> None:
    async def body() -> None:
        async with started(executable) as host:
            assert host.model == "Qwen3-4B"
            assert host.alive
            assert host.memory_bytes() > 10 << 20
            processes = tree_of(host)
            assert len(processes) == 4, "two guard processes, the server, its worker"
            assert not any(host.key in " ".join(process.cmdline()) for process in processes)
            client = PlannerClient(settings_for(executable), host.url, model=host.model, key=host.key)
            answer = await client.chat(
                [{"role": "user", "content": "Choose."}],
                grammar='root ::= "A" | "B"',
                schema={"type": "object"},
                max_tokens=1,
                temperature=0.7,
                seed=3,
                top_logprobs=100,
            )
            await client.close()
            assert (answer.text, answer.reasoning, answer.prompt_tokens, answer.new_tokens) == ("B", "hm", 12, 2)
            assert answer.choices[0].top[:2] == (("B", -0.1), ("A", -2.4))
            assert 0 < answer.first_token_seconds <= answer.seconds
        assert gone(processes)
        log = (executable.parent / "planner.log").read_text()
        assert "vllm serve /models/Qwen3-4B" in log
        assert host.key not in log

    asyncio.run(body())
    request = json.loads((executable.parent / "request.json").read_text())
    assert request["structured_outputs"] == {"grammar": 'root ::= "A" | "B"'}
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    assert request["top_logprobs"] == vllm.MOST_LOGPROBS
    assert not {"response_format", "grammar", "cache_prompt"} & set(request)
    environment = json.loads((executable.parent / "environment.json").read_text())
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


def test_it_sleeps_and_wakes(executable: Path) -> None:
    async def body() -> None:
        async with started(executable) as host:
            sleep = vllm.Sleep(host.url, host.key)
            assert await sleep.is_sleeping() is False
            assert await host.rest()
            assert await host.rest()
            assert (host.resting, await sleep.is_sleeping(), host.gpu_bytes()) == (True, True, 0)
            assert host.alive
            assert await host.wake() is False
            assert (host.resting, await sleep.is_sleeping()) == (False, False)
        assert (executable.parent / "orders").read_text().split() == ["/sleep?level=1&mode=wait", "/wake_up"]

    asyncio.run(body())


def test_a_vllm_that_died_asleep_is_started_again(executable: Path) -> None:
    async def body() -> None:
        async with started(executable) as host:
            await host.rest()
            before = tree_of(host)
            before[-2].kill()
            assert gone(before)
            assert await host.death()
            assert await host.wake() is True
            assert host.alive
            assert await vllm.Sleep(host.url).is_sleeping() is False

    asyncio.run(body())


def test_it_never_rests_when_told_so(executable: Path) -> None:
    async def body() -> None:
        async with started(executable, sleep="never") as host:
            assert await vllm.Sleep(host.url, host.key).is_sleeping() is None
            assert await host.rest() is False
            with pytest.raises(LamdatuiError, match="did not go to sleep"):
                await vllm.Sleep(host.url, host.key).sleep()

    asyncio.run(body())


def test_the_gpu_share_is_counted(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [{"memory_total": 80 << 30}, {"memory_total": 40 << 30}]
    monkeypatch.setattr("lamdatui.hardware.gpu.read_gpus", lambda: (gpus, ""))

    async def body() -> None:
        async with started(executable, gpu_memory_utilization=0.5) as host:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
            assert host.gpu_bytes() == 20 << 30
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f2")
            assert host.gpu_bytes() == 20 << 30
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
            assert host.gpu_bytes() == 40 << 30

    asyncio.run(body())


@pytest.mark.parametrize(
    ("obstacle", "seconds", "said"),
    [
        ("broken", 60, r"ended with exit code 1.*CUDA out of memory"),
        ("endless", 6, r"not ready within 6 s.*loading /models/Qwen3-4B"),
    ],
)
def test_a_failed_start_tells_the_log_and_leaves_nothing(executable: Path, obstacle: str, seconds: float, said: str) -> None:
    (executable.parent / obstacle).touch()
    host = planner_server(settings_for(executable, ready_seconds=seconds), executable.parent / "log")
    with pytest.raises(LamdatuiError, match=said) as caught:
        asyncio.run(host.start())
    assert caught.value.exit_code == EXIT_PLANNER
    assert "gpu_memory_utilization" in caught.value.fix
    assert not host.alive
    left = [process for process in psutil.process_iter(["cmdline"]) if str(executable) in (process.info["cmdline"] or [])]
    assert not any(map(alive, left))


def kill_server(processes: list[psutil.Process]) -> None:
    processes[2].kill()


def kill_guard(processes: list[psutil.Process]) -> None:
    processes[0].kill()


@pytest.mark.parametrize("blow", [kill_server, kill_guard])
def test_a_killed_vllm_is_noticed_and_its_worker_ends(executable: Path, blow: Callable[[list[psutil.Process]], None]) -> None:
    async def body() -> None:
        async with started(executable) as host:
            processes = tree_of(host)
            blow(processes)
            assert await host.death(5) == "the planner's process was killed by signal SIGKILL"
            assert not host.alive
            assert gone(processes)
            client = PlannerClient(settings_for(executable), host.url, model=host.model, key=host.key)
            with pytest.raises(PlannerError, match="nothing answers"):
                await client.chat([], grammar=None, schema=None, max_tokens=1, temperature=0, seed=1)
            await client.close()
            await host.start()
            assert host.alive

    asyncio.run(body())


ENGINE = """
import asyncio, json, sys
from pathlib import Path
from lamdatui.planner import reaper
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings

reaper.GRACE_SECONDS = 0.3

async def main():
    host = planner_server(PlannerSettings(backend="vllm", model="/m", executable=sys.argv[1]), Path(sys.argv[2]))
    await host.start()
    print(host.identity[0], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_nothing_outlives_a_killed_engine(executable: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENGINE, str(executable), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        root = psutil.Process(int(engine.stdout.readline()))
        processes = [root, *root.children(recursive=True)]
        assert len(processes) == 4
        os.kill(engine.pid, signal.SIGKILL)
        assert gone(processes)


def external(url: str, **changes: Any) -> PlannerSettings:
    return PlannerSettings(backend="openai", url=url, **changes)


def test_a_running_vllm_in_developer_mode_sleeps_too_and_is_left_awake(
    executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with started(executable) as own:
            monkeypatch.setenv("PLANNER_KEY", own.key)
            host = planner_server(external(f"{own.url}/v1", api_key_env="PLANNER_KEY"), tmp_path / "log")
            await host.start()
            assert (host.model, host.key) == ("Qwen3-4B", own.key)
            assert await host.rest()
            await host.close()
            assert await vllm.Sleep(own.url).is_sleeping() is False
            # A run that was killed leaves it asleep: the next one wakes it.
            await vllm.Sleep(own.url).sleep()
            await host.start()
            assert await vllm.Sleep(own.url).is_sleeping() is False
            assert host.memory_bytes() == host.gpu_bytes() == 0

    asyncio.run(body())


def test_the_key_of_a_running_server_comes_from_the_environment(
    executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with started(executable) as own:
            for name, value, said in (
                ("", "", "wants a key"),
                ("PLANNER_KEY", "", "the environment variable PLANNER_KEY"),
                ("PLANNER_KEY", "wrong", "refuses the key"),
            ):
                monkeypatch.setenv("PLANNER_KEY", value)
                host = planner_server(external(own.url, api_key_env=name), tmp_path / "log")
                with pytest.raises(LamdatuiError, match=said) as caught:
                    await host.start()
                assert caught.value.where == "planner.api_key_env"
                assert caught.value.exit_code == EXIT_PLANNER

    asyncio.run(body())


def test_somebody_else_on_the_port_is_not_taken_for_vllm(executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with started(executable, model="/models/other") as other:
            port = httpx.URL(other.url).port
            monkeypatch.setattr("lamdatui.planner.guarded.free_port", lambda: port)
            host = planner_server(settings_for(executable), executable.parent / "log")
            began = time.monotonic()
            with pytest.raises(LamdatuiError, match=r"is not the planner that was started|ended with exit code"):
                await host.start()
            assert time.monotonic() - began < 20

    asyncio.run(body())


@pytest.mark.slow
def test_vllm_itself_understands_the_command_line_and_the_requests() -> None:
    command = [sys.executable, "-m", "bench.vllm_args", "--cache", str(REAL_CATALOGUE.parent / "vllm-args")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vLLM's own parser made of it" in done.stdout


@pytest.mark.slow
def test_the_check_finds_what_vllm_does_not_understand() -> None:
    from bench import vllm_args

    cache = REAL_CATALOGUE.parent / "vllm-args"
    root = vllm_args.fetch(vllm.VERSION, cache)
    words = ["m", "--no-such-flag", "1", "--max-num-seqs", "many", "--uvicorn-log-level", "loud", "--enable-sleep-mode", "1"]
    found = {item.name: item.wrong for item in vllm_args.flags(vllm_args.Source(root), words)}
    assert found["model_tag"] == ""
    assert all(wrong for name, wrong in found.items() if name != "model_tag")
    _, why = vllm_args.really(root, cache / vllm.VERSION / "environment", words[:3], [])
    assert "no-such-flag" in why or "no_such_flag" in why
