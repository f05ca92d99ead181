"""Single-turn categories of the Berkeley Function-Calling Leaderboard as task files for the scorer `bfcl`, made from the entry `bfcl`.

Functions are offered as the leaderboard offers them to models with tools of their own: JSON schema's types, `_` for `.` in names, one more
sentence in each description (package `bfcl-eval`, `model_handler/utils.py` and `utils.py`, Apache-2.0; code of our own).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_jsonl, write_atomic
from lamdatui.catalogue.fetch import resolve
from lamdatui.catalogue.quickstart_calls import connected, normal_text
from lamdatui.tasks.bfcl import NESTED, bfcl_problem, underscored

WANTS = {
    "simple_python": "calls",
    "multiple": "calls",
    "parallel": "calls",
    "parallel_multiple": "calls",
    "irrelevance": "none",
    "live_simple": "calls",
    "live_multiple": "calls",
    "live_parallel": "calls",
    "live_parallel_multiple": "calls",
    "live_irrelevance": "none",
    "live_relevance": "some",
}
"""Category → what its rows want (`lamdatui.tasks.bfcl.WANTS`)."""
SPLITS = ("search", "sealed")
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"} | {
    name: name for name in ("string", "integer", "number", "boolean", "array", "object")
}
"""Declared type → JSON schema's."""
HINT = " Note that the provided function is in Python 3 syntax."
FLOAT = " This is a float type value."


def build(target: Path, say: Callable[[str], None]) -> None:
    """Write `CATEGORY.jsonl` of each category, both splits, into `target`. Raises LamdatuiError."""
    folder = resolve("catalogue:bfcl")
    files = {category: read_category(folder, category) for category in WANTS}
    sides = split_rows(files)
    for category, rows in files.items():
        done = [task_row(row, WANTS[category], sides[row["id"]]) for row in rows]
        write_atomic(target / f"{category}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done))
        counts = ", ".join(f"{sum(row['split'] == split for row in done)} {split}" for split in SPLITS)
        say(f"{category}: {counts}")
    write_atomic(
        target / "LICENCE", "Apache-2.0: made from the data of the package bfcl-eval (Berkeley Function-Calling Leaderboard)\n"
    )


def read_category(folder: Path, category: str) -> list[dict[str, Any]]:
    """Rows of one category of the entry `bfcl`, those that want calls with `answer`. Raises LamdatuiError for one without."""
    name = f"BFCL_v4_{category}.json"
    rows = [row for _, row in read_jsonl(folder / name)]
    if WANTS[category] == "calls":
        answers = {row["id"]: row["ground_truth"] for _, row in read_jsonl(folder / "possible_answer" / name)}
        for row in rows:
            if row["id"] not in answers:
                raise LamdatuiError(f"row {row['id']} has no answer", where=str(folder / name))
            row["answer"] = answers[row["id"]]
    return rows


def split_rows(files: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Row id → split: halves of each category, as near as may be, the same whenever the rows are.

    Rows of all categories that ask the same question (case, punctuation and digits aside), or call a function of one name (case, `.` and `_`
    aside), stay on one side. These groups are dealt from the largest to the smallest, ties by their first row, each to the side that has the
    smaller share so far of the categories that the group is of.
    """
    groups = connected((row for rows in files.values() for row in rows), _keys)
    category_of = {row["id"]: category for category, rows in files.items() for row in rows}
    ahead: dict[str, float] = defaultdict(float)
    sides: dict[str, str] = {}
    for group in sorted(groups, key=len, reverse=True):
        lean = sum(ahead[category_of[row["id"]]] / len(files[category_of[row["id"]]]) for row in group)
        side = SPLITS[lean > 0]
        for row in group:
            sides[row["id"]] = side
            ahead[category_of[row["id"]]] += 1 if side == SPLITS[0] else -1
    return sides


def _keys(row: dict[str, Any]) -> list[Hashable]:
    """What a row asks, and the functions that it calls."""
    asked = normal_text(" ".join(message["content"] for message in row["question"][0]))
    called = [underscored(next(iter(wanted))).casefold() for wanted in row.get("answer", ())]
    return [("question", asked), *(("function", name) for name in called)]


def task_row(row: dict[str, Any], want: str, split: str) -> dict[str, Any]:
    """A row of a task file. Raises LamdatuiError where the scorer can't judge it."""
    wanted: dict[str, Any] = {"want": want}
    if want == "calls":
        called = {name for each in row["answer"] for name in each}
        functions = [_judged(function) for function in row["function"] if function["name"] in called]
        wanted |= {"function": functions, "answer": row["answer"]}
    if wrong := bfcl_problem(wanted):
        raise LamdatuiError(f"row {row['id']} can't be judged: {wrong}")
    offered = {"tools": [tool(function) for function in row["function"]]} if row["function"] else {}
    return {"id": row["id"], "split": split, "messages": row["question"][0], **offered, "reference": wanted}


def _judged(function: dict[str, Any]) -> dict[str, Any]:
    """What the scorer reads of a function."""
    properties = {
        name: {"type": schema["type"]} | ({"items": {"type": schema["items"]["type"]}} if schema["type"] in NESTED else {})
        for name, schema in function["parameters"]["properties"].items()
    }
    return {
        "name": function["name"],
        "parameters": {"properties": properties, "required": function["parameters"]["required"]},
    }


def tool(function: dict[str, Any]) -> dict[str, Any]:
    """A function of BFCL as chat templates take tools."""
    parameters = {**function["parameters"], "type": "object"}
    parameters["properties"] = _properties(parameters["properties"])
    return {
        "type": "function",
        "function": {
            **function,
            "name": underscored(function["name"]),
            "description": function["description"] + HINT,
            "parameters": parameters,
        },
    }


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _schema(schema) for name, schema in properties.items()}


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    found = {**schema, "type": JSON_TYPES.get(schema.get("type", "any"), "string")}
    if schema.get("type") == "float":
        found |= {"format": "float", "description": schema["description"] + FLOAT}
    return _inside(found)


def _inside(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with those within it; of elements only the type is another."""
    if schema["type"] == "object" or schema["type"] == "array":
        if "properties" in schema:
            return {**schema, "properties": _properties(schema["properties"])}
        if "items" in schema:
            items = {**schema["items"], "type": JSON_TYPES[schema["items"]["type"]]}
            return {**schema, "items": _inside(items)}
    return schema
