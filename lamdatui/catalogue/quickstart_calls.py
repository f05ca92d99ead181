"""The tool-use half of the quickstart data: BFCL rows as prompts, gold calls, splits that share nothing, wrong calls.

BFCL is an evaluation set. Part of its rows are trained on here, the rest are held out, so that scores on the held-out
rows compare the models of one run with each other; they are not BFCL scores.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_jsonl
from lamdatui.tasks.function_call import function_call

Item = TypeVar("Item")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

FILES = ("BFCL_v4_simple_python.json", "BFCL_v4_multiple.json")
DESCRIPTION_CHARS = 90
SYSTEM = (
    "Functions that you can call:\n{functions}\n"
    "Answer with one JSON object only: the function's name and the arguments' values."
)


@dataclass(frozen=True)
class CallRow:
    """One question with the functions on offer and the answers that are accepted for the wanted one."""

    id: str
    question: str
    functions: tuple[dict[str, Any], ...]
    answer: dict[str, dict[str, list[Any]]]

    @property
    def called(self) -> str:
        """The wanted function's name."""
        return next(iter(self.answer))


def load_rows(bfcl: Path) -> list[CallRow]:
    """The rows of the fetched `bfcl` entry, in file order. Raises LamdatuiError when a question has no answer."""
    rows: list[CallRow] = []
    for name in FILES:
        answers = {row["id"]: row["ground_truth"] for _, row in read_jsonl(bfcl / "possible_answer" / name)}
        for number, row in read_jsonl(bfcl / name):
            if row["id"] not in answers:
                raise LamdatuiError(f"row {row['id']} has no answer", where=f"{bfcl / name}, line {number}")
            question = row["question"][0][-1]["content"].strip()
            rows.append(CallRow(row["id"], question, tuple(row["function"]), answers[row["id"]][0]))
    return rows


def normal_text(text: str) -> str:
    """One spelling for questions that differ in case, punctuation, spaces or digits only."""
    return re.sub(r"\d+", "0", " ".join(re.findall(r"\w+", text.lower())))


def connected(items: Iterable[Item], keys: Callable[[Item], Sequence[Hashable]]) -> list[list[Item]]:
    """Classes of items that share a key, or are linked by others that do, in order of appearance; each item has a key or more."""
    parent: dict[Hashable, Hashable] = {}

    def find(node: Hashable) -> Hashable:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    keyed = [(item, keys(item)) for item in items]
    for _, (first, *others) in keyed:
        for other in others:
            parent[find(other)] = find(first)
    groups: dict[Hashable, list[Item]] = {}
    for item, (first, *_) in keyed:
        groups.setdefault(find(first), []).append(item)
    return list(groups.values())


def group_rows(rows: Iterable[CallRow]) -> list[list[CallRow]]:
    """Classes of rows connected by the called function's name, in whatever case, or by the question's text, in order of appearance."""
    return connected(rows, lambda row: (("question", normal_text(row.question)), ("function", row.called.casefold())))


def split_rows(rows: list[CallRow], sizes: dict[str, int], seed: int) -> dict[str, list[CallRow]]:
    """Whole groups dealt to the splits of `sizes` (at least that many rows each), the rest to "train".

    A held-out split asks each question once, so that its rows are independent. A training row that merely offers a
    function which a held-out row calls is dropped, and one that calls what a held-out row merely offers. Raises IndexError when there are
    too few rows.
    """
    groups = group_rows(rows)
    random.Random(seed).shuffle(groups)
    splits: dict[str, list[CallRow]] = {}
    for name, size in sizes.items():
        chosen: dict[str, CallRow] = {}
        while len(chosen) < size:
            for row in groups.pop():
                chosen.setdefault(normal_text(row.question), row)
        splits[name] = list(chosen.values())
    held = [row for part in splits.values() for row in part]
    called, offered = {row.called.casefold() for row in held}, {name for row in held for name in _offered(row)}
    splits["train"] = [
        row for group in groups for row in group if not called & _offered(row) and row.called.casefold() not in offered
    ]
    return splits


def _offered(row: CallRow) -> set[str]:
    return {function["name"].casefold() for function in row.functions}


def _type_text(schema: dict[str, Any]) -> str:
    if schema.get("enum"):
        return "|".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if schema["type"] in ("array", "tuple"):
        return f"[{_type_text(schema['items'])}]" if schema.get("items") else "array"
    if schema["type"] == "dict" and schema.get("properties"):
        return "{" + ", ".join(f"{name}: {_type_text(inner)}" for name, inner in schema["properties"].items()) + "}"
    return str(schema["type"])


def signature(function: dict[str, Any]) -> str:
    """A function on one line: what it does, then the call with each argument's type in its place, `type?` if optional.

    Written so, a call is the line with values filled in, which a small model learns several times faster than from a
    JSON schema, at a fraction of the tokens.
    """
    required = function["parameters"].get("required", ())
    arguments = ", ".join(
        f'"{name}": {_type_text(schema)}{"" if name in required else "?"}'
        for name, schema in function["parameters"]["properties"].items()
    )
    what = function.get("description", "").split(". ")[0].strip()[:DESCRIPTION_CHARS].rstrip(" .")
    return f'{what}: {{"name": "{function["name"]}", "arguments": {{{arguments}}}}}'


def prompt(row: CallRow) -> list[dict[str, str]]:
    """The row as chat messages: system with the signatures, then the question."""
    functions = "\n".join(f"- {signature(function)}" for function in row.functions)
    return [
        {"role": "system", "content": SYSTEM.format(functions=functions)},
        {"role": "user", "content": row.question},
    ]


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Only what the scorer reads of a parameter's schema."""
    slim: dict[str, Any] = {"type": schema["type"]}
    if schema.get("items"):
        slim["items"] = _schema(schema["items"])
    if schema.get("properties"):
        slim["properties"] = {name: _schema(inner) for name, inner in schema["properties"].items()}
    return slim


def reference(row: CallRow) -> dict[str, Any]:
    """What the scorer `function_call` needs of a row."""
    functions = [
        {
            "name": function["name"],
            "parameters": {
                "properties": {name: _schema(inner) for name, inner in function["parameters"]["properties"].items()},
                "required": function["parameters"].get("required", []),
            },
        }
        for function in row.functions
        if function["name"] == row.called
    ]
    return {"function": functions, "answer": row.answer}


def _stated(value: Any, question: str) -> bool:
    """Whether the question names a value: a string as it is, a number also with other zeros or thousands commas."""
    if isinstance(value, list):
        return all(_stated(one, question) for one in value)
    if isinstance(value, dict):
        return all(_stated(one, question) for one in value.values())
    if isinstance(value, int | float) and not isinstance(value, bool):
        numbers = (text.replace(",", "") for text in _NUMBER.findall(question))
        return any(abs(float(text)) == abs(value) for text in numbers)
    return str(value).lower() in question.lower()


def _plain_value(value: Any, question: str) -> Any:
    """An allowed value as it is written in a call: inside objects BFCL lists the allowed values of each key."""
    if isinstance(value, dict):
        chosen = {key: _choose(allowed, question) for key, allowed in value.items() if isinstance(allowed, list)}
        return {key: one for key, one in chosen.items() if one != ""}
    if isinstance(value, list):
        return [_plain_value(one, question) for one in value]
    return value


def _choose(allowed: list[Any], question: str) -> Any:
    """The allowed value that the question states, else the first."""
    values = [value for value in allowed if value != ""]
    if not values:
        return ""
    return _plain_value(next((value for value in values if _stated(value, question)), values[0]), question)


def gold_call(row: CallRow) -> dict[str, Any] | None:
    """A right call for the row, as short as the question allows: an optional argument is given only when the question
    states its value. None when no call made so passes the scorer (a few rows of BFCL contradict their own schema)."""
    (schema,) = [function for function in row.functions if function["name"] == row.called][:1]
    required = schema["parameters"].get("required", ())
    arguments: dict[str, Any] = {}
    for name, allowed in row.answer[row.called].items():
        value = _choose(allowed, row.question)
        optional = "" in allowed and name not in required
        if value == "" or (optional and (isinstance(value, bool) or not _stated(value, row.question))):
            continue
        arguments[name] = value
    call = {"name": row.called, "arguments": arguments}
    return call if function_call(reference(row), json.dumps(call)) == 1.0 else None


def answerable(row: CallRow) -> bool:
    """Whether the question and the one-line signatures are enough: each needed value is stated, a choice or a yes/no.

    BFCL often puts what a value must look like into long descriptions of the parameters, which are left out here.
    """
    gold = gold_call(row)
    if gold is None:
        return False
    (schema,) = [function for function in row.functions if function["name"] == row.called][:1]
    properties = schema["parameters"]["properties"]
    return all(
        isinstance(value, bool) or bool(properties[name].get("enum")) or _stated(value, row.question)
        for name, value in gold["arguments"].items()
    )


def call_text(call: dict[str, Any]) -> str:
    """A call as the model is to write it."""
    return json.dumps(call, ensure_ascii=False)


def _other_value(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice([1, 5, 10]) if rng.random() < 0.5 else value * 10 + 1
    if isinstance(value, str):
        words = value.split()
        return " ".join(words[:-1]) if len(words) > 1 else value + rng.choice(["s list", " data", " of 2020"])
    if isinstance(value, list) and value:
        return value[:-1] if rng.random() < 0.5 else [*value[:-1], _other_value(value[-1], rng)]
    return "unknown"


def _wrong_value(call: dict[str, Any], row: CallRow, rng: random.Random) -> dict[str, Any]:
    name = rng.choice(sorted(call["arguments"]))
    return {**call, "arguments": {**call["arguments"], name: _other_value(call["arguments"][name], rng)}}


def _missing_argument(call: dict[str, Any], row: CallRow, rng: random.Random) -> dict[str, Any]:
    name = rng.choice(sorted(call["arguments"]))
    return {**call, "arguments": {key: value for key, value in call["arguments"].items() if key != name}}


def _invented_argument(call: dict[str, Any], row: CallRow, rng: random.Random) -> dict[str, Any]:
    name, value = rng.choice([("format", "json"), ("unit", "default"), ("limit", 10), ("verbose", True)])
    return {**call, "arguments": {**call["arguments"], name: value}}


def _wrong_function(call: dict[str, Any], row: CallRow, rng: random.Random) -> dict[str, Any]:
    others = [function["name"] for function in row.functions if function["name"] != row.called]
    return {**call, "name": rng.choice(others) if others else row.called.split(".")[-1] + "_by_name"}


def _number_as_text(call: dict[str, Any], row: CallRow, rng: random.Random) -> dict[str, Any]:
    changed = {key: str(value) if isinstance(value, int | float) else value for key, value in call["arguments"].items()}
    return {**call, "arguments": changed}


CORRUPTIONS: tuple[Callable[[dict[str, Any], CallRow, random.Random], dict[str, Any]], ...] = (
    _wrong_value,
    _missing_argument,
    _wrong_function,
    _wrong_value,
    _invented_argument,
    _number_as_text,
)


def wrong_call(row: CallRow, call: dict[str, Any], kind: int, rng: random.Random) -> str | None:
    """`call` made wrong by corruption number `kind` (modulo their number), as text; None when it stays right."""
    if not call["arguments"]:
        return None
    text = call_text(CORRUPTIONS[kind % len(CORRUPTIONS)](call, row, rng))
    return text if function_call(reference(row), text) == 0.0 else None
