"""The policies: what the planner is told, what it may answer, and what happens when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.actions import Action, Estimate
from lamdatui.errors import LamdatuiError
from lamdatui.jsonio import digest
from lamdatui.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.planner import brief
from lamdatui.planner.client import Answer, PlannerError
from lamdatui.planner.prompts import folder_loader
from lamdatui.planner.settings import PlannerSettings
from lamdatui.policy import POLICIES, make_policy
from lamdatui.policy.base import Candidate, PolicyError, View
from lamdatui.policy.lamdagent import LamdagentPolicy
from lamdatui.state import Trial

PROMPTS = folder_loader(Path(__file__).parent.parent / "prompts")
SUMMARIES = {"sft": "supervised fine-tuning with a LoRA adapter", "merge_ties": "TIES merge of several models"}


def action(kind: str, inputs: dict[str, tuple[str, ...]], **params: float | int | str) -> Action:
    body = [kind, {slot: list(ids) for slot, ids in inputs.items()}, params]
    return Action(kind, inputs, dict(params), 1, digest(body))


def view(number: int = 4, seed: int = 7) -> View:
    """A run of `number` - 1 closed trials on one base, with SFT and merges as legal candidates."""
    draw = random.Random(number)
    pool, trials = ObjectPool(), []
    pool.add(ModelObject("base", "d0", "llama", "l", "w"))
    for name in ("tools", "chat"):
        pool.add(DatasetObject(name, f"d-{name}", "sft", 900, "p"))
    objectives, scores = {"base": 0.4}, {"base": {"tool_use": 0.3, "instructions": 0.5}}
    for turn in range(1, number):
        done = action(
            "sft",
            {"model": (draw.choice(list(objectives)),), "dataset": (draw.choice(["tools", "chat"]),)},
            learning_rate=draw.choice([1e-4, 1e-3]),
            lora_rank=16,
        )
        if turn % 5 == 2:
            trials.append(Trial(turn, "failed", done.to_json(), "lamdagent", error={"class": "oom-train", "message": "x"}))
            continue
        name, value = f"m{turn}", round(0.4 + draw.random() / 10, 4)
        objectives[name], scores[name] = value, {"tool_use": value - 0.1, "instructions": value + 0.1}
        pool.add(ModelObject(name, f"d-{name}", "llama", "l", "w", trial=turn))
        trials.append(Trial(turn, "done", done.to_json(), "lamdagent", model=name, objective=value, scores={}))
    sft = [
        Candidate(action("sft", {"model": (name,), "dataset": (data,)}, learning_rate=rate, lora_rank=16), Estimate())
        for name in objectives
        for data in ("tools", "chat")
        for rate in (3e-4, 3e-3)
    ]
    merges = [
        Candidate(action("merge_ties", {"base": ("base",), "models": (a, b)}, density=0.5), Estimate())
        for a in objectives
        for b in objectives
        if a < b
    ]
    candidates = {"sft": tuple(sft)} | ({"merge_ties": tuple(merges)} if merges else {})
    return View(
        number, seed, pool, tuple(trials), candidates, SUMMARIES, "maximise tool_use", scores, objectives,
        memory="SFT on tools helps.", trials_left=9,
    )  # fmt: skip


class Scripted:
    """Stands where the client stands: gives prepared answers and keeps what it was asked."""

    def __init__(self, *replies: str | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[dict] = []

    async def chat(self, messages, **options) -> Answer:
        self.asked.append({"system": messages[0]["content"], "user": messages[1]["content"], **options})
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return Answer(reply, 100, 0.1)

    async def close(self) -> None:
        """Nothing to close."""


def scripted(*replies: str | Exception, **changes) -> tuple[LamdagentPolicy, Scripted]:
    """A lamdagent policy whose server is external and whose client is scripted."""
    policy = LamdagentPolicy(PlannerSettings(backend="openai", url="http://127.0.0.1:1", **changes), PROMPTS, Path("log"))
    client = Scripted(*replies)
    policy._client = client  # type: ignore[assignment]
    return policy, client


def test_two_calls_choose_the_type_and_then_all_the_rest():
    policy, client = scripted('{"type": "merge_ties"}', '{"choice": "B", "reason": "Both\\nparents are strong."}')
    proposal = asyncio.run(policy.propose(view()))
    assert proposal.action.type == "merge_ties"
    assert proposal.reason == "Both parents are strong."
    assert proposal.proposed_by == "lamdagent"
    assert [call.call for call in policy.calls] == ["choose_type", "choose_action"]
    assert [call.tokens for call in policy.calls] == [100, 100]
    first, second = client.asked
    assert first["schema"]["properties"]["type"]["enum"] != []
    assert set(first["schema"]["properties"]["type"]["enum"]) == {"sft", "merge_ties"}
    assert (first["reuse_prefix"], second["reuse_prefix"]) == (False, True)
    assert "SFT on tools helps." in first["user"]
    assert "merge_ties: TIES merge" in second["user"]
    assert len(proposal.alternatives) == len(second["schema"]["properties"]["choice"]["enum"])
    assert {item["probability"] for item in proposal.alternatives} == {None}


def test_a_question_with_one_answer_is_not_asked():
    only = view()
    one = replace(only, candidates={"sft": only.candidates["sft"][:1]})
    policy, client = scripted()
    proposal = asyncio.run(policy.propose(one))
    assert proposal.reason == "the only legal action"
    assert client.asked == []
    policy, client = scripted('{"choice": "A", "reason": "x"}')
    asyncio.run(policy.propose(replace(only, candidates={"sft": only.candidates["sft"]})))
    assert len(client.asked) == 1
    assert client.asked[0]["reuse_prefix"] is False
    with pytest.raises(PolicyError, match="no legal action"):
        asyncio.run(policy.propose(replace(only, candidates={})))


def test_seeds_and_shortlists_follow_the_view():
    def asked(shown: View) -> list[dict]:
        policy, client = scripted('{"type": "sft"}', '{"choice": "A", "reason": "x"}', shortlist=5)
        asyncio.run(policy.propose(shown))
        return client.asked

    again, other = asked(view(9)), asked(view(9, seed=8))
    assert asked(view(9)) == again
    assert [item["seed"] for item in again] != [item["seed"] for item in other]
    assert again[0]["seed"] != again[1]["seed"]
    assert again[1]["user"] != other[1]["user"]
    assert again[1]["schema"]["properties"]["choice"]["enum"] == list("ABCDE")


@pytest.mark.parametrize("reply", ["", "grpo", "{}", '{"type": "rm -rf"}', "\x1b[2J"])
def test_a_broken_answer_is_a_policy_error_and_is_recorded(reply):
    policy, _ = scripted(reply)
    with pytest.raises(PolicyError, match="none of the 2 options"):
        asyncio.run(policy.propose(view()))
    assert [call.answer for call in policy.calls] == [reply]


def test_a_planner_error_is_a_policy_error():
    policy, _ = scripted(PlannerError("the planner gave no first token within 3 s"))
    with pytest.raises(PolicyError, match="no first token within 3 s"):
        asyncio.run(policy.propose(view()))


def test_the_memory_is_rewritten_from_the_old_one_and_the_newest_trial():
    policy, client = scripted("SFT on tools gained most. Merging is next. And th")
    shown = view()
    outcome = asyncio.run(policy.observe(shown, shown.trials[-1]))
    assert outcome.memory == "SFT on tools gained most. Merging is next."
    assert outcome.by.startswith("lamdagent")
    assert "Old memory: SFT on tools helps." in client.asked[0]["user"]
    assert "Newest trial: 3 sft(" in client.asked[0]["user"]
    assert client.asked[0]["max_tokens"] == 90
    assert [call.call for call in policy.calls] == ["update_memory"]
    policy, _ = scripted(" \n ")
    with pytest.raises(PolicyError, match="empty memory"):
        asyncio.run(policy.observe(shown, shown.trials[-1]))


def test_facts_stand_beside_the_options():
    shown = view(12)
    best = max(shown.objectives, key=lambda name: shown.objectives[name])
    assert f"best model so far {best}" in brief.facts(shown)
    assert "weakest task tool_use" in brief.facts(shown)
    assert brief.type_line(shown, "merge_ties").endswith("[not tried yet]")
    assert "tried 11 times, best" in brief.type_line(shown, "sft")
    candidates = [replace(item, facts=("fits in memory",)) for item in shown.candidates["sft"]]
    shared, lines = brief.options(shown, [str(place) for place in range(len(candidates))], candidates)
    assert shared == "lora_rank=16"
    assert any(f"parent {best} " in line and "best so far" in line for line in lines)
    assert all("fits in memory" in line for line in lines)
    assert "failed: oom-train" in brief.record(shown, 10)


def test_the_record_keeps_the_best_and_the_latest():
    shown = view(30)
    lines = brief.record(shown, 5).splitlines()
    assert lines[0] == "(29 trials in all)"
    assert len(lines) <= 11
    best = max((trial for trial in shown.trials if trial.objective is not None), key=lambda trial: trial.objective or 0)
    numbers = [int(line.split()[0]) for line in lines[1:]]
    assert best.number in numbers
    assert set(range(25, 30)) <= set(numbers)
    assert brief.record(view(1), 5) == "(none yet)"


@pytest.mark.parametrize("number", [1, 2, 5, 13, 60])
@pytest.mark.parametrize(
    ("memory", "constraints", "most"), [("SFT helps.", (), 900), ("word " * 500, ("x = 0.001, " * 60,), 1300)]
)
def test_prompts_stay_within_the_budget(number, memory, constraints, most):
    shown = replace(view(number), memory=memory, constraints=constraints)
    replies = ['{"choice": "A", "reason": "x"}', "Memory."]
    policy, client = scripted(*(['{"type": "sft"}'] if len(shown.candidates) > 1 else []), *replies)
    asyncio.run(policy.propose(shown))
    if shown.trials:
        asyncio.run(policy.observe(shown, shown.trials[-1]))
    for asked in client.asked:
        assert brief.tokens(asked["system"]) + brief.tokens(asked["user"]) <= most


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 12))
def test_the_random_policy_is_repeatable_and_legal(seed, number):
    shown = view(number, seed)
    policy = make_policy("random", planner=None, load_prompt=PROMPTS, log_path=Path("log"))
    proposal = asyncio.run(policy.propose(shown))
    turned = {kind: tuple(reversed(items)) for kind, items in reversed(list(shown.candidates.items()))}
    again = asyncio.run(policy.propose(replace(shown, candidates=turned, memory="other")))
    assert again == proposal
    assert proposal.action in [item.action for item in shown.candidates[proposal.action.type]]
    assert proposal.reason.startswith("a uniform random choice")
    assert policy.calls == []


def test_the_random_policy_is_uniform_over_types_first():
    policy = make_policy("random", planner=None, load_prompt=PROMPTS, log_path=Path("log"))
    drawn = [asyncio.run(policy.propose(view(5, seed))).action.type for seed in range(300)]
    assert 110 < drawn.count("merge_ties") < 190
    outcome = asyncio.run(policy.observe(view(), view().trials[0]))
    assert outcome.memory is None
    with pytest.raises(PolicyError):
        asyncio.run(policy.propose(replace(view(), candidates={})))


def test_policies_are_found_by_name():
    assert set(POLICIES) == {"lamdagent", "random"}
    with pytest.raises(LamdatuiError, match="no policy named 'lamdagnt'") as caught:
        make_policy("lamdagnt", planner=None, load_prompt=PROMPTS, log_path=Path("log"))
    assert "lamdagent" in caught.value.fix
    with pytest.raises(LamdatuiError, match="needs a planner"):
        make_policy("lamdagent", planner=None, load_prompt=PROMPTS, log_path=Path("log"))


def test_importing_the_policies_imports_nothing_heavy():
    heavy = "torch", "textual", "xllamacpp", "transformers"
    code = f"import sys, lamdatui.policy.lamdagent; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@contextlib.asynccontextmanager
async def real(gguf: Path, folder: Path, **changes) -> AsyncIterator[LamdagentPolicy]:
    policy = LamdagentPolicy(PlannerSettings(model=str(gguf), shortlist=4, **changes), PROMPTS, folder / "planner.log")
    await policy.start()
    try:
        yield policy
    finally:
        await policy.close()


@pytest.mark.timeout(300)
def test_a_real_planner_proposes_repeatably_and_remembers(gguf, tmp_path):
    async def body() -> None:
        shown = view(4)
        async with real(gguf, tmp_path) as policy:
            first = await policy.propose(shown)
            outcome = await policy.observe(shown, shown.trials[-1])
            assert await policy.propose(shown) == first
        assert first.action in [item.action for item in shown.candidates[first.action.type]]
        assert first.reason
        known = [item["probability"] for item in first.alternatives if item["probability"] is not None]
        assert sum(known) == pytest.approx(1)
        assert known == sorted(known, reverse=True)
        assert outcome.memory
        assert [call.call for call in policy.calls][:3] == ["choose_type", "choose_action", "update_memory"]
        assert all(100 < call.tokens < 1100 for call in policy.calls)

    asyncio.run(body())


@pytest.mark.timeout(300)
def test_a_real_planner_can_only_give_reasons_that_are_true_of_its_choice(gguf, tmp_path):
    async def body() -> None:
        async with real(gguf, tmp_path, reasons="facts") as policy:
            for number in (2, 4, 9):
                shown = view(number)
                proposal = await policy.propose(shown)
                candidate = next(
                    item for item in shown.candidates[proposal.action.type] if item.action.digest == proposal.action.digest
                )
                assert proposal.reason in brief.reasons(shown, candidate)

    asyncio.run(body())


@pytest.mark.parametrize("number", [1, 4, 12])
def test_computed_reasons_are_plain_text_and_tell_what_is_so(number):
    shown = view(number)
    best = max(shown.objectives, key=lambda name: shown.objectives[name])
    for candidates in shown.candidates.values():
        for candidate in candidates:
            said = brief.reasons(shown, candidate)
            assert said
            assert all(text.isprintable() and '"' not in text and "\\" not in text for text in said)
            parents = [name for slot, ids in candidate.action.inputs.items() if slot != "dataset" for name in ids]
            builds = any("builds on the best model so far" in text for text in said)
            assert builds == (parents == [best])


@pytest.mark.timeout(300)
def test_a_killed_planner_is_told_once_and_then_started_again(gguf, tmp_path):
    async def body() -> None:
        shown = view(3)
        async with real(gguf, tmp_path) as policy:
            assert policy.host.identity is not None
            os.kill(policy.host.identity[0], signal.SIGKILL)
            started = time.monotonic()
            with pytest.raises(PolicyError, match="the planner's process was killed by signal SIGKILL"):
                await policy.propose(shown)
            assert time.monotonic() - started < 10
            assert (await policy.propose(shown)).action

    asyncio.run(body())
