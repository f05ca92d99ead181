"""Settings, grammars, prompts and the reading of answers: everything about the planner that needs no server."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.errors import LamdatuiError
from lamdatui.planner import answers, grammar
from lamdatui.planner.client import Answer, PlannerError, TokenChoice, endpoint
from lamdatui.planner.prompts import FIELDS, PROMPTS, PromptBook, folder_loader
from lamdatui.planner.settings import PlannerSettings

PROMPT_DIR = Path(__file__).parent.parent / "prompts"


def test_settings_name_the_field_that_cannot_work():
    with pytest.raises(LamdatuiError, match=r"planner\.context"):
        PlannerSettings(model="m.gguf", context=10)
    with pytest.raises(LamdatuiError, match=r"planner\.shortlist is between 2 and 26"):
        PlannerSettings(model="m.gguf", shortlist=27)
    with pytest.raises(LamdatuiError, match=r"planner\.url"):
        PlannerSettings(backend="openai")
    with pytest.raises(LamdatuiError, match=r"planner\.model"):
        PlannerSettings()


def test_prompt_budget_leaves_room_for_the_answer():
    assert PlannerSettings(model="m", context=4096).prompt_budget == 900
    assert PlannerSettings(model="m", context=600).prompt_budget == 380


def test_literals_are_escaped_for_the_grammar():
    assert grammar.literal('a"b\\c\n') == r'"a\"b\\c\x0A"'
    assert grammar.one_of(["sft", "dpo"]) == 'root ::= "sft" | "dpo"'
    for broken in (grammar.one_of, grammar.choice):
        with pytest.raises(ValueError, match="nothing to choose"):
            broken([])
    with pytest.raises(ValueError, match="name"):
        grammar.one_of([""])


def test_schemas_admit_only_the_ids():
    schema = grammar.choice_schema(["A", "B"])
    assert schema["properties"]["choice"]["enum"] == ["A", "B"]
    assert schema["required"] == ["choice", "reason"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("text", ["sft", " sft\n", '{"type": "sft"}', '```json\n{"type": "sft"}\n```'])
def test_a_choice_is_read_through_its_wrapping(text):
    assert answers.pick(text, "type", ["dpo", "sft"]) == "sft"


@pytest.mark.parametrize("text", ["", "grpo", "sft or dpo", "{}", '{"type": 3}', '{"type": ["sft"]}', "[1]", '{"type": "sft"'])
def test_an_answer_outside_the_options_is_an_error(text):
    with pytest.raises(PlannerError, match="none of the 2 options"):
        answers.pick(text, "type", ["dpo", "sft"])


@settings(deadline=None)
@given(st.text(max_size=400), st.integers(10, 200))
def test_shown_text_is_one_printable_line(text, limit):
    line = answers.plain(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert line == line.strip()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_answer_breaks_the_reader(text):
    try:
        chosen, reason = answers.pick_with_reason(text, ["A", "B"])
    except PlannerError:
        return
    assert chosen in ("A", "B")
    assert reason.isprintable()


def test_memory_ends_with_a_whole_sentence():
    assert answers.whole_sentences("SFT helps.\nMerging keeps it. Next try") == "SFT helps. Merging keeps it."
    assert answers.whole_sentences("only a fragment") == "only a fragment"
    assert answers.whole_sentences("gained 0.4 and then") == "gained 0.4 and then"


def test_weights_are_read_where_the_choice_was_made():
    text = '{"choice": "B", "reason": "A"}'
    tokens = [TokenChoice(part, (("A", -9.0),)) for part in ('{"', "choice", '":', ' "')]
    tokens.append(TokenChoice("B", (("B", math.log(0.3)), ("A", math.log(0.1)), ("The", -1.0))))
    tokens += [TokenChoice(part, (("A", 0.0),)) for part in ('", "', "reason", '": "', "A", '"}')]
    weights = answers.weights(Answer(text, 20, 0.1, tuple(tokens)), ["A", "B", "C"])
    assert weights["B"] == pytest.approx(0.75)
    assert weights["A"] == pytest.approx(0.25)
    assert weights["C"] is None
    assert answers.weights(Answer(text, 20, 0.1), ["A", "B"]) == {"A": None, "B": None}


def test_shipped_prompts_are_valid_and_carry_the_two_instructions():
    book = PromptBook(folder_loader(PROMPT_DIR))
    system = book.render("system", objective="tool use")
    assert "Explore" in system
    assert "Do not prefer objects for their names" in system
    assert "as good to start from as the base" in system
    for name, shape in PROMPTS.items():
        assert book.render(name, **dict.fromkeys(shape.may, "x"))


def test_every_field_is_documented():
    used = set().union(*(shape.may for shape in PROMPTS.values()))
    assert used == set(FIELDS)
    assert all(shape.needs <= shape.may for shape in PROMPTS.values())


def test_values_are_not_read_as_fields():
    book = PromptBook(folder_loader(PROMPT_DIR))
    assert "$memory and $5" in book.render("system", objective="$memory and $5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("costs $weather $types", r"unknown field \$weather"),
        ("no field at all", r"missing field \$types"),
        ("$types costs 5 $", "a \\$ stands alone"),
    ],
)
def test_a_broken_prompt_is_named(change, said):
    shipped = folder_loader(PROMPT_DIR)
    with pytest.raises(LamdatuiError, match=said) as caught:
        PromptBook(lambda name: change if name == "choose_type" else shipped(name))
    assert caught.value.where == "prompts/choose_type.md"


def test_a_missing_prompt_is_named(tmp_path):
    with pytest.raises(LamdatuiError) as caught:
        PromptBook(folder_loader(tmp_path))
    assert caught.value.where == "prompts/system.md"


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_addresses_may_end_with_v1(base):
    assert endpoint(base, "models") == "http://h:1/v1/models"
