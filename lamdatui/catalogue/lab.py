"""The lab: two tiny bases of different architecture, pretrained here in about a minute each, and their string data.

`build` needs no network and no fetched weights. Everything is seeded: the data is the same on every machine, the
weights are the same up to the rounding of the machine's arithmetic.
"""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.tasks import strings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Say = Callable[[str], None]

SEED = 20251
PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
MAX_POSITIONS = 128
"""Characters a base can read and write in all."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)

SEARCH_ROWS, SEALED_ROWS = 100, 200
TASKS = tuple(strings.SKILLS)
"""Task files: one per skill, each with `SEARCH_ROWS` and `SEALED_ROWS` rows."""

SFT_SETS: dict[str, dict[str, int]] = {
    "copy": {"copy": 1200},
    "reverse": {"reverse": 1200},
    "upper": {"upper": 1200},
    "double": {"double": 1200},
    "call": {"call": 1200},
    "call_replay": {"call": 900, "reverse": 300, "copy": 300},
}
"""Dataset name → skill → rows. `call_replay` mixes a new skill with what the bases already know."""

PREFERENCE_SETS: dict[str, dict[str, int]] = {"prefer": {"call": 500, "reverse": 400, "copy": 300}}


VERIFY_SETS: dict[str, dict[str, int]] = {"verify": {"call": 400, "reverse": 400, "copy": 400}}
"""Prompts with the right answer for a scorer, from the training split: for actions that learn from verified answers."""


@dataclass(frozen=True)
class Part:
    """A skill's share of a pretraining mixture, and the argument lengths that are shown.

    Lengths that the tasks have and a base never saw are what keeps it at an intermediate level.
    """

    weight: float
    lengths: tuple[int, ...] = (3, 4, 5)


@dataclass(frozen=True)
class Base:
    """How one base is made: its architecture, its mixture by skill, and the optimizer's steps and peak rate."""

    name: str
    mixture: dict[str, Part]
    steps: int
    learning_rate: float = 3e-3


BASES = (
    Base(
        "llama",
        {"reverse": Part(0.35), "copy": Part(0.3), "upper": Part(0.15), "call": Part(0.2, (3, 4))},
        steps=400,
    ),
    Base("phi", {"reverse": Part(0.4), "copy": Part(0.2), "upper": Part(0.4)}, steps=280),
)
BATCH_ROWS = 96
WARMUP_STEPS = 40
PROBE_EVERY = 50
PROBE_ROWS = 128


def build(target: Path, say: Say) -> None:
    """Write `llama/`, `phi/` (HF model directories), `tasks/*.jsonl` and `data/*.jsonl` under `target`.

    Takes one to two minutes on one core; `say` gets a line of progress every few seconds.
    """
    started = time.monotonic()
    write_data(target)
    say(f"lab data: {len(TASKS)} tasks, {len(SFT_SETS) + len(PREFERENCE_SETS) + len(VERIFY_SETS)} datasets")
    for base in BASES:
        build_base(base, target / base.name, say)
    say(f"lab bases ready in {time.monotonic() - started:.0f} s")


def write_data(target: Path) -> None:
    """Write the task files and the datasets: deterministic, and quick (no torch)."""
    for name in TASKS:
        write_jsonl(target / "tasks" / f"{name}.jsonl", task_rows(name))
    for number, (name, parts) in enumerate(SFT_SETS.items()):
        found = strings.mixture(parts, "train", SEED + number)
        write_jsonl(target / "data" / f"{name}.jsonl", ({"prompt": r.prompt, "completion": r.completion} for r in found))
    for number, (name, parts) in enumerate(PREFERENCE_SETS.items()):
        pairs = strings.preferences(parts, "train", SEED + 100 + number)
        write_jsonl(
            target / "data" / f"{name}.jsonl",
            ({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs),
        )
    for number, (name, parts) in enumerate(VERIFY_SETS.items()):
        found = strings.mixture(parts, "train", SEED + 200 + number)
        write_jsonl(
            target / "data" / f"{name}.jsonl",
            ({"prompt": r.prompt, "scorer": "exact", "reference": r.completion} for r in found),
        )


def task_rows(skill: str) -> Iterator[dict[str, Any]]:
    """The rows of one task file: `{"id", "split", "messages", "reference"}`, the search split first."""
    counts: tuple[tuple[strings.Split, int], ...] = (("search", SEARCH_ROWS), ("sealed", SEALED_ROWS))
    for split, count in counts:
        for number, row in enumerate(strings.rows(skill, split, count, SEED)):
            yield {
                "id": f"{skill}-{split}-{number:04d}",
                "split": split,
                "messages": [{"role": "user", "content": row.prompt}],
                "reference": row.completion,
            }


def write_jsonl(path: Path, items: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, with the folders that are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def build_base(base: Base, target: Path, say: Say) -> None:
    """Pretrain one base and save it as a plain HF directory (safetensors, tokenizer, generation config)."""
    import torch
    from transformers import GenerationConfig

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    # More threads than free cores make a model this small several times slower.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    try:
        tokenizer = make_tokenizer()
        model = make_model(base.name, tokenizer)
        pretrain(base, model, tokenizer, say)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, no normalisation, nothing added around the text."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate((PAD, EOS, UNK, *CHARACTERS))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MAX_POSITIONS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(architecture: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained model of 0.2 to 0.4 million parameters, in fp32: `llama` or `phi`."""
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        # The usual 0.02 is meant for models a hundred times wider.
        "initializer_range": 0.05,
        # Tied embeddings are stored once, and merge tools differ in how they bring the second copy back.
        "tie_word_embeddings": False,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shared, hidden_size=64, num_hidden_layers=4, intermediate_size=192))
    if architecture == "phi":
        # Neither GPT-NeoX (mergekit 0.1.5 asks for `attention.bias` masks that transformers 5 no longer stores) nor
        # Qwen2 (AutoTokenizer replaces a Qwen2 directory's own tokenizer, and spaces are lost without a word).
        return PhiForCausalLM(
            PhiConfig(
                **shared,
                hidden_size=96,
                num_hidden_layers=3,
                intermediate_size=384,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attention_dropout=0.0,
            )
        )
    raise ValueError(f"no lab architecture is called {architecture!r}: llama, phi")


def pretrain(base: Base, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, say: Say) -> dict[str, float]:
    """Train on an endless stream of the mixture; returns exact match on train-split rows of the tasks' lengths."""
    import torch

    rng = random.Random(f"{base.name}/{SEED}")
    streams = {skill: strings.stream(skill, "train", rng, part.lengths) for skill, part in base.mixture.items()}
    probe = {skill: strings.rows(skill, "train", PROBE_ROWS, SEED + 1) for skill in base.mixture}
    optimizer = torch.optim.AdamW(model.parameters(), lr=base.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    scores: dict[str, float] = {}
    model.train()
    weights = [part.weight for part in base.mixture.values()]
    decay_steps = base.steps - WARMUP_STEPS
    for step in range(1, base.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = base.learning_rate * min(step / WARMUP_STEPS, (base.steps - step + 1) / decay_steps)
        chosen = rng.choices(list(base.mixture), weights=weights, k=BATCH_ROWS)
        ids, labels = encode([next(streams[skill]) for skill in chosen], tokenizer)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % PROBE_EVERY == 0:
            scores = {skill: exact_match(model, tokenizer, found) for skill, found in probe.items()}
            shown = " ".join(f"{skill} {score:.2f}" for skill, score in scores.items())
            say(f"{base.name}: step {step}/{base.steps} loss {loss.item():.3f} {shown}")
    return scores


def encode(rows: list[strings.Row], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both (rows, longest), right-padded; only the completion and its end token are learned."""
    import torch

    prompts = tokenizer([row.prompt for row in rows], add_special_tokens=False)["input_ids"]
    answers = tokenizer([row.completion + EOS for row in rows], add_special_tokens=False)["input_ids"]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[at, :end] = torch.tensor(prompt + answer)
        labels[at, len(prompt) : end] = torch.tensor(answer)
    return ids, labels


def exact_match(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[strings.Row]) -> float:
    """Share of rows whose completion and end token are all argmax under teacher forcing: greedy decoding's score."""
    import torch

    ids, labels = encode(rows, tokenizer)
    model.eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        best = model(input_ids=ids).logits[:, :-1].argmax(-1)
    model.train()
    wanted = labels[:, 1:]
    return float(((best == wanted) | (wanted == -100)).all(-1).float().mean())
