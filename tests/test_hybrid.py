"""The hybrid: a surrogate ranks, a planner chooses on a share of the trials that follows what its choices bring."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.domain.choice import PolicyError, Proposal, View
from lamdatui.domain.trials import Trial
from lamdatui.planner.client import Answer, PlannerError
from lamdatui.policy import Ingredients, make_policy
from lamdatui.policy.hybrid import (
    ALIKE,
    LEAST_SHARE,
    MOST_SHARE,
    HybridPolicy,
    current_share,
    due,
    rank,
    shortlist,
)
from tests.views import (
    PROMPTS,
    WORLDS,
    FakeClient,
    Story,
    all_of,
    answer,
    candidate,
    external,
    made_up,
    sft,
    turned,
    view,
)


def first_option(question: dict[str, Any]) -> Answer:
    """Always sure of the letter A, and of its sentence."""
    letters = re.findall(r"^([A-Z]): ", question["user"], re.MULTILINE)
    if not letters:
        return answer("It follows.")
    return answer(weights={letter: 0.9 if letter == "A" else 0.1 / len(letters) for letter in letters})


def liking(word: str) -> Callable[[dict[str, Any]], Answer]:
    """Sure of the option with this word in it."""

    def reply(question: dict[str, Any]) -> Answer:
        lines = re.findall(r"^[A-Z]: .+$", question["user"], re.MULTILINE)
        if not lines:
            return answer("It follows.")
        return answer(weights={line[0]: 0.9 if word in line else 0.1 / len(lines) for line in lines})

    return reply


def hybrid(
    reply: Callable[[dict[str, Any]], Answer] = first_option, *, share: float = 0.3, adapt: bool = True, **changes: Any
) -> tuple[HybridPolicy, FakeClient]:
    """A hybrid whose planner answers by `reply`."""
    policy = HybridPolicy(external(**{"temperature": 0, **changes}), PROMPTS, Path("log"), share=share, adapt=adapt)
    client = FakeClient(reply)
    assert policy.session is not None
    policy.session._client = client  # type: ignore[assignment]
    return policy, client


def proposed(policy: HybridPolicy, shown: View) -> Proposal:
    return asyncio.run(policy.propose(shown))


def choosers(policy: HybridPolicy, count: int, shown: View | None = None) -> list[str]:
    """Who chose in `count` trials, one after the other: each sees the records of those before it, and the candidates stay the same."""
    shown, chosen = shown or view(3), []
    for number in range(1, count + 1):
        shown = replace(shown, number=number)
        details = proposed(policy, shown).details
        chosen.append(details["chooser"])
        told = Trial(
            1000 + number, "done", objective=1.0, proposal={"details": {k: v for k, v in details.items() if k != "rival"}}
        )
        shown = replace(shown, trials=(*shown.trials, told))
    return chosen


# --- who chooses -----------------------------------------------------------------------------------------------------


def test_with_a_share_of_nothing_the_planner_is_never_asked() -> None:
    policy, client = hybrid(share=0.0)
    proposal = proposed(policy, view(6))
    assert proposal.action.digest == rank(view(6))[0].candidate.action.digest
    assert proposal.proposed_by == "hybrid"
    assert choosers(policy, 12) == ["surrogate"] * 12
    assert client.asked == []


def test_with_a_share_of_everything_it_is_asked_each_time() -> None:
    policy, client = hybrid(share=1.0)
    assert choosers(policy, 6) == ["planner"] * 6
    assert len(client.asked) >= 6


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_share_in_between_is_kept_in_even_steps_from_every_seed(share: float) -> None:
    firsts = set()
    for seed in range(12):
        policy, _ = hybrid(share=share, adapt=False, reasons="facts", rotations=1)
        chosen = choosers(policy, 20, replace(view(3), seed=seed))
        for first in range(20):
            for last in range(first + 1, 21):
                asked, fair = chosen[first:last].count("planner"), (last - first) * share
                assert math.floor(fair - 1e-9) <= asked <= math.ceil(fair + 1e-9), (seed, first, last)
        firsts.add(chosen.index("planner"))
        if not seed:
            again, _ = hybrid(share=share, adapt=False, reasons="facts", rotations=1)
            assert choosers(again, 20, replace(view(3), seed=seed)) == chosen
    # The seed says where it begins, so that not every run asks at the same trials.
    assert len(firsts) > 1


def test_a_trial_whose_record_tells_no_share_counts_as_the_first_share() -> None:
    def asked(details: dict[str, Any]) -> list[bool]:
        told = Trial(1001, "done", objective=1.0, proposal={"details": details})
        return [due(replace(view(3), seed=seed, trials=(told,)), 0.4, 0.4) for seed in range(20)]

    # A fallback's proposal has a chooser and no share; an opening's and a person's have neither, and take no turn.
    assert asked({"chooser": "surrogate"}) == asked({"chooser": "surrogate", "share": 0.4})
    assert asked({}) == [due(replace(view(3), seed=seed), 0.4, 0.4) for seed in range(20)] != asked({"chooser": "surrogate"})


def test_one_legal_action_is_not_worth_a_question() -> None:
    policy, client = hybrid(share=1.0)
    only = replace(view(), candidates={"sft": view().candidates["sft"][:1]})
    assert proposed(policy, only).details["chooser"] == "surrogate"
    assert client.asked == []


def test_without_a_planner_it_is_the_surrogate() -> None:
    for name in ("hybrid", "surrogate"):
        policy = make_policy(name, Ingredients(share=1.0))
        asyncio.run(policy.start())
        proposal = asyncio.run(policy.propose(view(6)))
        assert (policy.name, proposal.proposed_by, proposal.details["chooser"]) == ("surrogate",) * 3
        assert asyncio.run(policy.observe(view(6), view(6).trials[-1])).memory is None
        assert policy.calls == []
        asyncio.run(policy.make_room(1, 2, "cpu"))
        asyncio.run(policy.close())


@pytest.mark.parametrize("error", [PlannerError("the planner went silent"), None])
def test_a_planner_that_fails_is_a_policy_error(error: PlannerError | None) -> None:
    def reply(question: dict[str, Any]) -> Answer:
        if error:
            raise error
        return answer("I would rather not.")

    policy, _ = hybrid(reply, share=1.0)
    with pytest.raises(PolicyError, match="went silent" if error else "none of the"):
        proposed(policy, view())


# --- what is recorded --------------------------------------------------------------------------------------------------


def test_the_surrogates_own_choice_tells_what_it_expects() -> None:
    shown = view(6)
    proposal = asyncio.run(make_policy("surrogate", Ingredients()).propose(shown))
    top = rank(shown)[0]
    assert proposal.details == {
        "chooser": "surrogate",
        "expected": round(top.forecast.expected, 4),
        "std": round(top.forecast.std, 4),
    }
    assert proposal.alternatives[0]["digest"] == proposal.action.digest
    assert len(proposal.alternatives) == 5
    assert all(item["probability"] is None and item["expected"] and item["std"] for item in proposal.alternatives)
    assert f"the best of {len(all_of(shown))} by expected improvement" in proposal.reason
    assert f"expected {top.forecast.expected:.3f}" in proposal.reason


def test_the_planners_choice_is_told_with_its_rival() -> None:
    shown = view(6)
    ranking = rank(shown)
    favourite = ranking[0]
    other = next(item for item in shortlist(ranking, 12) if item.candidate.action.type != favourite.candidate.action.type)
    policy, client = hybrid(liking(f"{other.candidate.action.type}("), share=1.0, adapt=False)
    proposal = proposed(policy, shown)
    assert proposal.action.type == other.candidate.action.type
    details = proposal.details
    mine = next(item for item in ranking if item.candidate.action.digest == proposal.action.digest)
    assert (details["chooser"], details["planner"], details["style"]) == ("planner", "planner", "letters")
    assert (details["share"], details["expected"]) == (1.0, round(mine.forecast.expected, 4))
    assert details["rival"]["digest"] == favourite.candidate.action.digest
    assert details["rival"]["expected"] == round(favourite.forecast.expected, 4)
    assert details["rival"]["action"].startswith(favourite.candidate.action.type)
    assert proposal.reason == "It follows."
    assert sum(item["probability"] for item in proposal.alternatives) == pytest.approx(1.0, abs=1e-3)
    assert all({"expected", "std"} <= set(item) for item in proposal.alternatives)
    for line in re.findall(r"^[A-Z]: .+$", client.asked[0]["user"], re.MULTILINE):
        assert re.search(r"\[expected \d\.\d{3} ± \d\.\d\d", line)


def test_where_both_want_the_same_there_is_no_rival() -> None:
    shown = replace(view(6), candidates={"sft": view(6).candidates["sft"][:2]})
    favourite = rank(shown)[0].candidate.action
    want = f"{favourite.inputs['dataset'][0]}; learning_rate={favourite.params['learning_rate']:g}"
    policy, _ = hybrid(liking(want), share=1.0)
    proposal = proposed(policy, shown)
    assert proposal.action.digest == favourite.digest
    assert "rival" not in proposal.details


def test_the_order_of_the_options_says_nothing_of_their_rank() -> None:
    policy, client = hybrid(share=1.0, shortlist=6, rotations=1)
    proposed(policy, view(6))
    lines = re.findall(r"^[A-Z]: .+$", client.asked[0]["user"], re.MULTILINE)
    short = shortlist(rank(view(6)), 6)
    by_digest = sorted(short, key=lambda item: item.candidate.action.digest)
    assert [line.split("[expected ")[1][:5] for line in lines] == [f"{item.forecast.expected:.3f}" for item in by_digest]


# --- the shortlist ---------------------------------------------------------------------------------------------------


def test_a_shortlist_has_at_most_two_of_a_kind_while_there_are_others() -> None:
    rates = [0.001 * step for step in range(1, 8)]
    items = [sft(model, data, learning_rate=rate) for model in ("base", "m1") for data in ("A", "B") for rate in rates]
    story = Story()
    story.tell(sft("base", "A", learning_rate=0.01), 0.1)
    ranking = rank(story.view(*items))
    short = shortlist(ranking, 8)
    kinds = [tuple(item.candidate.action.inputs.items()) for item in short]
    assert len(short) == 8
    assert {kinds.count(kind) for kind in kinds} == {ALIKE}
    assert short[0] == ranking[0]
    longer = shortlist(ranking, 20)
    assert len({item.candidate.action.digest for item in longer}) == 20
    assert longer[:8] == short
    assert shortlist(ranking, 99) != ranking
    assert len(shortlist(ranking, 99)) == len(ranking)


@pytest.mark.parametrize("index", range(0, WORLDS, 5))
def test_ranking_is_complete_and_the_order_of_listing_does_not_matter(index: int) -> None:
    shown = made_up(index)
    ranking = rank(shown)
    assert sorted(item.candidate.action.digest for item in ranking) == sorted(item.action.digest for item in all_of(shown))
    gains = [item.forecast.improvement for item in ranking]
    assert gains == sorted(gains, reverse=True)
    if ranking:
        assert rank(turned(shown))[0].candidate.action.digest == ranking[0].candidate.action.digest


# --- the share -------------------------------------------------------------------------------------------------------


def history(*outcomes: bool | None, status: str = "done") -> View:
    """A run whose planner's choices came out as told: better than the rival was expected to, worse, or without a score."""
    trials = []
    for number, won in enumerate(outcomes, 1):
        proposal = {"details": {"chooser": "planner", "rival": {"expected": 1.0}}}
        objective = None if won is None else 1.1 if won else 0.9
        trials.append(Trial(number, "failed" if won is None else status, objective=objective, proposal=proposal))
    return replace(view(1), trials=tuple(trials))


def test_the_share_starts_as_set_and_follows_what_the_planner_brings() -> None:
    assert current_share(history(), 0.3) == pytest.approx(0.3)
    assert current_share(history(True), 0.3) == pytest.approx(0.4)
    assert current_share(history(False), 0.3) == pytest.approx(0.2)
    assert current_share(history(None), 0.3) == pytest.approx(0.2)
    assert current_share(history(True, False), 0.3) == pytest.approx(0.3)
    assert current_share(history(*[True] * 30), 0.3) == MOST_SHARE
    assert current_share(history(*[False] * 30), 0.3) == LEAST_SHARE


def test_only_choices_that_differed_and_were_run_count() -> None:
    for status in ("vetoed", "skipped", "stopped", "running"):
        assert current_share(history(True, True, status=status), 0.3) == pytest.approx(0.3)
    own = {"details": {"chooser": "surrogate", "expected": 1.0}}
    agreed = {"details": {"chooser": "planner", "expected": 1.0}}
    trials = [Trial(1, "done", objective=0.1, proposal=own), Trial(2, "done", objective=0.1, proposal=agreed)]
    trials += [Trial(3, "done", objective=0.1, proposal={}), Trial(4, "done", objective=0.1)]
    assert current_share(replace(view(1), trials=tuple(trials)), 0.3) == pytest.approx(0.3)


@settings(deadline=None)
@given(st.lists(st.sampled_from([True, False, None]), max_size=40), st.floats(0, 1))
def test_the_share_stays_within_its_bounds(outcomes: list[bool | None], start: float) -> None:
    share = current_share(history(*outcomes), start)
    assert min(LEAST_SHARE, start) <= share <= max(MOST_SHARE, start)
    assert current_share(history(*outcomes, True), start) >= share or share >= MOST_SHARE
    assert current_share(history(*outcomes, False), start) <= share or share <= LEAST_SHARE


def test_a_losing_planner_is_asked_less_often_and_a_winning_one_more() -> None:
    def asked(outcome: bool, *, adapt: bool = True) -> int:
        policy, _ = hybrid(share=0.3, adapt=adapt, reasons="facts", rotations=1)
        return choosers(policy, 40, history(*[outcome] * 12)).count("planner")

    assert asked(False) < asked(True, adapt=False) < asked(True)
    assert asked(False, adapt=False) == asked(True, adapt=False)


# --- the memory ------------------------------------------------------------------------------------------------------


def chosen_by(chooser: str) -> Trial:
    trial = view(4).trials[-1]
    return replace(trial, proposal={"action": trial.action, "details": {"chooser": chooser}})


def test_the_planner_writes_the_memory_after_its_own_trials_only() -> None:
    policy, client = hybrid(memory="planner")
    told = asyncio.run(policy.observe(view(4), chosen_by("planner")))
    assert (told.memory, told.by) == ("It follows.", "hybrid (planner)")
    assert [call.call for call in policy.calls] == ["update_memory"]
    before = len(client.asked)
    assert asyncio.run(policy.observe(view(4), chosen_by("surrogate"))).memory is None
    assert asyncio.run(policy.observe(view(4), view(4).trials[-1])).memory is None
    assert len(client.asked) == before


def test_code_writes_the_memory_after_every_trial() -> None:
    policy, client = hybrid(memory="facts")
    for chooser in ("planner", "surrogate"):
        told = asyncio.run(policy.observe(view(4), chosen_by(chooser)))
        assert told.by == "facts"
        assert told.memory
    written = replace(view(4), memory="Merge first.", memory_by="person")
    assert asyncio.run(policy.observe(written, chosen_by("planner"))).memory is None
    assert client.asked == []


def test_a_data_action_can_be_told_from_the_rest_of_a_shortlist() -> None:
    mix = candidate("mix", {"datasets": ("A", "B")}, share=0.5)
    story = Story()
    story.tell(sft("base", "A", learning_rate=0.01), 0.1)
    shown = story.view(mix, sft("m1", "B", learning_rate=0.01), makes_data=frozenset({"mix"}))
    policy, _ = hybrid(liking("mix("), share=1.0)
    proposal = proposed(policy, shown)
    assert proposal.action.digest == mix.action.digest
    assert proposal.details["expected"] == pytest.approx(max(shown.objectives.values()), abs=1e-3)
