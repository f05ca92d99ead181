"""How one of some options is chosen: by letters whose order is turned, or by yes and no; what a server without numbers gives."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.planner.choose import (
    CHOICE_TOKENS,
    LETTERS,
    TOP_LOGPROBS,
    UNSEEN,
    Chooser,
    Picked,
    Style,
    first_token,
    parameters_in,
    softmax,
    spread,
    style_for,
)
from lamdatui.planner.client import Answer, PlannerError, TokenChoice
from tests.views import answer

Reply = Callable[[list[tuple[str, str]]], Answer]
"""(letter, option) as they were shown, or ("", option) where one stood alone → what the planner answers."""


class Table:
    """A planner that is only a rule; it keeps the settings of each question."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[dict[str, Any]] = []

    async def ask(self, prompt: str, **options: Any) -> Answer:
        self.asked.append({"prompt": prompt, **options})
        lines = prompt.splitlines()
        return self.reply([(line[0], line[3:]) if line[1:3] == ": " else ("", line) for line in lines])

    def choose(
        self,
        options: Sequence[str],
        style: Style = "letters",
        draw: random.Random | None = None,
        *,
        reuse_prefix: bool = False,
        **settings: Any,
    ) -> Picked:
        chooser = Chooser(self.ask, style, **{"temperature": 1.0, **settings})
        source = draw or random.Random(1)
        return asyncio.run(chooser.choose("\n".join, str, options, source, reuse_prefix=reuse_prefix))


def by_rule(position: Sequence[float], quality: Mapping[str, float]) -> Reply:
    """Letters whose log-probability is what their place and their option are worth."""

    def reply(shown: list[tuple[str, str]]) -> Answer:
        worth = [math.exp(position[at] + quality[option]) for at, (_, option) in enumerate(shown)]
        return answer(weights={letter: one / sum(worth) for (letter, _), one in zip(shown, worth, strict=True)})

    return reply


def always(letter: str) -> Reply:
    """A planner that names a letter and gives no log-probabilities."""
    return lambda shown: answer(letter)


# --- letters ---------------------------------------------------------------------------------------------------------


def test_a_planner_that_likes_the_first_place_gets_no_favourite_when_every_order_is_asked() -> None:
    options = ["mix", "chat", "code", "tools"]
    table = Table(by_rule([3.0, 0.0, 0.0, 0.0], dict.fromkeys(options, 0.0)))
    assert table.choose(options, rotations=4).probabilities == pytest.approx([0.25] * 4)
    assert len(table.asked) == 4
    once = table.choose(options, rotations=1)
    assert once.probabilities[0] > 0.8
    for turn, question in enumerate(table.asked[:4]):
        assert question["prompt"].splitlines()[0] == f"A: {options[turn]}"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=9), st.sampled_from([0.5, 1.0, 2.0]))
def test_all_rotations_leave_only_what_the_options_are_worth(places: list[tuple[float, float]], temperature: float) -> None:
    options = [f"o{place}" for place in range(len(places))]
    quality = {name: worth for name, (worth, _) in zip(options, places, strict=True)}
    table = Table(by_rule([bias for _, bias in places], quality))
    found = table.choose(options, rotations=12, temperature=temperature)
    assert found.probabilities == pytest.approx(softmax(spread(list(quality.values())), temperature), abs=1e-6)
    assert sum(found.probabilities) == pytest.approx(1.0)


def test_fewer_rotations_than_options_are_spread_over_the_order() -> None:
    options = [f"o{place}" for place in range(6)]
    table = Table(by_rule([0.0] * 6, dict.fromkeys(options, 0.0)))
    table.choose(options, rotations=3)
    assert [question["prompt"].splitlines()[0] for question in table.asked] == ["A: o0", "A: o2", "A: o4"]
    assert all(sorted(line[3:] for line in q["prompt"].splitlines()) == options for q in table.asked)


def test_the_form_admits_the_letters_only_and_the_prefix_is_read_once() -> None:
    table = Table(by_rule([0.0] * 3, dict.fromkeys("abc", 0.0)))
    found = table.choose(list("abc"), rotations=3)
    assert [question["reuse_prefix"] for question in table.asked] == [False, True, True]
    for question in table.asked:
        assert question["grammar"] == 'root ::= "A" | "B" | "C"'
        assert (question["max_tokens"], question["top_logprobs"], question["schema"]) == (1, TOP_LOGPROBS, None)
    assert (found.tokens, found.seconds) == (300, pytest.approx(0.3))
    assert found.style == "letters"
    again = Table(table.reply)
    again.choose(list("abc"), rotations=2, reuse_prefix=True)
    assert [question["reuse_prefix"] for question in again.asked] == [True, True]


def test_a_letter_that_is_not_shown_stands_below_everything_that_is() -> None:
    shown = answer(weights={"A": 0.6, "B": 0.3, "The": 0.02})
    assert first_token(shown, "ABC") == pytest.approx([math.log(0.6), math.log(0.3), math.log(0.02) - UNSEEN])
    table = Table(lambda lines: shown)
    found = table.choose(["x", "y", "z"], rotations=1)
    assert 0 < found.probabilities[2] < found.probabilities[1] < found.probabilities[0]


@pytest.mark.parametrize("least", [-math.inf, -3.4e38, -9999.0])
def test_what_a_server_calls_impossible_is_never_drawn_and_breaks_nothing(least: float) -> None:
    told = Answer("A", 100, 0.1, (TokenChoice("A", (("A", -0.5), ("B", -1.0), ("The", least), ("C", least))),))
    found = Table(lambda shown: told).choose(["x", "y", "z"], rotations=1, temperature=0.7)
    assert found.probabilities[2] == pytest.approx(0.0, abs=1e-9)
    assert found.probabilities[0] > found.probabilities[1] > 0.1


def test_spellings_of_one_letter_count_together_and_other_tokens_do_not() -> None:
    found = first_token(answer(weights={" A": 0.2, "▁A": 0.1, '"A"': 0.1, "B": 0.3, "An": 0.3}), "AB")
    assert found == pytest.approx([math.log(0.4), math.log(0.3)])
    assert first_token(answer(weights={"The": 0.9, "An": 0.1}), "AB") is None
    assert first_token(answer("A"), "AB") is None


# --- yes or no -------------------------------------------------------------------------------------------------------


def judged(odds: Mapping[str, float]) -> Reply:
    """Says yes with these odds to one."""

    def reply(shown: list[tuple[str, str]]) -> Answer:
        ((_, option),) = shown
        yes = odds[option] / (1 + odds[option])
        return answer(weights={"Yes": yes, "No": 1 - yes})

    return reply


def test_yes_and_no_are_compared_by_their_odds() -> None:
    found = Table(judged({"good": 8.0, "fair": 1.0, "bad": 0.125})).choose(["bad", "good", "fair"], "yes-no")
    whole = 8 + 1 + 0.125  # so far apart that they are taken as they are
    assert found.probabilities == pytest.approx([0.125 / whole, 8 / whole, 1 / whole])
    assert (found.style, found.tokens) == ("yes-no", 300)


def test_the_order_of_the_options_does_not_matter_to_yes_and_no() -> None:
    odds = {"a": 30.0, "b": 0.2, "c": 1.5}
    for order in itertools.permutations(odds):
        table = Table(judged(odds))
        found = table.choose(order, "yes-no", temperature=0)
        assert dict(zip(order, found.probabilities, strict=True))["a"] == pytest.approx(30.0 / 31.7)
        assert order[found.place] == "a"
        assert [question["prompt"] for question in table.asked] == list(order)


def test_options_that_stand_alone_share_the_prefix() -> None:
    table = Table(judged(dict.fromkeys("abc", 1.0)))
    table.choose(list("abc"), "yes-no")
    table.choose(list("abc"), "yes-no", reuse_prefix=True)
    assert [question["reuse_prefix"] for question in table.asked] == [False, True, True, True, True, True]
    assert {question["grammar"] for question in table.asked} == {'root ::= "Yes" | "No"'}


# --- servers that tell no numbers --------------------------------------------------------------------------------------


def test_without_log_probabilities_each_answer_is_a_vote() -> None:
    options = ["mix", "chat", "code"]
    likes_chat = Table(lambda shown: answer(next(letter for letter, option in shown if option == "chat")))
    found = likes_chat.choose(options, rotations=3, temperature=0)
    assert found.place == 1
    assert found.probabilities == pytest.approx(softmax(spread([-UNSEEN, 0.0, -UNSEEN]), 1.0))
    assert Table(always("A")).choose(options, rotations=3).probabilities == pytest.approx([1 / 3] * 3)
    assert (
        Table(lambda shown: answer("Yes" if shown[0][1] == "code" else "No")).choose(options, "yes-no", temperature=0).place
        == 2
    )


@pytest.mark.parametrize("said", ['{"choice": "B"}', '```json\n{"choice": "B"}\n```', "B"])
def test_a_server_that_ignores_grammars_is_asked_once_more_by_schema(said: str) -> None:
    replies = iter([answer("Well, "), answer(said)])
    table = Table(lambda shown: next(replies))
    found = table.choose(["x", "y"], rotations=1, temperature=0)
    assert found.place == 1
    first, second = table.asked
    assert first["schema"] is None
    assert second["schema"]["properties"]["choice"]["enum"] == ["A", "B"]
    assert (second["max_tokens"], second["top_logprobs"], second["reuse_prefix"]) == (CHOICE_TOKENS, 0, True)
    assert found.tokens == 200


@pytest.mark.parametrize("said", ["", "C", "{}", '{"choice": "AB"}', "\x1b[2J"])
def test_an_answer_that_is_no_option_is_an_error(said: str) -> None:
    with pytest.raises(PlannerError, match="none of the 2 options"):
        Table(always(said)).choose(["x", "y"])


# --- the draw --------------------------------------------------------------------------------------------------------


def test_without_temperature_the_likeliest_is_taken_whatever_the_draw() -> None:
    table = Table(judged({"a": 1.0, "b": 1.1, "c": 0.9}))
    assert {table.choose(list("abc"), "yes-no", random.Random(seed), temperature=0).place for seed in range(20)} == {1}


def test_with_temperature_a_seeded_draw_follows_the_probabilities() -> None:
    table = Table(judged({"a": 8.0, "b": 2.0, "c": 0.5}))
    source = random.Random(5)
    drawn = [table.choose(list("abc"), "yes-no", source) for _ in range(600)]
    assert drawn[0].probabilities == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    counts = [sum(choice.place == place for choice in drawn) / 600 for place in range(3)]
    assert counts == pytest.approx(drawn[0].probabilities, abs=0.05)
    assert [table.choose(list("abc"), "yes-no", random.Random(9)).place for _ in range(5)] == [
        table.choose(list("abc"), "yes-no", random.Random(9)).place
    ] * 5


def test_a_higher_temperature_makes_the_options_more_alike() -> None:
    table = Table(judged({"a": 8.0, "b": 1.0}))
    cold, warm, hot = (table.choose(["a", "b"], "yes-no", temperature=t).probabilities[0] for t in (0.5, 1.0, 3.0))
    assert cold > warm > hot > 0.5
    assert warm == pytest.approx(8 / 9)


def test_a_slight_preference_is_enlarged_and_a_clear_one_is_not() -> None:
    slight, clear, none = [0.1, 0.0, -0.2], [5.0, 0.0, -3.0], [1.0, 1.0, 1.0 + 1e-9]
    assert pstdev(spread(slight)) == pytest.approx(1.0)
    assert sorted(slight) == [slight[at] for at in sorted(range(3), key=lambda at: spread(slight)[at])]
    assert spread(clear) == clear
    assert spread(none) == none
    tiny = Table(judged({"a": 1.02, "b": 1.0, "c": 0.99})).choose(list("abc"), "yes-no")
    assert tiny.probabilities[0] > 0.6 > 0.2 > tiny.probabilities[2]


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=26), st.floats(0.05, 2))
def test_probabilities_are_probabilities_for_any_scores(scores: list[float], temperature: float) -> None:
    found = softmax(scores, temperature)
    assert sum(found) == pytest.approx(1.0)
    assert all(0 <= one <= 1 for one in found)
    assert found[max(range(len(scores)), key=lambda at: scores[at])] == max(found)


def test_a_choice_is_told_in_one_line() -> None:
    found = Table(judged({"a": 12.0, "b": 1.0})).choose(["a", "b"], "yes-no")
    assert found.told() == "yes-no: A 0.92 B 0.08"
    every = Table(by_rule([0.0] * 26, dict.fromkeys(LETTERS, 0.0))).choose(list(LETTERS), rotations=1)
    assert every.told().count("0.04") == 26


# --- what suits a planner ----------------------------------------------------------------------------------------------


def test_small_planners_are_asked_yes_or_no_and_unknown_ones_are_taken_for_large() -> None:
    found = {count: style_for(count) for count in (0, 135_000_000, 999_999_999, 1_000_000_000, 70_000_000_000)}
    assert list(found.values()) == ["letters", "yes-no", "yes-no", "letters", "letters"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("qwen2.5-coder-0.5b-instruct", 500_000_000),
        ("SmolLM2-135M", 135_000_000),
        ("SmolLM2-135M-Instruct.Q4_1", 135_000_000),
        ("Qwen/Qwen3-4B", 4_000_000_000),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_000_000_000),
        ("gemma-2-2b-it", 2_000_000_000),
        ("phi_3_mini_3.8B", 3_800_000_000),
        ("glm-4.5-air-106b-a12b", 106_000_000_000),
        ("gpt-4o", 0),
        ("claude-3-medium", 0),
        ("phi-3-mini", 0),
        ("mixtral-8x7b", 0),
        ("model", 0),
        ("", 0),
    ],
)
def test_a_name_often_tells_how_large_a_model_is(name: str, count: int) -> None:
    assert parameters_in(name) == count
