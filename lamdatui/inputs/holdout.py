"""A task cut from training data: rows are held out so that no conversation and no question is on both sides."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.surrogates import escaped
from lamdatui.inputs.datafiles import DatasetRows
from lamdatui.inputs.overlap import question_of
from lamdatui.inputs.rowfiles import RowSource
from lamdatui.inputs.rowshapes import CONTEXT
from lamdatui.tasks.function_call import function_call

Row = Mapping[str, Any]
SHARE = 0.1
"""Of the records, at most this share is held out for each split."""
MOST = {"search": 100, "sealed": 200}
LEAST = 2
LONG = 12
"""Words in an answer from which on exact match says little."""


@dataclass(slots=True)
class Holdout:
    """A task's rows, what they are scored with, and which records (from 1) of each dataset may still be trained."""

    rows: list[dict[str, Any]]
    scorer: str
    questions: set[str] = field(default_factory=set)
    records: set[int] = field(default_factory=set)
    """Of the dataset that the rows are of."""


def hold_out(data: DatasetRows, seed: int = 0) -> Holdout | None:
    """Rows of a dataset of prompts and answers for a task; None where it is too small.

    Of rows with a call the call is the reference (`function_call`); where at least half of the rows have one, the task is of these alone.
    """
    last: dict[int, int] = {number: index for index, number in enumerate(data.numbers)}
    order = sorted(last)
    random.Random(seed).shuffle(order)
    calls = [number for number in order[:400] if _called(data.rows[last[number]]) is not None]
    is_calls = 2 * len(calls) >= min(len(order), 400)
    wanted = {split: min(most, int(len(order) * SHARE)) for split, most in MOST.items()}
    if min(wanted.values()) < LEAST:
        return None
    found = Holdout([], "function_call" if is_calls else "exact")
    texts: list[str] = []
    for split, count in wanted.items():
        for number in iter(lambda: order.pop() if order else None, None):
            row = data.rows[last[number]]
            question, reference = question_of(row["prompt"]), _called(row) if is_calls else _answer(row)
            if reference is None or not question or question in found.questions:
                continue
            held = {"id": f"{split}-{number}", "split": split, "messages": row["prompt"], "reference": reference}
            found.rows.append(held | {name: row[name] for name in CONTEXT if name in row})
            found.questions.add(question)
            found.records.add(number)
            texts += [] if is_calls else [str(reference)]
            count -= 1
            if not count:
                break
    if len({row["split"] for row in found.rows}) < len(wanted):
        return None
    if texts and sorted(len(text.split()) for text in texts)[len(texts) // 2] >= LONG:
        found.scorer = "word_f1"
    return found


def _answer(row: Row) -> str | None:
    text = row["completion"][-1]["content"].strip()
    return text or None


def _called(row: Row) -> dict[str, Any] | None:
    """The reference of a row whose answer is one call of a function that it offers; None for any other."""
    calls = row["completion"][-1].get("tool_calls", ())
    if len(calls) != 1:
        return None
    call = calls[0]["function"]
    functions = [tool["function"] for tool in row.get("tools", ()) if tool["function"]["name"] == call["name"]]
    if not functions or not isinstance(functions[0].get("parameters"), dict):
        return None
    allowed = {name: [value] for name, value in call["arguments"].items()}
    reference = {"function": functions, "answer": {call["name"]: allowed}}
    try:
        right = function_call(reference, json.dumps({"name": call["name"], "arguments": call["arguments"]}))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    # A call with arguments that its function does not declare could never be scored as right.
    return reference if right == 1.0 else None


def shared_records(data: DatasetRows, held: Holdout, records: Iterable[int] = ()) -> set[int]:
    """Records of a dataset that may not be trained: `records`, and those that ask what is held out."""
    found = set(records)
    for number, row in zip(data.numbers, data.rows, strict=True):
        turns = row.get("prompt", ())
        asked = (question_of(turns[: at + 1]) for at, turn in enumerate(turns) if turn["role"] == "user")
        if any(question in held.questions for question in asked):
            found.add(int(number))
    return found


def write_rest(source: Path, left_out: set[int], target: Path) -> int:
    """The rows of a source as they are, without some, as JSON lines; how many there are."""
    kept = 0
    with target.open("w", encoding="utf-8") as handle:
        for number, (_, value) in enumerate(RowSource(source), 1):
            if number not in left_out:
                handle.write(escaped(json.dumps(value, ensure_ascii=False, default=str)) + "\n")
                kept += 1
    return kept


def write_task(rows: Sequence[Row], target: Path) -> None:
    """A task's rows as JSON lines."""
    target.write_text("".join(escaped(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows), encoding="utf-8")
