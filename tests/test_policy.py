"""Policies that ask a planner: what they ask, what becomes of its answers, its reasons and its memory, and what when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.choice import PolicyError, View
from lamdatui.domain.policies import DEFAULT, SUMMARIES
from lamdatui.planner import brief
from lamdatui.planner.client import Answer, PlannerError
from lamdatui.planner.settings import MOST_OPTIONS, PlannerSettings
from lamdatui.policy import CHEAP, POLICIES, Ingredients, make_policy
from lamdatui.policy.lamdagent import LamdagentPolicy
from tests.views import PROMPTS, FakeClient, all_of, answer, external, sft, view

SAID = "Both parents are strong. And th"


def options_in(question: dict[str, Any]) -> list[str]:
    """The lettered lines of a question."""
    return re.findall(r"^[A-Z]: .+$", question["user"], re.MULTILINE)


def preferring(*words: str, said: str = SAID, most: float = 20.0) -> Callable[[dict[str, Any]], Answer]:
    """A planner that likes options with one of the words in them, and writes the same sentence whenever it may write."""

    def reply(question: dict[str, Any]) -> Answer:
        if question["grammar"] == 'root ::= "Yes" | "No"':
            good = any(word in question["user"].split("A possible", 1)[1] for word in words)
            return answer(weights={"Yes": 0.9, "No": 0.1} if good else {"Yes": 0.1, "No": 0.9})
        lines = options_in(question)
        if not lines or question["grammar"] is None:
            return answer(said)
        worth = {line[0]: most if any(word in line for word in words) else 1.0 for line in lines}
        return answer(weights={letter: one / sum(worth.values()) for letter, one in worth.items()})

    return reply


def asking(reply: Callable[[dict[str, Any]], Answer], **changes: Any) -> tuple[LamdagentPolicy, FakeClient]:
    """A lamdagent policy whose server is somebody else's and whose client answers by `reply`."""
    policy = LamdagentPolicy(external(**changes), PROMPTS, Path("log"))
    client = FakeClient(reply)
    policy.session._client = client  # type: ignore[assignment]
    return policy, client


def proposed(policy: LamdagentPolicy, shown: View):
    return asyncio.run(policy.propose(shown))


# --- choosing --------------------------------------------------------------------------------------------------------


def test_the_type_is_chosen_first_and_then_all_the_rest() -> None:
    policy, client = asking(preferring("merge_ties:", "m1, m3"), temperature=0)
    proposal = proposed(policy, view())
    assert proposal.action.type == "merge_ties"
    assert proposal.action.inputs["models"] == ("m1", "m3")
    assert proposal.proposed_by == "lamdagent"
    assert proposal.details == {"planner": "planner", "style": "letters"}
    types, actions = client.asked[:2], client.asked[2:5]
    assert {line[3:].split(":")[0] for line in options_in(types[0])} == {"sft", "merge_ties"}
    assert all(line[3:].startswith("merge_ties(") for question in actions for line in options_in(question))
    assert [question["reuse_prefix"] for question in client.asked] == [False, True, True, True, True, True]
    assert [call.call for call in policy.calls] == ["type", "action", "explain"]
    assert [call.tokens for call in policy.calls] == [200, 300, 100]
    assert policy.calls[1].answer.startswith("letters: A ")


def test_the_alternatives_carry_probabilities_that_sum_to_one_the_likeliest_first() -> None:
    policy, _ = asking(preferring("m1, m3"))
    shown = replace(view(), candidates={"merge_ties": view().candidates["merge_ties"]})
    proposal = proposed(policy, shown)
    found = [item["probability"] for item in proposal.alternatives]
    assert sum(found) == pytest.approx(1.0, abs=1e-3)
    assert found == sorted(found, reverse=True)
    assert proposal.alternatives[0]["action"].startswith("merge_ties(base, m1, m3")
    assert {item["digest"] for item in proposal.alternatives} == {item.action.digest for item in all_of(shown)}


def test_a_question_with_one_answer_is_not_asked() -> None:
    only = view()
    policy, client = asking(preferring("x"))
    proposal = proposed(policy, replace(only, candidates={"sft": only.candidates["sft"][:1]}))
    assert proposal.reason == "the only legal action"
    assert client.asked == []
    proposed(policy, replace(only, candidates={"sft": only.candidates["sft"]}))
    assert [call.call for call in policy.calls] == ["action", "explain"]
    assert client.asked[0]["reuse_prefix"] is False
    with pytest.raises(PolicyError, match="no legal action"):
        proposed(policy, replace(only, candidates={}))


def test_the_only_action_of_a_chosen_type_is_told_as_such() -> None:
    shown = view()
    policy, _ = asking(preferring("merge_ties"), temperature=0)
    one = replace(shown, candidates={**shown.candidates, "merge_ties": shown.candidates["merge_ties"][:1]})
    assert proposed(policy, one).reason == "the only legal merge_ties; the planner chose the type"


def test_the_same_history_asks_the_same_and_another_seed_something_else() -> None:
    def asked(shown: View) -> list[dict[str, Any]]:
        policy, client = asking(preferring("sft:"), shortlist=5, temperature=0)
        proposed(policy, shown)
        return client.asked

    again, other = asked(view(9)), asked(view(9, seed=8))
    assert asked(view(9)) == again
    assert [item["seed"] for item in again] != [item["seed"] for item in other]
    assert again[0]["seed"] != again[-1]["seed"]
    assert [options_in(item) for item in again] != [options_in(item) for item in other]
    assert all(len(options_in(item)) == 5 for item in again[2:5])


def test_more_types_than_letters_are_still_a_choice() -> None:
    shown = view()
    kinds = {f"kind_{number}": shown.candidates["sft"] for number in range(40)}
    policy, client = asking(preferring("x"))
    proposed(policy, replace(shown, candidates=kinds))
    assert len(options_in(client.asked[0])) == MOST_OPTIONS


def test_a_small_planner_judges_each_option_alone() -> None:
    policy, client = asking(preferring("merge_ties:", "m1, m3"), style="yes-no", reasons="facts", temperature=0)
    proposal = proposed(policy, view())
    assert proposal.action.inputs["models"] == ("m1", "m3")
    assert proposal.details["style"] == "yes-no"
    merges = view().candidates["merge_ties"]
    assert len(client.asked) == 2 + len(merges)
    assert {question["max_tokens"] for question in client.asked} == {1}
    assert [question["reuse_prefix"] for question in client.asked] == [False] + [True] * (len(client.asked) - 1)


@pytest.mark.parametrize(
    ("parameters", "style", "memory", "sentences"),
    [(135_000_000, "yes-no", "facts", False), (8_000_000_000, "letters", "planner", True), (0, "letters", "planner", True)],
)
def test_how_a_planner_is_used_follows_from_its_size(parameters: int, style: str, memory: str, sentences: bool) -> None:
    listing = {"data": [{"id": "qwen", "meta": {"n_params": parameters}}]}

    async def body() -> None:
        async with server_of(json.dumps(listing).encode()) as url:
            policy = LamdagentPolicy(PlannerSettings(backend="openai", url=url), PROMPTS, Path("log"))
            await policy.start()
            session = policy.session
            assert (session.model, session.style) == ("qwen", style)
            assert (session.memory_mode, session.writes_reasons) == (memory, sentences)
            await policy.close()

    asyncio.run(body())


@contextlib.asynccontextmanager
async def server_of(body: bytes) -> AsyncIterator[str]:
    """A server that answers every request with the same JSON."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


# --- what it is told, what it writes -------------------------------------------------------------------------------------


def test_hints_memory_and_rules_are_in_every_question() -> None:
    shown = replace(view(), hints=("person: try merging first",), constraints=("never dpo: too early",))
    policy, client = asking(preferring("merge_ties"), memory="planner")
    proposed(policy, shown)
    asyncio.run(policy.observe(shown, shown.trials[-1]))
    assert [call.call for call in policy.calls] == ["type", "action", "explain", "update_memory"]
    for question in client.asked:
        assert "Hints from people: person: try merging first" in question["user"]
        assert "SFT on tools helps." in question["user"]
        assert "maximise" in question["system"]
    assert all("never dpo: too early" in question["user"] for question in client.asked[:-1])


def test_thoughts_come_first_and_reach_the_question() -> None:
    policy, client = asking(preferring("merge_ties", said="Merging m1 and m3\nlooks right."), think_tokens=300, reasons="facts")
    proposed(policy, view())
    assert [call.call for call in policy.calls] == ["think", "type", "think", "action"]
    thinking = [question for question in client.asked if question["grammar"] is None]
    choosing = [question for question in client.asked if question["grammar"]]
    assert [question["max_tokens"] for question in thinking] == [300, 300]
    assert all("\n- " in question["user"] for question in thinking)
    assert len(choosing) == 5
    assert all("Merging m1 and m3 looks right." in question["user"] for question in choosing)
    policy, client = asking(lambda question: answer("B", reasoning="So B.") if question["grammar"] is None else answer("A"))
    policy.session.settings = policy.session.settings.model_copy(update={"think_tokens": 50})
    proposed(policy, view())
    assert policy.calls[0].answer == "So B."
    assert "So B." in client.asked[1]["user"]


def test_a_planner_that_may_write_gives_its_reason_as_a_sentence() -> None:
    policy, client = asking(preferring("merge_ties"))
    assert proposed(policy, view()).reason == "Both parents are strong."
    explained = client.asked[-1]
    assert "The next action is: merge_ties(" in explained["user"]
    assert explained["grammar"].startswith("root ::= [^")
    assert explained["schema"] is None


def test_a_reason_of_facts_is_true_of_the_choice_and_costs_no_question() -> None:
    shown = view()
    policy, _ = asking(preferring("merge_ties"), reasons="facts")
    proposal = proposed(policy, shown)
    chosen = next(item for item in all_of(shown) if item.action.digest == proposal.action.digest)
    assert proposal.reason == "; ".join(brief.reasons(shown, chosen))
    assert [call.call for call in policy.calls] == ["type", "action"]
    silent, _ = asking(preferring("merge_ties", said=" "))
    assert proposed(silent, shown).reason == proposal.reason


def test_options_have_facts_beside_them_unless_they_are_off() -> None:
    for facts in (True, False):
        policy, client = asking(preferring("sft"), facts=facts, temperature=0)
        proposed(policy, view())
        shown = [line for question in client.asked[:5] for line in options_in(question)]
        assert all(("[" in line) is facts for line in shown)
        assert ("Facts: best model so far" in client.asked[0]["user"]) is facts


def test_the_memory_is_rewritten_from_the_old_one_and_the_newest_trial() -> None:
    policy, client = asking(preferring("x", said="SFT on tools gained most. Merging is next. And th"))
    shown = view()
    outcome = asyncio.run(policy.observe(shown, shown.trials[-1]))
    assert outcome.memory == "SFT on tools gained most. Merging is next."
    assert outcome.by == "lamdagent (planner)"
    assert "Old memory: SFT on tools helps." in client.asked[0]["user"]
    assert "Newest trial: 3 sft(" in client.asked[0]["user"]
    policy, _ = asking(preferring("x", said=" \n "))
    with pytest.raises(PolicyError, match="empty memory"):
        asyncio.run(policy.observe(shown, shown.trials[-1]))


def test_a_memory_of_facts_is_written_by_code_and_knows_the_newest_trial() -> None:
    shown = view(5)
    newest = shown.trials[-1]
    policy, client = asking(preferring("x"), memory="facts")
    outcome = asyncio.run(policy.observe(replace(shown, trials=shown.trials[:-1]), newest))
    assert (outcome.memory, outcome.by) == (brief.findings(shown), "facts")
    assert client.asked == []


def test_code_does_not_write_over_what_a_person_wrote() -> None:
    shown = replace(view(), memory="Merge first.", memory_by="person")
    policy, _ = asking(preferring("x"), memory="facts")
    assert asyncio.run(policy.observe(shown, shown.trials[-1])).memory is None
    again = asyncio.run(policy.observe(replace(shown, memory_by="facts"), shown.trials[-1]))
    assert again.memory is not None


def test_with_memory_off_nobody_writes_it() -> None:
    policy, client = asking(preferring("x"), memory="off")
    assert asyncio.run(policy.observe(view(), view().trials[-1])).memory is None
    assert client.asked == []


@pytest.mark.parametrize("number", [1, 2, 5, 13, 60])
def test_prompts_stay_within_the_budget(number: int) -> None:
    shown = replace(view(number), memory="word " * 500, constraints=("x = 0.001, " * 60,))
    policy, client = asking(preferring("sft"), prompt_tokens=2000, memory="planner")
    proposed(policy, shown)
    if shown.trials:
        asyncio.run(policy.observe(shown, shown.trials[-1]))
    assert client.asked
    for question in client.asked:
        assert brief.tokens(question["system"]) + brief.tokens(question["user"]) <= 2000


def test_a_tight_budget_shortens_the_record_and_keeps_the_options() -> None:
    def asked(budget: int) -> str:
        policy, client = asking(preferring("sft"), prompt_tokens=budget, shortlist=4)
        proposed(policy, replace(view(40), candidates={"sft": view(40).candidates["sft"]}))
        return client.asked[0]["user"]

    records = [asked(budget).split("\n\nFacts:")[0].count(" -> ") for budget in (2000, 900, 750, 200)]
    assert records == sorted(records, reverse=True)
    assert records[0] > records[-1] >= 1
    assert len(re.findall(r"^[A-D]: sft", asked(200), re.MULTILINE)) == 4


# --- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["", "grpo", "{}", '{"choice": "rm -rf"}', "\x1b[2J"])
def test_a_broken_answer_is_a_policy_error(reply: str) -> None:
    policy, _ = asking(lambda question: answer(reply))
    with pytest.raises(PolicyError, match="none of the 2 options"):
        proposed(policy, view())


@pytest.mark.parametrize("fails_at", [1, 3, 6])
def test_a_planner_error_at_any_question_is_a_policy_error(fails_at: int) -> None:
    good, asked = preferring("merge_ties"), []

    def reply(question: dict[str, Any]) -> Answer:
        asked.append(question)
        if len(asked) == fails_at:
            raise PlannerError("the planner gave no first token within 3 s")
        return good(question)

    policy, _ = asking(reply)
    with pytest.raises(PolicyError, match="no first token within 3 s"):
        proposed(policy, view())
    assert len(asked) == fails_at


def test_policies_are_found_by_name_and_a_wrong_one_with_the_nearest() -> None:
    assert set(POLICIES) == set(SUMMARIES)
    assert DEFAULT in POLICIES
    assert set(CHEAP) < set(POLICIES)
    given = Ingredients(load_prompt=PROMPTS, script=[{"type": "sft"}])
    made = {name: make_policy(name, given).name for name in POLICIES if name != "lamdagent"}
    assert made == {name: "surrogate" if name == "hybrid" else name for name in made}
    assert make_policy("hybrid", replace(given, planner=external())).name == "hybrid"
    for wrong, fix in (("lamdagnt", "lamdagent"), ("hibrid", "hybrid"), ("zzz", "known policies: hybrid, ")):
        with pytest.raises(LamdatuiError, match=f"no policy named '{wrong}'") as caught:
            make_policy(wrong, given)
        assert fix in caught.value.fix
    with pytest.raises(LamdatuiError, match="needs a planner"):
        make_policy("lamdagent", given)
    with pytest.raises(LamdatuiError, match="needs a script"):
        make_policy("scripted", Ingredients())


def test_importing_the_policies_imports_nothing_heavy() -> None:
    heavy = "torch", "textual", "xllamacpp", "transformers", "sklearn", "scipy", "optuna"
    modules = "lamdatui.policy.lamdagent, lamdatui.policy.tpe, lamdatui.policy.hybrid"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- a real planner ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def real(gguf: Path, folder: Path, **changes: Any) -> AsyncIterator[LamdagentPolicy]:
    policy = LamdagentPolicy(PlannerSettings(model=str(gguf), shortlist=4, **changes), PROMPTS, folder / "planner.log")
    await policy.start()
    try:
        yield policy
    finally:
        await policy.close()


@pytest.mark.timeout(300)
def test_a_real_small_planner_proposes_repeatably_with_true_reasons(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        shown = view(4)
        async with real(gguf, tmp_path) as policy:
            first = await policy.propose(shown)
            assert await policy.propose(shown) == first
            outcome = await policy.observe(shown, shown.trials[-1])
        chosen = next(item for item in all_of(shown) if item.action.digest == first.action.digest)
        assert first.reason == "; ".join(brief.reasons(shown, chosen))
        assert first.details["style"] == "yes-no"
        assert sum(item["probability"] for item in first.alternatives) == pytest.approx(1, abs=1e-3)
        assert outcome.by == "facts"
        assert [call.call for call in policy.calls][:2] == ["type", "action"]
        assert all(100 < call.tokens < 8000 for call in policy.calls)

    asyncio.run(body())


@pytest.mark.timeout(300)
def test_a_real_planner_asked_by_letters_thinks_and_writes(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        shown = replace(view(4), candidates={"sft": tuple(sft("base", data, learning_rate=0.1) for data in ("tools", "chat"))})
        changes = {"style": "letters", "reasons": "sentence", "memory": "planner", "think_tokens": 20}
        async with real(gguf, tmp_path, **changes) as policy:
            first = await policy.propose(shown)
            outcome = await policy.observe(shown, shown.trials[-1])
            assert policy.session.style == "letters"
        assert [call.call for call in policy.calls] == ["think", "action", "explain", "update_memory"]
        assert policy.calls[0].answer
        assert first.reason.isprintable()
        assert sum(item["probability"] for item in first.alternatives) == pytest.approx(1, abs=1e-3)
        assert outcome.memory
        assert outcome.by.startswith("lamdagent (")

    asyncio.run(body())


@pytest.mark.timeout(300)
def test_a_killed_planner_is_told_once_and_then_started_again(gguf: Path, tmp_path: Path) -> None:
    async def body() -> None:
        shown = view(3)
        async with real(gguf, tmp_path) as policy:
            host = policy.session.host
            assert host.identity is not None
            os.kill(host.identity[0], signal.SIGKILL)
            started = time.monotonic()
            with pytest.raises(PolicyError, match="the planner's process was killed by signal SIGKILL"):
                await policy.propose(shown)
            assert time.monotonic() - started < 10
            assert (await policy.propose(shown)).action

    asyncio.run(body())
