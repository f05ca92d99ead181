"""Rows of tasks that stand in training data: what a model was trained on does not tell what it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is asked in a conversation: its last turn by a user, without regard to case and spaces; empty where there is none."""
    asked = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    return " ".join(asked.casefold().split())


def shared(asked: Iterable[str], task: Mapping[str, Sequence[Row]]) -> dict[str, tuple[int, str]]:
    """Split → how many of a dataset's questions are asked by the task, too, and the first of them; splits without one are left out."""
    splits = {split: {question_of(row["messages"]) for row in held} - {""} for split, held in task.items()}
    found: dict[str, tuple[int, str]] = {}
    for question in asked:
        for split, questions in splits.items():
            if question in questions:
                count, first = found.get(split, (0, question))
                found[split] = (count + 1, first)
    return found
