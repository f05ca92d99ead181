"""Actions as numbers, and the model that forecasts what they do: deterministic, and it learns what the trials show."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.domain.choice import Candidate, View
from lamdatui.domain.objects import DatasetObject
from lamdatui.policy.features import Features, Grid, parts, scored
from lamdatui.policy.surrogate import DATA_WORTH, PRIOR_STD, Forecast, Surrogate, improvement
from tests.views import WORLDS, Story, all_of, candidate, made_up, sft, turned


def forecasts(shown: View) -> dict[str, Forecast]:
    """Digest → forecast of every candidate."""
    items = all_of(shown)
    return {item.action.digest: one for item, one in zip(items, Surrogate(shown).forecast(items), strict=True)}


def one(shown: View, item: Candidate) -> Forecast:
    return forecasts(shown)[item.action.digest]


# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(0, WORLDS, 4))
def test_the_same_view_gives_the_same_numbers_in_whatever_order_it_is_listed(index: int) -> None:
    shown = made_up(index)
    here, again, other = Features(shown), Features(shown), Features(turned(shown))
    for item in all_of(shown):
        row = here.vector(parts(item.action.to_json()))
        assert np.isfinite(row).all()
        assert (row == again.vector(parts(item.action.to_json()))).all()
        assert (row == other.vector(parts(item.action.to_json()))).all()


def test_trials_and_candidates_are_rows_of_one_width() -> None:
    for index in range(0, WORLDS, 5):
        shown = made_up(index)
        features = Features(shown)
        rows = [features.vector(parts(trial.action)) for trial in scored(shown) if trial.action]
        rows += [features.vector(parts(item.action.to_json())) for item in all_of(shown)]
        assert len({len(row) for row in rows}) <= 1


@pytest.mark.parametrize(
    ("values", "value", "place"),
    [
        ((1e-5, 1e-4, 1e-3), 1e-4, 0.5),
        ((1, 2, 4), 2, 1 / 3),
        ((0.0, 0.5, 1.0), 0.5, 0.5),
        ((5,), 5, 0.0),
        (("full", "lora"), "lora", 1.0),
        ((False, True), True, 1.0),
        (("only",), "only", 0.0),
    ],
)
def test_a_setting_stands_by_size_by_decade_or_by_name(values, value, place: float) -> None:
    assert Grid(values).position(value) == pytest.approx(place)


def test_a_merge_descends_from_the_models_it_joins_the_best_first_and_not_from_its_base() -> None:
    story = Story()
    story.tell(sft("base", "A"), {"tools": 0.3})
    story.tell(sft("base", "B"), {"chat": 0.2})
    merge = candidate("merge_ties", {"base": "base", "models": ("m2", "m1")})
    features = Features(story.view(merge))
    assert features.parents(merge.action.inputs) == ["m1", "m2"]
    first, gap = features.vector(parts(merge.action.to_json()))[:2], features.vector(parts(merge.action.to_json()))[2:4]
    assert first == pytest.approx([0.7 / 0.25, 0.4 / 0.25])
    assert gap == pytest.approx([0.0, 0.2 / 0.25])


def test_how_often_data_was_used_on_the_way_counts() -> None:
    story = Story()
    m1 = story.tell(sft("base", "A"), 0.1)
    m2 = story.tell(sft(m1, "A"), 0.1)
    m3 = story.tell(sft("base", "B"), 0.1)
    merged = story.tell(candidate("merge_ties", {"models": (m2, m3)}), 0.0)
    again, fresh = sft(merged, "A"), sft("base", "A")
    features = Features(story.view(again, fresh))
    assert [features.depth(name) for name in ("base", m1, m2, m3, merged)] == [0, 1, 2, 1, 3]
    assert features.reused(again.action.inputs) == 2
    assert features.reused(sft(merged, "B").action.inputs) == 1
    assert features.reused(fresh.action.inputs) == 0
    assert not np.allclose(*(features.vector(parts(item.action.to_json()))[-2:] for item in (again, fresh)))


# --- forecasts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(0, WORLDS, 4))
def test_forecasts_are_the_same_for_the_same_view_in_any_order(index: int) -> None:
    shown = made_up(index)
    here, there = forecasts(shown), forecasts(turned(shown))
    assert here == forecasts(shown)
    for digest, forecast in here.items():
        assert forecast.improvement == pytest.approx(there[digest].improvement, abs=1e-9)
        assert forecast.improvement >= 0
        assert forecast.std > 0
        assert np.isfinite([forecast.expected, forecast.std, forecast.improvement]).all()


def helped_by(gain: float, harm: float) -> Story:
    """Four trials: dataset A changed both tasks by `gain`, dataset B by `harm`."""
    story = Story()
    for rate in (0.001, 0.003):
        story.tell(sft("base", "A", learning_rate=rate), gain)
        story.tell(sft("base", "B", learning_rate=rate), harm)
    return story


def test_what_a_dataset_did_to_one_model_is_expected_of_it_for_others() -> None:
    story = helped_by(0.2, -0.2)
    items = [sft(model, data, learning_rate=0.01) for model in ("base", "m2", "m4") for data in ("A", "B")]
    shown = story.view(*items)
    expected = {item.action.digest: one(shown, item) for item in items}
    for model in ("base", "m2", "m4"):
        good, bad = (expected[sft(model, data, learning_rate=0.01).action.digest] for data in ("A", "B"))
        assert good.expected > bad.expected + 0.1
        assert good.improvement > bad.improvement


def test_an_action_of_the_helping_kind_ranks_before_every_one_of_the_harming_kind() -> None:
    story = helped_by(0.2, -0.2)
    items = [sft("m1", data, learning_rate=rate) for data in ("A", "B") for rate in (0.002, 0.01, 0.02)]
    shown = story.view(*items)
    ranked = sorted(items, key=lambda item: -one(shown, item).improvement)
    assert [item.action.inputs["dataset"] for item in ranked] == [("A",)] * 3 + [("B",)] * 3


def test_what_helps_one_task_and_harms_another_is_weighed_as_the_objective_says() -> None:
    for weights, better in (({"tools": 1.0, "chat": 0.1}, "A"), ({"tools": 0.1, "chat": 1.0}, "B")):
        story = Story()
        story.weights = weights
        for rate in (0.001, 0.003):
            story.tell(sft("base", "A", learning_rate=rate), {"tools": 0.2, "chat": -0.2})
            story.tell(sft("base", "B", learning_rate=rate), {"tools": -0.2, "chat": 0.2})
        items = [sft("base", data, learning_rate=0.01) for data in ("A", "B")]
        shown = story.view(*items)
        assert max(items, key=lambda item: one(shown, item).expected).action.inputs["dataset"] == (better,)


def test_failures_push_their_like_down() -> None:
    def forecast(failures: int) -> Forecast:
        story = Story()
        story.tell(sft("base", "A", learning_rate=0.001), 0.05)
        story.tell(sft("base", "A", learning_rate=0.002), 0.05)
        for rate in range(failures):
            story.tell(sft("base", "B", learning_rate=0.001 * (rate + 1)))
        item = sft("base", "B", learning_rate=0.01)
        return one(story.view(item), item)

    before, after = forecast(0), forecast(3)
    assert after.expected < before.expected - 0.1
    assert after.improvement < before.improvement


def test_nothing_is_forecast_beyond_what_can_be_had() -> None:
    story = Story(base={"tools": 0.7, "chat": 0.1})
    for rate in (0.001, 0.002, 0.003):
        story.tell(sft("base", "A", learning_rate=rate), {"tools": 0.28})
    item = sft("m1", "A", learning_rate=0.004)
    assert one(story.view(item), item).expected <= 1.0 + 0.1 + 0.1


def test_before_anything_was_measured_every_action_of_a_model_is_equal() -> None:
    items = [sft("base", data) for data in ("A", "B")]
    found = [one(Story().view(*items), item) for item in items]
    assert found[0] == found[1]
    assert found[0].expected == pytest.approx(0.8)
    assert found[0].std == pytest.approx(PRIOR_STD * 2**0.5)


def test_data_is_worth_making_until_it_waits_to_be_used() -> None:
    story = helped_by(0.1, 0.0)
    mix = candidate("mix", {"datasets": ("A", "B")}, share=0.5)
    tunes = [sft("base", data, learning_rate=0.01) for data in ("A", "B")]
    shown = story.view(mix, *tunes, makes_data=frozenset({"mix"}))
    typical = float(np.median([one(shown, item).improvement for item in tunes]))
    assert one(shown, mix).improvement == pytest.approx(DATA_WORTH * typical)
    assert one(shown, mix).expected == pytest.approx(max(shown.objectives.values()))
    story.pool.add(DatasetObject("d9", "d9", "sft", 90, "p", trial=9))
    assert one(story.view(mix, *tunes, makes_data=frozenset({"mix"})), mix).improvement == 0.0
    story.tell(sft("base", "d9", learning_rate=0.01), 0.0)
    assert one(story.view(mix, *tunes, makes_data=frozenset({"mix"})), mix).improvement > 0.0


def test_with_nothing_but_data_actions_one_is_still_worth_something() -> None:
    mix = candidate("mix", {"datasets": ("A", "B")}, share=0.5)
    assert one(Story().view(mix, makes_data=frozenset({"mix"})), mix).improvement == DATA_WORTH


def test_more_of_the_same_makes_the_forecast_surer() -> None:
    def spread(trials: int) -> float:
        story, draw = Story(), random.Random(3)
        for turn in range(trials):
            story.tell(sft("base", "A", learning_rate=0.001 * (1 + turn % 4), max_steps=turn), 0.1 + draw.gauss(0, 0.01))
        item = sft("base", "A", learning_rate=0.0025, max_steps=5)
        return one(story.view(item), item).std

    assert spread(12) < spread(3) < spread(0)


# --- expected improvement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std", "best", "value"),
    [
        (0.5, 0.1, 0.5, 0.0398942),
        (1.0, 1.0, 0.0, 1.0833155),
        (0.0, 1.0, 1.0, 0.0833155),
        (2.0, 0.0, 0.5, 1.5),
        (0.2, 0.0, 0.5, 0.0),
    ],
)
def test_expected_improvement_is_right_on_known_values(mean: float, std: float, best: float, value: float) -> None:
    assert improvement(np.array([mean]), np.array([std]), best)[0] == pytest.approx(value, abs=1e-6)


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(0, 2), st.floats(-3, 3))
def test_expected_improvement_is_never_negative_nor_below_what_is_certain(mean: float, std: float, best: float) -> None:
    (found,) = improvement(np.array([mean]), np.array([std]), best)
    assert found >= 0.0
    assert found >= mean - best - 1e-6


def test_a_candidate_from_an_unscored_model_is_not_measured_against_the_others() -> None:
    story = helped_by(0.1, 0.0)
    item = sft("base", "A", learning_rate=0.01)
    shown = story.view(item, sft("m2", "A", learning_rate=0.01))
    unscored = replace(shown, objectives={name: value for name, value in shown.objectives.items() if name != "m2"})
    found = one(unscored, sft("m2", "A", learning_rate=0.01))
    assert found.expected == pytest.approx(max(unscored.objectives.values()))
