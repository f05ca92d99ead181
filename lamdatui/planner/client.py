"""One client for every planner: streamed OpenAI-shaped chat completions, separate time-outs, bounded retries."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from lamdatui.base.jsonio import finite, parse_json
from lamdatui.planner import reading, vllm
from lamdatui.planner.settings import PlannerSettings

MOST_TOKENS = 10**9
"""More than this a server can't count for one answer."""

ROUNDING = 1e-3
"""How far above 0 a log-probability may be by rounding."""

MOST_TOP = 20
"""The most alternatives per token that the OpenAI protocol allows; llama.cpp and our own vLLM give more."""

RETRY_WAITS = (0.2, 0.8)
"""Seconds before the second and the third attempt."""

_RETRIED = frozenset({429, 500, 502, 503, 504})


Dialect = Literal["grammar", "structured_outputs", "schema"]
"""How a server is held to a form: llama.cpp's `grammar`, vLLM's `structured_outputs`, or OpenAI's `response_format`."""

_DIALECTS: dict[str, Dialect] = {
    "llamacpp": "grammar",
    "llama-cpp-python": "grammar",
    "vllm": "structured_outputs",
    "openai": "schema",
}


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
    """What came back: text, tokens (prompt + new), seconds; `choices` has one entry per token where asked for.

    `reasoning` is what a reasoning model thought, where its server tells that apart. `prompt_tokens` is 0 where the server
    counts none. `first_token_seconds` is from the question to the first token, retries included.
    """

    text: str
    tokens: int
    seconds: float
    choices: tuple[TokenChoice, ...] = ()
    reasoning: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0
    first_token_seconds: float = 0.0


class PlannerClient:
    """Asks one server. `base` is its address with or without `/v1`; `key` goes into the Authorization header.

    `dialect` is how it is held to a form; `adopt` changes it to what `probe_grammar` found.
    """

    def __init__(self, settings: PlannerSettings, base: str, *, model: str, key: str = "") -> None:
        self._settings = settings
        self._model = model
        self.dialect: Dialect = _DIALECTS[settings.backend]
        self.logprobs = True
        self._url = endpoint(base, "chat/completions")
        self._models_url = endpoint(base, "models")
        headers = reading.PLAIN | ({"Authorization": f"Bearer {key}"} if key else {})
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
        """One answer. Servers that know grammars are held to `grammar`, others to `schema`; None leaves the text free.

        A reasoning model answers a constrained question at once, without thinking first. `reuse_prefix` lets llama.cpp keep
        what it computed for the previous prompt: faster, but the numbers then depend on that prompt. Raises PlannerError; a
        time-out is never retried, a lost connection at most twice.
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
        payload |= self._form(grammar, schema)
        if self.dialect == "grammar":
            payload["cache_prompt"] = reuse_prefix
        if top_logprobs and self.logprobs:
            payload |= {"logprobs": True, "top_logprobs": self._top(top_logprobs)}
        try:
            async with asyncio.timeout(self._settings.total_seconds):
                return await self._attempts(payload)
        except TimeoutError:
            limit = self._settings.total_seconds
            raise PlannerError(f"the planner needed more than {limit:g} s for one answer") from None

    async def parameters(self) -> int:
        """The number of parameters that the server tells of its model (llama.cpp does), or 0."""
        try:
            response = await reading.call(self._http, "GET", self._models_url, 10.0)
            listed = parse_json(response.text)["data"]
            told = [item["meta"]["n_params"] for item in listed if item.get("id") == self._model or len(listed) == 1]
            return max(0, int(finite(told[0]) or 0))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return 0

    @property
    def grammars(self) -> bool:
        """Whether the server is held to grammars; else to JSON schemas."""
        return self.dialect != "schema"

    def adopt(self, found: Mapping[str, bool]) -> None:
        """Use what `probe_grammar` found: the server's own grammars before vLLM's, either before a JSON schema."""
        dialects: tuple[Dialect, ...] = ("grammar", "structured_outputs")
        known: list[Dialect] = [name for name in dialects if found[name]]
        self.dialect = known[0] if known else "schema"
        self.logprobs = found["logprobs"]

    def _form(self, grammar: str | None, schema: dict[str, Any] | None) -> dict[str, Any]:
        form: dict[str, Any] = {}
        if self.grammars and grammar is not None:
            form = {"grammar": grammar} if self.dialect == "grammar" else {"structured_outputs": {"grammar": grammar}}
        elif schema is not None and not self.grammars:
            body = {"name": "answer", "strict": True, "schema": schema}
            form = {"response_format": {"type": "json_schema", "json_schema": body}}
        if form and self.grammars:
            # Else a reasoning model's thoughts come first, and a short answer ends in the middle of them.
            form["chat_template_kwargs"] = {"enable_thinking": False}
        return form

    def _top(self, asked: int) -> int:
        if self.dialect == "grammar":
            return asked
        return min(asked, vllm.MOST_LOGPROBS if self._settings.backend == "vllm" else MOST_TOP)

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
                if "logprobs" not in payload or self._settings.backend != "openai":
                    raise
                # Some servers know no log-probabilities and say so by refusing; the answer is worth having without.
                self.logprobs = False
                payload = {name: value for name, value in payload.items() if name not in ("logprobs", "top_logprobs")}
            except _Transient:
                wait = next(waits, None)
                if wait is None:
                    raise
                await asyncio.sleep(wait)

    async def _ask(self, payload: dict[str, Any], started: float) -> Answer:
        deadline = asyncio.get_running_loop().time() + self._settings.first_token_seconds
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
        except reading.Unreadable as error:
            raise PlannerError(str(error)) from error
        except httpx.TransportError as error:
            detail = str(error) or type(error).__name__
            raise _Transient(f"the connection to the planner broke off: {detail}") from error
        except httpx.InvalidURL as error:
            raise PlannerError(f"the planner's address {self._url!r} is not one: {error}") from error

    async def _read(self, response: httpx.Response, deadline: float, started: float) -> Answer:
        loop = asyncio.get_running_loop()
        reply, first = _Reply(), 0.0
        lines = _lines(response)
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    if response.status_code != 200:
                        raise _refusal(response.status_code, await _body(response))
                    line = await anext(lines, None)
            except TimeoutError:
                idle = f"the planner went silent for {self._settings.idle_seconds:g} s in the middle of its answer"
                raise PlannerError(idle if reply.begun else self._no_first_token()) from None
            if line is None or reply.take(line):
                break
            if reply.fresh:
                first = first or time.monotonic() - started
                deadline = loop.time() + self._settings.idle_seconds
        if not reply.finished:
            raise _Transient("the planner broke off in the middle of its answer" if reply.begun else _GARBAGE)
        return reply.answer(time.monotonic() - started, first)

    def _no_first_token(self) -> str:
        return f"the planner gave no first token within {self._settings.first_token_seconds:g} s"


_GARBAGE = "the planner's server answered with something that is not a streamed chat completion"


class _Reply:
    """Collects a streamed completion, line by line."""

    def __init__(self) -> None:
        self.begun = False
        self.fresh = False
        self.finished = False
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._choices: list[TokenChoice] = []
        self._new = 0
        self._usage: tuple[int, int] | None = None

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
            chunk = parse_json(data)
            if "error" in chunk or name == "error":
                raise PlannerError(f"the planner's server failed: {_message(chunk)}")
            self._add(chunk)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise PlannerError(_GARBAGE) from error
        return False

    def _add(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if usage:
            total = _count(usage["total_tokens"])
            new = _count(usage.get("completion_tokens") or self._new)
            self._usage = max(0, total - new), new
        for option in chunk.get("choices", [])[:1]:
            delta = option.get("delta") or {}
            text = delta.get("content")
            # vLLM and Ollama write `reasoning`, llama.cpp and DeepSeek `reasoning_content`; some servers send both alike.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if text or thought:
                self.begun = self.fresh = True
                self._new += 1
            if thought:
                self._thoughts.append(str(thought))
            if text:
                self._parts.append(str(text))
            for token in (option.get("logprobs") or {}).get("content") or []:
                top = tuple((str(other["token"]), _logprob(other.get("logprob"))) for other in token.get("top_logprobs", []))
                self._choices.append(TokenChoice(str(token["token"]), top))
            if option.get("finish_reason"):
                self.finished = True

    def answer(self, seconds: float, first: float) -> Answer:
        """What was collected; where the server counts no tokens, only the new ones are known."""
        prompt, new = self._usage or (0, self._new)
        return Answer(
            "".join(self._parts),
            prompt + new,
            seconds,
            tuple(self._choices),
            "".join(self._thoughts),
            prompt,
            new,
            first,
        )


def _logprob(value: Any) -> float:
    """The logarithm of a probability; servers also say minus infinity. Raises PlannerError for what is none, also NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value <= ROUNDING:
        raise PlannerError(f"the planner's server sent {str(value)[:40]!r} as a log-probability")
    return -math.inf if value < -1e300 else min(float(value), 0.0)


def _count(value: Any) -> int:
    """A number of tokens. Raises ValueError for what can't be one: it counts against a budget."""
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"{str(value)[:40]!r} is no number of tokens")
    return value


def endpoint(base: str, path: str) -> str:
    """`base` (with or without `/v1`) + `/v1/` + `path`."""
    return f"{base.rstrip('/').removesuffix('/v1')}/v1/{path}"


async def _body(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in reading.chunks(response)])


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    rest = b""
    async for chunk in reading.chunks(response):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()


def _refusal(status: int, body: bytes) -> PlannerError:
    try:
        detail = _message(parse_json(body.decode()))
    except ValueError:
        detail = " ".join(body[:200].decode("utf-8", "replace").split())
    text = f"the planner's server answered HTTP {status}: {detail}"
    return _Transient(text) if status in _RETRIED else _Refused(text)


def _message(value: Any) -> str:
    error = value.get("error", value) if isinstance(value, dict) else value
    text = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(text).split())[:300]


_ALL_DIALECTS: tuple[Dialect, ...] = ("grammar", "structured_outputs", "schema")
_PROBE_FORM = 'root ::= "Yes"'
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["Yes"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
_PROBE_MESSAGES = ({"role": "user", "content": "Answer with the single word: No"},)


async def probe_grammar(client: PlannerClient) -> dict[str, bool]:
    """Which forms a server really obeys: `grammar`, `structured_outputs`, `schema`; and whether `logprobs` come.

    It is told to say No under a form that admits only Yes, in each dialect; a form that it ignores or refuses is False. The
    client is as before afterwards; `adopt` makes it use the result. Raises PlannerError when the server does not answer at all.
    """
    dialect, logprobs, found = client.dialect, client.logprobs, dict[str, bool]()
    plain = await _probe(client, None, None, 1, top=2)
    found["logprobs"] = bool(plain.choices and plain.choices[0].top)
    try:
        for name in _ALL_DIALECTS:
            client.dialect = name
            try:
                schema = name == "schema"
                answer = await _probe(client, *((None, _PROBE_SCHEMA, 24) if schema else (_PROBE_FORM, None, 2)), top=0)
                text = "".join(answer.text.split())
                found[name] = text == '{"answer":"Yes"}' if schema else bool(text) and "Yes".startswith(text)
            except PlannerError:
                found[name] = False
    finally:
        client.dialect, client.logprobs = dialect, logprobs
    return found


async def _probe(client: PlannerClient, grammar: str | None, schema: dict[str, Any] | None, most: int, *, top: int) -> Answer:
    return await client.chat(
        _PROBE_MESSAGES, grammar=grammar, schema=schema, max_tokens=most, temperature=0.0, seed=1, top_logprobs=top
    )
