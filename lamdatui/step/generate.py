"""Batched generation: greedy answers for evaluation, samples for actions that learn from a model's own text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig

from lamdatui.actionkit.costs import BATCH_TOKENS
from lamdatui.step.encoding import Encoder

BATCH_ROWS = 128

Conversation = Sequence[Mapping[str, Any]] | Mapping[str, Any] | str
"""Messages, or a row's question (`lamdatui.inputs.rowshapes.question_parts`), that the chat template turns into a prompt; or plain text that is
continued as it stands."""


class Answer(NamedTuple):
    """An answer without special tokens; `ended`: the model ended it by itself, within its tokens."""

    text: str
    ended: bool


@contextmanager
def neutral(model: Any, *, own: bool = False) -> Iterator[None]:
    """Let answers be the model's own distribution, whatever settings its generation_config.json has; only what ends an answer is kept.

    `own`: let its settings count. What is saved meanwhile or later keeps them in any case.
    """
    holders = [] if own else [part for part in model.modules() if "generation_config" in vars(part)]
    kept = [part.generation_config for part in holders]
    for part, told in zip(holders, kept, strict=True):
        part.generation_config = GenerationConfig(
            bos_token_id=told.bos_token_id, eos_token_id=told.eos_token_id, pad_token_id=told.pad_token_id
        )
    try:
        yield
    finally:
        for part, told in zip(holders, kept, strict=True):
            part.generation_config = told


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. Raises ValueError when several samples are asked of greedy decoding.

    Temperature 0 is greedy decoding. Otherwise the model's distribution at `temperature` is cut to the likeliest tokens
    of total probability `top_p` (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751).
    """

    max_new_tokens: int
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    until: tuple[str, ...] = ()
    """Texts, the first of which ends an answer and is no part of it."""

    def __post_init__(self) -> None:
        if self.samples > 1 and not self.temperature:
            raise ValueError("greedy decoding gives the same answer every time: ask for one sample, or set a temperature")


def answers(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    how: Sampling,
    *,
    progress: Callable[[int], None] = lambda done: None,
    batch_tokens: int = BATCH_TOKENS,
    own: bool = False,
) -> list[list[Answer]]:
    """Answers to `conversations` (n,) in their order: n lists of `how.samples`.

    The same seed and `batch_tokens` give the same samples; the caller's random state is left as it was. `progress` gets the number of
    texts done, of n × samples. `own` as in `neutral`.
    """
    prompts = prompt_ids(tokenizer, conversations)
    settings = _settings(model, tokenizer, how)
    work = [row for row in range(len(prompts)) for _ in range(how.samples)]
    found: list[list[Answer]] = [[] for _ in prompts]
    ends = ends_of(getattr(model, "generation_config", None), tokenizer)
    stops = {"tokenizer": tokenizer} if how.until else {}
    model.eval()
    done = 0
    with neutral(model, own=own), torch.inference_mode(), torch.random.fork_rng(_devices(model)):
        torch.manual_seed(how.seed)
        for group in _batches([len(prompts[row]) for row in work], how.max_new_tokens, batch_tokens):
            rows = [work[item] for item in group]
            ids, mask = _left_padded([prompts[row] for row in rows], tokenizer.pad_token_id)
            output = model.generate(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings, **stops
            )
            made = output[:, ids.shape[1] :]
            decoded = tokenizer.batch_decode(made, skip_special_tokens=True)
            for row, text, tokens in zip(rows, decoded, made.tolist(), strict=True):
                found[row].append(cut(text, how.until, ended=not ends.isdisjoint(tokens)))
            done += len(group)
            progress(done)
    return found


def cut(text: str, until: Sequence[str], *, ended: bool) -> Answer:
    """An answer up to the first stop in it; one that has a stop has ended."""
    places = [place for stop in until if (place := text.find(stop)) >= 0]
    return Answer(text[: min(places)], ended=True) if places else Answer(text, ended)


def prompt_ids(tokenizer: Any, conversations: Sequence[Conversation]) -> list[list[int]]:
    """Token ids; a chat template writes its own special tokens, plain text gets those that the tokenizer begins with."""
    encoder = None
    found = []
    for conversation in conversations:
        if isinstance(conversation, str):
            found.append(tokenizer(conversation)["input_ids"])
            continue
        encoder = encoder or Encoder(tokenizer)
        row = conversation if isinstance(conversation, Mapping) else {"prompt": conversation}
        found.append(encoder.ids(encoder.ask(row)))
    return found


def ends_of(own: GenerationConfig | None, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: those of the model's own settings, or the tokenizer's where they name none."""
    end = own.eos_token_id if own is not None and own.eos_token_id is not None else tokenizer.eos_token_id
    return {end} if isinstance(end, int) else {*(end or ())}


def _settings(model: Any, tokenizer: Any, how: Sampling) -> GenerationConfig:
    # `neutral` keeps the model's own settings away; where they count, these come before them all the same.
    drawn = (
        {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
        if how.temperature
        else {"do_sample": False}
    )
    return GenerationConfig(
        **drawn,
        max_new_tokens=how.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends_of(getattr(model, "generation_config", None), tokenizer)) or None,
        stop_strings=list(how.until) or None,
        use_cache=True,
    )


def _devices(model: Any) -> list[torch.device]:
    """The GPU whose random state is to be kept; the CPU's is kept in any case."""
    return [model.device] if model.device.type == "cuda" else []


def _batches(lengths: list[int], new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Indices grouped by similar prompt length, longest first, within `batch_tokens` and BATCH_ROWS."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups: list[list[int]] = []
    for index in order:
        if groups:
            longest = lengths[groups[-1][0]] + new_tokens
            if len(groups[-1]) < BATCH_ROWS and (len(groups[-1]) + 1) * longest <= batch_tokens:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def _left_padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (prompts, longest): padded in front, so that answers begin in one column."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids, mask
