"""Twenty types of merges do not crowd out the rest: they count as a few types, each by what it did."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lamdatui.domain.choice import View
from lamdatui.policy import features, merges
from lamdatui.policy.hybrid import Ranked, rank, shortlist
from lamdatui.policy.surrogate import Forecast
from tests.views import Story, candidate, sft

TYPES = [f"merge_{n:02}" for n in range(20)]


def told(count: int = 20, **changes: float) -> tuple[Story, View]:
    """A run with two fine-tuned models, and a merge of each type in `changes`, which changed its better parent by so much."""
    story = Story()
    story.tell(sft("base", "A"), 0.1)
    story.tell(sft("base", "B"), 0.08)
    for kind, change in changes.items():
        story.tell(candidate(kind, {"models": ("m1", "m2")}, weight=0.4), change)
    pool = [candidate(kind, {"models": ("m1", "m2")}, weight=0.5) for kind in TYPES[:count]]
    return story, story.view(sft("m1", "B"), sft("m2", "A"), candidate("dpo", {"model": "m1", "dataset": "A"}), *pool)


def test_many_merges_are_drawn_as_often_as_two_other_types_and_by_what_they_did() -> None:
    _, view = told(merge_00=0.1, merge_01=-0.1)
    rng = random.Random(1)
    drawn = Counter(merges.draw_type(view, rng) for _ in range(8000))
    share = sum(count for kind, count in drawn.items() if kind in TYPES) / 8000
    assert share == pytest.approx(2 / 4, abs=0.02)
    assert merges.worth(view, "merge_00") == pytest.approx(2 / 3) and merges.worth(view, "merge_01") == pytest.approx(1 / 3)
    assert drawn["merge_00"] > 1.5 * drawn["merge_01"] > 0


def test_two_types_of_merges_are_drawn_as_ever() -> None:
    _, view = told(count=2)
    for seed in range(50):
        assert merges.draw_type(view, random.Random(seed)) == random.Random(seed).choice(sorted(view.candidates))


def test_a_planner_is_offered_the_merges_that_were_worth_most() -> None:
    _, view = told(merge_05=0.1, merge_06=0.05, merge_07=-0.1)
    for seed in range(20):
        kinds = merges.offered(view, random.Random(seed))
        chosen = [kind for kind in kinds if kind in TYPES]
        assert len(chosen) == merges.OFFERED and {"merge_05", "merge_06"} <= set(chosen) and "merge_07" not in chosen
        assert {"sft", "dpo"} <= set(kinds)


def test_a_shortlist_has_two_merges_of_the_same_models() -> None:
    _, view = told()
    every = [item for group in view.candidates.values() for item in group]
    ranking = [Ranked(item, Forecast(0.5, 0.1, 0.1)) for item in sorted(every, key=lambda item: item.action.type)]
    short = [item.candidate.action.type for item in shortlist(ranking, 5)]
    assert sum(kind in TYPES for kind in short) == 2 and short.count("sft") == 2


def choices(count: int) -> int:
    """How many of 14 choices of the surrogate are merges, where merges do harm and further training does not."""
    story, _ = told(count=count)
    chosen = []
    for _ in range(14):
        models = sorted(story.scores, key=story.objective)[-3:]
        pairs = [(a, b) for a in models for b in models if a < b]
        items = [sft(model, data, learning_rate=rate) for model in models for data in "AB" for rate in (1, 2)]
        items += [candidate(kind, {"models": pair}, weight=0.5) for kind in TYPES[:count] for pair in pairs]
        done = {trial.action["digest"] for trial in story.trials if trial.action}
        best = rank(story.view(*(item for item in items if item.action.digest not in done)))[0].candidate
        chosen.append(best.action.type)
        story.tell(best, -0.02 if best.action.type in TYPES else 0.0)
    return sum(kind in TYPES for kind in chosen)


def test_the_surrogate_does_not_try_each_of_twenty_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = choices(2), choices(20)
    assert many <= few + 2
    monkeypatch.setattr(features, "FAIR", 20)
    assert choices(20) >= 2 * many
