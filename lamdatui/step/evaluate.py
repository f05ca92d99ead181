"""Greedy answers to a task's rows, scored row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lamdatui.datafiles import read_task_rows
from lamdatui.tasks.scorers import score

BATCH_TOKENS = 8192
"""Prompt and answer tokens of one batch, at most: bounds the memory of the key-value cache."""
BATCH_ROWS = 128


def _batches(lengths: list[int], new_tokens: int) -> list[list[int]]:
    """Indices grouped by similar prompt length, longest first, within BATCH_TOKENS and BATCH_ROWS."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups: list[list[int]] = []
    for index in order:
        if groups:
            longest = lengths[groups[-1][0]] + new_tokens
            if len(groups[-1]) < BATCH_ROWS and (len(groups[-1]) + 1) * longest <= BATCH_TOKENS:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


@torch.inference_mode()
def complete(
    model: Any,
    tokenizer: Any,
    conversations: list[list[dict[str, str]]],
    max_new_tokens: int,
    progress: Callable[[int], None],
) -> list[str]:
    """Greedy completions of `conversations` (n,) in their order; `progress` gets the number of rows done."""
    prompts = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages in conversations
    ]
    lengths = [len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]]
    tokenizer.padding_side = "left"
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id if model.generation_config else tokenizer.eos_token_id,
        use_cache=True,
    )
    model.eval()
    answers = [""] * len(prompts)
    done = 0
    for group in _batches(lengths, max_new_tokens):
        batch = tokenizer([prompts[i] for i in group], return_tensors="pt", padding=True, add_special_tokens=False)
        batch.pop("token_type_ids", None)
        output = model.generate(**batch.to(model.device), generation_config=settings)
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(group, texts, strict=True):
            answers[index] = text
        done += len(group)
        progress(done)
    return answers


def evaluate(
    model: Any,
    tokenizer: Any,
    request: dict[str, Any],
    report: Callable[..., None],
) -> dict[str, Any]:
    """One task's split for one model: `{"task", "split", "rows": [{"id", "score", "completion"}], "seconds"}`."""
    began = time.monotonic()
    rows = [row for row in read_task_rows(Path(request["path"])) if row["split"] == request["split"]][: request["rows"]]

    def progress(done: int) -> None:
        report(phase="evaluate", task=request["task"], done=done, total=len(rows))

    progress(0)
    answers = complete(model, tokenizer, [row["messages"] for row in rows], request["max_new_tokens"], progress)
    scored = [
        {"id": row["id"], "score": score(request["scorer"], row["reference"], answer), "completion": answer}
        for row, answer in zip(rows, answers, strict=True)
    ]
    return {
        "key": request["key"],
        "task": request["task"],
        "split": request["split"],
        "rows": scored,
        "seconds": round(time.monotonic() - began, 3),
    }
