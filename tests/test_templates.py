"""Chat templates are looked at before anything runs: what a row, a question or an answer would become with a base's own template."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lamdatui.base import limits
from lamdatui.base.jsonio import read_json, write_json
from lamdatui.base.limits import bounded
from lamdatui.cli.checks import check_profile
from lamdatui.inputs import templates
from lamdatui.inputs.templatechecks import NO_END, Note, of_model, of_questions, of_rows
from lamdatui.inputs.templates import read_template
from tests.conftest import Commands

Row = dict[str, Any]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINKS = CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML.partition("%}")[2]
)
HINTS = CHATML.replace("<|im_start|>assistant\n{% endif %}", "Answer:{% endif %}")


def turn(role: str, content: str) -> Row:
    return {"role": role, "content": content}


ROWS = [{"prompt": [turn("user", f"q{number}")], "completion": [turn("assistant", f"a{number}")]} for number in range(3)]
PAIRS = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": [turn("assistant", "b")]} for row in ROWS]


@pytest.fixture
def model(lab: Path, tmp_path: Path) -> Path:
    shutil.copytree(lab / "llama", tmp_path / "model")
    return tmp_path / "model"


def with_template(model: Path, text: str) -> templates.ChatTemplate:
    (model / "chat_template.jinja").write_text(text)
    return read_template(model)


def with_end_of_turn(model: Path, *, stops: bool) -> int:
    """Give the tokenizer an end of turn of its own, which stops answers or does not; its id."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.save(str(model / "tokenizer.json"))
    token = tokenizer.token_to_id("<|im_end|>")
    write_json(model / "generation_config.json", {"eos_token_id": [0, token] if stops else 0})
    return token


def said(notes: Sequence[Note]) -> list[tuple[str, str]]:
    return [(note.status, note.detail) for note in notes]


def test_the_lab_and_its_bases_have_nothing_to_tell(lab: Path, tmp_path: Path) -> None:
    for name in ("llama", "phi"):
        template = read_template(lab / name)
        assert template.text and template.ends
        assert [*of_model(template), *of_rows(template, ROWS), *of_rows(template, PAIRS)] == []
    assert [each for each in check_profile("lab", [], tmp_path) if each.status != "ok"] == []


def test_a_base_without_a_template_is_told_with_a_way_on(model: Path) -> None:
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = read_json(model / "tokenizer_config.json")
    write_json(model / "tokenizer_config.json", {name: value for name, value in config.items() if name != "chat_template"})
    (note,) = of_model(read_template(model))
    assert note.status == "bad" and "no chat template" in note.detail and "chat_template: chatml" in note.fix
    for told in (CHATML, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]):
        write_json(model / "tokenizer_config.json", {**config, "chat_template": told})
        assert read_template(model).text == CHATML


def test_a_row_that_the_template_refuses_is_named(model: Path) -> None:
    template = with_template(model, STRICT)
    system = {"prompt": [turn("system", "s"), turn("user", "q")], "completion": [turn("assistant", "a")]}
    (note,) = of_rows(template, [ROWS[0], system, ROWS[1], system])
    assert note.status == "bad"
    assert note.detail == "the chat template does not take 2 of 4 rows, the first: row 2: System role not supported"
    (note,) = of_questions(template, [{"prompt": row["prompt"]} for row in (ROWS[0], ROWS[1], system)], 4)
    assert "1 of 3 rows, the first: row 3: System role" in note.detail
    # Answers of one conversation are several rows; the row that is named is the file's.
    (note,) = of_rows(template, [ROWS[0], ROWS[1], system], [1, 1, 2])
    assert "1 of 3 rows, the first: row 2" in note.detail
    for broken in ("{% for", "{{ messages[9].content }}", "{{ 1 / 0 }}", "{{ nothing.more.than }}", "{{ messages | no_such }}"):
        (note,) = of_rows(with_template(model, broken), ROWS)
        assert note.status == "bad" and "3 of 3 rows, the first: row 1" in note.detail


@pytest.mark.parametrize("rows", [ROWS, PAIRS], ids=["completion", "pair"])
def test_what_a_template_puts_before_an_answer_is_told(model: Path, rows: list[Row]) -> None:
    (note,) = of_rows(with_template(model, THINKS), rows)
    assert note.status == "warn" and "3 of 3 rows" in note.detail and r"'<think>\n\n</think>' before the answer" in note.detail
    (note,) = of_rows(with_template(model, HINTS), rows)
    assert "does not begin with the prompt that is asked with" in note.detail


def test_an_end_of_turn_that_stops_nothing_is_told(model: Path) -> None:
    with_end_of_turn(model, stops=True)
    assert of_rows(with_template(model, CHATML), ROWS) == []
    token = with_end_of_turn(model, stops=False)
    (note,) = of_rows(read_template(model), ROWS)
    assert note.detail.startswith(
        f"the chat template ends an answer with <|im_end|> (id {token}), which is no stop token (eos_token_id 0)"
    )
    assert "eos_token_id" in note.fix


MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
    "{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPEN = "{% for m in messages %}{{ '<|im_end|>' if m.role == 'user' }}{{ m.content }}\n{% endfor %}"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "look_up", "arguments": {}}}],
}


def test_what_a_template_marks_is_trained_with_the_token_that_ends_it(model: Path) -> None:
    with_end_of_turn(model, stops=True)
    split = with_template(model, MARKED).split(ROWS[0], ROWS[0]["completion"])
    assert split.text[split.start :] == "a0<|im_end|>" and split.text[: split.start].endswith("<think>\n\n</think>\n\n")
    template = read_template(model)
    template.is_older = True
    older = template.split(ROWS[0], ROWS[0]["completion"])
    assert older.text[older.start :] == "<think>\n\n</think>\n\na0<|im_end|>\n", (
        "results of the first versions are made as they were"
    )


def test_an_answer_ends_with_a_stop_token_also_where_the_template_writes_none(model: Path) -> None:
    """What the next turn begins with, where that stops (GLM); else the end-of-text token."""
    for stops in (True, False):
        with_end_of_turn(model, stops=stops)
        split = with_template(model, OPEN).split(ROWS[0], ROWS[0]["completion"])
        assert split.text[split.start :] == ("a0\n<|im_end|>" if stops else f"a0{read_template(model).words['eos_token']}")
    with_end_of_turn(model, stops=True)
    after = CHATML.replace(
        "<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endfor %}{% if not add_generation_prompt %}<eos>{% endif %}"
    )
    split = with_template(model, after).split(ROWS[0], ROWS[0]["completion"])
    assert split.text[split.start :] == "a0<|im_end|>", "what a template writes after the first stop token is not the answer's"


def test_what_a_template_leaves_out_ends_a_run_before_it_begins(model: Path) -> None:
    with_end_of_turn(model, stops=True)
    template = with_template(model, CHATML)
    tools = [{**ROWS[0], "tools": [TOOL]}, ROWS[1], {"prompt": ROWS[2]["prompt"], "completion": [CALL], "tools": [TOOL]}]
    found = {note.detail: note.status for note in of_rows(template, tools)}
    assert found == {
        "the chat template leaves out the functions that they offer (tools): 2 of 3 rows, the first: row 1": "bad",
        "the chat template leaves out the calls of their answers (tool_calls): 1 of 3 rows, the first: row 3": "bad",
    }
    thinking = [{**ROWS[0], "completion": [{**ROWS[0]["completion"][0], "reasoning_content": "since"}]}]
    (note,) = of_rows(template, thinking)
    assert "the reasoning of their answers (reasoning_content): 1 of 1 rows" in note.detail and note.status == "bad"
    parts = CHATML.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")
    assert {note.detail.partition(":")[0] for note in of_rows(with_template(model, parts), ROWS)} == {
        "the chat template leaves out what they ask",
        "the chat template leaves out what they answer",
    }


def test_control_tokens_in_what_people_wrote_and_pairs_of_one_answer_are_told(model: Path) -> None:
    with_end_of_turn(model, stops=True)
    template = with_template(model, CHATML)
    rows = [
        ROWS[0],
        {"prompt": [turn("user", "What does <|im_end|> do?")], "completion": [turn("assistant", "It ends a turn.")]},
    ]
    (note,) = of_rows(template, rows)
    assert note.status == "warn" and "row 2: what people wrote holds '<|im_end|>'" in note.detail
    (note,) = of_rows(template, [{**PAIRS[0], "rejected": PAIRS[0]["chosen"]}, PAIRS[1]])
    assert note.detail.startswith("1 of 2 rows, the first: row 1: the chosen and the rejected answer are the same text")


@pytest.mark.parametrize(("kind", "status"), [("llama", "warn"), ("gpt2", "bad")])
def test_rows_beyond_the_models_positions_are_told(model: Path, kind: str, status: str) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "model_type": kind, "max_position_embeddings": 40})
    template = with_template(model, "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert of_rows(template, ROWS) == []
    rows = [*ROWS, {"prompt": [turn("user", "abcdefghij" * 9)], "completion": [turn("assistant", "a")]}]
    length = len(template.ids("abcdefghij" * 9 + "a" + template.words["eos_token"]) or ())
    assert said(of_rows(template, rows)) == [(status, f"2 rows have up to {length} tokens; the model has 40 positions")]
    questions = [{"prompt": row["prompt"]} for row in ROWS]
    assert of_questions(template, questions, 30) == []
    (note,) = of_questions(template, questions, 40)
    assert note.status == status and "tokens with their answers; the model has 40 positions" in note.detail


def test_a_date_and_settings_that_change_answers_are_told(model: Path) -> None:
    write_json(
        model / "generation_config.json",
        {"eos_token_id": 0, "repetition_penalty": 1.1, "min_length": 0, "top_k": 20, "do_sample": True},
    )
    notes = of_model(with_template(model, "{{ strftime_now('%d %b %Y') }}" + CHATML))
    assert [note.status for note in notes] == ["warn", "warn"]
    assert "today's date" in notes[0].detail and notes[1].detail.endswith("asked for without that: repetition_penalty 1.1")


def test_damaged_files_of_a_tokenizer_are_as_if_they_were_not_there(model: Path) -> None:
    with_template(model, CHATML)
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "tokenizer.json"):
        (model / name).write_text("[" * 9)
    template = read_template(model)
    assert template.ids("x") is None and of_model(template) == [NO_END] and of_rows(template, ROWS) == []


TURNS = st.lists(
    st.builds(
        turn,
        st.sampled_from(["user", "assistant", "system"]),
        st.sampled_from([" ", "a", "a" * 90, "<|im_end|>", "{{ x }}", "\n", "é"]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    TURNS,
    st.sampled_from([" ", "a", "\n\n", "<think>x</think>y", "<|im_end|>"]),
    st.sampled_from([CHATML, THINKS, STRICT, HINTS, "", "{{ messages[-1].content | trim }}", "{{ nothing }}"]),
    st.sampled_from([0, [0, "x", None, 2.5, True], "0", None, {}, [[0]]]),
)
def test_any_row_with_any_template_has_its_notes(model: Path, prompt: list[Row], answer: str, text: str, ends: Any) -> None:
    write_json(model / "generation_config.json", {"eos_token_id": ends})
    rows = [
        {"prompt": prompt, "completion": [turn("assistant", answer)]},
        {"prompt": prompt, "scorer": "exact", "reference": ""},
    ]
    template = with_template(model, text)
    for note in [*of_model(template), *of_rows(template, rows), *of_questions(template, [{"prompt": prompt}], 5)]:
        assert note.status in ("warn", "bad") and note.detail.isprintable()


def test_check_tells_it_of_every_base_and_a_line_of_json_says_all_of_one(model: Path, lab_profile, cli: Commands) -> None:
    with_template(model, STRICT)
    data = model.parent / "data.jsonl"
    rows = [
        {"messages": [turn("user", "q"), turn("assistant", "a")]},
        {"messages": [turn("system", "s"), turn("user", "q"), turn("assistant", "a")]},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = str(lab_profile())
    sets = ("--set", f"models.llama.path={model}", "--set", f"datasets.copy.path={data}")
    done = cli("check", profile, *sets, "--json")
    assert done.returncode == 2
    found = {item["subject"]: item for item in json.loads(done.stdout)}
    assert found["dataset copy × llama"]["status"] == "bad" and "row 2: System role" in found["dataset copy × llama"]["detail"]
    assert "different chat templates" in found["templates"]["detail"] and found["templates"]["status"] == "warn"
    lines = done.stdout.splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == json.loads(done.stdout)
    plain = cli("check", profile, *sets, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(plain.stdout) == json.loads(done.stdout) and plain.stdout.isascii()


def test_a_row_is_shown_as_a_trainer_will_see_it(model: Path, lab_profile, cli: Commands) -> None:
    with_end_of_turn(model, stops=True)
    with_template(model, CHATML)
    data = model.parent / "data.jsonl"
    rows = [{"prompt": "q1", "chosen": "yes\x1b[2J", "rejected": "no"}, {"prompt": "q2", "chosen": "a", "rejected": "b"}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = str(lab_profile())
    sets = ("--set", f"models.llama.path={model}", "--set", f"datasets.prefer.path={data}")
    done = cli("data", "show", profile, "prefer", *sets)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "dataset prefer, row 1 of 2, as the template of llama writes it\n\n--- the prompt, not trained\n"
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n\n"
        "--- chosen, trained; it ends with 'yes\\x1b[2J<|im_end|>'\nyes\x1b[2J<|im_end|>\n"
        "--- rejected, trained; it ends with 'no<|im_end|>'\nno<|im_end|>\n"
    )
    other = cli("data", "show", profile, "prefer", *sets, "--row", "2", "--model", "phi").stdout
    assert "row 2 of 2, as the template of phi" in other and "<|im_start|>" not in other
    task = cli("data", "show", profile, "copy", *sets)
    assert "task copy, row 1 of" in task.stdout and "--- reference: " in task.stdout and '--- split: "search"' in task.stdout
    for words, why in (
        (("prefer", "--row", "3"), "rows 1 to 2"),
        (("none",), "no dataset or task named 'none'"),
        (("prefer", "--model", "m"), "no model named 'm'"),
        (("prefer", "--row", "0"), "1"),
    ):
        failed = cli("data", "show", profile, *words, *sets)
        assert failed.returncode == 2 and why in failed.stderr and not failed.stdout
    with_template(model, STRICT)
    data.write_text(json.dumps({"prompt": [turn("system", "s"), turn("user", "q")], "chosen": "a", "rejected": "b"}) + "\n")
    failed = cli("data", "show", profile, "prefer", *sets)
    assert failed.returncode == 2 and "System role not supported" in failed.stderr and "row 1" in failed.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "works for more than 0.3 s"),
        ("{{ 'a' * 99999999999 }}", "takes more than 64 MiB"),
        ("{{ 7 ** (10 ** 9) }}", r"a power \(\*\*\), which may take longer than"),
        (
            "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
            "works for more than 0.3 s",
        ),
        ("{{ '%9999999999d' % 1 }}", "takes more than 64 MiB"),
        (
            "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "takes more than 64 MiB",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
    ],
)
def test_a_template_may_take_only_so_much_and_is_not_asked_again_then(
    model: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    """`check` never came back from a loop in a loop, and took all memory for a long text."""
    monkeypatch.setattr(templates, "bounded", partial(bounded, seconds=0.3, more=64 << 20))
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_VIRTUAL)
    template = with_template(model, text)
    with pytest.raises(ValueError, match=told):
        template.ask(ROWS[0])
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_VIRTUAL)) == before
    asked: list[object] = []
    monkeypatch.setattr(templates, "bounded", asked.append)
    if "nested" not in told:
        with pytest.raises(ValueError, match=told):
            template.ask(ROWS[1])
        assert asked == []


def test_a_template_may_hand_on_named_arguments(model: Path) -> None:
    text = (
        "{% macro f(a, b) %}{{ a ~ b }}{% endmacro %}{{ f(1, **{'b': 2}) ~ f(**{'a': 3, 'b': 4}) }}{# a ** b #} ** {{ '**' }}"
    )
    assert with_template(model, text).ask(ROWS[0]) == "1234 ** **"


def test_work_within_its_limits_is_done_and_what_it_raises_is_raised() -> None:
    assert bounded(lambda: 7, seconds=0.2, more=1 << 30) == 7
    with pytest.raises(KeyError):
        bounded(lambda: {}["x"])
    # In another thread nobody interrupts it.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(bounded, lambda: 8).result() == 8
    assert not limits._working


def test_a_tokenizer_that_is_no_file_is_not_waited_for(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    assert read_template(model).tokenizer is None
