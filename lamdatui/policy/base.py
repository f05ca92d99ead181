"""What every policy sees and says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamdatui.actions import Action, Estimate
from lamdatui.objects import ObjectPool
from lamdatui.state import Trial


@dataclass(frozen=True)
class Candidate:
    """A legal, feasible action that has not been tried, with what code knows of it."""

    action: Action
    estimate: Estimate
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """All that a policy may use: nothing of the sealed split is in here.

    `candidates` maps an action type's name to its legal candidates (never empty lists). `objective` is a sentence.
    `summaries` maps an action type's name to its one-line summary. `scores` is model id → task → mean on `search`.
    """

    number: int
    seed: int
    pool: ObjectPool
    trials: tuple[Trial, ...]
    candidates: Mapping[str, tuple[Candidate, ...]]
    summaries: Mapping[str, str]
    objective: str
    scores: Mapping[str, Mapping[str, float]]
    objectives: Mapping[str, float]
    memory: str = ""
    constraints: tuple[str, ...] = ()
    trials_left: int = 0


@dataclass(frozen=True)
class Proposal:
    """What a policy wants, why, and what else it weighed."""

    action: Action
    reason: str
    proposed_by: str
    alternatives: tuple[dict[str, Any], ...] = ()
    """Each {"action": one line, "digest", "probability": float | None}, the most likely first; the chosen one is among them."""


@dataclass(frozen=True)
class PlannerCall:
    """One exchange with the planner, for the journal: which call, what it answered, tokens (prompt + new), seconds."""

    call: str
    answer: str
    tokens: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What `observe` gives back: the rewritten memory (None = unchanged) and who wrote it."""

    memory: str | None = None
    by: str = ""
    calls: list[PlannerCall] = field(default_factory=list)


class PolicyError(Exception):
    """A policy could not choose; the engine lets the fallback choose for this trial and says why."""


class Policy(Protocol):
    """Chooses the next action and learns from each trial."""

    name: str
    calls: list[PlannerCall]
    """Exchanges since the engine last took them (it empties the list)."""

    async def start(self) -> None:
        """Get ready (a planner process, say). Raises LamdatuiError when it can't be had."""
        ...

    async def propose(self, view: View) -> Proposal:
        """One of the view's candidates. Raises PolicyError."""
        ...

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Take a finished trial in. Raises PolicyError."""
        ...

    async def close(self) -> None:
        """Release what `start` took."""
        ...
