"""Greedy answers to a task's rows, scored row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import digest
from lamdatui.inputs.datafiles import asked, read_task_rows
from lamdatui.inputs.fewshot import after, fewer
from lamdatui.step.encoding import Encoder
from lamdatui.step.errors import StepError
from lamdatui.step.generate import Sampling
from lamdatui.step.generators import Generator
from lamdatui.tasks.scorers import score
from lamdatui.tasks.thinking import without_thinking


def _question(row: dict[str, Any], thinking: bool | None, examples: list[dict[str, Any]]) -> dict[str, Any]:
    found = asked(row)
    if examples:
        found["prompt"] = after(examples, found["prompt"])
    if thinking is not None:
        found["chat_template_kwargs"] = {"enable_thinking": thinking, **found.get("chat_template_kwargs", {})}
    return found


def questions(
    request: dict[str, Any], fits: Callable[[list[dict[str, Any]]], bool] = lambda _: True
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a task's split, and what a model is asked for each: after as many of the request's examples as fit, the last ones.

    Raises Changed when the rows of the task's file are not those that the request's key was made from, StepError(data) when no example fits.
    """
    rows = [row for row in read_task_rows(Path(request["path"])) if row["split"] == request["split"]][: request["rows"]]
    if digest(rows) != request["rows_digest"]:
        raise Changed(f"the {request['split']} rows of the task {request['task']} have changed", where=request["path"])
    thinking = request.get("thinking")
    examples = request.get("examples") or []
    if not examples:
        return rows, [{"prompt": row["messages"]} if request.get("older") else _question(row, thinking, []) for row in rows]
    while examples:
        found = [_question(row, thinking, examples) for row in rows]
        if fits(found):
            return rows, found
        examples = fewer(examples)
    raise StepError("data", f"no example fits into the model's positions before a question of {request['task']}")


def evaluate(
    generator: Generator,
    tokenizer: Any,
    request: dict[str, Any],
    report: Callable[..., None],
    *,
    most: int | None = None,
    positions: int = 2**31,
) -> dict[str, Any]:
    """One task's split for one model: `{"task", "split", "rows": [{"id", "score", "completion", "ended"}], "seconds"}`.

    `most`: only so many of the first rows; `positions` of the model bound the examples in the prompt. Raises Changed, StepError as `questions` does.
    """
    began = time.monotonic()
    encoder = Encoder(tokenizer)

    def fits(asked: list[dict[str, Any]]) -> bool:
        longest = max(len(encoder.ids(encoder.ask(row))) for row in asked)
        return longest + request["max_new_tokens"] <= positions

    rows, asked_for = (found[:most] for found in questions(request, fits))

    def progress(done: int) -> None:
        report(phase="evaluate", task=request["task"], done=done, total=len(rows))

    progress(0)
    given = generator.answers(
        asked_for, Sampling(request["max_new_tokens"]), progress=progress, own=request.get("generation") == "own"
    )
    keeps = request.get("think") == "keep"
    scored = []
    for row, question, ((text, ended),) in zip(rows, asked_for, given, strict=True):
        said = text if keeps else without_thinking(text, encoder.ask(question))
        points = score(request["scorer"], row["reference"], said, older=request.get("older", False))
        scored.append({"id": row["id"], "score": points, "completion": text, "ended": ended})
    return {
        "key": request["key"],
        "task": request["task"],
        "split": request["split"],
        "rows": scored,
        "seconds": round(time.monotonic() - began, 3),
    }
