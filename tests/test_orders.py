"""What a person orders: their own actions, judged as any other; another action for a proposal; more trials."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.choice import Proposal
from lamdatui.domain.declarations import declarations, declared_type
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.approval import Approvals, Decision
from lamdatui.engine.candidates import enumerate_all
from lamdatui.engine.judging import tried_digests
from lamdatui.engine.machine import Machine
from lamdatui.engine.orders import MOST_SEED, fresh, judge_order, read_order, waiting
from lamdatui.engine.people import more_trials
from lamdatui.wire.validation import check_types
from tests.test_approval import proposal
from tests.test_candidates import MACHINE, TYPES, model, pool

Json = dict[str, Any]
SFT: Json = {"type": "sft", "inputs": {"model": ["base"], "dataset": "calls"}, "params": {"learning_rate": "0.002"}}


def order(state: RunState, **changes: Any) -> Json:
    """The action that an order becomes in this state."""
    return fresh(TYPES, read_order(SFT | changes), state, MACHINE).to_json()


def ran(state: RunState, action: Json, status: str = "done") -> None:
    number = len(state.trials) + 1
    state.trials[number] = Trial(number, status, action=action)


def queued(state: RunState, action: Json, name: str = "q1") -> Json:
    state.queue[name] = {"id": name, "action": action, "note": "", "by": "person"}
    return state.queue[name]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (7, "names its type"),
        ({"inputs": {}}, "names its type"),
        ({"type": "sft", "inputs": ["base"]}, "are objects"),
        ({"type": "sft", "params": "rank"}, "are objects"),
        ({"type": "sft", "inputs": {"model": 3}}, "model takes ids"),
        ({"type": "sft", "inputs": {"model": [3]}}, "model takes ids"),
        (SFT | {"seed": -1}, "a seed is"),
        (SFT | {"seed": True}, "a seed is"),
        (SFT | {"seed": MOST_SEED + 1}, "a seed is"),
    ],
)
def test_what_has_not_the_shape_of_an_action_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(LamdatuiError, match=said):
        read_order(wrong)


def test_an_order_is_the_action_that_a_policy_would_have_made() -> None:
    state = pool(model("base"))
    action = order(state)
    assert action["params"]["learning_rate"] == 0.002
    assert action["params"] == TYPES["sft"].fill({"learning_rate": 0.002})
    assert action["seed"] == state.seed
    judged = judge_order(TYPES, read_order(SFT), state, MACHINE)
    assert judged.problems == ()
    assert judged.estimate is not None
    assert judged.action is not None
    assert judged.action.digest == action["digest"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "stf"}, "did you mean 'sft'"),
        ({"inputs": {"modle": ["base"]}}, "no input 'modle'; it has"),
        ({"inputs": {"model": ["base"]}}, "dataset takes 1 object, not 0"),
        ({"inputs": {"model": ["gone"], "dataset": ["calls"]}}, "no object 'gone'"),
        ({"inputs": {"model": ["base"], "dataset": ["pairs"]}}, "format preference"),
        ({"params": {"learning_rate": "much"}}, "learning_rate is a number"),
        ({"params": {"lerning_rate": 1}}, "did you mean 'learning_rate'"),
    ],
)
def test_an_illegal_order_is_refused_in_plain_words(changes: Json, said: str) -> None:
    state = pool(model("base"))
    assert said in "; ".join(judge_order(TYPES, read_order(SFT | changes), state, MACHINE).problems)
    with pytest.raises(LamdatuiError, match=said.replace("?", r"\?")):
        order(state, **changes)


def test_all_wrong_hyperparameters_are_told_at_once() -> None:
    wrong = SFT | {"params": {"learning_rate": -1, "max_steps": "many", "batch_size": 8}}
    assert len(judge_order(TYPES, read_order(wrong), pool(model("base")), MACHINE).problems) == 2


def test_what_does_not_fit_or_is_forbidden_is_refused_with_the_reason() -> None:
    state = pool(model("base", parameters=10**9))
    tiny = Machine("cpu", "float32", 2**28)
    assert "of memory; there are" in judge_order(TYPES, read_order(SFT), state, tiny).problems[0]
    match = {"type": "sft", "inputs": order(state)["inputs"]}
    state.constraints["c1"] = {"text": "never sft on base, calls", "match": match}
    judged = judge_order(TYPES, read_order(SFT), state, MACHINE)
    assert judged.problems == ("a constraint forbids it: never sft on base, calls",)
    with pytest.raises(LamdatuiError, match="a constraint forbids it"):
        order(state)


@pytest.mark.parametrize("status", ["done", "failed", "running", "approved", "awaiting"])
def test_what_was_run_before_gets_the_next_free_seed(status: str) -> None:
    state = pool(model("base"))
    first = order(state)
    ran(state, first, status)
    second = order(state)
    queued(state, second)
    third = order(state)
    assert [one["seed"] for one in (first, second, third)] == [1, 2, 3]
    assert len({one["digest"] for one in (first, second, third)}) == 3
    assert {**third, "seed": 1, "digest": first["digest"]} == first


def test_a_seed_that_is_named_is_kept_or_refused() -> None:
    state = pool(model("base"))
    ran(state, order(state, seed=5))
    assert order(state)["seed"] == 1
    with pytest.raises(LamdatuiError, match="trial 1 is exactly this; leave the seed out"):
        order(state, seed=5)
    queued(state, order(state, seed=6))
    with pytest.raises(LamdatuiError, match="queued already"):
        order(state, seed=6)


@pytest.mark.parametrize("status", ["vetoed", "skipped", "stopped", "rejected"])
def test_what_never_ran_keeps_its_seed(status: str) -> None:
    state = pool(model("base"))
    ran(state, order(state), status)
    assert order(state)["seed"] == state.seed


def test_what_is_queued_is_not_proposed_by_a_policy() -> None:
    state = pool(model("base"))
    listed, _ = enumerate_all(TYPES, state, MACHINE, 1)
    wanted = listed["sft"][0].action.to_json()
    queued(state, wanted)
    assert wanted["digest"] in tried_digests(state)
    after, _ = enumerate_all(TYPES, state, MACHINE, 1)
    assert wanted["digest"] not in {item.action.digest for item in after["sft"]}


def test_a_queued_action_is_judged_again_when_its_turn_comes() -> None:
    state = pool(model("base"))
    item = queued(state, order(state, seed=9))
    assert waiting(TYPES, item, state, MACHINE).to_json() == item["action"]
    ran(state, item["action"])
    with pytest.raises(LamdatuiError, match="trial 1 did exactly this meanwhile"):
        waiting(TYPES, item, state, MACHINE)
    with pytest.raises(LamdatuiError, match="no action type 'sft'"):
        waiting({}, item, state, MACHINE)
    with pytest.raises(LamdatuiError, match="no object 'base'"):
        waiting(TYPES, item, RunState(seed=1), MACHINE)


# --- deciding --------------------------------------------------------------------------------------------------------


async def decided(state: RunState, **args: Any) -> Decision:
    approvals = Approvals(TYPES, MACHINE)
    shown = proposal(state)
    asking = asyncio.create_task(approvals.ask(3, shown))
    await asyncio.sleep(0)
    answer = {"number": 3, "digest": shown.action.digest, "verdict": "edit"}
    approvals.answer(approvals.read(state, answer | args, "person")[1])
    return await asking


async def test_another_action_runs_in_place_of_the_proposed_one() -> None:
    state = pool(model("base"), model("m1", trial=1), model("m2", trial=2))
    merge = {"type": "merge_ties", "inputs": {"models": ["m1", "m2"], "base": ["base"]}, "params": {}}
    for verdict in ("edit", "approve"):
        found = await decided(state, action=merge, verdict=verdict)
        assert (found.verdict, found.action.type, found.action.inputs) == (
            "edit",
            "merge_ties",
            {"models": ("m1", "m2"), "base": ("base",)},
        )
    same = await decided(state, action=proposal(state).action.to_json())
    assert (same.verdict, same.action) == ("approve", proposal(state).action)


async def test_another_action_that_was_run_before_is_a_re_run() -> None:
    state = pool(model("base"))
    ran(state, order(state))
    found = await decided(state, action=SFT)
    assert (found.verdict, found.action.seed) == ("edit", 2)


async def test_another_action_is_validated_again() -> None:
    state = pool(model("base"))
    for wrong, said in (
        ({"type": "nothing"}, "no action type"),
        ({"type": "dpo", "inputs": {}}, "takes 1 object"),
        (7, "its type"),
    ):
        with pytest.raises(LamdatuiError, match=said):
            await decided(state, action=wrong)


def test_who_wants_an_action_has_approved_it_but_not_in_read_only() -> None:
    state = pool(model("base"))
    own = Proposal(proposal(state).action, "because", "person")
    for mode, verdict in (("ask", "approve"), ("ask-risky", "approve"), ("auto", "approve"), ("read-only", "rejected")):
        state.mode = mode
        found = Approvals(TYPES, MACHINE).standing(state, own, None)
        assert found is not None
        assert found.verdict == verdict
        assert verdict == "rejected" or (found.by, found.reason) == ("person", "their own action")


# --- what a form is told ---------------------------------------------------------------------------------------------


def test_a_form_is_told_every_slot_and_hyperparameter_as_it_is_declared() -> None:
    reply = json.loads(json.dumps({"types": declarations(TYPES)}))
    assert reply == {"types": declarations(TYPES)}, "what a start of the engine compares with what is on record"
    check_types(reply)
    for name, bound in TYPES.items():
        told = declared_type(name, reply["types"][name])
        assert (told.name, told.summary, told.family, told.output) == (
            name,
            bound.type.summary,
            bound.type.family,
            bound.type.output,
        )
        assert (told.slots, told.params) == (bound.type.slots, bound.params)
        assert told.defaults() == bound.defaults()
    newer = {**reply["types"]["sft"], "later": 1, "params": [{**reply["types"]["sft"]["params"][0], "later": 1}]}
    assert [param.name for param in declared_type("sft", newer).params] == [TYPES["sft"].params[0].name]


def test_more_trials_are_a_sensible_number() -> None:
    assert more_trials({"trials": 3}) == 3
    for wrong in (0, -1, 10**6, "3", True, 2.5):
        with pytest.raises(LamdatuiError, match="more takes 1 to"):
            more_trials({"trials": wrong})
