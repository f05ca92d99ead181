"""The hybrid: a surrogate ranks every legal action, and on a share of the trials the planner chooses from the top of its list.

An LLM alone loses to a classical sampler in a fixed space, and a sampler that asks a small LLM now and then leads (Centaur, arXiv
2603.24647: 30% of the trials). The share follows what the planner's choices bring: each one is compared with what the surrogate
expected of its own favourite. Without a planner this is the surrogate alone.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from lamdatui.base.jsonio import digest
from lamdatui.domain.choice import Candidate, Outcome, PlannerCall, Policy, PolicyError, Proposal, View
from lamdatui.domain.state import details_of
from lamdatui.domain.trials import Trial
from lamdatui.planner import brief
from lamdatui.planner.prompts import Load
from lamdatui.planner.session import PlannerSession
from lamdatui.planner.settings import PlannerSettings
from lamdatui.policy.lamdagent import propose_one, remember
from lamdatui.policy.merges import FAIR
from lamdatui.policy.surrogate import Forecast, Surrogate

LEAST_SHARE, MOST_SHARE = 0.1, 0.5
LEAST_SECONDS = 1.0
"""A step counts as at least so long: below that it is the trial around it that takes time."""
SHOWN = 5
"""Alternatives that are kept with a proposal of the surrogate's own."""
ALIKE = 2
"""At most this many options of a shortlist have the same type and objects: the planner is to choose, not to tune."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its forecast, and what it is ranked by."""

    candidate: Candidate
    forecast: Forecast
    worth: float = 0.0


class HybridPolicy(Policy):
    """`share` is the share of trials on which the planner is asked; `adapt` lets it follow what the planner's choices bring.

    A proposal's `details`: `chooser` (planner or surrogate), `expected` and `std` (the objective that the surrogate predicts for
    it), `share` where there is a planner, and, where the planner chose, `rival`: the surrogate's own favourite with what is expected
    of that.
    """

    def __init__(
        self,
        settings: PlannerSettings | None,
        load_prompt: Load | None,
        log_path: Path,
        *,
        share: float = 0.3,
        adapt: bool = True,
    ) -> None:
        super().__init__()
        self.session = PlannerSession(settings, load_prompt, log_path) if settings and load_prompt else None
        self.name = "hybrid" if self.session else "surrogate"
        self._share = share
        self._adapt = adapt

    @property
    def calls(self) -> list[PlannerCall]:
        """Exchanges since the engine last took them."""
        return self.session.calls if self.session else super().calls

    async def start(self) -> None:
        """Have a planner that answers, where one is set. Raises LamdatuiError (exit code 4)."""
        if self.session:
            await self.session.start()

    async def propose(self, view: View) -> Proposal:
        """The surrogate's favourite, or the planner's choice from the top of its list. Raises PolicyError."""
        # In a thread: the engine answers people meanwhile.
        ranking = await asyncio.to_thread(rank, view)
        if not ranking:
            raise PolicyError("there is no legal action left")
        if self.session is None:
            return favourite(view, ranking, self.name)
        # As it is recorded, so that the next trial adds up the same numbers.
        share = round(current_share(view, self._share) if self._adapt else self._share, 3)
        if len(ranking) > 1 and due(view, share, self._share):
            return await self._ask(self.session, view, ranking, share)
        proposal = favourite(view, ranking, self.name)
        return replace(proposal, details=proposal.details | {"share": share})

    async def _ask(self, session: PlannerSession, view: View, ranking: Sequence[Ranked], share: float) -> Proposal:
        short = shortlist(ranking, session.settings.shortlist)
        # By digest, so that the order says nothing of the rank.
        short.sort(key=lambda item: item.candidate.action.sort_key)
        told = [replace(item.candidate, facts=(*item.candidate.facts, expectation(item.forecast))) for item in short]
        proposal = await propose_one(session, view, told, self.name)
        by_digest = {item.candidate.action.digest: item for item in short}
        chosen, rival = by_digest[proposal.action.digest], ranking[0]
        alternatives = tuple(one | _numbers(by_digest[one["digest"]].forecast) for one in proposal.alternatives)
        details = {**proposal.details, "chooser": "planner", "share": share, **_numbers(chosen.forecast)}
        if rival.candidate.action.digest != chosen.candidate.action.digest:
            [line] = brief.short([rival.candidate])
            details["rival"] = {"action": line, "digest": rival.candidate.action.digest, **_numbers(rival.forecast)}
        return replace(proposal, alternatives=alternatives, details=details)

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Rewrite the memory after a trial that the planner chose. Raises PolicyError; the old memory then stays."""
        if self.session is None:
            return Outcome(by=self.name)
        asked = details_of(trial.proposal or {}).get("chooser") == "planner"
        if self.session.memory_mode == "planner" and not asked:
            return Outcome(by=self.name)
        return await remember(self.session, view, trial, self.name)

    async def make_room(self, needed: int | None, total: int, device: str) -> None:
        """Let the planner sleep where the step needs its memory."""
        if self.session:
            await self.session.make_room(needed, total, device)

    async def close(self) -> None:
        """End the planner's process, where there is one."""
        if self.session:
            await self.session.close()


def rank(view: View) -> list[Ranked]:
    """Every candidate by expected improvement, the best first; ties by digest, so that the listing's order does not matter.

    Where the gain per hour is looked for: by expected improvement per second of its step (Snoek et al. 2012, arXiv 1206.2944).
    """
    candidates = [item for group in view.candidates.values() for item in group]
    if not candidates:
        return []
    forecasts = Surrogate(view).forecast(candidates)
    costs = _costs(candidates) if view.per_hour else [1.0] * len(candidates)
    found = [Ranked(one, told, told.improvement / cost) for one, told, cost in zip(candidates, forecasts, costs, strict=True)]
    return sorted(found, key=lambda one: (-one.worth, one.candidate.action.sort_key))


def _costs(candidates: Sequence[Candidate]) -> list[float]:
    """Seconds that each step is expected to take; what nobody can tell takes as long as the others' median."""
    known = [item.estimate.seconds for item in candidates if item.estimate.seconds is not None]
    usual = median(known) if known else LEAST_SECONDS
    return [max(LEAST_SECONDS, usual if item.estimate.seconds is None else item.estimate.seconds) for item in candidates]


def favourite(view: View, ranking: Sequence[Ranked], name: str) -> Proposal:
    """The proposal of the top of a ranking."""
    top = ranking[: min(SHOWN, len(ranking))]
    lines = brief.short([item.candidate for item in top])
    alternatives = tuple(
        {"action": line, "digest": item.candidate.action.digest, "probability": None, **_numbers(item.forecast)}
        for line, item in zip(lines, top, strict=True)
    )
    first = ranking[0]
    by = "expected improvement per second of its step" if view.per_hour else "expected improvement"
    reason = f"{expectation(first.forecast)}: the best of {len(ranking)} by {by}"
    return Proposal(first.candidate.action, reason, name, alternatives, {"chooser": "surrogate", **_numbers(first.forecast)})


def shortlist(ranking: Sequence[Ranked], size: int) -> list[Ranked]:
    """The top of a ranking, with at most `ALIKE` of one type (many merges are one) and the same objects while there are others."""
    seen: dict[Any, int] = {}
    kept, rest = [], []
    merges = {item.candidate.action.type for item in ranking if item.candidate.action.inputs.get("models")}
    for item in ranking:
        action = item.candidate.action
        kind = "merge" if len(merges) > FAIR and action.type in merges else action.type
        key = (kind, tuple(action.inputs.items()))
        seen[key] = seen.get(key, 0) + 1
        (kept if seen[key] <= ALIKE else rest).append(item)
    return [*kept, *rest][:size]


def expectation(forecast: Forecast) -> str:
    """`expected 2.314 ± 0.05`."""
    return f"expected {forecast.expected:.3f} ± {forecast.std:.2f}"


def current_share(view: View, start: float) -> float:
    """The share of trials on which the planner is asked, from what its choices brought so far.

    Each choice that differed from the surrogate's favourite is a win when the model came out at least as good as that favourite was
    expected to; the share is `start` times twice the mean of a Beta(1, 1) posterior over wins, within bounds.
    """
    wins = losses = 0
    for trial in view.trials:
        rival = details_of(trial.proposal or {}).get("rival")
        if rival is None or trial.status not in ("done", "failed"):
            continue
        if trial.objective is not None and trial.objective >= rival["expected"]:
            wins += 1
        else:
            losses += 1
    share = start * 2 * (wins + 1) / (wins + losses + 2)
    # A share outside the bounds was asked for by a person: the bounds are for what is learnt.
    return min(max(share, min(LEAST_SHARE, start)), max(MOST_SHARE, start))


def due(view: View, share: float, start: float) -> bool:
    """Whether this trial is the planner's: the shares of the trials so far, from a random phase on, reach a whole number with it.

    This is systematic sampling: of n trials at a share s the planner has n·s, rounded down or up, in even steps. A coin for each
    trial would leave it out of many a short run. A trial whose record tells no share (a fallback's) counts as `start`.
    """
    spent = random.Random(digest(["share", view.seed])).random()
    for trial in view.trials:
        told = details_of(trial.proposal or {})
        if "chooser" in told:
            spent += told.get("share", start)
    return math.floor(spent + share) > math.floor(spent)


def _numbers(forecast: Forecast) -> dict[str, float]:
    return {"expected": round(forecast.expected, 4), "std": round(forecast.std, 4)}
