"""Policies that ask nobody: what all of them keep to, and what is special about each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamdatui.domain.actions import Action
from lamdatui.domain.choice import Candidate, Policy, PolicyError, Proposal, View
from lamdatui.domain.objects import DatasetObject
from lamdatui.policy import POLICIES, Ingredients, make_policy
from lamdatui.policy.evolution import GO_ON, differences
from lamdatui.policy.halving import ETA
from tests.views import WORLDS, Story, action, all_of, candidate, made_up, sft, tried, turned, view

ALONE = [name for name in POLICIES if name != "lamdagent"]
"""Policies that need no planner."""


def step_of(act: Action, **changes: Any) -> dict[str, Any]:
    """An action as a step of a script."""
    return {"type": act.type, "inputs": {slot: list(ids) for slot, ids in act.inputs.items()}, "params": act.params} | changes


def made(name: str, shown: View) -> Policy:
    """A policy by name; the script that one of them needs begins with what the view has."""
    first = [step_of(item.action) for item in all_of(shown)[-1:]] or [{"type": "sft", "inputs": {}, "params": {}}]
    return make_policy(name, Ingredients(script=first))


def proposed(policy: Policy | str, shown: View) -> Proposal:
    policy = make_policy(policy, Ingredients()) if isinstance(policy, str) else policy
    return asyncio.run(policy.propose(shown))


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALONE)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(index=st.integers(0, WORLDS - 1), seed=st.integers(0, 2**40), number=st.none() | st.integers(1, 60))
def test_every_policy_proposes_a_listed_untried_action_and_the_same_again(
    name: str, index: int, seed: int, number: int | None
) -> None:
    shown = made_up(index, seed, number)
    policy = made(name, shown)
    if not shown.candidates:
        with pytest.raises(PolicyError):
            proposed(policy, shown)
        return
    proposal = proposed(policy, shown)
    assert proposal.action in [item.action for item in shown.candidates[proposal.action.type]]
    assert proposal.action.digest not in tried(shown)
    assert proposal.reason
    assert proposal.reason.isprintable()
    assert proposal.proposed_by == policy.name
    again = proposed(made(name, shown), shown)
    assert again == proposal
    assert proposed(policy, turned(shown)).action == proposal.action
    outcome = asyncio.run(policy.observe(shown, shown.trials[-1])) if shown.trials else None
    assert outcome is None or outcome.memory is None


@pytest.mark.parametrize("name", ALONE)
def test_every_policy_says_so_when_nothing_is_left(name: str) -> None:
    for shown in (view(1), view(6), made_up(3)):
        empty = replace(shown, candidates={}, candidate=lambda kind, inputs, params: "tried already")
        with pytest.raises(PolicyError):
            proposed(made(name, empty), empty)


@pytest.mark.parametrize("name", ALONE)
def test_every_policy_copes_with_a_run_in_which_nothing_worked(name: str) -> None:
    story = Story()
    for rate in range(8):
        story.tell(sft("base", "A", learning_rate=0.001 * (rate + 1)), error={"class": "oom-train", "message": "x"})
    shown = story.view(sft("base", "B", learning_rate=0.5), candidate=lambda kind, inputs, params: sft("base", "B", **params))
    assert proposed(made(name, shown), shown).action == sft("base", "B", learning_rate=0.5).action


@pytest.mark.parametrize("name", [name for name in ALONE if name not in ("scripted", "surrogate", "hybrid")])
def test_policies_that_draw_draw_otherwise_with_another_seed_or_number(name: str) -> None:
    shown = view(6)
    by_seed = {proposed(name, replace(shown, seed=seed)).action.digest for seed in range(20)}
    by_number = {proposed(name, replace(shown, number=number)).action.digest for number in range(20)}
    assert min(len(by_seed), len(by_number)) > 3


# --- random ----------------------------------------------------------------------------------------------------------


def test_the_random_policy_is_uniform_over_types_first() -> None:
    shown = view(5)
    assert len(shown.candidates["sft"]) != len(shown.candidates["merge_ties"])
    drawn = [proposed("random", replace(shown, seed=seed)).action.type for seed in range(300)]
    assert 110 < drawn.count("merge_ties") < 190
    memory = replace(shown, memory="other", hints=("person: merge",))
    assert proposed("random", memory) == proposed("random", shown)
    assert proposed("random", shown).reason.startswith("a uniform random choice")


# --- tpe -------------------------------------------------------------------------------------------------------------

RATES = [round(0.0001 * 1.6**step, 6) for step in range(12)]
GRID = [sft("base", data, learning_rate=rate) for data in "ABCD" for rate in RATES]


def worth(act: Action) -> float:
    """The constructed problem: dataset C is good, and a rate near the seventh is."""
    place = RATES.index(float(act.params["learning_rate"]))
    return (0.15 if act.inputs["dataset"] == ("C",) else 0.0) - 0.02 * abs(place - 7)


def search(name: str, seed: int, trials: int, grid: list[Candidate] = GRID, value: Callable[[Action], float | None] = worth):
    """The values that a policy found on a grid, one action after the other; None for failures."""
    story, left, found = Story(datasets="ABCD", seed=seed), list(grid), []
    for _ in range(trials):
        act = proposed(name, story.view(*left)).action
        left = [item for item in left if item.action.digest != act.digest]
        change = value(act)
        found.append((act, change))
        story.tell(Candidate(act, grid[0].estimate), None if change is None else change / 2)
    return found


def test_tpe_finds_the_good_region_where_a_random_draw_does_not() -> None:
    def later(name: str) -> list[float]:
        """Mean worth of trials 9 to 20, for each seed."""
        return [sum(worth(act) for act, _ in search(name, seed, 20)[8:]) / 12 for seed in range(6)]

    ours, theirs = later("tpe"), later("random")
    assert sum(ours) / 6 > sum(theirs) / 6 + 0.05
    assert sum(a > b for a, b in zip(ours, theirs, strict=True)) >= 5


def test_tpe_keeps_away_from_what_failed() -> None:
    def fails(act: Action) -> float | None:
        return None if act.inputs["dataset"] in (("A",), ("B",)) else 0.01

    found = [search("tpe", seed, 18, value=fails)[8:] for seed in range(4)]
    failed = sum(change is None for run in found for _, change in run)
    assert failed < 40 * 0.35


def test_tpe_tells_how_many_trials_it_stands_on_and_how_often_it_missed() -> None:
    story = Story()
    story.tell(sft("base", "A", learning_rate=0.001), 0.1)
    story.tell(sft("base", "B", learning_rate=0.001))
    story.tell(sft("base", "B", learning_rate=0.002), status="vetoed")
    proposal = proposed("tpe", story.view(sft("base", "A", learning_rate=0.002), sft("m1", "B", learning_rate=0.003)))
    assert proposal.details["misses"] >= 0
    assert proposal.reason in ("suggested by TPE after 2 trials", "the legal action that is nearest to what TPE suggested")


def test_tpe_takes_the_nearest_legal_action_where_its_suggestion_is_none() -> None:
    story = Story()
    for step in range(10):
        story.tell(sft("base", "A", learning_rate=RATES[step]), 0.2 if step in (8, 9) else -0.2)
    left = [sft("base", "B", learning_rate=RATES[0]), sft("base", "A", learning_rate=RATES[11])]
    for number in range(11, 19):
        proposal = proposed("tpe", story.view(*left, number=number))
        assert proposal.action in [item.action for item in left]


# --- evolution -------------------------------------------------------------------------------------------------------


def evolved(count: int = 14) -> Story:
    """A run in which trial 3 and the models from it were by far the best."""
    story = Story()
    for turn in range(1, count + 1):
        story.tell(sft("base", "A", learning_rate=0.001 * turn, packing=False), 0.3 if turn == 3 else 0.001 * turn)
    return story


def test_evolution_begins_with_a_uniform_draw() -> None:
    items = [sft("base", data) for data in ("A", "B")]
    proposal = proposed("evolution", Story().view(*items))
    assert proposal.action in [item.action for item in items]
    assert "nothing is scored yet" in proposal.reason


def test_a_child_goes_on_from_the_winner_or_differs_from_it_in_one_thing() -> None:
    story = evolved(4)
    further = [sft("m3", data, learning_rate=0.5, packing=False) for data in ("A", "B")]
    near = [sft("base", "A", learning_rate=0.9, packing=False), sft("base", "B", learning_rate=0.003, packing=False)]
    far = [sft("base", "B", learning_rate=0.9, packing=True), candidate("dpo", {"model": "base", "dataset": "B"})]
    shown = story.view(*further, *near, *far)
    reasons: Counter[str] = Counter()
    for number in range(200):
        proposal = proposed("evolution", replace(shown, number=number))
        goes_on = proposal.action in [item.action for item in further]
        assert goes_on or proposal.action in [item.action for item in near]
        assert ("goes on from m3" in proposal.reason) is goes_on
        assert goes_on or "trial 3, which won a tournament, with one thing changed" in proposal.reason
        reasons["on" if goes_on else "varied"] += 1
    assert 0.45 < reasons["on"] / 200 < GO_ON + 0.15


def test_the_oldest_die_whatever_they_scored() -> None:
    story = evolved(20)
    items = [sft(f"m{turn}", "B", learning_rate=0.5) for turn in range(1, 21)]
    for number in range(40):
        proposal = proposed("evolution", story.view(*items, number=number))
        assert proposal.action.inputs["model"] != ("m3",)


def test_differences_are_counted_by_slot_and_setting() -> None:
    done = action("sft", {"model": "base", "dataset": "A"}, learning_rate=0.1, packing=False).to_json()
    assert differences(sft("base", "A", learning_rate=0.1, packing=False), done) == 0
    assert differences(sft("base", "B", learning_rate=0.1, packing=False), done) == 1
    assert differences(sft("m1", "B", learning_rate=0.2, packing=True), done) == 4
    assert differences(candidate("dpo", {"model": "base", "dataset": "A"}, beta=0.1), done) == 4


# --- halving ---------------------------------------------------------------------------------------------------------

SIZES = (0.25, 0.5, 1.0)


def sized(rate: float, size: float, data: str = "A") -> Candidate:
    return sft("base", data, learning_rate=rate, data_fraction=size)


def rung(*changes: float, size: float = 0.25) -> tuple[Story, list[Candidate]]:
    """Trials of different rates at one size; the candidates are all that is left at all sizes."""
    story = Story()
    for place, change in enumerate(changes):
        story.tell(sized(0.001 * (place + 1), size), change)
    left = [sized(0.001 * (place + 1), s) for place in range(len(changes) + 4) for s in SIZES]
    done = {trial.action["digest"] for trial in story.trials if trial.action}
    return story, [item for item in left if item.action.digest not in done]


def test_new_things_are_tried_on_the_smallest_part_of_their_data() -> None:
    story, left = rung(0.1, 0.2)
    for number in range(10):
        proposal = proposed("halving", story.view(*left, number=number))
        assert proposal.action.params["data_fraction"] == 0.25
        assert "on 0.25 of its data first" in proposal.reason


def test_the_best_third_is_tried_again_on_more_data_the_best_first() -> None:
    story, left = rung(0.0, 0.3, 0.1, 0.2, -0.1, 0.05)
    assert len(story.trials) // ETA == 2
    first = proposed("halving", story.view(*left))
    assert first.action == sized(0.002, 0.5).action
    assert "trial 2 was in the best third on 0.25 of its data; now on 0.5" in first.reason
    story.tell(sized(0.002, 0.5), 0.3)
    left = [item for item in left if item.action.digest != first.action.digest]
    second = proposed("halving", story.view(*left))
    assert second.action == sized(0.004, 0.5).action
    story.tell(sized(0.004, 0.5), 0.1)
    left = [item for item in left if item.action.digest != second.action.digest]
    for number in range(6):
        third = proposed("halving", story.view(*left, number=number))
        assert third.action.params["data_fraction"] == 0.25, "a rung of two has no best third yet"


def test_the_largest_rung_promotes_first() -> None:
    story, _ = rung(0.0, 0.3, 0.1)
    for place, change in enumerate((0.2, 0.4, 0.1)):
        story.tell(sized(0.1 * (place + 1), 0.5), change)
    left = [sized(rate, size) for rate in (0.002, 0.1, 0.2, 0.3) for size in SIZES]
    left = [item for item in left if item.action.digest not in {t.action["digest"] for t in story.trials if t.action}]
    assert proposed("halving", story.view(*left)).action == sized(0.2, 1.0).action


def test_what_failed_on_more_data_is_not_sent_there_again() -> None:
    story, left = rung(0.0, 0.3, 0.1)
    story.tell(sized(0.002, 0.5))
    left = [item for item in left if item.action.digest != sized(0.002, 0.5).action.digest]
    for number in range(6):
        assert proposed("halving", story.view(*left, number=number)).action.params["data_fraction"] == 0.25


def test_without_sizes_of_data_halving_is_a_uniform_draw() -> None:
    shown = view(5)
    drawn = {proposed("halving", replace(shown, seed=seed)).action.type for seed in range(30)}
    assert drawn == {"sft", "merge_ties"}
    assert "a uniform draw" in proposed("halving", shown).reason
    only = Story().view(*[sized(0.001 * place, 1.0) for place in range(1, 4)])
    assert "a uniform draw" in proposed("halving", only).reason


# --- scripted --------------------------------------------------------------------------------------------------------

SCRIPT = [
    {"type": "sft", "inputs": {"model": "base", "dataset": "A"}, "params": {"learning_rate": 0.1}},
    {"type": "merge_ties", "inputs": {"base": "base", "models": ["m1", "m2"]}},
    {"type": "sft", "inputs": {"model": "base", "dataset": "B"}},
]


def buildable(kind: str, inputs: dict[str, tuple[str, ...]], params: dict[str, Any]) -> Candidate | str:
    """What the engine makes of the parts of an action, on a pool that has no m2."""
    if "m2" in inputs.get("models", ()):
        return "models: no object 'm2' in the pool"
    return candidate(kind, inputs, **params)


def after(story: Story, *proposals: Proposal) -> View:
    """The view when these were proposed, in order; what became of them does not matter."""
    trials = [replace(trial, number=place) for place, trial in enumerate(story.trials, 1)]
    for place, proposal in enumerate(proposals, len(trials) + 1):
        told = {"action": proposal.action.to_json(), "details": proposal.details}
        trials.append(replace(view(2).trials[0], number=place, status="vetoed", model=None, objective=None, proposal=told))
    return story.view(sft("base", "A"), trials=tuple(trials), candidate=buildable)


def test_a_script_is_followed_step_by_step_to_its_end() -> None:
    script = [SCRIPT[0], SCRIPT[2]]
    policy = make_policy("scripted", Ingredients(script=script))
    first = proposed(policy, after(Story()))
    assert first.action == sft("base", "A", learning_rate=0.1).action
    assert (first.reason, first.details) == ("step 1 of 2 of the script", {"step": 0})
    second = proposed(policy, after(Story(), first))
    assert second.action == sft("base", "B").action
    assert proposed(policy, after(Story(), first)) == second
    with pytest.raises(PolicyError, match="over after its 2 steps") as ended:
        proposed(policy, after(Story(), first, second))
    assert ended.value.over


def test_a_step_that_is_not_legal_yet_waits_for_the_next_trial() -> None:
    policy = make_policy("scripted", Ingredients(script=SCRIPT))
    first = proposed(policy, after(Story()))
    between = Proposal(sft("base", "B").action, "by the fallback", "surrogate", details={"chooser": "surrogate"})
    for shown in (after(Story(), first), after(Story(), first, between)):
        with pytest.raises(
            PolicyError, match=r"step 2 of the script \(merge_ties\) is not possible: .*no object 'm2'"
        ) as waits:
            proposed(policy, shown)
        assert not waits.value.over
    ready = replace(after(Story(), first, between), candidate=lambda kind, inputs, params: candidate(kind, inputs, **params))
    merge = proposed(policy, ready)
    assert merge.action.inputs == {"base": ("base",), "models": ("m1", "m2")}
    assert merge.details == {"step": 1}


def test_a_script_needs_someone_who_builds_its_actions() -> None:
    policy = make_policy("scripted", Ingredients(script=SCRIPT))
    with pytest.raises(PolicyError, match="only listed ones"):
        proposed(policy, Story().view(sft("base", "A", learning_rate=0.1)))


def test_data_actions_are_drawn_like_any_other_and_need_no_scored_parent() -> None:
    mix = candidate("mix", {"datasets": ("A", "B")}, share=0.5)
    story, draw = Story(), random.Random(1)
    for turn in range(8):
        story.tell(sft("base", draw.choice("AB"), learning_rate=0.001 * (turn + 1)), draw.gauss(0, 0.1))
    story.pool.add(DatasetObject("d9", "d9", "sft", 90, "p", trial=9))
    shown = story.view(mix, sft("base", "d9", learning_rate=0.01), makes_data=frozenset({"mix"}))
    for name in ("tpe", "evolution", "halving", "random"):
        drawn = {proposed(name, replace(shown, number=number)).action.type for number in range(30)}
        assert drawn <= {"mix", "sft"}
        assert "sft" in drawn
