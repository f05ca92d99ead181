"""GGUF files of an exported model beside its weights, a Modelfile for Ollama, and what llama.cpp scores with them on the sealed rows."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import write_json
from lamdatui.domain.state import RunState
from lamdatui.domain.verdicts import gain_text
from lamdatui.export.model_gguf import FORMS, write_gguf
from lamdatui.inputs.taskfiles import Asking, Task, load_task
from lamdatui.inputs.workspace import locate
from lamdatui.step.generate import Answer, Sampling, cut, ends_of, prompt_ids
from lamdatui.tasks.stats import paired_gain, summary
from lamdatui.wire.answers import answers

FOLDER = "gguf"
SCORES = "scores.json"
MODELFILE = "Modelfile"
START_SECONDS = 600.0
ANSWER_SECONDS = 3600.0


def parse_forms(text: str) -> list[str]:
    """`q8_0,q4_k_m` as names. Raises LamdatuiError with those that there are."""
    found = [name.strip().lower() for name in text.split(",") if name.strip()]
    if wrong := [name for name in found if name not in FORMS] or not found:
        raise LamdatuiError(
            f"no form of GGUF is called {wrong[0] if isinstance(wrong, list) else text!r}", fix=f"--gguf {','.join(FORMS)}"
        )
    return found


def write_files(
    run_dir: Path, state: RunState, model: str, staged: Path, forms: Sequence[str], say: Callable[[str], None]
) -> None:
    """Write the files below `staged`, each scored on the sealed rows where the model was. Raises LamdatuiError; StepError where llama.cpp ends."""
    folder = staged / FOLDER
    folder.mkdir()
    scores: dict[str, Any] = {}
    for form in forms:
        name = f"{model}.{form}.gguf"
        say(f"writing {name}")
        write_gguf(staged, folder / name, form, f"{state.name} {model}")
        scores[form] = {"file": name, "bytes": (folder / name).stat().st_size, "tasks": {}}
        with served(folder / name, _room(state)) as generator:
            _compare(run_dir, state, model, staged, generator, scores[form], say)
    write_json(folder / SCORES, scores)
    (folder / MODELFILE).write_text(modelfile(staged, scores[forms[-1]]["file"]), encoding="utf-8")


def _room(state: RunState) -> int:
    """Tokens that a question and its answer may have."""
    longest = max(int(task["max_new_tokens"]) for task in state.profile["tasks"].values())
    return 2048 * -(-(2048 + longest) // 2048)


def _tasks(state: RunState) -> Iterator[Task]:
    for name, told in state.profile["tasks"].items():
        if told.get("judge"):
            continue
        limits = {split: count for split, count in (told.get("rows") or {}).items() if count is not None}
        asking = Asking(told.get("think", "strip"), told.get("thinking"), told.get("generation", "neutral"))
        yield load_task(name, locate(told["path"]), told["scorer"], told["max_new_tokens"], limits, asking)


def _compare(
    run_dir: Path,
    state: RunState,
    model: str,
    staged: Path,
    generator: LlamaCppGenerator,
    told: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Score the file on the sealed rows as the run scored the model, and note the paired difference."""
    from transformers import AutoTokenizer, GenerationConfig

    from lamdatui.step.evaluate import evaluate

    tokenizer: Any = AutoTokenizer.from_pretrained(staged, local_files_only=True, trust_remote_code=False)
    for name in (name for name, task in state.profile["tasks"].items() if task.get("judge")):
        say(f"{name}: a judge scores its answers, which is not asked here")
    with contextlib.suppress(OSError):
        generator.ends = ends_of(GenerationConfig.from_pretrained(staged, local_files_only=True), tokenizer)
    generator.tokenizer = tokenizer
    for task in _tasks(state):
        request = task.request("", "sealed", state.scheme)
        if request.get("rated"):
            say(f"{task.name}: its choices are rated by log-likelihood, which is not measured here")
            continue
        try:
            ours = {str(answer.id): answer.score for answer in answers(run_dir, state, model, task.name, "sealed")}
        except LamdatuiError:
            say(f"{task.name}: its sealed rows were not scored in the run")
            continue
        value = evaluate(generator, tokenizer, request, _quiet)
        theirs = {str(row["id"]): row["score"] for row in value["rows"]}
        gain = paired_gain({task.name: theirs}, {task.name: ours}, {task.name: 1.0})
        told["tasks"][task.name] = {**summary(list(theirs.values())), "model": summary(list(ours.values())), "difference": gain}
        say(
            f"{told['file']}: {task.name} (sealed) {told['tasks'][task.name]['mean']:.3f}, the model itself {told['tasks'][task.name]['model']['mean']:.3f}, "
            f"difference {gain_text(gain)}, n={len(theirs)}"
        )
    told["questions read otherwise"] = generator.otherwise
    if generator.otherwise:
        say(f"{told['file']}: llama.cpp cuts {generator.otherwise} questions into other tokens than the tokenizer does")


def _quiet(**_: Any) -> None:
    """What is told while rows are answered."""


class LlamaCppGenerator:
    """llama.cpp's server; questions are given as text, so that its own tokenizer is tried, too."""

    def __init__(self, url: str, key: str, room: int) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_SECONDS, trust_env=False
        )
        self._room = room
        self.tokenizer: Any = None
        self.ends: set[int] = set()
        self.otherwise = 0
        """Questions whose tokens are others than the tokenizer's."""

    def answers(
        self,
        conversations: Sequence[Any],
        how: Sampling,
        *,
        progress: Callable[[int], None] = lambda done: None,
        own: bool = False,
    ) -> list[list[Answer]]:
        """See `lamdatui.step.generators.Generator`; greedy."""
        found = []
        for place, ids in enumerate(prompt_ids(self.tokenizer, conversations)):
            text = self.tokenizer.decode(ids, skip_special_tokens=False)
            read = self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
            self.otherwise += read != ids
            tokens = min(how.max_new_tokens, self._room - len(read))
            body = {"prompt": read, "n_predict": tokens, "temperature": 0.0, "return_tokens": True, "cache_prompt": True}
            body |= {"stop": list(how.until)} if how.until else {}
            given = self._ask("/completion", body)["tokens"]
            ended = bool(given) and given[-1] in self.ends
            shown = self.tokenizer.decode(given, skip_special_tokens=True)
            found.append([cut(shown, how.until, ended=ended or len(given) < tokens)])
            progress(place + 1)
        return found

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._http.post(path, json=body)
            response.raise_for_status()
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise LamdatuiError(f"llama.cpp does not answer: {error}", exit_code=EXIT_FAILED) from error

    def close(self) -> None:
        """See `lamdatui.step.generators.Generator`."""
        self._http.close()


@contextlib.contextmanager
def served(path: Path, room: int) -> Iterator[LlamaCppGenerator]:
    """llama.cpp over a file, in a process of its own. Raises LamdatuiError where it does not take the file."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 1)
    words = ["--model", str(path), "--context", str(room), "--threads", threads, "--parent", str(os.getpid())]
    log = path.with_suffix(".log")
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lamdatui.planner.llamacpp", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
    try:
        assert process.stdout is not None and process.stdin is not None
        line = process.stdout.readline()
        if not line:
            told = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            raise LamdatuiError(f"llama.cpp does not take {path.name}: {told[0][:300]}", exit_code=EXIT_FAILED)
        ready = json.loads(line)
        generator = LlamaCppGenerator(ready["url"], ready["key"], room)
        yield generator
        generator.close()
    finally:
        process.kill()
        process.wait()
        log.unlink(missing_ok=True)


def modelfile(folder: Path, name: str) -> str:
    """For `ollama create NAME -f Modelfile`: the file, greedy answers, and the chat template where Ollama would not know it by itself."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    lines = [f"FROM ./{name}", "PARAMETER temperature 0"]
    if "<|im_start|>" in str(tokenizer.chat_template):
        turn = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
        lines += [f'TEMPLATE """{turn}"""', 'PARAMETER stop "<|im_end|>"']
    else:
        lines.append("# Ollama takes the chat template that the file holds, where it knows it.")
    return "\n".join(lines) + "\n"
