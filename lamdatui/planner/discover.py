"""Which OpenAI-compatible servers answer on this machine. Only loopback addresses are ever asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from lamdatui.planner import reading

PORTS = (8000, 8001, 8080, 8081, 11434, 1234, 30000, 5000, 5001, 1337, 4891, 9997, 23333)
"""vLLM (8000), llama-server (8080), Ollama (11434), LM Studio (1234), SGLang (30000), text-generation-webui and TabbyAPI (5000),
KoboldCpp (5001), Jan (1337), GPT4All (4891), Xinference (9997), LMDeploy (23333), and the ports that second servers often get."""

HOSTS = ("127.0.0.1", "[::1]")
WITHIN_SECONDS = 1.0
MOST_BYTES = 1 << 20
MOST_MODELS = 50

_OWNERS = {
    "vllm": "vLLM",
    "llamacpp": "llama-server",
    "library": "Ollama",
    "sglang": "SGLang",
    "koboldcpp": "KoboldCpp",
    "me": "llama-cpp-python",
    "lmdeploy": "LMDeploy",
}
"""`owned_by` of the models that a server lists → the server."""


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that answers: its address, what it is (`server` when that can't be told), its models.

    `locked`: it wants a key before it lists them. `sleeps`: it is a vLLM that can be sent to sleep.
    """

    url: str
    kind: str
    models: tuple[str, ...] = ()
    locked: bool = False
    sleeps: bool = False

    def __str__(self) -> str:
        models = ", ".join(self.models[:3]) + (", …" if len(self.models) > 3 else "")
        return f"{self.url} ({self.kind}{': ' + models if models else ''}{', wants a key' if self.locked else ''})"


async def discover(ports: Sequence[int] = PORTS, within: float = WITHIN_SECONDS) -> list[FoundServer]:
    """Servers on these loopback ports, asked all at once; what does not answer within so many seconds is not there.

    One that answers on IPv4 and IPv6 alike is told once.
    """
    deadline = asyncio.get_running_loop().time() + within
    places = [(host, port) for port in ports for host in HOSTS]
    async with httpx.AsyncClient(trust_env=False, timeout=within, limits=httpx.Limits(max_connections=None)) as http:
        answers = await asyncio.gather(*(_identify(http, host, port, deadline) for host, port in places))
    found: list[FoundServer] = []
    for (_, port), server in zip(places, answers, strict=True):
        twin = f"http://127.0.0.1:{port}"
        if server is not None and not any(other.url == twin and other.models == server.models for other in found):
            found.append(server)
    return found


def answering(ports: Sequence[int] = PORTS, within: float = WITHIN_SECONDS) -> list[FoundServer]:
    """`discover` for code that does not run in an event loop, or must not wait in the one that it runs in."""
    found: list[FoundServer] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(discover(ports, within))), daemon=True)
    thread.start()
    thread.join(within + 2)
    return list(found)


def suggestions(ports: Sequence[int] = PORTS) -> str:
    """What to write as planner.url: the servers that answer now, or an example when none does."""
    found = answering(ports)
    if found:
        return f"answering now: {'; '.join(map(str, found[:4]))}; set url: {found[0].url}"
    return (
        "give the address of an OpenAI-compatible server, say url: http://127.0.0.1:8000; none answers on the usual ports now"
    )


async def _identify(http: httpx.AsyncClient, host: str, port: int, deadline: float) -> FoundServer | None:
    # Most ports are closed: one connection tells so, and is much cheaper than six requests.
    try:
        async with asyncio.timeout_at(deadline):
            _, writer = await asyncio.open_connection(host.strip("[]"), port)
    except (OSError, TimeoutError):
        return None
    writer.close()
    base = f"http://{host}:{port}"
    paths = ("/v1/models", "/version", "/props", "/api/version", "/api/v0/models", "/is_sleeping")
    answers = await asyncio.gather(*(_get(http, base + path, deadline) for path in paths))
    status, body, program = answers[0]
    version, props, ollama, studio, sleeping = (value for _, value, _ in answers[1:])
    items = [item for item in _list(body) if isinstance(item, dict) and isinstance(item.get("id"), str)]
    locked = status in (401, 403)
    if not locked and not (status == 200 and isinstance(body, dict) and isinstance(body.get("data"), list)):
        return None
    kind = _OWNERS.get(str(items[0].get("owned_by")), "") if items else ""
    return FoundServer(
        base,
        kind or ("llama-server" if program == "llama.cpp" else _kind(version, props, ollama, studio)),
        tuple(_plain(item["id"]) for item in items[:MOST_MODELS]),
        locked,
        isinstance(sleeping, dict) and isinstance(sleeping.get("is_sleeping"), bool),
    )


def _kind(version: Any, props: Any, ollama: Any, studio: Any) -> str:
    if isinstance(props, dict) and "default_generation_settings" in props:
        return "llama-server"
    if isinstance(studio, dict) and isinstance(studio.get("data"), list):
        return "LM Studio"
    if isinstance(ollama, dict) and "version" in ollama:
        return "Ollama"
    if isinstance(version, dict) and set(version) == {"version"}:
        return "vLLM"
    return "server"


def _list(body: Any) -> list[Any]:
    listed = body.get("data") if isinstance(body, dict) else None
    return listed if isinstance(listed, list) else []


def _plain(text: str) -> str:
    """A model's name as a terminal may show it."""
    return "".join(char for char in text if char.isprintable())[:120]


async def _get(http: httpx.AsyncClient, url: str, deadline: float) -> tuple[int, Any, str]:
    """(status, parsed JSON or None, Server header), or (0, None, ""). Redirects may lead off this machine: none is followed."""
    data = b""
    with contextlib.suppress(TimeoutError, httpx.HTTPError, httpx.InvalidURL):
        async with (
            asyncio.timeout_at(deadline),
            http.stream("GET", url, headers=reading.PLAIN, follow_redirects=False) as response,
        ):
            async for chunk in reading.chunks(response, MOST_BYTES):
                data += chunk
        return response.status_code, _parsed(data), response.headers.get("server", "")
    return 0, None, ""


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
