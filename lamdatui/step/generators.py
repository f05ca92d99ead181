"""Who answers: the model itself, by transformers, or vLLM's server. Both get the same prompts, as token ids, and are greedy or seeded alike."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

import httpx
import torch
from transformers import GenerationConfig

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.schemes import GENERATORS
from lamdatui.planner.client import endpoint
from lamdatui.planner.guarded import Launch, VllmServer
from lamdatui.planner.settings import PlannerSettings
from lamdatui.step.errors import StepError
from lamdatui.step.files import GENERATOR_LOG
from lamdatui.step.generate import Answer, Conversation, Sampling, answers, cut, ends_of, prompt_ids
from lamdatui.step.likelihood import Rated, rate
from lamdatui.step.models import load_model, save_tokenizer
from lamdatui.step.promises import weights_directory
from lamdatui.step.request import ModelReference, generator_of
from lamdatui.store.artifacts import Store

TRANSFORMERS, VLLM = GENERATORS
CONTEXT = 256
"""A context is a multiple of it: questions that are a little longer need no other server."""
AT_ONCE = 256
"""Questions that vLLM works on at a time."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM can be started for."""
CPU_CACHE_GIB = 2
"""For keys and values, where it runs on a CPU."""
FREE_SHARE = 0.95
"""Of what is free on the GPU; vLLM counts its share in the whole."""


class Generator(Protocol):
    """Answers questions with one model."""

    def answers(
        self,
        conversations: Sequence[Conversation],
        how: Sampling,
        *,
        progress: Callable[[int], None] = lambda done: None,
        own: bool = False,
    ) -> list[list[Answer]]:
        """As `lamdatui.step.generate.answers`."""
        ...

    def close(self) -> None:
        """Give back what it holds. It may be asked again."""


class TransformersGenerator:
    """The model in this process."""

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    def answers(self, conversations: Sequence[Conversation], how: Sampling, **more: Any) -> list[list[Answer]]:
        """See `Generator`."""
        return answers(self._model, self._tokenizer, conversations, how, batch_tokens=self._batch_tokens, **more)

    def rate(self, asked: Sequence[Mapping[str, Any]], *, positions: int, progress: Callable[[int], None]) -> list[list[Rated]]:
        """As `lamdatui.step.likelihood.rate`."""
        return rate(
            self._model, self._tokenizer, asked, batch_tokens=self._batch_tokens, positions=positions, progress=progress
        )

    def close(self) -> None:
        """See `Generator`."""
        self._model = None


class _AnswerServer(VllmServer):
    """vLLM for a step's answers."""

    noun: ClassVar[str] = "vLLM"
    fix: ClassVar[str] = "read the whole log; too little GPU memory: lower generation.gpu_memory_utilization or max_new_tokens"
    device = torch.device("cpu")
    threads = 1

    def _launched(self, port: int, key: str) -> Launch:
        launch = super()._launched(port, key)
        if self.device.type == "cpu":
            launch.environment.update(VLLM_CPU_KVCACHE_SPACE=str(CPU_CACHE_GIB), OMP_NUM_THREADS=str(self.threads))
        elif self.device.index is not None:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = seen.split(",") if seen else [str(n) for n in range(self.device.index + 1)]
            launch.environment["CUDA_VISIBLE_DEVICES"] = names[self.device.index]
        return launch


class VllmGenerator:
    """vLLM in an environment of its own, over a folder of weights and at most one LoRA adapter; started for the first question.

    `whole`: writes the weights with the adapter merged in, for vLLM that can't take it, and returns their folder.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        tokenizer: Any,
        folder: Path,
        adapter: Path | None,
        whole: Callable[[], Path],
        *,
        dtype: str,
        device: torch.device,
        threads: int,
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._folder = folder
        self._adapter = adapter
        self._whole = whole
        self._dtype = dtype
        self._device = device
        self._threads = threads
        self._log = log
        self._say = say
        self._runner: asyncio.Runner | None = None
        self._server: _AnswerServer | None = None
        self._context = 0
        self._room = 0
        """Tokens that a question and its answer may have."""

    def answers(
        self,
        conversations: Sequence[Conversation],
        how: Sampling,
        *,
        progress: Callable[[int], None] = lambda done: None,
        own: bool = False,
    ) -> list[list[Answer]]:
        """See `Generator`. Raises StepError(generator) where vLLM does not start, refuses or ends."""
        assert not own, "vLLM is asked with neutral settings only"
        prompts = prompt_ids(self._tokenizer, conversations)
        self._start(max(map(len, prompts), default=0) + how.max_new_tokens)
        assert self._runner is not None
        if long := sum(len(ids) + how.max_new_tokens > self._room for ids in prompts):
            self._say(
                f"{long:,} of {len(prompts):,} questions leave less than {how.max_new_tokens:,} of the model's {self._room:,} positions"
            )
        settings = {
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "n": how.samples,
            "stop_token_ids": sorted(self._ends()),
            "add_special_tokens": False,
            "return_token_ids": True,
            **({"stop": list(how.until)} if how.until else {}),
        }
        return self._runner.run(self._ask(prompts, settings, how.seed, progress))

    def _ends(self) -> set[int]:
        own = None
        with suppress(OSError):
            own = GenerationConfig.from_pretrained(self._folder, local_files_only=True)
        return ends_of(own, self._tokenizer)

    async def _ask(
        self, prompts: list[list[int]], settings: dict[str, Any], seed: int, progress: Callable[[int], None]
    ) -> list[list[Answer]]:
        server, done, turn = self._server, 0, asyncio.Semaphore(AT_ONCE)
        assert server is not None
        limits = httpx.Limits(max_connections=AT_ONCE)
        headers = {"Authorization": f"Bearer {server.key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=None, headers=headers, limits=limits) as http:

            async def one(row: int, ids: list[int]) -> list[Answer]:
                nonlocal done
                room = self._room - len(ids)
                if room < 1:
                    return [Answer("", ended=False)] * settings["n"]
                body = {"model": self._served, "prompt": ids, "seed": (seed + row) % 2**31, **settings}
                body["max_tokens"] = min(settings["max_tokens"], room)
                async with turn:
                    response = await http.post(endpoint(server.url, "completions"), json=body)
                if response.status_code != 200:
                    raise StepError("generator", f"vLLM refused question {row + 1}: {response.text[:300]}")
                choices = sorted(json.loads(response.text)["choices"], key=lambda choice: choice["index"])
                done += len(choices)
                progress(done)
                return [self._answer(choice, settings.get("stop", ())) for choice in choices]

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(row, ids)) for row, ids in enumerate(prompts)]
            except* httpx.HTTPError as errors:
                how = await server.death() or str(errors.exceptions[0]) or type(errors.exceptions[0]).__name__
                raise StepError("generator", f"vLLM does not answer any more: {how}") from errors
            except* StepError as errors:
                raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    def _answer(self, choice: Mapping[str, Any], until: Sequence[str]) -> Answer:
        text = self._tokenizer.decode(choice["token_ids"], skip_special_tokens=True)
        return cut(text, until, ended=choice["finish_reason"] == "stop")

    # --- the server ----------------------------------------------------------------------------------------------

    @property
    def _served(self) -> str:
        assert self._server is not None
        return "adapter" if self._adapter else self._server.model

    def _start(self, tokens: int) -> None:
        """Have a server for sequences of so many tokens."""
        if self._server is not None and tokens <= self._context:
            return
        self.close()
        self._context = -(-tokens // CONTEXT) * CONTEXT
        self._runner = asyncio.Runner()
        try:
            try:
                self._launch()
            except LamdatuiError as error:
                if self._adapter is None:
                    raise
                self._say(f"vLLM did not take the adapter (…{error.what[-300:]}); it is merged in")
                self._folder, self._adapter = self._whole(), None
                self._launch()
        except LamdatuiError as error:
            self.close()
            raise StepError("generator", error.what[:500]) from error
        except BaseException:
            self.close()
            raise

    def _launch(self) -> None:
        words = ["--dtype", self._dtype, "--max-num-seqs", str(AT_ONCE)]
        if self._device.type == "cpu":
            words.append("--enforce-eager")
        if self._adapter is not None:
            rank = _rank(self._adapter)
            words += ["--enable-lora", "--max-lora-rank", str(next(each for each in RANKS if each >= rank))]
            words += ["--lora-modules", f"adapter={self._adapter}"]
        self._room = max(512, min(self._context, self._longest()))
        settings = PlannerSettings(
            backend="vllm",
            model=str(self._folder),
            executable=self._spec["executable"],
            arguments=(*words, *self._spec["arguments"]),
            context=self._room,
            gpu_memory_utilization=self._share(),
            sleep="never",
        )
        self._say(f"starting vLLM for sequences of up to {settings.context:,} tokens; its output is in {self._log.name}")
        self._server = _AnswerServer(settings, self._log)
        self._server.device, self._server.threads = self._device, self._threads
        assert self._runner is not None
        self._runner.run(self._server.start())

    def _longest(self) -> int:
        config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
        told = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
        return int(told or self._context)

    def _share(self) -> float:
        share = float(self._spec["gpu_memory_utilization"])
        if self._device.type != "cuda":
            return share
        free, total = torch.cuda.mem_get_info(self._device)
        return max(0.01, min(share, FREE_SHARE * free / total))

    def close(self) -> None:
        """End the server."""
        runner, server, self._runner, self._server = self._runner, self._server, None, None
        if runner is not None:
            if server is not None:
                runner.run(server.close())
            runner.close()


class Asking(Protocol):
    """What `generator_for` needs of a step: its context has it."""

    request: dict[str, Any]
    store: Store
    staged: Path
    directory: Path

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the step works."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Prompt and answer tokens of one batch."""
        ...

    def say(self, text: str) -> None:
        """A line in the step's log."""
        ...


def generator_for(step: Asking, reference: ModelReference, tokenizer: Any, model: Any = None) -> Generator:
    """What answers for a model with the run's generator; `model`: the same, where it is loaded."""
    if generator_of(step.request) == TRANSFORMERS:
        model = load_model(step.store, reference, step.dtype, step.device) if model is None else model
        return TransformersGenerator(model, tokenizer, step.batch_tokens)
    adapters = reference["adapters"]
    adapter = step.store.resolve(adapters[0]) if adapters else None
    served = step.staged.parent / f"{step.staged.name}-{reference['id'][:12]}-served"

    def whole() -> Path:
        step.say(f"writing the full weights of {reference['id']}")
        load_model(step.store, reference, step.dtype, torch.device("cpu")).save_pretrained(str(served))
        save_tokenizer(tokenizer, served)
        return served

    folder = weights_directory(step.store, reference)
    if adapter is not None and (len(adapters) > 1 or not takes_adapter(adapter)):
        folder, adapter = whole(), None
    return VllmGenerator(
        step.request["generation"],
        tokenizer,
        folder.absolute(),
        adapter.absolute() if adapter else None,
        whole,
        dtype=step.request["dtype"],
        device=step.device,
        threads=step.request["threads"],
        log=step.directory / GENERATOR_LOG,
        say=step.say,
    )


def takes_adapter(folder: Path) -> bool:
    """Whether vLLM can take an adapter beside the weights: plain LoRA, no DoRA, no whole layers beside it."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    odd = ("use_dora", "modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern", "lora_bias")
    return config.get("peft_type") == "LORA" and config.get("r", RANKS[-1] + 1) <= RANKS[-1] and not any(map(config.get, odd))


def _rank(folder: Path) -> int:
    return int(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
