"""Scores of answers that a judge gives, once all answers of a step are there: each judge is loaded once, and tried out on each task before it counts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import canonical, digest
from lamdatui.inputs.datafiles import read_task_rows
from lamdatui.step.context import StepContext
from lamdatui.step.judge import Judge, part_of
from lamdatui.step.models import load_model, load_tokenizer, positions
from lamdatui.tasks import judging
from lamdatui.tasks.judging import PAIR, PROMPTS, TRIED

Evaluation = tuple[dict[str, Any], dict[str, Any]]
"""A request for one task's split, and what `lamdatui.step.evaluate.evaluate` gave for it: answers without scores."""


def scored(step: StepContext, pending: Sequence[Evaluation]) -> Iterator[Evaluation]:
    """The evaluations with their scores. No other model should be in memory. Raises as `load_model` and `Judge.judged` do."""
    by_judge: dict[str, list[Evaluation]] = {}
    for request, value in pending:
        by_judge.setdefault(canonical(request["judge"]), []).append((request, value))
    for group in by_judge.values():
        reference = group[0][0]["judge"]
        model = load_model(step.store, reference, step.dtype, step.device)
        tokenizer = load_tokenizer(step.store, reference)
        judge = Judge(model, tokenizer, batch_tokens=step.batch_tokens, positions=positions(step.store, reference))
        for request, value in group:
            yield request, _judged(step, judge, request, value)
        del judge, model
        gc.collect()
        if step.device.type == "cuda":
            torch.cuda.empty_cache()


def _judged(step: StepContext, judge: Judge, request: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    began, scorer, name = time.monotonic(), request["scorer"], request["judge"]["id"]
    trial = _tried(step, judge, request)
    if doubt := judging.doubt(request["task"], name, trial):
        step.say(doubt)
    parts = value.pop("parts")

    def progress(done: int) -> None:
        step.metric(phase="judge", task=request["task"], done=done, total=len(parts))

    told: dict[str, Any] = {"model": request["judge"]["digest"], "tried": trial}
    found = judge.judged(scorer, parts, progress)
    for row, one in zip(value["rows"], found, strict=True):
        row["score"] = judging.preference(one) if scorer == PAIR else judging.rating(one)
        row["judged"] = [round(each, 6) for each in one]
    if scorer == PAIR:
        told["flips"] = sum(map(judging.flips, found))
    return {**value, "judge": told, "seconds": round(value["seconds"] + time.monotonic() - began, 3)}


def _tried(step: StepContext, judge: Judge, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """How well a judge tells the task's reference answers from wrong ones (`judging.tried`); None where no search row has one. Kept in the store."""
    model, scorer, rows_digest = request["judge"]["digest"], request["scorer"], request["tried_rows_digest"]
    key = digest({"tried": model, "prompts": PROMPTS, "scorer": scorer, "rows": rows_digest, "dtype": step.request["dtype"]})
    if (known := step.store.evaluation(key)) is not None:
        return judging.tried(known["rows"])
    began = time.monotonic()
    every = [row for row in read_task_rows(Path(request["path"])) if row["split"] == "search"][: request["tried_rows"]]
    if digest(every) != rows_digest:
        raise Changed(f"the search rows of the task {request['task']} have changed", where=request["path"])
    rows = [row for row in every if judging.reference_text(row["reference"]).strip()][:TRIED]
    answers = [judging.reference_text(row["reference"]) for row in rows]
    wrong = [judging.wrong_answers(answers, at) for at in range(len(rows))]
    if not any(wrong):
        return None

    def progress(done: int) -> None:
        step.metric(phase="try the judge", task=request["task"], done=done, total=sum(map(len, wrong)))

    found = (_compared if scorer == PAIR else _rated)(judge, rows, answers, wrong, progress)
    about = {"key": key, "model": model, "task": request["task"], "split": "search"}
    step.store.record_evaluation(key, {**about, "rows": found, "seconds": round(time.monotonic() - began, 3)})
    return judging.tried(found)


Rows = Sequence[Mapping[str, Any]]
Wrong = Sequence[Sequence[str]]


def _rated(
    judge: Judge, rows: Rows, answers: Sequence[str], wrong: Wrong, progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Whether the reference is rated higher than each wrong answer."""
    parts = [part_of(row, one) for row, right, others in zip(rows, answers, wrong, strict=True) for one in (right, *others)]
    comparisons = sum(map(len, wrong))
    judged = judge.judged(judging.RATING, parts, lambda done: progress(done * comparisons // len(parts)))
    points = map(judging.rating, judged)
    found = []
    for row, others in zip(rows, wrong, strict=True):
        best = next(points)
        found += [{"id": row["id"], "wrong": other, "score": float(best > next(points))} for other in others]
    return found


def _compared(
    judge: Judge, rows: Rows, answers: Sequence[str], wrong: Wrong, progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Whether the reference is preferred to each wrong answer, in both orders."""
    pairs = [(row, right, other) for row, right, others in zip(rows, answers, wrong, strict=True) for other in others]
    parts = [{**part_of(row, right), "reference": other} for row, right, other in pairs]
    return [
        {"id": row["id"], "wrong": other, "score": float(min(orders) > 0.5), "flip": judging.flips(orders)}
        for (row, _, other), orders in zip(pairs, judge.judged(PAIR, parts, progress), strict=True)
    ]
