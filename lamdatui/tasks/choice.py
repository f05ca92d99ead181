"""Choices that are rated by their log-likelihood: how they are written as an answer, and the scorer `choice`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

BY = ("total", "characters", "bytes")
"""What a log-likelihood is divided by before choices are compared: nothing, or the choice's length."""


def rating_text(texts: Sequence[str], rated: Sequence[tuple[float, bool]]) -> str:
    """An answer that is log-likelihoods (nats) as JSON text: of each choice, and whether greedy decoding would say it."""
    return json.dumps(
        [
            {"choice": text, "logprob": round(value, 6), "greedy": greedy}
            for text, (value, greedy) in zip(texts, rated, strict=True)
        ],
        ensure_ascii=False,
    )


def ratings(completion: str) -> list[tuple[str, float, bool]]:
    """The choices of such a text, their log-likelihoods, whether they are greedy. Raises ValueError for another text."""
    try:
        return [(str(one["choice"]), float(one["logprob"]), bool(one["greedy"])) for one in json.loads(completion)]
    except (TypeError, KeyError) as error:
        raise ValueError("the answer holds no log-likelihoods") from error


def choice(reference: Any, completion: str) -> float:
    """1.0 when the likeliest choice is the right one: its number from 0, its text, a list of them, or `{"answer": …, "by": one of BY}`."""
    told = reference if isinstance(reference, dict) else {"answer": reference}
    wanted = told["answer"] if isinstance(told["answer"], list) else [told["answer"]]
    try:
        found = ratings(completion)
    except ValueError:
        return 0.0
    if not found:
        return 0.0
    lengths = {"total": lambda _: 1, "characters": len, "bytes": lambda text: len(text.encode())}[told.get("by", "total")]
    values = [value / lengths(text) for text, value, _ in found]
    best = max(range(len(values)), key=lambda place: values[place])  # the first of equals
    return float(best in wanted or found[best][0] in wanted)


def choice_problem(reference: Any) -> str | None:
    """What is wrong with a reference, or None."""
    told = reference if isinstance(reference, dict) else {"answer": reference}
    wanted = told.get("answer")
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if not wanted or not all(isinstance(one, str) or (type(one) is int and one >= 0) for one in wanted):
        return "it is a choice's number from 0, its text, or a list of them"
    if told.keys() - {"answer", "by"} or told.get("by", "total") not in BY:
        return f"beside answer there may be by, one of {', '.join(BY)}"
    return None
