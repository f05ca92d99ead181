"""Answers without what was thought before them, and the words that two texts share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.tasks.function_call import function_call
from lamdatui.tasks.scorers import problem, score, word_f1
from lamdatui.tasks.thinking import opens_thinking, without_thinking


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("4", "4"),
        (" 4\n", " 4\n"),
        ("<think>\n\n</think>\n\n4", "4"),
        ("<think>a</think>b<think>c</think> 4", "4"),
        ("since 2+2\n</think>\n4", "4"),
        ("<think>Let me see", ""),
        ("a</think>b<think>c", ""),
        ("[THINK]a[/THINK]4", "4"),
        ("<seed:think>a</seed:think>4", "4"),
        ("<Thinking>a</Thinking>4", "4"),
        ("use <thinker> here", "use <thinker> here"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_an_answer_is_what_follows_the_last_thought(text: str, rest: str) -> None:
    assert without_thinking(text) == rest


@given(st.text(), st.text())
def test_what_is_thought_never_changes_the_answer(thought: str, answer: str) -> None:
    if without_thinking(answer) == answer:
        assert without_thinking(f"<think>{thought}</think>{answer}") == answer.lstrip()


def test_a_prompt_that_ends_within_a_thought_is_known() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n") and opens_thinking("x [THINK]")
    assert (
        not opens_thinking("<think>\n\n</think>\n\n") and not opens_thinking("what is <think> for?") and not opens_thinking("")
    )


def test_words_in_common_are_scored_without_regard_to_case_and_signs() -> None:
    assert word_f1("The cat sat.", "the CAT, sat") == 1.0
    assert word_f1("a b c d", "a b") == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert word_f1(["x", "a b"], "a b") == 1.0 and word_f1("a", "b") == 0.0
    assert word_f1("", "") == 1.0 and word_f1("", "a") == 0.0 and word_f1("a", "") == 0.0
    assert word_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert 0 < word_f1("今日は良い天気", "良い日") < 1, "signs are words where no spaces are written"
    assert problem("word_f1", "a") is None and problem("word_f1", {"a": 1}) is not None


def test_arguments_may_be_called_parameters_but_not_in_runs_that_began_before() -> None:
    reference = {
        "function": [{"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}, "required": ["x"]}}],
        "answer": {"f": {"x": [1]}},
    }
    for text, now in (
        ('{"name": "f", "parameters": {"x": 1}}', 1.0),
        ('{"name": "f", "arguments": {"x": 1}}', 1.0),
        ('{"name": "f", "x": 1}', 0.0),
    ):
        assert function_call(reference, text) == now == score("function_call", reference, text)
        assert score("function_call", reference, text, older=True) == float("arguments" in text)
