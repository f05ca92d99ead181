"""The scorer `bfcl`: what is read as calls, the leaderboard's rules at their edges, and how its task files are made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.catalogue import bfcl as builder
from lamdatui.inputs.taskfiles import load_task
from lamdatui.tasks.bfcl import bfcl
from lamdatui.tasks.calls import MAX_CHARS, read_calls
from lamdatui.tasks.scorers import problem, score

TWO = [("a.b", {"x": 1, "y": ["é", True, None]}), ("c", {})]
OBJECTS = ['{"name": "a.b", "arguments": {"x": 1, "y": ["é", true, null]}}', '{"name": "c", "arguments": {}}']
LLAMA = [text.replace("arguments", "parameters") for text in OBJECTS]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in OBJECTS),
        f"Let me see.\n<tool_call>{OBJECTS[0]}</tool_call> and <tool_call>{OBJECTS[1]}</tool_call> Done.",
        f"<tool_call>\n{OBJECTS[0]}\n</tool_call>\n<tool_call>\nno JSON\n</tool_call>\n<tool_call>\n{OBJECTS[1]}\n</tool_call>",
        "; ".join(LLAMA),
        "\n".join(LLAMA),
        ", ".join(LLAMA),
        f"<|python_tag|>{'; '.join(LLAMA)}",
        f"[{', '.join(LLAMA)}]",
        f"[TOOL_CALLS][{', '.join(OBJECTS)}]",
        f"I call two functions. [TOOL_CALLS] [{', '.join(OBJECTS)}]",
        f'[TOOL_CALLS][{OBJECTS[0]}, {{"name": "c", "arguments": {{}}, "id": "abcdefghi"}}]',
        f"```json\n[{', '.join(OBJECTS)}]\n```",
        f'[{OBJECTS[0]}, {{"name": "c", "arguments": "{{}}"}}]',
        "[{'name': 'a.b', 'parameters': {'x': 1, 'y': ['é', True, None]}}, {'name': 'c', 'parameters': {}}]",
        "[a.b(x=1, y=['é', True, None]), c()]",
        "a.b(x=1, y=['é', True, None]), c()",
        '[TOOL_CALLS]a.b[ARGS]{"x": 1, "y": ["é", true, null]}[TOOL_CALLS]c[ARGS]{}',
        'a.b{"x": 1, "y": ["é", true, null]}c{}',
        "```a.b(x=1, y=['é', True, None]), c()```",
        "```python\n[a.b(x=1, y=['é', True, None]), c('not by name')]\n```",
    ],
)
def test_calls_are_read_in_each_familys_form(text: str) -> None:
    assert read_calls(text) == TWO


@pytest.mark.parametrize(
    "text",
    [
        "I can't do that.",
        "Sorry",
        f"Sure: {OBJECTS[0]}",
        f"{OBJECTS[0]} is what I call.",
        OBJECTS[0][:-1],
        '{"name": "c"}',
        '{"name": 1, "arguments": {}}',
        '{"name": "c", "arguments": [1]}',
        '{"name": "c", "arguments": "x"}',
        "[1]",
        '<tool_call>\n{"name": "c"}\n</tool_call>',
        'c{"a": 1} d',
        "<tool_call>\n[]\n</tool_call>",
        "[c(a=1), 2]",
        "[c(a=-'x')]",
        "[c(a={1})]",
        "[c(a={[]: 1})]",
        "[c(a={**b})]",
        "[c(a=--1)]",
        "[c(a=lambda: 1)]",
        "[c(a=f'{1}')]",
        "[c(a='x' * 3)]",
        "[c(a=1 / 0)]",
        "[c(a=b + 1)]",
    ],
)
def test_what_holds_more_or_less_than_calls_is_none(text: str) -> None:
    assert read_calls(text) is None


def test_an_unfinished_tag_or_an_empty_list_is_no_call() -> None:
    assert read_calls(f"<tool_call>\n{OBJECTS[0]}") == []
    assert read_calls("[]") == read_calls("") == []


def test_a_python_value_means_what_it_means_to_the_leaderboard() -> None:
    text = "[f(a=x, b=g(), c=g(d=1), e=h[0], i=..., j=2 * 3 - -1, k=+5, l=not True, m=(1, 'a'), n='a' + 'b', **o)]"
    assert read_calls(text) == [
        (
            "f",
            {
                "a": "x",
                "b": "g()",
                "c": {"g": {"d": 1}},
                "e": "h[0]",
                "i": "...",
                "j": 7,
                "k": -5,
                "l": -1,
                "m": (1, "a"),
                "n": "ab",
                None: "o",
            },
        )
    ]


def test_nothing_of_an_answer_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for code in (f"__import__('pathlib').Path({str(trace)!r}).touch()", f"open({str(trace)!r}, 'w') + 1"):
        for text in (
            f"[f(a={code})]",
            f"[{code}]",
            f'{{"name": "f", "parameters": {{"a": {code}}}}}',
            f"[f(a=[x for x in [{code}]])]",
        ):
            assert bfcl(REFERENCE, text) == 0.0
    assert not trace.exists()


PIECES = (
    "<tool_call>",
    "</tool_call>",
    *OBJECTS,
    *LLAMA,
    "[TOOL_CALLS]",
    "[ARGS]",
    "```",
    "[",
    "]",
    "f(",
    "a=",
    "'x'",
    "1",
    ",",
    ")",
    "\n",
)
HOSTILE = [
    "[" * 100_000,
    "[" * 9_000,
    '{"name":' * 5_000,
    '[{"name": "f", "arguments": ' + '{"a":' * 8_000,
    "<tool_call>" * 4_000,
    "<tool_call>{" * 4_000 + "</tool_call>",
    "[f(a=" + "-" * 9_000 + "1)]",
    "[f(a=" + "(" * 150 + ")" * 150 + ")]",
    "[f(a=" + "not " * 2_000 + "1)]",
    "[f(a=x" + ".x" * 4_000 + ")]",
    "[f(a=1" + "**9" * 40 + ")]",
    "[f(a=9" + "*9**60" * 40 + ")]",
    "[f(a='x'" + " + 'x'" * 1_500 + ")]",
    "[f(a=" + "9" * 9_000 + ")]",
    '[{"name": "f", "arguments": {"a": ' + "9" * 9_000 + "}}]",
    "[f(a=" + "lambda: " * 1_000 + "1)]",
    "[f(a=f'" + "{" * 1_000 + "')]",
    "f(" * 4_000,
    "\\" * 9_000,
    "'" * 9_000,
    '"\\' * 4_500,
    "[TOOL_CALLS]" * 4_000,
    "```" * 9_000,
    ";" * 40_000,
    "<tool_call>" + " " * 40_000 + "x",
    "```" + " " * 40_000 + "x",
    "a" * 40_000,
    "a" + "\n" * 40_000 + "x",
    "a{}" * 10_000 + "a",
    "[" + " " * 40_000 + "x",
    "{}" + "; " * 20_000 + "x",
    "'\\" * 4_500,
    "\0[f()]",
    "\ud800(a=1)",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_wrong_in_bounded_time(text: str) -> None:
    started = time.process_time()
    assert score("bfcl", REFERENCE, text) == 0.0
    assert time.process_time() - started < 2


@given(st.text(alphabet="[](){}=,:;'\"\\ `f1.-*<>/\n") | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_answer_makes_it_raise(text: str) -> None:
    assert score("bfcl", REFERENCE, text) in (0.0, 1.0)
    assert score("bfcl", {"want": "none"}, text) == (not read_calls(text))


def test_a_long_answer_is_no_call() -> None:
    assert read_calls(" " * MAX_CHARS + "[f()]") == [("f", {})]
    assert read_calls("[f(a='" + "x" * MAX_CHARS + "')]") is None


PROPERTIES: dict[str, Any] = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "rate": {"type": "float"},
    "flag": {"type": "boolean"},
    "names": {"type": "array", "items": {"type": "string"}},
    "rates": {"type": "array", "items": {"type": "float"}},
    "pair": {"type": "tuple", "items": {"type": "integer"}},
    "guest": {"type": "dict"},
    "guests": {"type": "array", "items": {"type": "dict"}},
    "what": {"type": "any"},
    "undefined": {"type": "string"},
}
ALLOWED: dict[str, list[Any]] = {
    "text": ["New York, NY", "NYC"],
    "count": ["", 3, "n"],
    "rate": ["", 2.0, 2.5],
    "flag": ["", True],
    "names": ["", ["Rome", "The-Paris"]],
    "rates": ["", [1.0, 2.5]],
    "pair": ["", [1, 2]],
    "guest": ["", {"name": ["Ann", "Bob"], "age": [30, ""], "tags": [["A"]]}],
    "guests": ["", [{"name": ["Ann"]}, {"name": ["Bob", ""]}]],
    "what": ["", 7],
}
REFERENCE: dict[str, Any] = {
    "want": "calls",
    "function": [{"name": "book.room", "parameters": {"properties": PROPERTIES, "required": ["text"]}}],
    "answer": [{"book.room": ALLOWED}],
}


def answer(name: str = "book.room", **arguments: Any) -> str:
    return f"[{name}({', '.join(f'{key}={value!r}' for key, value in {'text': 'NYC', **arguments}.items())})]"


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({}, True),
        ({"text": "new york NY"}, True),
        ({"text": "New York; NY"}, False),
        ({"text": ""}, False),
        ({"count": 3}, True),
        ({"count": 3.0}, False),
        ({"count": "3"}, False),
        ({"count": True}, False),
        ({"rate": 2}, True),
        ({"rate": 2.5}, True),
        ({"rate": 10**400}, False),
        ({"rate": True}, False),
        ({"rate": float("inf")}, False),
        ({"flag": True}, True),
        ({"flag": 1}, False),
        ({"flag": False}, False),
        ({"names": ["rome", "the paris"]}, True),
        ({"names": ["the paris", "rome"]}, False),
        ({"names": ["rome"]}, False),
        ({"names": ("rome", "the paris")}, False),
        # "" among the allowed lists is an empty list to that checker.
        ({"names": []}, True),
        ({"names": ""}, False),
        ({"rates": [1.0, 2.5]}, True),
        # A whole number is no float within a list, as it is outside of one.
        ({"rates": [1, 2.5]}, True),
        ({"pair": (1, 2)}, True),
        ({"pair": [1, 2]}, True),
        ({"pair": [1, 3]}, False),
        ({"guest": {"name": "ann", "tags": ["A"]}}, True),
        # What is nested deeper is compared as it stands.
        ({"guest": {"name": "ann", "tags": ["a"]}}, False),
        ({"guest": {"name": "Ann", "age": 31, "tags": ["A"]}}, False),
        ({"guest": {"name": "Ann"}}, False),
        ({"guest": {"name": "Ann", "tags": ["A"], "more": 1}}, False),
        ({"guest": [{"name": "Ann"}]}, False),
        ({"guests": [{"name": "Ann"}, {"name": "bob"}]}, True),
        ({"guests": [{"name": "Ann"}, {}]}, True),
        ({"guests": [{"name": "Bob"}, {"name": "Ann"}]}, False),
        ({"guests": [{"name": "Ann"}]}, False),
        ({"guests": ["Ann", "Bob"]}, False),
        ({"what": 7}, True),
        ({"what": "7"}, False),
        ({"undefined": "x"}, False),
        ({"more": 1}, False),
    ],
)
def test_the_leaderboards_rules(arguments: dict[str, Any], right: bool) -> None:
    assert bfcl(REFERENCE, answer(**arguments)) == right


def test_a_list_that_may_be_left_out_lets_its_elements_be_of_any_type() -> None:
    """As that checker has it: "" is no list, so that it asks nothing of the elements; without it a whole number is no float."""
    strict = {**REFERENCE, "answer": [{"book.room": {**ALLOWED, "rates": [[1.0, 2.5]]}}]}
    assert bfcl(strict, answer(rates=[1.0, 2.5])) == 1.0
    assert bfcl(strict, answer(rates=[1, 2.5])) == 0.0
    assert bfcl(strict, answer()) == 0.0


def test_names_with_dots_may_have_underscores() -> None:
    assert [bfcl(REFERENCE, answer(name)) for name in ("book.room", "book_room", "room", "Book.room")] == [1, 1, 0, 0]


def test_required_arguments_are_needed_even_where_the_answer_lets_them_out() -> None:
    optional = {**REFERENCE, "answer": [{"book.room": {"text": ["", "NYC"]}}]}
    assert [bfcl(optional, text) for text in ("[book.room()]", "[book.room(text='NYC')]")] == [0, 1]


def several(*answers: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    names = {name for each in answers for name in each}
    functions = [
        {"name": name, "parameters": {"properties": {"a": {"type": "integer"}}, "required": []}} for name in sorted(names)
    ]
    return {"want": "calls", "function": functions, "answer": list(answers)}


def test_several_calls_come_in_any_order_and_each_once() -> None:
    reference = several({"f": {"a": [1]}}, {"f": {"a": [2]}}, {"g": {"a": ["", 3]}})
    right = ("[f(a=1), f(a=2), g()]", "[g(a=3), f(a=2), f(a=1)]")
    wrong = ("[f(a=1), f(a=1), g()]", "[f(a=1), f(a=2)]", "[f(a=1), f(a=2), g(), g()]", "[f(a=1), f(a=2), g(a=4)]", "[]")
    assert [bfcl(reference, text) for text in right + wrong] == [1, 1, 0, 0, 0, 0, 0]


def test_the_first_call_that_suits_is_taken() -> None:
    """No other distribution is tried, as that checker tries none."""
    reference = several({"f": {"a": [1, 2]}}, {"f": {"a": [1]}})
    assert [bfcl(reference, text) for text in ("[f(a=2), f(a=1)]", "[f(a=1), f(a=2)]")] == [1, 0]


def test_no_call_and_any_call() -> None:
    texts = ("No.", "[]", "[f()]", OBJECTS[1], "[f(]")
    assert [bfcl({"want": "none"}, text) for text in texts] == [1, 1, 0, 0, 1]
    assert [bfcl({"want": "some"}, text) for text in texts] == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"want": "call"}, "want is one of"),
        ({"answer": []}, "no call"),
        ({"answer": [{"g": {}}]}, "not among the functions"),
        ({"answer": [{"book.room": {"text": "NYC"}}]}, "are a list"),
        ({"answer": [{"book.room": {"guest": [{"name": "Ann"}]}}]}, "maps each key"),
        ({"answer": [{"book.room": {"guests": [[{"name": 1}]]}}]}, "maps each key"),
        ({"answer": [{"book.room": {"names": [["a"], 1]}}]}, "is no array"),
        ({"answer": [{"book.room": {}, "g": {}}]}, "ValueError"),
        ({"function": [{"name": "book.room"}]}, "KeyError"),
        ({"function": [{"name": "book.room", "parameters": {"properties": {"a": {"type": "set"}}, "required": []}}]}, "'set'"),
        (
            {"function": [{"name": "book.room", "parameters": {"properties": {"a": {"type": "array"}}, "required": []}}]},
            "items",
        ),
    ],
)
def test_a_bad_reference_is_found_before_a_run(change: dict[str, Any], told: str) -> None:
    assert problem("bfcl", REFERENCE) is None
    assert told in (problem("bfcl", {**REFERENCE, **change}) or "")


def function(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Book.",
        "parameters": {
            "type": "dict",
            "properties": {
                "rate": {"type": "float", "description": "A rate."},
                "what": {"type": "any"},
                "pairs": {"type": "array", "items": {"type": "tuple", "items": {"type": "float"}}},
                "guests": {"type": "array", "items": {"type": "dict", "properties": {"age": {"type": "integer"}}}},
                "guest": {"type": "dict", "properties": {"rate": {"type": "float", "description": "Theirs."}}},
            },
            "required": ["rate"],
        },
    }


def test_functions_are_offered_as_the_leaderboard_offers_them() -> None:
    given = function("book.room")
    before = json.dumps(given)
    number = {"type": "number", "format": "float"}
    assert builder.tool(given) == {
        "type": "function",
        "function": {
            "name": "book_room",
            "description": "Book. Note that the provided function is in Python 3 syntax.",
            "parameters": {
                "type": "object",
                "properties": {
                    "rate": {**number, "description": "A rate. This is a float type value."},
                    "what": {"type": "string"},
                    "pairs": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                    "guests": {"type": "array", "items": {"type": "object", "properties": {"age": {"type": "integer"}}}},
                    "guest": {
                        "type": "object",
                        "properties": {"rate": {**number, "description": "Theirs. This is a float type value."}},
                    },
                },
                "required": ["rate"],
            },
        },
    }
    assert json.dumps(given) == before


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Task files of a few rows a category: every fourth asks what another category asks, and each function is called by two rows."""
    source, target = tmp_path / "bfcl", tmp_path / "made"
    (source / "possible_answer").mkdir(parents=True)
    target.mkdir()
    for category, want in builder.WANTS.items():
        rows, answers = [], []
        for number in range(8):
            question = f"Shared {'abcdefgh'[number]} 5?" if number % 4 == 0 else f"{category} {'abcdefgh'[number]} 5?"
            name = f"{category}.f{number // 2}"
            rows.append(
                {
                    "id": f"{category}_{number}",
                    "question": [[{"role": "user", "content": question}]],
                    "function": [function(name)],
                }
            )
            answers.append({"id": f"{category}_{number}", "ground_truth": [{name: {"rate": [float(number)]}}]})
        (source / f"BFCL_v4_{category}.json").write_text("\n".join(map(json.dumps, rows)))
        if want == "calls":
            (source / "possible_answer" / f"BFCL_v4_{category}.json").write_text("\n".join(map(json.dumps, answers)))
    monkeypatch.setattr(builder, "resolve", lambda reference: source)
    builder.build(target, lambda line: None)
    return target


def test_the_files_are_tasks_of_two_halves_that_share_nothing(made: Path) -> None:
    sides: dict[str, set[str]] = {}
    for category, want in builder.WANTS.items():
        task = load_task(category, made / f"{category}.jsonl", "bfcl", 64, {})
        for split, rows in task.rows.items():
            assert rows
            for row in rows:
                assert row["reference"]["want"] == want
                assert row["tools"][0]["function"]["name"].startswith(f"{category}_f")
                for key in (
                    row["messages"][0]["content"],
                    *(name for each in row["reference"].get("answer", ()) for name in each),
                ):
                    sides.setdefault(key, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    first = json.loads((made / "simple_python.jsonl").read_text().splitlines()[1])
    assert score("bfcl", first["reference"], "[simple_python.f0(rate=1)]") == 1.0
    assert score("bfcl", first["reference"], "[simple_python.f0(rate=2)]") == 0.0


def test_the_files_are_the_same_when_they_are_made_again(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    builder.build(again, lambda line: None)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in made.iterdir()
    }
