"""Replies of a planner's server that are packed, or have no end."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path

import psutil
import pytest

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner.client import PlannerError
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings
from tests.test_planner_server import ask, listening


def packed(times: int, size: int) -> bytes:
    data = bytes(size)
    for _ in range(times):
        data = gzip.compress(data, 9)
    return data


def http(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Connection: close", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_what_a_server_packs_is_not_unpacked_and_no_listing_is_read_for_ever():
    """Packed twice, 3 KB were 256 MB in memory before any limit counted; a list of models had none."""
    bomb = http(packed(2, 2**28), "Content-Encoding: gzip, gzip")
    assert len(bomb) < 5000

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    async def bombing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bomb)
        await writer.drain()
        writer.close()

    async def body() -> None:
        for serve, told in ((bombing, r"packs its answers \(gzip, gzip\)"), (endless, "more than 4 MiB for one answer")):
            before = psutil.Process().memory_info().rss
            async with listening(serve) as client:
                with pytest.raises(PlannerError, match=told):
                    await ask(client)
                assert await client.parameters() == 0
                settings_ = PlannerSettings(backend="openai", url=client._url.removesuffix("/v1/chat/completions"), model="m")
                with pytest.raises(LamdatuiError, match=told) as caught:
                    await planner_server(settings_, Path("unused.log")).start()
                assert caught.value.exit_code == EXIT_PLANNER
            assert psutil.Process().memory_info().rss - before < 2**26

    asyncio.run(body())
