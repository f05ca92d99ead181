"""Every way to have a planner, behind one client: settings, embedded servers, what a server obeys, what an answer tells."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.inputs.profile import load_profile
from lamdatui.planner import guarded
from lamdatui.planner.client import PlannerClient, PlannerError, probe_grammar
from lamdatui.planner.guarded import llama_cpp_command, llama_cpp_environment
from lamdatui.planner.server import PlannerServer
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings

PYTHON_VARIABLE = "LAMDATUI_TEST_LLAMA_CPP_PYTHON"
"""A Python that has llama_cpp, where this one has not."""

needs_llama_cpp_python = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None and not os.environ.get(PYTHON_VARIABLE),
    reason=f"llama-cpp-python is not installed (its server may be in another environment: {PYTHON_VARIABLE})",
)

LETTERS = 'root ::= "A" | "B"'


async def ask(client: PlannerClient, **changes: Any):
    given = {"grammar": None, "schema": None, "max_tokens": 8, "temperature": 0.7, "seed": 1} | changes
    return await client.chat([{"role": "user", "content": "Choose a letter, A or B."}], **given)


# --- settings and profiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "llamacpp"}, r"planner\.model is missing"),
        ({"backend": "llama-cpp-python"}, r"planner\.model is missing"),
        ({"backend": "vllm"}, r"planner\.model is missing"),
        ({"backend": "vllm", "model": "/m/planner.gguf"}, "not a GGUF file"),
        ({"backend": "vllm", "model": "s3://bucket/planner"}, "is not on this machine"),
        ({"backend": "vllm", "model": "m", "url": "http://127.0.0.1:1"}, r"planner\.url is for the backend openai only"),
        ({"backend": "openai", "url": "127.0.0.1:8000"}, "is no address"),
        ({"backend": "llamacpp", "model": "m", "executable": "x"}, r"planner\.executable is for"),
        ({"backend": "openai", "url": "http://h", "arguments": ("--x",)}, r"planner\.arguments is for"),
        ({"backend": "vllm", "model": "m", "api_key_env": "KEY"}, r"planner\.api_key_env is for"),
        ({"backend": "vllm", "model": "m", "adapter": "a.gguf"}, r"planner\.adapter is for the backend llamacpp only"),
        ({"backend": "vllm", "model": "m", "arguments": ("--api-key", "k")}, r"planner\.arguments can't have --api-key"),
        ({"backend": "vllm", "model": "m", "arguments": ("--max_model_len=1",)}, r"can't have --max_model_len"),
        ({"backend": "vllm", "model": "m", "arguments": ("--no-enable-sleep-mode",)}, "can't have --no-enable-sleep-mode"),
        ({"model": "m", "context": 1024, "think_tokens": 900}, "leaves no room for a prompt"),
    ],
)
def test_what_can_not_work_is_one_clear_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(LamdatuiError, match=said) as caught:
        PlannerSettings(**given)
    assert caught.value.where


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("backend", "llama.cpp", "'llamacpp', 'llama-cpp-python', 'vllm' or 'openai'"),
        ("context", 10, "512"),
        ("shortlist", 27, "26"),
        ("rotations", 0, "1"),
        ("gpu_memory_utilization", 1.5, "1"),
        ("style", "dice", "'auto', 'letters' or 'yes-no'"),
        ("memory", "none", "'auto', 'planner', 'facts' or 'off'"),
        ("reasons", "none", "'auto', 'sentence' or 'facts'"),
        ("sleep", "yes", "'auto', 'always' or 'never'"),
    ],
)
def test_a_value_out_of_its_range_is_told_with_the_range(lab_profile, name: str, value: Any, said: str) -> None:
    section = f"planner: {{model: m.gguf, {name}: {value}}}\nbudget:"
    with pytest.raises(LamdatuiError) as caught:
        load_profile(lab_profile(("budget:", section)))
    assert f"planner.{name}" in caught.value.what and said in caught.value.what and "line " in caught.value.where


def test_each_backend_has_its_own_patience_and_thoughts_take_room() -> None:
    assert PlannerSettings(model="m").ready_limit == 90
    assert PlannerSettings(backend="vllm", model="m").ready_limit == 600
    assert PlannerSettings(backend="vllm", model="m", ready_seconds=5).ready_limit == 5
    assert PlannerSettings(model="m", context=2048, prompt_tokens=1800, think_tokens=512).prompt_budget == 2048 - 220 - 512


def test_a_profile_says_all_of_it_and_its_errors_name_the_line(lab_profile) -> None:
    section = "planner:\n  backend: vllm\n  model: Qwen/Qwen3-4B\n  executable: ~/.vllm/bin/vllm\n"
    section += "  arguments: [--enforce-eager]\n  think_tokens: 256\n  ready_seconds: 900\n  total_seconds: 60\nbudget:"
    spec = load_profile(lab_profile(("budget:", section))).planner
    assert spec is not None
    settings = spec.placed(spec.model, "", 3)
    assert (settings.backend, settings.model, settings.arguments) == ("vllm", "Qwen/Qwen3-4B", ("--enforce-eager",))
    assert settings.executable == str(Path("~/.vllm/bin/vllm").expanduser())
    assert (settings.ready_limit, settings.total_seconds, settings.threads, settings.reasons) == (900, 60, 3, "auto")
    for changes, said in (
        ("  backend: vllm\n", r"planner\.model is missing"),
        ("  model: m.gguf\n  executable: /x\n", r"planner\.executable is for"),
        ("  backend: openai\n  url: http://h\n  api_key_env: 'sk-1 2'\n", "api_key_env"),
    ):
        with pytest.raises(LamdatuiError, match=said) as caught:
            load_profile(lab_profile(("budget:", f"planner:\n{changes}budget:")))
        assert ", line " in caught.value.where


def test_a_model_of_vllm_is_a_folder_or_a_name(lab_profile, tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    for written, expected in (("models/tiny", str(tmp_path / "models" / "tiny")), ("models/none", "models/none")):
        path = lab_profile(("budget:", f"planner: {{ backend: vllm, model: {written} }}\nbudget:"))
        spec = load_profile(path).planner
        assert spec is not None
        assert spec.model == expected


# --- embedded servers ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def embedded(settings: PlannerSettings, folder: Path) -> AsyncIterator[tuple[PlannerServer, PlannerClient]]:
    host = planner_server(settings, folder / "planner.log")
    await host.start()
    client = PlannerClient(settings, host.url, model=host.model, key=host.key)
    try:
        yield host, client
    finally:
        await client.close()
        await host.close()


def other_python(gguf: Path, **changes: Any) -> PlannerSettings:
    executable = os.environ.get(PYTHON_VARIABLE, "")
    return PlannerSettings(backend="llama-cpp-python", model=str(gguf), context=1024, executable=executable, **changes)


async def check_rest(host: PlannerServer, settings: PlannerSettings) -> None:
    assert host.identity is not None
    process = psutil.Process(host.identity[0])
    assert host.memory_bytes() > 50 << 20
    assert await host.rest()
    assert (host.resting, host.alive, host.memory_bytes()) == (True, False, 0)
    assert not process.is_running()
    assert await host.wake() is True
    assert (host.resting, host.alive) == (False, True)
    assert await host.wake() is False
    client = PlannerClient(settings, host.url, model=host.model, key=host.key)
    assert (await ask(client, grammar=LETTERS)).text in "AB"
    await client.close()


def test_the_embedded_planner_gives_its_memory_back_while_it_rests(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        settings = PlannerSettings(model=str(gguf), context=512)
        async with embedded(settings, tmp_path) as (host, client):
            answer = await ask(client, grammar=LETTERS, max_tokens=1, top_logprobs=60)
            assert answer.prompt_tokens > answer.new_tokens == 1
            assert answer.tokens == answer.prompt_tokens + 1
            assert 0 < answer.first_token_seconds <= answer.seconds
            await check_rest(host, settings)

    asyncio.run(body())


def test_an_embedded_planner_stays_up_when_told_never_to_rest(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with embedded(PlannerSettings(model=str(gguf), context=512, sleep="never"), tmp_path) as (host, _):
            assert await host.rest() is False
            assert host.alive

    asyncio.run(body())


@needs_llama_cpp_python
def test_llama_cpp_python_answers_under_a_grammar_with_logprobs(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOST", "0.0.0.0"), ("PORT", "1"), ("CONFIG_FILE", "/none"), ("SEED", "x")):
        monkeypatch.setenv(name, value)

    async def body() -> None:
        settings = other_python(gguf)
        async with embedded(settings, tmp_path) as (host, client):
            assert host.model == gguf.stem
            answer = await ask(client, grammar=LETTERS, max_tokens=1, top_logprobs=60)
            assert answer.text in ("A", "B")
            assert {"A", "B"} <= {text for text, _ in answer.choices[0].top}
            assert len(answer.choices[0].top) >= 60
            stranger = PlannerClient(settings, host.url, model=host.model)
            with pytest.raises(PlannerError, match="HTTP 401"):
                await ask(stranger)
            await stranger.close()
            found = await probe_grammar(client)
            assert found["grammar"]
            assert found["logprobs"]
            assert not found["structured_outputs"]
            await check_rest(host, settings)
        assert host.key not in (tmp_path / "planner.log").read_text()

    asyncio.run(body())


@needs_llama_cpp_python
def test_a_broken_file_is_reported_by_llama_cpp_python_too(tmp_path: Path) -> None:
    model = tmp_path / "broken.gguf"
    model.write_text("junk")
    host = planner_server(other_python(model), tmp_path / "log")
    with pytest.raises(LamdatuiError, match=r"ended with exit code 1.*broken\.gguf") as caught:
        asyncio.run(host.start())
    assert caught.value.exit_code == EXIT_PLANNER


def test_llama_cpp_python_is_missed_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded.importlib.util, "find_spec", lambda name: None)
    host = planner_server(PlannerSettings(backend="llama-cpp-python", model="m.gguf"), tmp_path / "log")
    with pytest.raises(LamdatuiError, match="llama-cpp-python is not installed") as caught:
        asyncio.run(host.start())
    assert "lamdatui[llama-cpp-python]" in caught.value.fix


def test_the_line_of_llama_cpp_python_has_no_key_and_its_variables_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_FILE", "/x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    settings = PlannerSettings(
        backend="llama-cpp-python", model="/m/a.gguf", executable="/py", arguments=("--n_gpu_layers", "-1")
    )
    line = llama_cpp_command(settings, 9)
    assert line[:5] == ["/py", "-m", "llama_cpp.server", "--model", "/m/a.gguf"]
    assert line[-2:] == ["--n_gpu_layers", "-1"]
    assert "--api_key" not in line
    made = llama_cpp_environment(9, "secret")
    assert (made["API_KEY"], made["PORT"], made["HOST"], made["CUDA_VISIBLE_DEVICES"]) == ("secret", "9", "127.0.0.1", "0")
    assert "CONFIG_FILE" not in made
    assert made["HF_HUB_OFFLINE"] == "1"


# --- servers that run already ----------------------------------------------------------------------------------------


def test_a_llama_server_of_somebody_else_is_held_to_grammars_once_probed(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with embedded(PlannerSettings(model=str(gguf), context=1024), tmp_path) as (own, _):
            monkeypatch.setenv("PLANNER_KEY", own.key)
            settings = PlannerSettings(backend="openai", url=own.url, api_key_env="PLANNER_KEY")
            host = planner_server(settings, tmp_path / "other.log")
            await host.start()
            assert host.model
            client = PlannerClient(settings, host.url, model=host.model, key=host.key)
            assert not client.grammars
            found = await probe_grammar(client)
            assert found == {"logprobs": True, "grammar": True, "structured_outputs": False, "schema": True}
            assert (client.dialect, client.logprobs) == ("schema", True)
            client.adopt(found)
            assert client.grammars
            answer = await ask(client, grammar=LETTERS, schema={"type": "object"}, max_tokens=1, top_logprobs=60)
            assert answer.text in ("A", "B")
            assert len(answer.choices[0].top) == 60
            assert await host.rest() is False
            await client.close()
            await host.close()

    asyncio.run(body())


def streamed(*deltas: dict[str, Any], usage: dict[str, int] | None = None) -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": item}]} for item in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    chunks += [{"choices": [], "usage": usage}] if usage else []
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body.encode()


@contextlib.asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[PlannerClient]:
    """A client of a server that makes its reply from each request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
        writer.write(answer(json.loads(await reader.readexactly(length))))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = PlannerClient(PlannerSettings(backend="openai", url=url, model="m", first_token_seconds=5), url, model="m")
    try:
        yield client
    finally:
        await client.close()
        server.close()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_kept_apart_from_the_answer(field: str) -> None:
    reply = streamed(
        {"role": "assistant"},
        {field: "B is "},
        {field: "new."},
        {"content": "B"},
        usage={"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    )

    async def body() -> None:
        async with answering(lambda _: reply) as client:
            answer = await ask(client)
        assert (answer.text, answer.reasoning) == ("B", "B is new.")
        assert (answer.tokens, answer.prompt_tokens, answer.new_tokens) == (49, 40, 9)

    asyncio.run(body())


def test_without_counts_the_new_tokens_are_those_that_came() -> None:
    async def body() -> None:
        async with answering(lambda _: streamed({"content": "a"}, {"content": "b"})) as client:
            answer = await ask(client)
        assert (answer.tokens, answer.prompt_tokens, answer.new_tokens, answer.reasoning) == (2, 0, 2, "")

    asyncio.run(body())


def obeys_structured_outputs(request: dict[str, Any]) -> bytes:
    return streamed({"content": "Yes" if "structured_outputs" in request else "No"})


def obeys_nothing(request: dict[str, Any]) -> bytes:
    return streamed({"content": "No"})


def obeys_schemas_and_refuses_the_rest(request: dict[str, Any]) -> bytes:
    if {"grammar", "structured_outputs", "logprobs"} & set(request):
        return b'HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n{"error": "unknown field"}'
    return streamed({"content": '{ "answer": "Yes" }' if "response_format" in request else "No"})


@pytest.mark.parametrize(
    ("answer", "obeyed", "dialect"),
    [
        (obeys_structured_outputs, {"structured_outputs"}, "structured_outputs"),
        (obeys_nothing, set(), "schema"),
        (obeys_schemas_and_refuses_the_rest, {"schema"}, "schema"),
    ],
)
def test_a_probe_believes_only_what_was_obeyed(answer: Any, obeyed: set[str], dialect: str) -> None:
    async def body() -> None:
        async with answering(answer) as client:
            found = await probe_grammar(client)
            assert {name for name, yes in found.items() if yes} == obeyed
            client.adopt(found)
            assert client.dialect == dialect

    asyncio.run(body())
