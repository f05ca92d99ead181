"""Decisions: fail closed, bound to what was shown, validated again, with consequences that are listed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import make_action
from lamdatui.domain.choice import Proposal
from lamdatui.domain.state import RunState
from lamdatui.engine.approval import Approvals, Decision
from lamdatui.engine.judging import matches
from lamdatui.engine.machine import Machine
from tests.test_candidates import TYPES, model, pool

MACHINE = Machine("cpu", "float32", 2**34)


def proposal(state: RunState) -> Proposal:
    inputs = {"model": ("base",), "dataset": ("calls",)}
    return Proposal(make_action(TYPES["sft"], inputs, {}, state.pool, seed=1, dtype="float32"), "why", "random")


async def decided(state: RunState, **args) -> Decision:
    approvals = Approvals(TYPES, MACHINE)
    shown = proposal(state)
    asking = asyncio.create_task(approvals.ask(3, shown))
    await asyncio.sleep(0)
    approvals.answer(approvals.read(state, {"number": 3, "digest": shown.action.digest} | args, "person")[1])
    return await asking


async def test_a_decision_about_something_else_is_refused() -> None:
    state = pool(model("base"))
    for wrong in ({"number": 4}, {"number": 2}, {"digest": "other"}, {"verdict": "rejected"}, {"verdict": "yes"}):
        with pytest.raises(LamdatuiError):
            await decided(state, **{"verdict": "approve", **wrong})
    for digest in ("0", "z"):
        with pytest.raises(LamdatuiError):
            await decided(state, verdict="approve", digest=digest)
    with pytest.raises(LamdatuiError, match="no proposal is waiting"):
        Approvals(TYPES, MACHINE).read(state, {"number": 1, "digest": "d", "verdict": "approve"}, "person")
    assert not Decision("approve", "person", "", proposal(state).action).remember


@pytest.mark.parametrize("verdict", ["approve", "edit", "skip", "veto", "stop"])
async def test_each_verdict_of_a_person_is_taken(verdict: str) -> None:
    state = pool(model("base"))
    decision = await decided(state, verdict=verdict, reason="so", remember=1)
    assert decision == Decision(verdict, "person", "so", proposal(state).action, True)
    assert await decided(state, verdict=verdict) == Decision(verdict, "person", "", proposal(state).action, False)
    with pytest.raises(LamdatuiError, match="a decision is one of approve, edit, veto, skip, stop, not 'rejected'"):
        await decided(state, verdict="rejected")


async def test_an_answer_counts_once_and_only_where_something_was_asked() -> None:
    state = pool(model("base"))
    approvals, shown = Approvals(TYPES, MACHINE), proposal(state)
    no, yes = (Decision(verdict, "person", "", shown.action) for verdict in ("skip", "approve"))
    approvals.answer(yes)
    asking = asyncio.create_task(approvals.ask(3, shown))
    await asyncio.sleep(0)
    approvals.answer(no)
    approvals.answer(yes)
    with pytest.raises(LamdatuiError, match="no proposal is waiting"):
        approvals.read(state, {"number": 3, "digest": shown.action.digest, "verdict": "approve"}, "person")
    assert await asking == no


async def test_another_action_is_the_one_that_was_asked_for_or_the_proposed_one_itself() -> None:
    state = pool(model("base"))
    shown = proposal(state).action
    wanted = {"type": shown.type, "inputs": {slot: list(ids) for slot, ids in shown.inputs.items()}}
    same = await decided(state, verdict="edit", action={**wanted, "params": dict(shown.params)})
    assert (same.verdict, same.action) == ("approve", shown)
    digests = set()
    for rate in (1e-5, 3e-5, 1e-4, 5e-4, 1e-3, 5e-3):
        other = await decided(state, verdict="approve", action={**wanted, "params": {"learning_rate": rate}})
        assert (other.verdict, other.action.params["learning_rate"]) == ("edit", rate)
        digests.add(other.action.digest)
    # Some come before the proposed one in the order of digests, and some after it.
    assert len(digests) == 6 and min(digests) < shown.digest < max(digests)
    match = {"type": shown.type, "inputs": wanted["inputs"]}
    state.constraints["c1"] = {"text": "too early", "match": match}
    with pytest.raises(LamdatuiError, match="too early"):
        await decided(state, verdict="approve", action={**wanted, "params": dict(shown.params)})


async def test_an_edit_is_validated_again_and_changes_what_runs() -> None:
    state = pool(model("base"))
    wanted = {"type": "sft", "inputs": {"model": ["base"], "dataset": ["calls"]}}
    edited = await decided(state, verdict="edit", action=wanted | {"params": {"learning_rate": "0.002"}})
    assert edited.verdict == "edit"
    assert edited.action.params["learning_rate"] == 0.002
    assert edited.action.digest != proposal(state).action.digest
    assert (await decided(state, verdict="edit", action=wanted)).verdict == "approve", "what was proposed is no edit"
    for params, words in (({"learning_rate": -1}, "at least"), ({"lerning_rate": 1}, "did you mean 'learning_rate'")):
        with pytest.raises(LamdatuiError, match=words):
            await decided(state, verdict="edit", action=wanted | {"params": params})


async def test_an_edit_is_held_against_memory_disk_and_constraints_whichever_client_sends_it() -> None:
    """Hyperparameters alone were taken as they came: only the console asked first whether they fit."""
    state = pool(model("base", parameters=10**9))
    shown = proposal(state).action
    large = Machine("cpu", "float32", 2**40)
    tiny = Machine("cpu", "float32", 2**28)
    for machine, words in ((tiny, "of memory; there are"), (large, "a constraint forbids it: never")):
        if machine is large:
            state.constraints["c1"] = {
                "id": "c1",
                "text": "never",
                "match": {"type": "sft", "inputs": shown.to_json()["inputs"]},
            }
        approvals = Approvals(TYPES, machine)
        asking = asyncio.create_task(approvals.ask(3, proposal(state)))
        await asyncio.sleep(0)
        args = {
            "number": 3,
            "digest": shown.digest,
            "verdict": "edit",
            "action": shown.to_json() | {"params": {"batch_size": 64}, "seed": None},
        }
        with pytest.raises(LamdatuiError, match=words):
            approvals.read(state, args, "person")
        asking.cancel()


async def test_nobody_there_means_no() -> None:
    approvals = Approvals(TYPES, MACHINE)
    approvals.unattended = True
    decision = await approvals.ask(1, proposal(pool(model("base"))))
    assert (decision.verdict, decision.by) == ("rejected", "nobody")


def test_modes_answer_only_what_they_may() -> None:
    state = pool(model("base"))
    approvals, shown = Approvals(TYPES, MACHINE), proposal(state)

    def verdict(mode: str, seconds: float | None) -> str | None:
        state.mode = mode
        found = approvals.standing(state, shown, seconds)
        return found.verdict if found else None

    assert verdict("ask", 1.0) is None
    assert verdict("auto", None) == "approve"
    assert verdict("read-only", 1.0) == "rejected"
    assert verdict("ask-risky", 5.0) == "approve"
    assert verdict("ask-risky", 500.0) is None
    assert verdict("ask-risky", None) is None


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_ask_risky_asks_on_a_gpu_however_short_the_work_is(device: str) -> None:
    state = pool(model("base"))
    state.mode = "ask-risky"
    approvals = Approvals(TYPES, Machine(device, "bfloat16", 2**34))
    assert [approvals.standing(state, proposal(state), seconds) for seconds in (0.0, 5.0, 500.0, None)] == [None] * 4


def test_ask_risky_goes_ahead_up_to_a_minute() -> None:
    state = pool(model("base"))
    state.mode = "ask-risky"
    decision = Approvals(TYPES, MACHINE).standing(state, proposal(state), 60.0)
    assert decision is not None and (decision.by, decision.reason) == ("mode ask-risky", "about 60 s on the CPU")
    assert Approvals(TYPES, MACHINE).standing(state, proposal(state), 60.1) is None


@pytest.mark.parametrize(("by", "verdict"), [("mode auto", "approve"), ("stop", "stop"), ("mode read-only", "stop")])
async def test_a_question_that_nobody_answers_ends_with_the_mode_or_the_run(by: str, verdict: str) -> None:
    state = pool(model("base"))
    approvals, shown = Approvals(TYPES, MACHINE), proposal(state)
    approvals.release(by)
    asking = asyncio.create_task(approvals.ask(3, shown))
    await asyncio.sleep(0)
    approvals.release(by)
    approvals.release("again")
    assert await asking == Decision(verdict, by, "", shown.action)
    with pytest.raises(LamdatuiError, match="no proposal is waiting"):
        approvals.read(state, {"number": 3, "digest": shown.action.digest, "verdict": "approve"}, "person")


def test_a_rule_covers_exactly_what_it_says() -> None:
    state = pool(model("base"), model("m1", trial=1))
    approvals, shown = Approvals(TYPES, MACHINE), proposal(state)
    yes = Decision("approve", "person", "", shown.action, remember=True)
    ((kind, rule),) = approvals.consequences(state, 3, yes)
    assert (kind, rule["text"]) == ("rule.added", "always sft on base, calls")
    state.rules[rule["id"]] = rule
    assert approvals.standing(state, shown, None) is not None
    other = make_action(TYPES["sft"], {"model": ("m1",), "dataset": ("calls",)}, {}, state.pool, seed=1, dtype="float32")
    assert approvals.standing(state, Proposal(other, "why", "random"), None) is None
    for kind in ("a_type", "z_type"):
        assert not matches(shown.action, {**rule["match"], "type": kind})
    del state.rules[rule["id"]]
    assert approvals.standing(state, shown, None) is None


def test_a_veto_becomes_a_constraint_with_its_reason() -> None:
    state = pool(model("base"))
    approvals, shown = Approvals(TYPES, MACHINE), proposal(state)
    ((kind, data),) = approvals.consequences(state, 3, Decision("veto", "person", "too early", shown.action))
    assert kind == "constraint.added"
    assert data["text"] == "never sft on base, calls: too early"
    state.constraints[data["id"]] = data
    with pytest.raises(LamdatuiError, match="too early"):
        approvals.other(state, shown.action, shown.action.to_json() | {"params": {"learning_rate": 0.01}})
    assert approvals.consequences(state, 4, Decision("skip", "person", "", shown.action, remember=True)) == []
    assert approvals.consequences(state, 4, Decision("approve", "person", "", shown.action)) == []


@pytest.mark.parametrize(
    "told",
    [
        "surrogate (planner failed: ask root@pts/3)",
        "lamdagent (person@pts/1)",
        "a@b: an error of a server",
        "person ",
        "root@pts/3\n",
        "@",
        "hybrid@",
    ],
)
def test_words_of_a_planner_in_a_proposals_author_are_nobodys_approval(told: str) -> None:
    """Any author with an @ in it was a person: a planner's server that failed with such a message had its proposals run unasked."""
    state = pool(model("base"))
    for mode in ("ask", "ask-risky"):
        state.mode = mode
        assert Approvals(TYPES, MACHINE).standing(state, replace(proposal(state), proposed_by=told), None) is None
    for person in ("person", "root@pts/3", "a.b+c@pid-7"):
        own = Approvals(TYPES, MACHINE).standing(state, replace(proposal(state), proposed_by=person), None)
        assert own is not None and (own.verdict, own.by) == ("approve", person)
