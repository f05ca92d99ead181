"""Settings, grammars, prompts and the reading of answers: everything about the planner that needs no server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.base.errors import LamdatuiError
from lamdatui.planner import answers, grammar
from lamdatui.planner.client import PlannerError, endpoint
from lamdatui.planner.prompts import FIELDS, PROMPTS, PromptBook, folder_loader
from lamdatui.planner.settings import PlannerSettings

PROMPT_DIR = Path(__file__).parent.parent / "prompts"


def test_settings_name_the_field_that_cannot_work():
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
    with pytest.raises(ValueError, match="nothing to choose"):
        grammar.one_of([])
    with pytest.raises(ValueError, match="name"):
        grammar.one_of([""])


def test_schemas_admit_only_the_ids():
    schema = grammar.one_of_schema("choice", ["A", "B"])
    assert schema["properties"] == {"choice": {"type": "string", "enum": ["A", "B"]}}
    assert schema["required"] == ["choice"]
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
    for said in (text, f'{{"choice": {text}}}', f'{text}{{"choice": "A"}}'):
        try:
            assert answers.pick(said, "choice", ["A", "B"]) in ("A", "B")
        except PlannerError as error:
            assert str(error).isprintable()
    assert answers.whole_sentences(text, 80).isprintable()


def test_memory_ends_with_a_whole_sentence():
    assert answers.whole_sentences("SFT helps.\nMerging keeps it. Next try") == "SFT helps. Merging keeps it."
    assert answers.whole_sentences("only a fragment") == "only a fragment"
    assert answers.whole_sentences("gained 0.4 and then") == "gained 0.4 and then"


def test_shipped_prompts_are_valid_and_carry_the_two_instructions():
    book = PromptBook(folder_loader(PROMPT_DIR))
    system = book.render("system", objective="tool use")
    assert "Explore" in system
    assert "Do not prefer objects for their names" in system
    assert "as good to start from as the base" in system
    for name, shape in PROMPTS.items():
        assert book.render(name, **dict.fromkeys(shape.may, "x"))


def test_every_question_has_the_hints_and_the_memory():
    book = PromptBook(folder_loader(PROMPT_DIR))
    for name in ("choose_type", "choose_action", "judge_type", "judge_action", "think", "explain", "update_memory"):
        fields = {field: f"<{field}>" for field in PROMPTS[name].may}
        shown = book.render(name, **fields)
        assert "<hints>" in shown
        assert "<memory>" in shown
        assert "<thoughts>" in shown or not name.startswith("choose")
        assert ("<options>" in shown) is (name.startswith("choose") or name == "think")


def test_questions_begin_alike_so_that_a_server_reads_that_part_once():
    book = PromptBook(folder_loader(PROMPT_DIR))
    for one, other in (("choose_type", "choose_action"), ("judge_type", "judge_action"), ("choose_action", "explain")):
        texts = [book.render(name, **{field: f"<{field}>" for field in PROMPTS[name].may}) for name in (one, other)]
        shared = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        assert "<memory>" in shared


def test_every_field_is_documented():
    used = set().union(*(shape.may for shape in PROMPTS.values()))
    assert used == set(FIELDS)
    assert all(shape.needs <= shape.may for shape in PROMPTS.values())


def test_a_grammar_for_free_text_admits_one_line_of_a_bounded_length():
    assert grammar.free_text(40) == r"root ::= [^\x00-\x20\x7F] [^\x00-\x1F\x7F]{0,39}"
    assert f"{{0,{grammar.MEMORY_CHARS - 1}}}" in grammar.free_text()


def test_values_are_not_read_as_fields():
    book = PromptBook(folder_loader(PROMPT_DIR))
    assert "$memory and $5" in book.render("system", objective="$memory and $5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("costs $weather $options", r"unknown field \$weather"),
        ("$options and $option", r"unknown field \$option"),
        ("no field at all", r"missing field \$options"),
        ("$options costs 5 $", "a \\$ stands alone"),
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
