"""Verdicts of the scorer `bfcl` against the Berkeley leaderboard's own checker: every row of its single-turn categories, right answers and changed ones.

    python -m bench.bfcl_verdicts PYTHON [--seed 1] [--show 20]

PYTHON is the interpreter of an environment in which `bfcl_eval.eval_checker.ast_eval.ast_checker` can be imported (`pip install --no-deps
bfcl-eval`, and what its handlers import: no torch). It reads answers and judges them there, in a process of its own; ours never sees that code.
The data is that of `lamdatui models fetch bfcl`.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lamdatui.catalogue.bfcl import WANTS, read_category, split_rows, task_row
from lamdatui.catalogue.fetch import resolve
from lamdatui.tasks.bfcl import bfcl, underscored
from lamdatui.tasks.scorers import problem

OFFICIAL = r"""
import copy, json, sys
from bfcl_eval.constants.enums import Language, ModelStyle, ReturnFormat
from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING
from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
from bfcl_eval.model_handler.local_inference.hammer import HammerHandler
from bfcl_eval.model_handler.local_inference.qwen_fc import QwenFCHandler
from bfcl_eval.model_handler.utils import convert_to_tool, default_decode_ast_prompting
from bfcl_eval.utils import add_language_specific_hint_to_function_doc, is_empty_output, is_function_calling_format_output

names = [name for name in MODEL_CONFIG_MAPPING if "_" not in name]
models = {dots: next(n for n in names if MODEL_CONFIG_MAPPING[n].underscore_to_dot is not dots) for dots in (True, False)}
qwen, hammer = object.__new__(QwenFCHandler), object.__new__(HammerHandler)
readers = {
    "tags": lambda text: qwen.decode_ast(text, ReturnFormat.PYTHON, False),
    "list": lambda text: hammer.decode_ast(text, ReturnFormat.PYTHON, False),
    "syntax": lambda text: default_decode_ast_prompting(text, ReturnFormat.PYTHON, False),
}
given = json.load(sys.stdin)

def verdict(row, form, text):
    try:
        calls, is_call = readers[form](text), True
        is_call = not is_empty_output(calls)
    except Exception:
        calls, is_call = None, False
    if row["want"] != "calls":
        return is_call == (row["want"] == "some")
    if calls is None or not is_function_calling_format_output(calls):
        return False
    try:
        return ast_checker(row["function"], calls, row["answer"], Language.PYTHON, row["category"], models[form == "syntax"])["valid"]
    except Exception as error:
        return type(error).__name__

verdicts = [verdict(given["rows"][id], form, text) for id, form, text in given["pairs"]]
entries = [{"id": id, "function": copy.deepcopy(row["function"])} for id, row in given["rows"].items()]
tools = {
    entry["id"]: convert_to_tool(entry["function"], GORILLA_TO_OPENAPI, ModelStyle.OPENAI_COMPLETIONS)
    for entry in add_language_specific_hint_to_function_doc(entries)
}
json.dump({"verdicts": verdicts, "tools": tools}, sys.stdout)
"""
FORMS = ("tags", "list", "syntax")
MOST_TEXTS = 12
"""Answers to a row that wants no call, or any."""
Calls = list[tuple[str, dict[str, Any]]]


class Pair(NamedTuple):
    """A row and an answer to it, in one of `FORMS`, with what was done to a right one."""

    row: str
    kind: str
    form: str
    text: str


def written(calls: Calls, form: str) -> str:
    """Calls as a model writes them."""
    if form == "syntax":
        given = [(name, ", ".join(f"{key}={value!r}" for key, value in arguments.items())) for name, arguments in calls]
        return f"[{', '.join(f'{name}({arguments})' for name, arguments in given)}]"
    values = [json.dumps({"name": underscored(name), "arguments": arguments}) for name, arguments in calls]
    return f"[{', '.join(values)}]" if form == "list" else "\n".join(f"<tool_call>\n{value}\n</tool_call>" for value in values)


def concrete(value: Any, rng: random.Random | None) -> Any:
    """An allowed value as a call has it: each key of an object has one of its own."""
    if isinstance(value, dict):
        chosen = {key: pick(allowed, rng) for key, allowed in value.items() if isinstance(allowed, list)}
        return {key: one for key, one in chosen.items() if one != ""}
    return [concrete(one, rng) for one in value] if isinstance(value, list) else value


def pick(allowed: list[Any], rng: random.Random | None) -> Any:
    """The first allowed value, or any; "" where it may be left out only, or where the draw says so."""
    values = allowed if rng else [one for one in allowed if one != ""]
    return concrete(rng.choice(values) if rng else values[0], rng) if values else ""


def right(row: dict[str, Any], rng: random.Random | None, *, optional: bool = True) -> Calls:
    """Calls of the allowed values: the first ones, or drawn; without what may be left out if not `optional`."""
    calls = []
    for wanted in row["answer"]:
        ((name, allowed),) = wanted.items()
        arguments = {key: pick(choices, rng) for key, choices in allowed.items() if optional or "" not in choices}
        calls.append((name, {key: value for key, value in arguments.items() if value != ""}))
    return calls


def _texts(change: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: change(value) if isinstance(value, str) else value


def _lists(change: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: change(value) if isinstance(value, list) else value


def _objects(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: change(value) if isinstance(value, dict) else value


def _numbers(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: change(value) if type(value) in (int, float) else value


CHANGES: dict[str, Callable[[Any], Any]] = {
    "number + 1": _numbers(lambda value: value + 1),
    "number + tiny": _numbers(lambda value: value + 1e-9),
    "minus number": _numbers(lambda value: -value),
    "number to float": _numbers(float),
    "number to int": _numbers(int),
    "number to text": _numbers(str),
    "number to bool": _numbers(bool),
    "huge number": _numbers(lambda value: 10**400),
    "bool to int": lambda value: int(value) if isinstance(value, bool) else value,
    "bool to text": lambda value: str(value) if isinstance(value, bool) else value,
    "bool turned": lambda value: not value if isinstance(value, bool) else value,
    "upper case": _texts(str.upper),
    "punctuation": _texts(lambda text: ",".join(text.split()) + "."),
    "other punctuation": _texts(lambda text: text + "!"),
    "spaces": _texts(lambda text: f"  {text} "),
    "tab": _texts(lambda text: f"{text}\t"),
    "quotes": _texts(lambda text: text.replace('"', "'") if '"' in text else text.replace("'", '"')),
    "accent": _texts(lambda text: text.replace("e", "é")),
    "dotted capital": _texts(lambda text: text.replace("i", "İ")),
    "other script": _texts(lambda text: text + "漢字"),
    "text cut": _texts(lambda text: text[:-1]),
    "text to list": _texts(lambda text: [text]),
    "text to number": _texts(lambda text: 7),
    "reversed": _lists(lambda values: values[::-1]),
    "one less": _lists(lambda values: values[:-1]),
    "twice the last": _lists(lambda values: [*values, *values[-1:]]),
    "list in a list": _lists(lambda values: [values]),
    "list to its first": _lists(lambda values: values[0] if values else values),
    "list to tuple": _lists(tuple),
    "list of texts": _lists(lambda values: [str(each) for each in values]),
    "list of floats": _lists(lambda values: [float(each) if type(each) is int else each for each in values]),
    "list of ints": _lists(lambda values: [int(each) if type(each) is float else each for each in values]),
    "list in upper case": _lists(lambda values: [each.upper() if isinstance(each, str) else each for each in values]),
    "one key less": _objects(lambda value: dict(list(value.items())[:-1])),
    "one key more": _objects(lambda value: {**value, "more": 1}),
    "object to list": _objects(lambda value: [value]),
    "object to text": _objects(json.dumps),
    "to none": lambda value: None,
    "to empty text": lambda value: "",
    "to empty list": lambda value: [],
    "to empty object": lambda value: {},
    "to one": lambda value: 1,
    "to true": lambda value: True,
    "to nan": lambda value: float("nan"),
}


def within(value: Any, change: Callable[[Any], Any], rng: random.Random) -> Any:
    """A value with the change at a place inside it."""
    if isinstance(value, list | dict) and value:
        place = rng.randrange(len(value)) if isinstance(value, list) else rng.choice(sorted(value))
        found = copy.copy(value)
        found[place] = within(value[place], change, rng)
        return found
    return change(value)


def changed_values(calls: Calls, rng: random.Random) -> Iterator[tuple[str, Calls]]:
    """Each change of `CHANGES` at an argument that it changes, and inside one."""
    places = [(at, key) for at, (_, arguments) in enumerate(calls) for key in arguments]
    rng.shuffle(places)
    for kind, change in CHANGES.items():
        for told, apply in ((kind, change), (f"inside: {kind}", lambda value, change=change: within(value, change, rng))):
            for at, key in places:
                value = calls[at][1][key]
                if told != kind and not isinstance(value, list | dict):
                    continue
                other = apply(value)
                if repr(other) != repr(value):
                    found = copy.deepcopy(calls)
                    found[at][1][key] = other
                    yield told, found
                    break


def changed_calls(row: dict[str, Any], calls: Calls, rng: random.Random) -> Iterator[tuple[str, Calls]]:
    """Other arguments, names, numbers and orders of calls."""
    at = rng.randrange(len(calls))
    name, arguments = calls[at]

    def instead(*others: tuple[str, dict[str, Any]]) -> Calls:
        return [*calls[:at], *others, *calls[at + 1 :]]

    for key in arguments:
        yield "argument missing", instead((name, {other: value for other, value in arguments.items() if other != key}))
    yield "argument more", instead((name, {**arguments, "verbose": True}))
    spare = [
        key
        for each in row["function"]
        if each["name"] == name
        for key in each["parameters"]["properties"]
        if key not in arguments
    ]
    if spare:
        yield "declared argument more", instead((name, {**arguments, rng.choice(spare): "x"}))
    yield "no arguments", instead((name, {}))
    yield "function of another name", instead((name + "_by_name", arguments))
    yield "function's name in upper case", instead((name.upper(), arguments))
    others = [each["name"] for each in row["function"] if each["name"] != name]
    if others:
        yield "another offered function", instead((rng.choice(others), arguments))
    yield "calls reversed", calls[::-1]
    yield "calls shuffled", rng.sample(calls, len(calls))
    yield "call twice", [*calls, calls[at]]
    yield "call missing", instead()
    yield "call in place of another", [*calls[:-1], calls[0]]
    yield "arguments reversed", instead((name, dict(reversed(arguments.items()))))


TEXTS: dict[str, tuple[str, ...]] = {
    "tags": (
        "I can't help with that.",
        "<tool_call>\nnot JSON\n</tool_call>",
        '<tool_call>\n{"name": "f"}\n</tool_call>',
        "<tool_call>\n[]\n</tool_call>",
        'Well.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\nDone.',
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}',
        '<tool_call>\n{"name": "f", "arguments": {"a": NaN}}\n</tool_call>\n<tool_call>\noh\n</tool_call>',
    ),
    "list": (
        "[]",
        "I would call f.",
        '[{"name": "f"}]',
        '[{"name": "f", "arguments": {}}',
        "[1]",
        '```[{"name": "f", "arguments": {}}]```',
    ),
    "syntax": (
        "",
        "[]",
        "I'm sorry, I can't.",
        "Sorry",
        "[f]",
        "f()",
        "`[f(1, 2)]`",
        "```\n[f(a=-1), g.h(b=2 * 3)]\n```",
        "[f(a=x, b=g(), c=g(d=1), e=h[0], f=..., **k)]",
        "[f(a={1, 2})]",
        "[f(a=lambda: 1)]",
        "[f(a=not True, b=+5)]",
        "[f(a=1), 2]",
        "[f(a=1)] Done.",
        "f(a=1), g(b=(1, 2))",
        "[f(a=--5)]",
        "[f(a={**b})]",
        "[f(a='x' 'y', b=b'z', c=1j)]",
        "[f(a=[g(b=1)])]",
        "'[f(a=1)]'",
    ),
}


def pairs_of(row: dict[str, Any], want: str, rng: random.Random) -> Iterator[Pair]:
    """The answers to a row; each change in one of the forms, in turn."""
    texts = [("text", form, text) for form, each in TEXTS.items() for text in each]
    if want != "calls":
        calls = [(each["name"], {}) for each in row["function"]] or [("f", {"a": 1})]
        texts += [("call", form, written(calls[:1], form)) for form in FORMS]
        texts += [("calls", form, written(calls * 2, form)) for form in FORMS]
        for kind, form, text in rng.sample(texts, MOST_TEXTS):
            yield Pair(row["id"], kind, form, text)
        return
    for form in FORMS:
        yield Pair(row["id"], "right", form, written(right(row, None), form))
        yield Pair(row["id"], "right, drawn", form, written(right(row, rng), form))
        yield Pair(row["id"], "right, the least", form, written(right(row, None, optional=False), form))
    kind, form, text = rng.choice(texts)
    yield Pair(row["id"], kind, form, text)
    calls = right(row, None)
    changes = [*changed_calls(row, calls, rng), *changed_values(calls, rng)]
    start = rng.randrange(len(FORMS))
    for number, (kind, other) in enumerate(changes, start):
        # A tuple is one in Python's syntax only.
        form = "syntax" if kind.endswith("tuple") else FORMS[number % len(FORMS)]
        yield Pair(row["id"], kind, form, written(other, form))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", metavar="PYTHON")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="disagreements to print")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = {category: read_category(resolve("catalogue:bfcl"), category) for category in WANTS}
    sides = split_rows(files)
    made = {row["id"]: task_row(row, WANTS[name], sides[row["id"]]) for name, rows in files.items() for row in rows}
    bad = [(id, wrong) for id, row in made.items() if (wrong := problem("bfcl", row["reference"]))]
    pairs = [pair for name, rows in files.items() for row in rows for pair in pairs_of(row, WANTS[name], rng)]
    sent = {
        "rows": {
            row["id"]: {"want": WANTS[name], "category": name, "function": row["function"], "answer": row.get("answer")}
            for name, rows in files.items()
            for row in rows
        },
        "pairs": [(pair.row, pair.form, pair.text) for pair in pairs],
    }
    done = subprocess.run([options.python, "-c", OFFICIAL], input=json.dumps(sent), capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return 1
    theirs = json.loads(done.stdout)
    counts: dict[str, Counter[str]] = {}
    shown = 0
    for pair, told in zip(pairs, theirs["verdicts"], strict=True):
        ours = bfcl(made[pair.row]["reference"], pair.text) == 1.0
        # What makes that checker stumble ends its evaluation: no right answer.
        agrees = ours is (told is True)
        count = counts.setdefault(pair.kind, Counter())
        count.update(n=1, agree=agrees, right=told is True, stumbled=isinstance(told, str))
        if not agrees and shown < options.show:
            shown += 1
            print(f"{pair.row}, {pair.kind}, {pair.form}: ours {ours}, theirs {told}: {pair.text[:300]}")
    # Templates write them as they stand, so that the order of their keys counts.
    tools = sum(json.dumps(made[id].get("tools", [])) == json.dumps(each) for id, each in theirs["tools"].items())
    print(f"{'answer':40} {'n':>7} {'agree':>7} {'right':>7} {'stumbled':>8}")
    for kind, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{kind:40} {count['n']:7} {count['agree']:7} {count['right']:7} {count['stumbled']:8}")
    print(f"rows: {len(made)}, with a reference that is refused: {len(bad)}; tools as the leaderboard converts them: {tools}")
    for id, wrong in bad[: options.show]:
        print(f"{id}: {wrong}")
    return 0 if all(count["n"] == count["agree"] for count in counts.values()) and tools == len(made) and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
