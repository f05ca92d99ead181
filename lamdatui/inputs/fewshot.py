"""Examples in the prompt: what a model can do that is shown a few rows of training data, and is not trained (Brown et al. 2020,
arXiv 2005.14165)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from lamdatui.inputs.messages import message_chars

SHOTS = 5
CHARS = 6000
"""Of all examples together: about 1,500 tokens, which leaves room in small contexts."""
LOOKED_AT = 2000
"""Rows from which they are drawn."""


def examples(rows: Sequence[dict[str, Any]], seed: int, shots: int = SHOTS) -> tuple[dict[str, Any], ...]:
    """Messages of so many rows with an answer (`prompt`, `completion`), drawn by the seed from the shorter half: all have to fit into a prompt.

    What a row's system message says stands before its question: a conversation has but one such message, and each example its own.
    """
    rng = random.Random(f"{seed}/few-shot")
    some = [rows[index] for index in sorted(rng.sample(range(len(rows)), min(LOOKED_AT, len(rows))))]
    shortest = sorted(some, key=_chars)[: max(shots, len(some) // 2)]
    short = [row for row in shortest if _chars(row) <= CHARS // shots]
    drawn = rng.sample(short, min(shots, len(short)))
    return tuple(message for row in drawn for message in [*_folded(row["prompt"]), *row["completion"]])


def _chars(row: dict[str, Any]) -> int:
    return sum(map(message_chars, [*row["prompt"], *row["completion"]]))


def after(shown: Sequence[dict[str, Any]], question: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A question's messages after the examples, written as these are."""
    return [*shown, *_folded(question)]


def fewer(shown: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without the first question and its answer."""
    first = next((place for place, message in enumerate(shown) if message["role"] == "assistant"), len(shown))
    return list(itertools.dropwhile(lambda message: message["role"] != "user", shown[first + 1 :]))


def _folded(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages without a system message at their head: the user's first one has its text."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return list(messages)
    first, second, *others = messages
    return [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *others]
