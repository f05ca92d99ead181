"""What a planner's server sends, as it came and up to a limit: nothing is unpacked, no redirect is followed.

A server may pack an answer several times over: some kilobytes then fill the memory at the first look, before a limit on what was unpacked can count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

MOST_BYTES = 4 << 20
"""Longest reply that is read, in bytes."""
PLAIN = {"Accept-Encoding": "identity"}
"""Headers of each request."""


class Unreadable(httpx.DecodingError):
    """A reply that is packed or too long; the text is for people."""


async def chunks(response: httpx.Response, most: int = MOST_BYTES) -> AsyncIterator[bytes]:
    """The body of a streamed response. Raises Unreadable, httpx.HTTPError."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):
        raise Unreadable(f"the planner's server packs its answers ({packed[:40]}), which it was not asked for")
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most:
            raise Unreadable(f"the planner's server sent more than {most >> 20} MiB for one answer")
        yield chunk


async def call(http: httpx.AsyncClient, method: str, url: str, seconds: float) -> httpx.Response:
    """The whole response to a request without a body, within so many seconds in all. Raises httpx.HTTPError, httpx.InvalidURL."""
    request = http.build_request(method, url, headers=PLAIN)
    try:
        async with asyncio.timeout(seconds):
            response = await http.send(request, stream=True, follow_redirects=False)
            try:
                body = b"".join([chunk async for chunk in chunks(response)])
            finally:
                await response.aclose()
    except TimeoutError:
        raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s", request=request) from None
    return httpx.Response(response.status_code, content=body, request=request)
