"""Greedy answers to a task's rows, scored row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import digest
from lamdatui.inputs.datafiles import read_task_rows
from lamdatui.step.generate import BATCH_TOKENS, answers
from lamdatui.tasks.scorers import score


def evaluate(
    model: Any,
    tokenizer: Any,
    request: dict[str, Any],
    report: Callable[..., None],
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, Any]:
    """One task's split for one model: `{"task", "split", "rows": [{"id", "score", "completion", "ended"}], "seconds"}`.

    Raises Changed when the rows of the task's file are not those that the request's key was made from.
    """
    began = time.monotonic()
    rows = [row for row in read_task_rows(Path(request["path"])) if row["split"] == request["split"]][: request["rows"]]
    if digest(rows) != request["rows_digest"]:
        raise Changed(f"the {request['split']} rows of the task {request['task']} have changed", where=request["path"])

    def progress(done: int) -> None:
        report(phase="evaluate", task=request["task"], done=done, total=len(rows))

    progress(0)
    given = answers(
        model,
        tokenizer,
        [row["messages"] for row in rows],
        max_new_tokens=request["max_new_tokens"],
        progress=progress,
        batch_tokens=batch_tokens,
    )
    scored = [
        {"id": row["id"], "score": score(request["scorer"], row["reference"], text), "completion": text, "ended": ended}
        for row, ((text, ended),) in zip(rows, given, strict=True)
    ]
    return {
        "key": request["key"],
        "task": request["task"],
        "split": request["split"],
        "rows": scored,
        "seconds": round(time.monotonic() - began, 3),
    }
