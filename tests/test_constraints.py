"""The constraint verifier: every kind has an answer that meets it and one that does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.base.errors import LamdatuiError
from lamdatui.tasks.constraints import KINDS, constraints, satisfied, split_sentences
from lamdatui.tasks.scorers import problem, score

EXAMPLES: list[tuple[dict[str, object], str, str]] = [
    ({"kind": "min_words", "count": 3}, "one two three", "one two"),
    ({"kind": "max_words", "count": 3}, "one two three", "one two three four"),
    ({"kind": "sentences", "count": 2}, "It is 3.5 m long. Really!", "Just one."),
    ({"kind": "bullets", "count": 2}, "* a\n* b", "* a\n* b\n* c"),
    ({"kind": "paragraphs", "count": 2}, "one\n\ntwo", "one\ntwo"),
    ({"kind": "include", "words": ["water", "sun"]}, "Sun and water.", "Sunny water."),
    ({"kind": "forbid", "words": ["very"]}, "Every day.", "Very good."),
    ({"kind": "frequency", "word": "tea", "count": 2}, "Tea is tea.", "Tea in a team."),
    ({"kind": "start_with", "phrase": "Well,"}, "Well, yes.", "Yes. Well,"),
    ({"kind": "end_with", "phrase": "The end."}, "Yes. The end.", "The end. Yes"),
    ({"kind": "lowercase"}, "all low 1.", "Not all low."),
    ({"kind": "uppercase"}, "ALL UP 1.", "NOT ALL Up."),
    ({"kind": "no_commas"}, "a b", "a, b"),
    ({"kind": "quoted"}, '"said"', '"said" he'),
    ({"kind": "json"}, '```json\n{"a": 1}\n```', '{"a": 1} there'),
    ({"kind": "title"}, "<<Tea>>\ntext", "< Tea > text"),
    ({"kind": "postscript"}, "Text.\nP.S. More.", "Text. Post."),
    ({"kind": "repeat", "text": "What is tea?"}, "what is tea\nA drink.", "Tea is a drink."),
    ({"kind": "two_responses"}, "one\n******\ntwo", "one\n******\none"),
    ({"kind": "placeholders", "count": 2}, "[name] at [place]", "[name] at []"),
]


def test_every_kind_has_an_example() -> None:
    assert {str(constraint["kind"]) for constraint, _, _ in EXAMPLES} == set(KINDS)
    assert len(KINDS) >= 12


@pytest.mark.parametrize(("constraint", "good", "bad"), EXAMPLES, ids=[str(one[0]["kind"]) for one in EXAMPLES])
def test_a_kind_tells_good_from_bad(constraint: dict[str, object], good: str, bad: str) -> None:
    assert satisfied(constraint, good)
    assert not satisfied(constraint, bad)
    assert not satisfied(constraint, "  \n")


def test_the_score_is_the_share_of_constraints_that_hold() -> None:
    reference = {"constraints": [{"kind": "no_commas"}, {"kind": "uppercase"}, {"kind": "min_words", "count": 2}]}
    assert constraints(reference, "two words") == pytest.approx(2 / 3)
    assert score("constraints", reference, "TWO WORDS") == 1.0


def test_sentences_are_split_at_their_ends_only() -> None:
    assert split_sentences('He said "no." Then 2.5 left! And') == ['He said "no."', "Then 2.5 left!", "And"]


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    everything = {"constraints": [constraint for constraint, _, _ in EXAMPLES]}
    assert 0.0 <= score("constraints", everything, text) <= 1.0


def test_exact_takes_one_reference_or_several() -> None:
    assert score("exact", " 42", "42\n") == 1.0
    assert score("exact", ["42", "forty-two"], "forty-two") == 1.0
    assert score("exact", "42", "43") == 0.0


def test_an_unknown_scorer_and_a_bad_reference_are_named() -> None:
    with pytest.raises(LamdatuiError, match="no scorer"):
        score("bleu", "a", "b")
    assert problem("constraints", {"constraints": [{"kind": "rhyme"}]}) == "KeyError: 'rhyme'"
    assert problem("constraints", {"constraints": []})
    assert problem("function_call", {"function": [], "answer": {"f": {}}})
    assert problem("exact", ["a"]) is None
