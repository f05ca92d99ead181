"""One client for every planner: streamed OpenAI-shaped chat completions, separate time-outs, bounded retries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from lamdatui.planner.settings import PlannerSettings

MOST_BYTES = 4 << 20
"""Longest reply that is read, in bytes."""

MOST_TOP = 20
"""The most alternatives per token that the OpenAI protocol allows; llama.cpp gives more."""

RETRY_WAITS = (0.2, 0.8)
"""Seconds before the second and the third attempt."""

_RETRIED = frozenset({429, 500, 502, 503, 504})


class PlannerError(Exception):
    """The planner can't be asked, or what it said can't be used; the text is for people."""


class _Transient(PlannerError):
    """A failure that another attempt may not meet."""


class _Refused(PlannerError):
    """The server understood the request and turned it down."""


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of an answer and the likeliest tokens in its place, as (text, log-probability before any grammar)."""

    text: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: text, tokens (prompt + new), seconds; `choices` has one entry per token where asked for."""

    text: str
    tokens: int
    seconds: float
    choices: tuple[TokenChoice, ...] = ()


class PlannerClient:
    """Asks one server. `base` is its address with or without `/v1`; `key` goes into the Authorization header."""

    def __init__(self, settings: PlannerSettings, base: str, *, model: str, key: str = "") -> None:
        self._settings = settings
        self._model = model
        self._grammars = settings.backend == "llamacpp"
        self._logprobs = True
        self._url = endpoint(base, "chat/completions")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Reading has no limit here: `_Reader` keeps separate ones for the first token and for silence.
        timeout = httpx.Timeout(None, connect=10.0)
        self._http = httpx.AsyncClient(trust_env=False, timeout=timeout, headers=headers)

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        grammar: str | None,
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_logprobs: int = 0,
        reuse_prefix: bool = False,
    ) -> Answer:
        """One answer. llama.cpp is held to `grammar`, other servers to `schema`; None leaves the text free.

        `reuse_prefix` lets llama.cpp keep what it computed for the previous prompt: faster, but the numbers then depend
        on that prompt. Raises PlannerError; a time-out is never retried, a lost connection at most twice.
        """
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._grammars:
            payload["cache_prompt"] = reuse_prefix
            if grammar is not None:
                payload["grammar"] = grammar
        elif schema is not None:
            body = {"name": "answer", "strict": True, "schema": schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": body}
        if top_logprobs and self._logprobs:
            payload |= {
                "logprobs": True,
                "top_logprobs": top_logprobs if self._grammars else min(top_logprobs, MOST_TOP),
            }
        try:
            async with asyncio.timeout(self._settings.total_timeout):
                return await self._attempts(payload)
        except TimeoutError:
            limit = self._settings.total_timeout
            raise PlannerError(f"the planner needed more than {limit:g} s for one answer") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _attempts(self, payload: dict[str, Any]) -> Answer:
        started = time.monotonic()
        waits = iter(RETRY_WAITS)
        while True:
            try:
                return await self._ask(payload, started)
            except _Refused:
                if "logprobs" not in payload or self._grammars:
                    raise
                # Some servers know no log-probabilities and say so by refusing; the answer is worth having without.
                self._logprobs = False
                payload = {name: value for name, value in payload.items() if name not in ("logprobs", "top_logprobs")}
            except _Transient:
                wait = next(waits, None)
                if wait is None:
                    raise
                await asyncio.sleep(wait)

    async def _ask(self, payload: dict[str, Any], started: float) -> Answer:
        deadline = asyncio.get_running_loop().time() + self._settings.first_token_timeout
        request = self._http.build_request("POST", self._url, json=payload)
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._http.send(request, stream=True)
            except TimeoutError:
                raise PlannerError(self._no_first_token()) from None
            try:
                return await self._read(response, deadline, started)
            finally:
                await response.aclose()
        except httpx.ConnectError as error:
            raise _Transient(f"nothing answers at {self._url}: is the planner's server running? ({error})") from error
        except httpx.TransportError as error:
            detail = str(error) or type(error).__name__
            raise _Transient(f"the connection to the planner broke off: {detail}") from error
        except httpx.InvalidURL as error:
            raise PlannerError(f"the planner's address {self._url!r} is not one: {error}") from error

    async def _read(self, response: httpx.Response, deadline: float, started: float) -> Answer:
        loop = asyncio.get_running_loop()
        reply = _Reply()
        lines = _lines(response)
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    if response.status_code != 200:
                        raise _refusal(response.status_code, await _body(response))
                    line = await anext(lines, None)
            except TimeoutError:
                idle = f"the planner went silent for {self._settings.idle_timeout:g} s in the middle of its answer"
                raise PlannerError(idle if reply.begun else self._no_first_token()) from None
            if line is None or reply.take(line):
                break
            if reply.fresh:
                deadline = loop.time() + self._settings.idle_timeout
        if not reply.finished:
            raise _Transient("the planner broke off in the middle of its answer" if reply.begun else _GARBAGE)
        return reply.answer(time.monotonic() - started)

    def _no_first_token(self) -> str:
        return f"the planner gave no first token within {self._settings.first_token_timeout:g} s"


_GARBAGE = "the planner's server answered with something that is not a streamed chat completion"


class _Reply:
    """Collects a streamed completion, line by line."""

    def __init__(self) -> None:
        self.begun = False
        self.fresh = False
        self.finished = False
        self._parts: list[str] = []
        self._choices: list[TokenChoice] = []
        self._new = 0
        self._total: int | None = None

    def take(self, line: str) -> bool:
        """Use one line of the event stream; True when it was the last. Raises PlannerError on nonsense."""
        self.fresh = False
        name, _, data = line.partition(":")
        data = data.strip()
        if name not in ("data", "error"):
            return False
        if data == "[DONE]":
            return True
        try:
            chunk = json.loads(data)
            if "error" in chunk or name == "error":
                raise PlannerError(f"the planner's server failed: {_message(chunk)}")
            self._add(chunk)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise PlannerError(_GARBAGE) from error
        return False

    def _add(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if usage:
            self._total = int(usage["total_tokens"])
        for option in chunk.get("choices", [])[:1]:
            delta = option.get("delta") or {}
            text = delta.get("content")
            if text or delta.get("reasoning_content") or delta.get("reasoning"):
                self.begun = self.fresh = True
                self._new += 1
            if text:
                self._parts.append(str(text))
            for token in (option.get("logprobs") or {}).get("content") or []:
                top = tuple((str(other["token"]), float(other["logprob"])) for other in token.get("top_logprobs", []))
                self._choices.append(TokenChoice(str(token["token"]), top))
            if option.get("finish_reason"):
                self.finished = True

    def answer(self, seconds: float) -> Answer:
        """What was collected; where the server counts no tokens, only the new ones are known."""
        tokens = self._new if self._total is None else self._total
        return Answer("".join(self._parts), tokens, seconds, tuple(self._choices))


def endpoint(base: str, path: str) -> str:
    """`base` (with or without `/v1`) + `/v1/` + `path`."""
    return f"{base.rstrip('/').removesuffix('/v1')}/v1/{path}"


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MOST_BYTES:
            raise PlannerError(f"the planner's server sent more than {MOST_BYTES >> 20} MiB for one answer")
        yield chunk


async def _body(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in _chunks(response)])


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    rest = b""
    async for chunk in _chunks(response):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()


def _refusal(status: int, body: bytes) -> PlannerError:
    try:
        detail = _message(json.loads(body))
    except ValueError:
        detail = " ".join(body[:200].decode("utf-8", "replace").split())
    text = f"the planner's server answered HTTP {status}: {detail}"
    return _Transient(text) if status in _RETRIED else _Refused(text)


def _message(value: Any) -> str:
    error = value.get("error", value) if isinstance(value, dict) else value
    text = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(text).split())[:300]
