"""Answers by vLLM: what it is asked and how it ends, against a program that speaks its protocol; and, slowly, vLLM itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoTokenizer

from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import make_action
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.inputs import generation, trust
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.taskfiles import Asking
from lamdatui.inputs.workspace import open_workspace
from lamdatui.step.errors import StepError
from lamdatui.step.files import write_request
from lamdatui.step.generate import Answer, Sampling
from lamdatui.step.generators import VllmGenerator, takes_adapter
from lamdatui.step.scores import differences
from tests.conftest import Commands

STAND_IN = '''#!{python}
"""Answers like vLLM's server: each question with its own last token and the end token, or cut off where `max_tokens` is 1."""
import json, os, pathlib, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
flag = lambda name: words[len(words) - 1 - words[::-1].index(name) + 1]
with (folder / "started").open("a") as handle:
    handle.write(json.dumps(words) + chr(10))
if "--enable-lora" in words and (folder / "no-adapters").exists():
    sys.exit("LoRA is not supported for this architecture")

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({{"data": [{{"id": flag("--served-model-name")}}]}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.answer({{}}, 401)
        with (folder / "asked").open("a") as handle:
            handle.write(json.dumps(body) + chr(10))
        if (folder / "dies").exists():
            os._exit(3)
        if (folder / "refuses").exists():
            return self.answer({{"error": "too long"}}, 400)
        ends = body["max_tokens"] > 1
        tokens = [body["prompt"][-1]] + ([body["stop_token_ids"][0]] if ends else [])
        choice = {{"token_ids": tokens, "finish_reason": "stop" if ends else "length"}}
        self.answer({{"choices": [{{**choice, "index": n}} for n in reversed(range(body["n"]))]}})

ThreadingHTTPServer(("127.0.0.1", int(flag("--port"))), Handler).serve_forever()
'''


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o700)
    return path


class Asked:
    """A generator over the lab's base, and what its program was told."""

    def __init__(self, program: Path, lab: Path, adapter: Path | None = None) -> None:
        self.program = program
        self.folder = lab / "llama"
        self.said: list[str] = []
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.generator = VllmGenerator(
            {"executable": str(program), "arguments": ["--swap-space=1"], "gpu_memory_utilization": 0.5},
            self.tokenizer,
            self.folder,
            adapter,
            lambda: self.folder,
            dtype="float32",
            device=torch.device("cpu"),
            threads=1,
            log=program.parent / "generator.log",
            say=self.said.append,
        )

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.program.parent / name).read_text().splitlines()]


@pytest.fixture
def asked(program: Path, lab: Path) -> Iterator[Asked]:
    found = Asked(program, lab)
    yield found
    found.generator.close()


def test_questions_go_as_token_ids_and_come_back_in_their_order(asked: Asked) -> None:
    seen: list[int] = []
    found = asked.generator.answers(["rev:abc=", "x"], Sampling(5), progress=seen.append)
    ids = [asked.tokenizer(text)["input_ids"] for text in ("rev:abc=", "x")]
    assert [each[0].text for each in found] == [asked.tokenizer.decode(row[-1:]) for row in ids]
    assert all(each[0].ended for each in found) and seen == [1, 2]
    bodies = sorted(asked.lines("asked"), key=lambda body: body["seed"])
    assert [body["prompt"] for body in bodies] == ids
    assert {body["temperature"] for body in bodies} == {0.0}
    assert bodies[0]["stop_token_ids"] == [asked.tokenizer.eos_token_id] and bodies[0]["add_special_tokens"] is False
    (words,) = asked.lines("started")
    assert words[:2] == ["serve", str(asked.folder)] and words[-1] == "--swap-space=1"
    assert words[words.index("--dtype") + 1] == "float32" and "--enforce-eager" in words and "--enable-lora" not in words


def test_samples_have_seeds_and_what_is_cut_off_did_not_end(asked: Asked) -> None:
    (found,) = asked.generator.answers(["ab"], Sampling(1, 3, 0.8, 0.9, 7))
    assert [answer.ended for answer in found] == [False] * 3
    (body,) = asked.lines("asked")
    assert (body["n"], body["seed"], body["temperature"], body["top_p"]) == (3, 7, 0.8, 0.9)
    with pytest.raises(ValueError, match="greedy"):
        Sampling(1, samples=2)


def test_one_server_serves_until_questions_are_longer(asked: Asked) -> None:
    for tokens in (5, 100, 600):
        asked.generator.answers(["ab"], Sampling(tokens))
    assert len(asked.lines("started")) == 2
    asked.generator.close()
    asked.generator.answers(["ab"], Sampling(5))
    assert len(asked.lines("started")) == 3


def test_a_question_that_leaves_little_room_gets_a_short_answer(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked.generator, "_longest", lambda: 512)
    long = "ab" * 600
    found = asked.generator.answers([long, "ab"], Sampling(600))
    bodies = asked.lines("asked")
    ids = len(asked.tokenizer(long)["input_ids"])
    assert ids >= 512 and found[0] == [Answer("", ended=False)]
    (body,) = bodies
    assert body["max_tokens"] == 512 - len(body["prompt"])
    assert any("2 of 2 questions leave less than 600" in said for said in asked.said)


def test_a_server_that_dies_or_refuses_is_told_of(asked: Asked) -> None:
    folder = asked.program.parent
    (folder / "dies").touch()
    with pytest.raises(StepError, match=r"does not answer any more: vLLM's process ended with exit code 3") as caught:
        asked.generator.answers(["ab"], Sampling(5))
    assert caught.value.kind == "generator"
    asked.generator.close()
    (folder / "dies").unlink()
    (folder / "refuses").touch()
    with pytest.raises(StepError, match=r"vLLM refused question 1: .*too long"):
        asked.generator.answers(["ab"], Sampling(5))


def test_nothing_is_left_of_a_server(asked: Asked) -> None:
    asked.generator.answers(["ab"], Sampling(5))
    below = psutil.Process().children(recursive=True)
    assert any(str(asked.program) in part for process in below for part in process.cmdline())
    asked.generator.close()
    assert not [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, **changes}))
    return folder


def test_an_adapter_is_loaded_beside_the_weights_or_merged_in(program: Path, lab: Path, tmp_path: Path) -> None:
    found = Asked(program, lab, adapter(tmp_path / "a"))
    found.generator.answers(["ab"], Sampling(5))
    found.generator.close()
    (words,) = found.lines("started")
    assert words[words.index("--max-lora-rank") + 1] == "16"
    assert words[words.index("--lora-modules") + 1] == f"adapter={tmp_path / 'a'}"
    assert found.lines("asked")[0]["model"] == "adapter"
    (program.parent / "no-adapters").touch()
    found.generator.answers(["ab"], Sampling(5))
    found.generator.close()
    assert found.lines("asked")[-1]["model"] == "llama"
    assert any("did not take the adapter" in said and "is not supported for this architecture" in said for said in found.said)


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({}, True),
        ({"use_dora": True}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"r": 1024}, False),
        ({"peft_type": "IA3"}, False),
    ],
)
def test_only_plain_lora_is_loaded_beside_the_weights(tmp_path: Path, changes: dict[str, Any], takes: bool) -> None:
    assert takes_adapter(adapter(tmp_path / "a", **changes)) is takes


def test_differences_are_told() -> None:
    ours = [{"completion": "a", "score": 1.0}, {"completion": "b", "score": 0.0}, {"completion": "c", "score": 0.0}]
    theirs = [{"completion": "a", "score": 1.0}, {"completion": "x", "score": 0.0}, {"completion": "y", "score": 1.0}, {}]
    assert differences(ours, theirs) == "vLLM and transformers answer 1 of the first 3 rows alike; 1 get another score"


def test_who_answers_follows_the_profile_and_the_machine(lab_profile, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(load_profile(lab_profile()))

    def chosen(device: str, size: int = 10**9, **spec: Any) -> str:
        profile = workspace.profile.model_copy(update={"generation": workspace.profile.generation.model_copy(update=spec)})
        models = {name: replace(model, parameters=size) for name, model in workspace.models.items()}
        return generation.generator(replace(workspace, profile=profile, models=models), device)

    monkeypatch.setenv("PATH", "/nowhere")
    assert chosen("cuda") == chosen("cpu") == "transformers"
    monkeypatch.setenv("PATH", str(program.parent))
    assert (chosen("cuda"), chosen("cpu"), chosen("cuda", 10**8)) == ("vllm", "transformers", "transformers")
    assert chosen("cpu", backend="vllm") == chosen("cpu", backend="vllm", executable=str(program)) == "vllm"
    flags = {"backend": "vllm", "arguments": ("--quantization", "fp8")}
    assert chosen("cpu", **flags) == "vllm --quantization fp8"
    assert generation.kept(workspace, "transformers") == "transformers" and generation.kept(workspace, "vllm") == "vllm"
    with pytest.raises(LamdatuiError, match=r"not those of the run's start"):
        generation.kept(workspace, "vllm --quantization fp8")
    with pytest.raises(LamdatuiError, match="there is no vLLM"):
        chosen("cuda", backend="vllm", executable="/nowhere/vllm")
    name, task = next(iter(workspace.tasks.items()))
    workspace.tasks[name] = replace(task, asking=Asking(generation="own"))
    assert chosen("cuda") == "transformers"
    with pytest.raises(LamdatuiError, match="does not follow generation: own"):
        chosen("cpu", backend="vllm")


def test_who_answered_is_part_of_keys_and_of_digests_of_sampled_data(lab_profile) -> None:
    workspace = open_workspace(load_profile(lab_profile()))
    task = next(iter(workspace.tasks.values()))
    assert task.key("m", "search", "float32") == task.key("m", "search", "float32", generator="transformers")
    assert task.key("m", "search", "float32") != task.key("m", "search", "float32", generator="vllm")
    rows = DatasetObject("rows", "d", "verifiable", 9, "/r")
    calls = DatasetObject("calls", "c", "sft", 9, "/c")
    pool = ObjectPool({item.id: item for item in (ModelObject("base", "b", "l", "l", "/w"), rows, calls)})

    def digests(kind: str, dataset: str) -> set[str]:
        inputs = {"model": ("base",), "dataset": (dataset,)}
        bound = load_registry().get(kind)
        return {
            make_action(bound, inputs, {}, pool, seed=1, dtype="float32", generator=name).digest
            for name in ("transformers", "vllm")
        }

    assert len(digests("rejection_sample", "rows")) == 2
    assert len(digests("sft", "calls")) == 1


def test_vllm_can_not_have_flags_that_are_chosen_for_it(lab_profile) -> None:
    path = lab_profile(("mode: ask", "generation: {backend: vllm, arguments: [--port=1]}\nmode: ask"))
    with pytest.raises(LamdatuiError, match=r"can't have --port"):
        load_profile(path)


def test_a_program_of_the_section_is_confirmed_whatever_backend_it_names(lab_profile, program: Path) -> None:
    for backend in ("transformers", "vllm", "auto"):
        text = f"generation: {{backend: {backend}, executable: {program}}}"
        profile = load_profile(lab_profile(("mode: ask", f"{text}\nmode: ask")))
        found = trust.sensitive(profile)
        assert found["generation"]["executable"]["runs"] == str(program)
        assert any("generation.executable" in line for line in trust.told(found))
        with pytest.raises(LamdatuiError, match=r"generation\.executable"):
            trust.require(profile, "here")


def test_what_an_action_json_names_is_not_run(lab_profile, cli: Commands, program: Path) -> None:
    """A run directory that somebody else prepared: its request names a program, its seal fits."""
    done = cli("run", str(lab_profile()), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    assert done.returncode == 0, done.stderr
    path = cli.runs / "r/steps/1/1/action.json"
    request = {name: value for name, value in json.loads(path.read_text()).items() if name != "seal"}
    request["generation"] = {"backend": "vllm", "executable": str(program), "arguments": [], "gpu_memory_utilization": 0.5}
    write_request(path.parent, request)
    again = cli("step", "r", "1", "--set", "max_steps=2")
    # The profile names none: what is on PATH, if anything, is a person's own.
    assert not (program.parent / "started").exists(), again.stdout
    profile = cli.runs / "r/profile.yaml"
    text = profile.read_text()
    profile.write_text(
        text.replace("executable: ''\n  arguments: []\n  gpu_memory", f"executable: {program}\n  arguments: []\n  gpu_memory")
    )
    assert profile.read_text() != text
    refused = cli("step", "r", "1", "--set", "max_steps=2")
    assert refused.returncode == 2 and "generation.executable" in refused.stderr
    assert not (program.parent / "started").exists()
