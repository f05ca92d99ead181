"""What is expected of actions: the surrogate's numbers for whoever proposed, never in the way of a proposal."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lamdatui.domain.choice import Candidate, Proposal, View
from lamdatui.engine import forecasts as module
from lamdatui.engine.forecasts import Forecasts
from lamdatui.policy.surrogate import Forecast, Surrogate, load, told
from tests.views import Story, candidate, sft


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """The import takes longer than a proposal waits where the machine is busy."""
    load()


def story() -> Story:
    """Dataset A helped twice, B harmed twice."""
    made = Story()
    for rate in (0.001, 0.003):
        made.tell(sft("base", "A", learning_rate=rate), 0.1)
        made.tell(sft("base", "B", learning_rate=rate), -0.1)
    return made


def complete(view: View, proposal: Proposal) -> Proposal:
    return asyncio.run(Forecasts().complete(view, proposal))


def test_a_proposal_and_its_alternatives_are_told_what_is_expected_of_them() -> None:
    good, bad = sft("m1", "A", learning_rate=0.001), sft("m1", "B", learning_rate=0.001)
    view = story().view(good, bad)
    alternatives = tuple({"action": "x", "digest": item.action.digest, "probability": 0.5} for item in (good, bad))
    found = complete(view, Proposal(good.action, "why", "random", alternatives))
    assert found.details["expected"] > view.objectives["base"]
    assert found.details["std"] > 0
    first, second = found.alternatives
    assert first["expected"] == found.details["expected"] > second["expected"]
    assert {name: second[name] for name in ("type", "inputs", "params", "seed")} == {
        name: bad.action.to_json()[name] for name in ("type", "inputs", "params", "seed")
    }
    assert second["probability"] == 0.5
    own = {item.action.digest: f for item, f in zip((good, bad), Surrogate(view).forecast([good, bad]), strict=True)}
    assert first["expected"] == round(own[good.action.digest].expected, 4)


def test_what_a_policy_expects_itself_is_kept() -> None:
    item = sft("m1", "A", learning_rate=0.001)
    mine = {"expected": 0.123, "std": 0.4}
    alternative = {"action": "x", "digest": item.action.digest, "probability": None, **mine}
    found = complete(
        story().view(item), Proposal(item.action, "why", "hybrid", (alternative,), {"chooser": "surrogate", **mine})
    )
    assert found.details == {"chooser": "surrogate", **mine}
    assert (found.alternatives[0]["expected"], found.alternatives[0]["std"]) == (0.123, 0.4)


def test_an_action_that_is_not_listed_is_told_too_and_one_of_another_type() -> None:
    listed, own = sft("m1", "A", learning_rate=0.001), candidate("dpo", {"model": "m1", "dataset": "B"}, beta=0.5)
    [forecast] = told(story().view(listed), [own])
    assert forecast is not None
    assert forecast.std > 0
    assert told(replace(story().view(), candidates={}), [own])[0] is not None


def test_nothing_is_said_where_it_would_be_a_guess() -> None:
    item = sft("base", "A", learning_rate=0.001)
    early = Story()
    assert told(early.view(item), [item]) == [None]
    early.tell(sft("base", "B"), 0.1)
    assert told(early.view(item), [item]) == [None]
    proposal = Proposal(item.action, "why", "opening")
    assert complete(early.view(), proposal) == proposal
    mix = candidate("mix", {"datasets": ("A", "B")})
    assert told(story().view(mix, makes_data=frozenset({"mix"})), [mix]) == [None]


def test_a_surrogate_that_fails_or_is_slow_costs_no_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    item = sft("m1", "A", learning_rate=0.001)
    proposal = Proposal(item.action, "why", "random")
    free = threading.Event()

    def fails(view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
        raise ValueError("a matrix that is not positive definite")

    def slow(view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
        free.wait(30)
        return [Forecast(1.0, 0.1, 0.0)]

    monkeypatch.setattr(module, "told", fails)
    assert complete(story().view(item), proposal) == proposal
    monkeypatch.setattr(module, "told", slow)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)

    async def body() -> None:
        asked = Forecasts()
        began = time.monotonic()
        assert await asked.complete(story().view(item), proposal) == proposal
        assert await asked.of(story().view(item), [item]) == [None]
        assert time.monotonic() - began < 10
        free.set()
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 30.0)
        [late] = await asked.of(story().view(item), [item])
        assert late is not None

    asyncio.run(body())


async def test_the_event_loop_goes_on_while_the_surrogate_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    going = threading.Event()

    def waits(view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
        assert going.wait(30)
        return [None] * len(candidates)

    monkeypatch.setattr(module, "told", waits)
    item = sft("m1", "A")
    asking = asyncio.create_task(Forecasts().of(story().view(item), [item]))
    await asyncio.sleep(0)
    going.set()
    assert await asking == [None]


async def test_what_the_surrogate_stands_on_is_imported_once_beside_the_loop_and_not_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(module, "load", lambda: threads.append(threading.get_ident()))
    asked = Forecasts()
    assert asked.warm(1) is None
    warming = asked.warm(2)
    assert warming is not None and asked.warm(3) is warming
    await warming
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
