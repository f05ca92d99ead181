"""Who proposes: nothing illegal gets through, whatever fails is replaced, a policy is exchanged between two proposals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import Action
from lamdatui.domain.choice import Outcome, PlannerCall, Policy, PolicyError, Proposal, View
from lamdatui.domain.trials import Trial
from lamdatui.engine.selection import FALLBACKS, Selection
from lamdatui.policy import CHEAP, Ingredients, make_policy
from tests.views import WORLDS, action, all_of, made_up, sft, view

Choose = Callable[[View], Action]


class Named(Policy):
    """Proposes what a rule says, and writes down what is done to it."""

    def __init__(self, name: str, choose: Choose, diary: list[str] | None = None, *, starts: bool = True) -> None:
        super().__init__()
        self.name = name
        self.choose = choose
        self.diary = diary if diary is not None else []
        self.starts = starts

    async def start(self) -> None:
        self.diary.append(f"{self.name} starts")
        if not self.starts:
            raise LamdatuiError("no planner answers", where="at home")

    async def propose(self, view: View) -> Proposal:
        self.diary.append(f"{self.name} proposes")
        self.calls.append(PlannerCall("action", self.name, 10, 0.1))
        return Proposal(self.choose(view), "because", self.name)

    async def observe(self, view: View, trial: Trial) -> Outcome:
        self.choose(view)
        return Outcome("learnt", self.name)

    async def close(self) -> None:
        self.diary.append(f"{self.name} closes")


def first(shown: View) -> Action:
    return all_of(shown)[0].action


def fails(error: Exception) -> Choose:
    def choose(shown: View) -> Action:
        raise error

    return choose


def selection(policy: Policy, *others: Policy, **replaced: Policy) -> tuple[Selection, list[str]]:
    """A selection of `policy`; `others` are found by name, and the real ones otherwise, unless they are `replaced`."""
    known = {one.name: one for one in (policy, *others)} | replaced
    problems: list[str] = []

    def make(name: str) -> Policy:
        return known[name] if name in known else make_policy(name, Ingredients())

    return Selection(make, policy.name, lambda where, message: problems.append(message)), problems


def selected(policy: Policy, shown: View, **replaced: Policy) -> tuple[Proposal, str | None, list[str]]:
    chosen, problems = selection(policy, **replaced)
    proposal, why = asyncio.run(chosen.select(shown))
    return proposal, why, problems


def tuning() -> View:
    """A made-up run in which fine-tuning of the first base is possible."""
    return next(shown for shown in map(made_up, range(WORLDS)) if "sft" in shown.candidates)


# --- what gets through -------------------------------------------------------------------------------------------------


def test_a_listed_action_is_taken_as_it_is() -> None:
    proposal, why, problems = selected(Named("own", first), view())
    assert (proposal.action, proposal.proposed_by) == (first(view()), "own")
    assert (why, problems) == (None, [])


def test_an_action_that_is_not_listed_is_taken_where_it_can_be_built() -> None:
    shown = tuning()
    listed_one = all_of(shown)[0].action
    few = replace(shown, candidates={})
    proposal, why, _ = selected(Named("own", lambda _: listed_one), few)
    assert (proposal.action, why) == (listed_one, None)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (action("grpo", {"model": "base"}), "no action type 'grpo'"),
        (sft("nobody", "a").action, "no object 'nobody' in the pool"),
        (sft("base0", "a", learning_rate=-1.0).action, "at least"),
        (sft("base0", "a", lerning_rate=0.1).action, "did you mean 'learning_rate'"),
        (action("sft", {}), "takes 1 object"),
    ],
)
def test_what_is_not_possible_is_replaced_and_the_reason_told(act: Action, why: str) -> None:
    shown = tuning()
    proposal, told, problems = selected(Named("own", lambda _: act), shown)
    assert proposal.proposed_by == "surrogate"
    assert proposal.action in [item.action for item in all_of(shown)]
    assert told is not None
    assert "the policy own proposed what is not possible" in told
    assert why in told
    assert problems == [told]


def test_what_was_tried_already_is_not_run_again() -> None:
    shown = next(each for each in map(made_up, range(WORLDS)) if any(trial.status == "done" for trial in each.trials))
    done = next(trial for trial in shown.trials if trial.status == "done")
    assert done.action is not None
    again = Action(
        done.action["type"],
        {k: tuple(v) for k, v in done.action["inputs"].items()},
        done.action["params"],
        1,
        done.action["digest"],
    )
    _, told, _ = selected(Named("own", lambda _: again), shown)
    assert told is not None
    assert told.endswith("tried already")


def test_an_action_under_a_false_digest_is_not_taken() -> None:
    shown = tuning()
    for digest in ("made-up", all_of(shown)[1].action.digest[:-1] + "x"):
        false = replace(first(shown), digest=digest)
        _, told, _ = selected(Named("own", lambda _, false=false: false), shown)
        assert told is not None
        assert "digest" in told


def test_without_someone_who_builds_it_only_what_is_listed_counts() -> None:
    shown = view()
    assert shown.candidate is None
    proposal, told, _ = selected(Named("own", lambda _: sft("base", "tools", learning_rate=9.0).action), shown)
    assert proposal.action in [item.action for item in all_of(shown)]
    assert told is not None
    assert "it was not listed" in told


# --- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PolicyError("the planner went silent"), "the planner went silent"),
        (ValueError("seven"), "the policy own failed: ValueError: seven"),
        (ImportError("no optuna"), "the policy own failed: ImportError: no optuna"),
        (AssertionError(), "the policy own failed: AssertionError"),
    ],
)
def test_a_policy_that_fails_is_replaced_for_this_trial(error: Exception, said: str) -> None:
    proposal, told, problems = selected(Named("own", fails(error)), view())
    assert proposal.proposed_by == FALLBACKS[0] == "surrogate"
    assert told is not None
    assert told.startswith(said)
    assert problems == [told]


def test_a_fallback_that_fails_is_replaced_by_the_next() -> None:
    broken = Named("surrogate", fails(RuntimeError("no memory")))
    proposal, told, _ = selected(Named("own", fails(PolicyError("no"))), view(), surrogate=broken)
    assert proposal.proposed_by == "random"
    assert told == "no"


def test_when_nobody_can_choose_the_search_is_over() -> None:
    chosen, _ = selection(Named("own", fails(PolicyError("no"))))
    with pytest.raises(PolicyError, match="no legal action"):
        asyncio.run(chosen.select(replace(view(), candidates={})))


def test_a_policy_that_is_over_is_not_replaced() -> None:
    chosen, problems = selection(Named("own", fails(PolicyError("the script is over", over=True))))
    with pytest.raises(PolicyError, match="the script is over") as ended:
        asyncio.run(chosen.select(view()))
    assert ended.value.over
    assert problems == []


def test_cancelling_is_no_failure_of_the_policy() -> None:
    waiting = asyncio.Event()

    class Slow(Named):
        async def propose(self, view: View) -> Proposal:
            waiting.set()
            await asyncio.Event().wait()
            return await super().propose(view)

    async def body() -> None:
        chosen, problems = selection(Slow("own", first))
        asking = asyncio.create_task(chosen.select(view()))
        await waiting.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert problems == []

    asyncio.run(body())


def test_a_policy_that_can_not_learn_from_a_trial_says_so() -> None:
    good, _ = selection(Named("own", first))
    assert asyncio.run(good.observe(view(), view().trials[-1])).memory == "learnt"
    for error in (PolicyError("the planner wrote an empty memory"), KeyError("m1")):
        bad, _ = selection(Named("own", fails(error)))
        with pytest.raises(PolicyError, match=r"empty memory|the policy own failed: KeyError"):
            asyncio.run(bad.observe(view(), view().trials[-1]))


# --- another policy ----------------------------------------------------------------------------------------------------


def test_another_policy_starts_before_the_next_proposal_and_the_old_one_is_closed() -> None:
    diary: list[str] = []
    chosen, problems = selection(Named("old", first, diary), Named("new", first, diary))

    async def body() -> list[str]:
        await chosen.start()
        before, _ = await chosen.select(view())
        chosen.prepared("new")()
        assert diary == ["old starts", "old proposes"]
        after, _ = await chosen.select(view())
        later, _ = await chosen.select(view())
        await chosen.close()
        return [one.proposed_by for one in (before, after, later)]

    assert asyncio.run(body()) == ["old", "new", "new"]
    assert diary[2:] == ["old closes", "new starts", "new proposes", "new proposes", "new closes"]
    assert problems == []


def test_the_last_of_several_switches_counts() -> None:
    diary: list[str] = []
    chosen, _ = selection(Named("old", first, diary), Named("new", first, diary))
    chosen.prepared("new")()
    chosen.prepared("random")()
    proposal, _ = asyncio.run(chosen.select(view()))
    assert proposal.proposed_by == "random"
    assert diary == ["old closes"]


def test_a_policy_whose_planner_can_not_be_had_is_told_and_replaced() -> None:
    new = Named("new", fails(PolicyError("the planner is not running")), starts=False)
    chosen, problems = selection(Named("old", first), new)
    chosen.prepared("new")()
    proposal, told = asyncio.run(chosen.select(view()))
    assert proposal.proposed_by == "surrogate"
    assert told == "the planner is not running"
    assert problems == ["no planner answers at home", "the planner is not running"]


def test_a_switch_that_is_refused_changes_nothing() -> None:
    chosen, _ = selection(Named("old", first))
    for wrong in ("lamdagent", "scripted", "hybird"):
        with pytest.raises(LamdatuiError):
            chosen.prepared(wrong)()
    proposal, _ = asyncio.run(chosen.select(view()))
    assert proposal.proposed_by == "old"


def test_what_was_said_to_the_planner_is_taken_once() -> None:
    chosen, _ = selection(Named("own", first))
    asyncio.run(chosen.select(view()))
    assert [call.answer for call in chosen.take_calls()] == ["own"]
    assert chosen.take_calls() == []


# --- shadows ---------------------------------------------------------------------------------------------------------


def shadows(shown: View, chooser: str, **replaced: Policy) -> list[dict[str, Any]]:
    chosen, _ = selection(Named("own", first), **replaced)
    return asyncio.run(chosen.shadows(shown, Proposal(first(shown), "", chooser)))


def test_shadows_are_what_the_cheap_policies_would_have_done() -> None:
    shown = view(6)
    found = {one["policy"]: one for one in shadows(shown, "lamdagent")}
    assert list(found) == list(CHEAP)
    digests = {item.action.digest: item.action for item in all_of(shown)}
    for name, one in found.items():
        own = asyncio.run(make_policy(name, Ingredients()).propose(shown))
        assert (one["action"], one["digest"]) == (own.action.describe(), own.action.digest)
        assert one["digest"] in digests
        assert one["seconds"] >= 0
        assert (one["expected"] is not None) is (name == "surrogate")


@pytest.mark.parametrize("chooser", CHEAP)
def test_who_chose_is_not_among_its_own_shadows(chooser: str) -> None:
    assert [one["policy"] for one in shadows(view(4), chooser)] == [name for name in CHEAP if name != chooser]


@pytest.mark.parametrize("error", [PolicyError("nothing left"), RuntimeError("a bug"), ImportError("no optuna")])
def test_a_shadow_that_fails_is_left_out_and_the_others_stay(error: Exception) -> None:
    found = shadows(view(4), "hybrid", tpe=Named("tpe", fails(error)))
    assert [one["policy"] for one in found] == [name for name in CHEAP if name != "tpe"]
