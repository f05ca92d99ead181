"""The function-call scorer: what is read as a call, and which values count as right."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.tasks.function_call import function_call, parse_call, standard_string, why_wrong
from lamdatui.tasks.scorers import score

REFERENCE = {
    "function": [
        {
            "name": "book.room",
            "parameters": {
                "properties": {
                    "city": {"type": "string"},
                    "nights": {"type": "integer"},
                    "price": {"type": "float"},
                    "breakfast": {"type": "boolean"},
                    "stops": {"type": "array", "items": {"type": "string"}},
                    "points": {"type": "array", "items": {"type": "float"}},
                    "guest": {"type": "dict", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
                },
                "required": ["city", "nights"],
            },
        }
    ],
    "answer": {
        "book.room": {
            "city": ["New York, NY", "NYC"],
            "nights": [3],
            "price": ["", 99.5, 100.0],
            "breakfast": ["", True],
            "stops": ["", ["Rome", "Paris"]],
            "points": ["", [1.0, 2.5]],
            "guest": ["", {"name": ["Ann"], "age": [30, ""]}],
        }
    },
}


def call(name: str = "book.room", **arguments: object) -> str:
    return json.dumps({"name": name, "arguments": {"city": "NYC", "nights": 3, **arguments}})


@pytest.mark.parametrize(
    "completion",
    [
        call(),
        f"```json\n{call()}\n```",
        f"Sure, here it is: {call()} Anything else?",
        f"<tool_call>\n{call()}\n</tool_call>",
        f"<tool_call>{call()}",
        f"In braces {{like this}}: {call()}",
    ],
)
def test_a_call_is_found_bare_fenced_tagged_or_in_prose(completion: str) -> None:
    assert function_call(REFERENCE, completion) == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "book.room(city='NYC', nights=3)",
        call()[:-1],
        f"{call()} {call()}",
        '{"note": 1} ' + call(),
        '{"name": "book.room", "arguments": ["NYC", 3]}',
        '{"name": "book.room", "arguments": {"city": "NYC", "nights": NaN}}',
        "{" * 5000,
        '{"a":' * 5000,
        "[" * 30000,
        '{"name": "book.room", "arguments": {"city": "NYC", "nights": ' + "9" * 6000 + "}}",
    ],
)
def test_anything_else_scores_nothing_and_does_not_raise(completion: str) -> None:
    assert function_call(REFERENCE, completion) == 0.0


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"city": "new york ny"}, True),
        ({"city": "New-York, N.Y."}, True),
        ({"city": "York"}, False),
        ({"nights": "3"}, False),
        ({"nights": 3.0}, False),
        ({"nights": True}, False),
        ({"price": 100}, True),
        ({"price": 99.5}, True),
        ({"price": "100"}, False),
        ({"price": 98}, False),
        ({"price": ""}, False),
        ({"breakfast": True}, True),
        ({"breakfast": 1}, False),
        ({"breakfast": "true"}, False),
        ({"stops": ["rome", "paris"]}, True),
        ({"stops": ["Paris", "Rome"]}, False),
        ({"stops": ["Rome"]}, False),
        ({"stops": "Rome, Paris"}, False),
        ({"points": [1, 2.5]}, True),
        ({"points": [True, 2.5]}, False),
        ({"guest": {"name": "ann"}}, True),
        ({"guest": {"name": "Ann", "age": 30}}, True),
        ({"guest": {"age": 30}}, False),
        ({"guest": {"name": "Ann", "email": "a"}}, False),
        ({"guest": None}, False),
        ({"colour": "red"}, False),
    ],
)
def test_values_are_compared_as_the_leaderboard_does(arguments: dict[str, object], right: bool) -> None:
    assert function_call(REFERENCE, call(**arguments)) == float(right)


def test_a_wrong_function_or_a_missing_required_argument_is_wrong() -> None:
    assert why_wrong(REFERENCE, call("book_room")) == "called 'book_room', wanted 'book.room'"
    assert why_wrong(REFERENCE, '{"name": "book.room", "arguments": {"city": "NYC"}}') == "argument 'nights' is missing"


def test_a_required_argument_must_be_given_also_where_the_answers_would_let_it_go() -> None:
    reference = {
        "function": [{"name": "f", "parameters": {"properties": {"x": {"type": "boolean"}}, "required": ["x"]}}],
        "answer": {"f": {"x": [True, ""]}},
    }
    assert function_call(reference, '{"name": "f", "arguments": {}}') == 0.0


def test_string_spelling_ignores_case_space_and_punctuation() -> None:
    assert standard_string("April 1, 2024") == standard_string("april 1,2024") == "april12024"
    assert standard_string("it's") == 'it"s'


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    assert score("function_call", REFERENCE, text) in (0.0, 1.0)
    parse_call(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_argument_value_makes_it_raise(value: object) -> None:
    for name in ("city", "price", "stops", "guest"):
        assert function_call(REFERENCE, call(**{name: value})) in (0.0, 1.0)
