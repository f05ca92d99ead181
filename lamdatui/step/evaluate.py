"""Greedy answers to a task's rows, scored row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import digest
from lamdatui.inputs.asking import is_rated
from lamdatui.inputs.datafiles import asked, read_task_rows
from lamdatui.inputs.fewshot import after, fewer
from lamdatui.inputs.ownscorers import OwnScorer, own_scorer
from lamdatui.step.encoding import Encoder
from lamdatui.step.errors import StepError
from lamdatui.step.generate import Conversation, Sampling, prompt_ids
from lamdatui.step.generators import Generator, TransformersGenerator
from lamdatui.step.judge import part_of
from lamdatui.tasks.choice import rating_text
from lamdatui.tasks.scorers import score
from lamdatui.tasks.thinking import without_thinking


def _question(row: dict[str, Any], thinking: bool | None, examples: list[dict[str, Any]]) -> dict[str, Any]:
    found = asked(row)
    if "plain" in found:
        # A benchmark's text brings its own examples.
        return found
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

    Answers for a judge have no scores yet, and come with `parts`, what it is asked of each. `most`: only so many of the first rows; `positions` of the model bound the examples in the prompt. Raises Changed, StepError as `questions` does.
    """
    began = time.monotonic()

    def fits(asked: list[dict[str, Any]]) -> bool:
        longest = max(map(len, prompt_ids(tokenizer, list(map(conversation, asked)))))
        return longest + request["max_new_tokens"] <= positions

    rows, asked_for = (found[:most] for found in questions(request, fits))

    def progress(done: int) -> None:
        report(phase="evaluate", task=request["task"], done=done, total=len(rows))

    own = _own(request)
    progress(0)
    given = _rated(generator, asked_for, positions, progress) if request.get("rated") else {}
    left = [place for place in range(len(rows)) if place not in given]
    given |= _answered(generator, asked_for, left, request, lambda done: progress(len(rows) - len(left) + done))
    keeps = request.get("think") == "keep"
    # A model without a chat template can be asked in plain text.
    encoder = None if keeps or all(is_rated(one) or "plain" in one for one in asked_for) else Encoder(tokenizer)
    judged, scored, parts = bool(request.get("judge")), [], []
    for place, (row, question) in enumerate(zip(rows, asked_for, strict=True)):
        text, ended = given[place]
        asked_text = question.get("plain") or (encoder.ask(question) if encoder else "")
        said = text if keeps or is_rated(question) else without_thinking(text, asked_text)
        points = None if judged else _points(own, request, row, said)
        parts += [part_of(row, said)] if judged else []
        scored.append({"id": row["id"], "score": points, "completion": text, "ended": ended})
    return {
        "key": request["key"],
        "task": request["task"],
        "split": request["split"],
        "rows": scored,
        **({"parts": parts} if judged else {}),
        "seconds": round(time.monotonic() - began, 3),
    }


def conversation(row: dict[str, Any]) -> Conversation:
    """What a generator is given of a row."""
    return row.get("plain", row)


def _own(request: dict[str, Any]) -> OwnScorer | None:
    """The scorer that a person wrote, as it was when the run began. Raises Changed, StepError."""
    if not (source := request.get("scorer_source")):
        return None
    try:
        found = own_scorer(request["scorer"], step=True)
    except LamdatuiError as error:
        raise StepError("data", str(error)) from error
    if found.source != source:
        raise Changed(f"the scorer {request['scorer']} is not the one that the run began with", where=str(found.path))
    return found


def _points(own: OwnScorer | None, request: dict[str, Any], row: dict[str, Any], said: str) -> float:
    try:
        if own:
            return own.score(row["reference"], said)
        return score(request["scorer"], row["reference"], said, older=request.get("older", False))
    except (LamdatuiError, ValueError) as error:
        raise StepError("data", f"{request['task']}, row {row['id']!r}: {error}") from error


def _answered(
    generator: Generator,
    asked_for: list[dict[str, Any]],
    places: list[int],
    request: dict[str, Any],
    progress: Callable[[int], None],
) -> dict[int, tuple[str, bool]]:
    """Generated answers by place; rows with the same stops are asked together."""
    found: dict[int, tuple[str, bool]] = {}
    by_stops: dict[tuple[str, ...], list[int]] = {}
    for place in places:
        by_stops.setdefault(tuple(asked_for[place].get("until", ())), []).append(place)
    own = request.get("generation") == "own"
    for until, group in by_stops.items():
        how = Sampling(request["max_new_tokens"], until=until)
        conversations = [conversation(asked_for[place]) for place in group]
        before = len(found)
        given = generator.answers(conversations, how, progress=lambda done, before=before: progress(before + done), own=own)
        found |= {place: (text, ended) for place, ((text, ended),) in zip(group, given, strict=True)}
    return found


def _rated(
    generator: Generator, asked_for: list[dict[str, Any]], positions: int, progress: Callable[[int], None]
) -> dict[int, tuple[str, bool]]:
    """Log-likelihoods as text, by place. Raises StepError where the generator has no model of its own."""
    if not isinstance(generator, TransformersGenerator):
        raise StepError("generator", "log-likelihoods are measured by the model itself, not by a server")
    places = [place for place, row in enumerate(asked_for) if is_rated(row)]
    rows = [asked_for[place] for place in places]
    given = generator.rate(rows, positions=positions, progress=progress)
    return {
        place: (rating_text(row.get("choices", [row.get("plain", "")]), values), True)
        for place, row, values in zip(places, rows, given, strict=True)
    }
