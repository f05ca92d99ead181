"""Finding servers on this machine, with real small servers that speak the protocols."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.planner import discover
from lamdatui.planner.discover import FoundServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings


@contextmanager
def serving(pages: dict[str, Any], *, redirect: str = "", delay: float = 0.0) -> Iterator[tuple[int, list[str]]]:
    """(port, paths asked so far) of a server; a page is a JSON value or a status."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(delay)
            page = pages.get(self.path, 404)
            body = b"{}" if isinstance(page, int) else page if isinstance(page, bytes) else json.dumps(page).encode()
            self.send_response(302 if redirect else page if isinstance(page, int) else 200)
            if redirect:
                self.send_header("Location", redirect + self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


def listed(*names: str, owner: str | None = None) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name} | ({"owned_by": owner} if owner else {}) for name in names]}


KINDS: list[tuple[dict[str, Any], FoundServer]] = [
    (
        {"/v1/models": listed("qwen3:4b", "llama3.2", owner="library"), "/api/version": {"version": "0.12.6"}},
        FoundServer("", "Ollama", ("qwen3:4b", "llama3.2")),
    ),
    ({"/v1/models": listed(), "/api/version": {"version": "0.12.6"}}, FoundServer("", "Ollama")),
    (
        {"/v1/models": listed("m", owner="vllm"), "/version": {"version": "0.32.0"}, "/is_sleeping": {"is_sleeping": False}},
        FoundServer("", "vLLM", ("m",), sleeps=True),
    ),
    ({"/v1/models": 401, "/version": {"version": "0.32.0"}}, FoundServer("", "vLLM", locked=True)),
    (
        {"/v1/models": listed("m", owner="organization_owner"), "/api/v0/models": listed("m")},
        FoundServer("", "LM Studio", ("m",)),
    ),
    ({"/v1/models": listed("m", owner="sglang")}, FoundServer("", "SGLang", ("m",))),
    ({"/v1/models": listed("m"), "/props": {"default_generation_settings": {}}}, FoundServer("", "llama-server", ("m",))),
    ({"/v1/models": listed("a\x1b[31mb")}, FoundServer("", "server", ("a[31mb",))),
]


def test_servers_are_told_apart_and_none_is_forgotten() -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(pages))[0] for pages, _ in KINDS]
        found = asyncio.run(discover.discover(ports, 10))
    assert [(s.kind, s.models, s.locked, s.sleeps) for s in found] == [(s.kind, s.models, s.locked, s.sleeps) for _, s in KINDS]
    assert [s.url for s in found] == [f"http://127.0.0.1:{port}" for port in ports]


def test_a_real_llama_cpp_is_found(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        host = planner_server(PlannerSettings(model=str(gguf), context=512), tmp_path / "log")
        await host.start()
        try:
            (found,) = await discover.discover([int(host.url.rpartition(":")[2])])
            assert (found.url, found.kind, found.locked) == (host.url, "llama-server", True)
        finally:
            await host.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"/v1/models": "text"},
        {"/v1/models": {"data": "none"}},
        {"/v1/models": b"\xff\x00 not json"},
        {"/v1/models": b"[" + b" " * (2 << 20) + b"]"},
    ],
    ids=["empty", "text", "no-list", "binary", "too-long"],
)
def test_what_is_no_model_server_is_left_out(pages: dict[str, Any]) -> None:
    with serving(pages) as (port, _):
        assert asyncio.run(discover.discover([port])) == []


def test_a_slow_server_costs_no_more_than_the_limit() -> None:
    with serving({"/v1/models": listed("m")}, delay=30.0) as (slow, _), serving({"/v1/models": listed("m")}) as (quick, _):
        began = time.monotonic()
        found = asyncio.run(discover.discover([slow, quick, *discover.PORTS], 2.0))
        assert time.monotonic() - began < 6
        assert [server.url for server in found if server.models == ("m",)] == [f"http://127.0.0.1:{quick}"]


def test_a_redirect_is_not_followed() -> None:
    with (
        serving({"/v1/models": listed("m")}) as (target, asked),
        serving({}, redirect=f"http://127.0.0.1:{target}") as (port, _),
    ):
        assert asyncio.run(discover.discover([port])) == []
        assert asked == []


def test_only_loopback_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []

    async def refuse(host: str, port: int) -> None:
        tried.append((host, port))
        raise ConnectionRefusedError

    monkeypatch.setattr(discover.asyncio, "open_connection", refuse)
    assert asyncio.run(discover.discover()) == []
    assert sorted(tried) == sorted((host, port) for host in ("127.0.0.1", "::1") for port in discover.PORTS)


def test_a_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as (proxy, asked), serving({"/v1/models": listed("m")}) as (port, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy}")
        assert len(asyncio.run(discover.discover([port], 10))) == 1
        assert asked == []


def test_what_answers_is_suggested_inside_a_running_loop_too() -> None:
    with serving({"/v1/models": listed("a", "b", "c", "d", owner="library")}) as (port, _):

        async def inside() -> str:
            return discover.suggestions([port])

        said = asyncio.run(inside())
    assert said == f"answering now: http://127.0.0.1:{port} (Ollama: a, b, c, …); set url: http://127.0.0.1:{port}"
    assert "none answers" in discover.suggestions([port])


def test_a_missing_url_names_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"/v1/models": listed("m", owner="vllm")}) as (port, _):
        monkeypatch.setattr(discover.suggestions, "__defaults__", ((port,),))
        with pytest.raises(LamdatuiError, match=r"planner\.url is missing") as caught:
            PlannerSettings(backend="openai")
    assert f"http://127.0.0.1:{port} (vLLM: m)" in caught.value.fix
