"""The quickstart data: splits that share nothing, right answers that are right, wrong ones that are wrong.

Every test runs on invented rows; where the catalogue entry `bfcl` was fetched, on the real ones too.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.base.jsonio import read_jsonl
from lamdatui.catalogue import fetch, quickstart
from lamdatui.catalogue import quickstart_calls as calls
from lamdatui.catalogue import quickstart_instructions as instructions
from lamdatui.inputs.datafiles import normalise
from lamdatui.inputs.overlap import shared_rows
from lamdatui.tasks.scorers import problem, score

REAL = fetch.local("bfcl")
DATASETS = ("function_calls", "instructions", "mix", "preferences", "instruction_preferences")


def invented_row(number: int) -> dict[str, Any]:
    """Rows in BFCL's shape; every fourth repeats an earlier question, every fifth an earlier function."""
    topic, name = number - number % 4 // 3, number - number % 5 // 4
    town = "Town" + "".join(chr(97 + int(digit)) for digit in str(topic))
    return {
        "id": f"row_{number}",
        "question": [[{"role": "user", "content": f"How far is {town} in 5 km?"}]],
        "function": [
            {
                "name": f"distance_{name}",
                "description": "Tell a distance. More words.",
                "parameters": {
                    "type": "dict",
                    "properties": {"town": {"type": "string"}, "km": {"type": "integer"}},
                    "required": ["town"],
                },
            }
        ],
        "answer": {f"distance_{name}": {"town": [town], "km": [5, ""]}},
    }


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bfcl")
    (folder / "possible_answer").mkdir()
    rows = [invented_row(number) for number in range(600)]
    for name, part in zip(calls.FILES, (rows[:400], rows[400:]), strict=True):
        answers = [{"id": row["id"], "ground_truth": [row["answer"]]} for row in part]
        (folder / name).write_text("\n".join(json.dumps(row) for row in part))
        (folder / "possible_answer" / name).write_text("\n".join(json.dumps(row) for row in answers))
    return folder


def fake_answer(conversations: list[Any], tokens: int, what: str) -> list[str]:
    return [
        "The thing is useful, and people enjoy it. It has a long history in the world. Many kinds of it exist today. "
        f"This is answer {number} and it goes on with some more words until"
        for number, _ in enumerate(conversations)
    ]


@pytest.fixture(scope="module", params=["invented", "real"])
def data(request: pytest.FixtureRequest, invented: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real" and REAL is None:
        pytest.skip("bfcl was not fetched: lamdatui models fetch bfcl")
    target = tmp_path_factory.mktemp(request.param)
    quickstart.build_from(REAL if request.param == "real" and REAL else invented, fake_answer, target, lambda line: None)
    return target


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(folder / f"{name}.jsonl")]


def prompt_of(row: dict[str, Any]) -> list[dict[str, str]]:
    return row["prompt"] if "prompt" in row else row["messages"][:-1]


def test_tool_use_splits_and_training_share_no_function_and_no_question(data: Path) -> None:
    held: dict[str, tuple[set[str], set[str]]] = {"search": (set(), set()), "sealed": (set(), set())}
    for row in rows_of(data, "tool_use"):
        functions, questions = held[row["split"]]
        functions.update(name.casefold() for name in row["reference"]["answer"])
        questions.add(calls.normal_text(row["messages"][-1]["content"]))
    assert not held["search"][0] & held["sealed"][0]
    assert not held["search"][1] & held["sealed"][1]
    functions, questions = held["search"][0] | held["sealed"][0], held["search"][1] | held["sealed"][1]
    for name in DATASETS:
        for row in rows_of(data, name):
            prompt = prompt_of(row)
            assert calls.normal_text(prompt[-1]["content"]) not in questions
            assert not offered(prompt) & functions


def offered(prompt: list[dict[str, str]]) -> set[str]:
    """Names of the functions that a prompt offers, in one case."""
    return {name.casefold() for name in re.findall(r'\{"name": "([^"]+)", "arguments"', prompt[0]["content"])}


def test_training_calls_no_function_that_a_task_offers(data: Path) -> None:
    held = {name for row in rows_of(data, "tool_use") for name in offered(row["messages"])}
    called = {json.loads(row["messages"][-1]["content"])["name"].casefold() for row in rows_of(data, "function_calls")}
    assert held and called and not held & called


def test_no_training_row_shares_thirteen_words_with_a_task(data: Path) -> None:
    for task in ("tool_use", "format_constraints"):
        held = rows_of(data, task)
        for name in DATASETS:
            shared = shared_rows([normalise(row) for row in rows_of(data, name)], held)
            assert not shared, (task, name, shared)


def test_no_evaluation_prompt_is_in_any_training_file(data: Path) -> None:
    tasks = rows_of(data, "tool_use") + rows_of(data, "format_constraints")
    prompts = [json.dumps(row["messages"]) for row in tasks]
    assert len(set(prompts)) == len(prompts)
    trained = {json.dumps(prompt_of(row)) for name in DATASETS for row in rows_of(data, name)}
    assert not trained & set(prompts)


def test_instruction_splits_and_training_share_no_topic(data: Path) -> None:
    pairs = instructions.split_topics(quickstart.INSTRUCTION_SIZES, quickstart.SEED)
    topics = {split: {topic for topic, _ in part} for split, part in pairs.items()}
    assert not topics["search"] & topics["sealed"]
    assert not (topics["search"] | topics["sealed"]) & topics["train"]
    questions = {question for split in ("search", "sealed") for _, question in pairs[split]}
    for row in rows_of(data, "instructions"):
        assert not any(row["messages"][0]["content"].startswith(question) for question in questions)


def test_tasks_have_enough_rows_with_references_that_their_scorer_takes(data: Path) -> None:
    for name, scorer, least in (
        ("tool_use", "function_call", {"search": 48, "sealed": 110}),
        ("format_constraints", "constraints", {"search": 32, "sealed": 72}),
    ):
        rows = rows_of(data, name)
        assert len({row["id"] for row in rows}) == len(rows)
        for split, wanted in least.items():
            assert sum(row["split"] == split for row in rows) >= wanted
        assert [problem(scorer, row["reference"]) for row in rows] == [None] * len(rows)


def test_every_kind_of_instruction_is_in_both_splits(data: Path) -> None:
    for split in ("search", "sealed"):
        kinds = {
            constraint["kind"]
            for row in rows_of(data, "format_constraints")
            if row["split"] == split
            for constraint in row["reference"]["constraints"]
        }
        assert kinds == {*instructions.FORM_KINDS, *instructions.CONTENT_KINDS}


def test_datasets_hold_conversations_in_the_two_formats(data: Path) -> None:
    for name in DATASETS:
        rows = rows_of(data, name)
        assert len(rows) >= 24
        for row in rows:
            ends = [row["messages"]] if "messages" in row else [row["chosen"], row["rejected"]]
            assert all(end[-1]["role"] == "assistant" and end[-1]["content"].strip() for end in ends)


def test_the_mix_is_made_of_both_kinds(data: Path) -> None:
    mixed = {json.dumps(row) for row in rows_of(data, "mix")}
    for name in ("function_calls", "instructions"):
        assert mixed & {json.dumps(row) for row in rows_of(data, name)}


@pytest.mark.skipif(REAL is None, reason="bfcl was not fetched")
def test_the_real_rows_all_have_a_right_call_and_only_wrong_calls_are_rejected() -> None:
    assert REAL is not None
    rng = random.Random(0)
    for number, row in enumerate(calls.load_rows(REAL)):
        gold = calls.gold_call(row)
        assert gold is not None
        reference = calls.reference(row)
        assert score("function_call", reference, calls.call_text(gold)) == 1.0
        wrong = calls.wrong_call(row, gold, number, rng)
        assert wrong is None or score("function_call", reference, wrong) == 0.0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40), st.integers(0, 5))
def test_groups_never_share_a_function_or_a_question(links: list[tuple[int, int]], seed: int) -> None:
    rows = [
        calls.CallRow(str(place), f"ask {chr(97 + question)}", ({"name": f"f{name}"},), {f"f{name}": {}})
        for place, (name, question) in enumerate(links)
    ]
    groups = calls.group_rows(rows)
    assert sorted(row.id for group in groups for row in group) == sorted(row.id for row in rows)
    for place, group in enumerate(groups):
        for other in groups[place + 1 :]:
            assert not {row.called for row in group} & {row.called for row in other}
            assert not {row.question for row in group} & {row.question for row in other}


@given(st.text(max_size=300), st.integers(0, 83))
def test_a_repaired_answer_always_satisfies_its_prompt(answer: str, number: int) -> None:
    for prompt, text in instructions.training_rows([("tea", "Describe tea.")] * 84, [answer] * 84, 1, number):
        assert score("constraints", prompt.reference, text) == 1.0


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (1000, True),
        (0.5, True),
        (-2, True),
        ("rome", True),
        (["Rome", 2], True),
        ({"city": "Rome"}, True),
        (5, False),
        ("Paris", False),
        (["Rome", 3], False),
    ],
)
def test_only_rows_whose_values_the_question_states_are_asked(value: Any, stated: bool) -> None:
    function = {"name": "f", "parameters": {"properties": {"x": {"type": "any"}}, "required": ["x"]}}
    allowed = {"city": ["Rome"]} if isinstance(value, dict) else value
    row = calls.CallRow("r", "Go to Rome for $1,000 with 0.50 and -2.0.", (function,), {"f": {"x": [allowed]}})
    assert calls.answerable(row) is stated


def test_a_signature_says_types_choices_and_what_is_optional() -> None:
    function = {
        "name": "f",
        "description": "Do it. And more.",
        "parameters": {
            "properties": {
                "a": {"type": "array", "items": {"type": "integer"}},
                "b": {"type": "string", "enum": ["x", "y"]},
                "c": {"type": "dict", "properties": {"d": {"type": "float"}}},
            },
            "required": ["a"],
        },
    }
    line = 'Do it: {"name": "f", "arguments": {"a": [integer], "b": "x"|"y"?, "c": {d: float}?}}'
    assert calls.signature(function) == line
