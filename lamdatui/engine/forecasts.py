"""What is expected of actions: the surrogate's forecasts for proposals whose policy has none, and for what a person tries out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lamdatui.domain.actions import Estimate
from lamdatui.domain.choice import Candidate, Proposal, View
from lamdatui.domain.objects import ObjectPool
from lamdatui.policy.surrogate import LEAST_TRIALS, Forecast, load, told

PATIENCE_SECONDS = 2.0
"""A proposal waits this long for its forecast, and goes without it then."""
DIGITS = 4


class Forecasts:
    """Asks the surrogate in a thread, one question at a time; nothing fails because of it."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[list[Forecast | None]] | None = None
        self._warming: asyncio.Task[None] | None = None

    def warm(self, trials: int) -> asyncio.Task[None] | None:
        """Import what the surrogate stands on, once, in a thread, before so many trials are done that it is asked.

        To be called while a step is under way and nobody waits for the engine.
        """
        if self._warming is None and trials >= LEAST_TRIALS:
            self._warming = asyncio.create_task(asyncio.to_thread(load))
        return self._warming

    async def of(self, view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
        """A forecast for each candidate; None for what can't be told, or not in time."""
        nothing: list[Forecast | None] = [None] * len(candidates)
        if not candidates:
            return nothing
        # The pool may grow while the thread reads it.
        still = replace(view, pool=ObjectPool(dict(view.pool.items)))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while self._asking is not None and not self._asking.done():
                    await asyncio.wait([self._asking])
                self._asking = asyncio.create_task(asyncio.to_thread(_ask, still, candidates))
                # A thread can't be ended: what takes too long goes on alone, and the next question waits for it.
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return nothing

    async def complete(self, view: View, proposal: Proposal) -> Proposal:
        """The proposal with what is expected of it, and with each alternative as an action, with what is expected of that."""
        listed = {item.action.digest: item for group in view.candidates.values() for item in group}
        missing = [one["digest"] for one in proposal.alternatives if "expected" not in one]
        if "expected" not in proposal.details:
            missing.append(proposal.action.digest)
        asked = {digest: listed[digest] for digest in missing if digest in listed}
        if proposal.action.digest in missing and proposal.action.digest not in asked:
            asked[proposal.action.digest] = Candidate(proposal.action, Estimate())
        found = dict(zip(asked, await self.of(view, list(asked.values())), strict=True))
        alternatives = []
        for one in proposal.alternatives:
            digest = one["digest"]
            action = listed[digest].action.to_json() if digest in listed else {}
            parts = {name: action[name] for name in ("type", "inputs", "params", "seed") if name in action}
            alternatives.append({**numbers(found.get(digest)), **one, **parts})
        details = {**numbers(found.get(proposal.action.digest)), **proposal.details}
        return replace(proposal, alternatives=tuple(alternatives), details=details)


def _ask(view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
    try:
        return told(view, candidates)
    except Exception:  # noqa: BLE001 (nothing depends on a forecast)
        return [None] * len(candidates)


def numbers(forecast: Forecast | None) -> dict[str, Any]:
    """`expected` and `std` of a forecast; empty where there is none."""
    if forecast is None:
        return {}
    return {"expected": round(forecast.expected, DIGITS), "std": round(forecast.std, DIGITS)}
