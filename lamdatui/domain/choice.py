"""What every policy sees and says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamdatui.domain.actions import Action, Estimate, Inputs, Value
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.trials import Trial


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
    memory_by: str = ""
    """Who wrote the memory: `person`, `facts` (code), or a policy with its planner."""
    constraints: tuple[str, ...] = ()
    trials_left: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    """Task → its weight in the objective, 0 where it is only kept."""
    keep: Mapping[str, float] = field(default_factory=dict)
    """Task → by how much a model may fall behind the base on it."""
    per_hour: bool = False
    """Whether the gain per hour of steps is looked for."""
    makes_data: frozenset[str] = frozenset()
    """Action types whose result is a dataset."""
    hints: tuple[str, ...] = ()
    """What people told the planner, oldest first, each with its author: `person: try merging first`."""
    candidate: Callable[[str, Inputs, Mapping[str, Value]], Candidate | str] | None = None
    """(type, inputs, hyperparameters) → the legal candidate, also one that is not listed, or why there is none."""


def parents_of(view: View, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """The models that an action's result descends from: a merge's base, from which it measures changes, is not one of them."""
    items = view.pool.items
    models = {slot: [n for n in ids if n in items and items[n].kind == "model"] for slot, ids in inputs.items()}
    joined = models.get("models")
    return joined if joined else [name for ids in models.values() for name in ids]


def datasets_of(view: View, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """The datasets among an action's inputs."""
    items = view.pool.items
    return [name for ids in inputs.values() for name in ids if name in items and items[name].kind == "dataset"]


@dataclass(frozen=True)
class Proposal:
    """What a policy wants, why, and what else it weighed."""

    action: Action
    reason: str
    proposed_by: str
    alternatives: tuple[dict[str, Any], ...] = ()
    """Each {"action": one line, "digest", "probability": float | None}, the most likely first; the chosen one is among them.
    Where a surrogate ranked them, also "expected" and "std": the objective that it predicts."""
    details: dict[str, Any] = field(default_factory=dict)
    """How the choice was made, for the record: see `HybridPolicy`. Empty for a policy that has nothing to say."""


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
    """A policy could not choose; the engine lets the fallback choose for this trial and says why.

    `over`: it has nothing more to choose, and the search ends.
    """

    def __init__(self, message: str, *, over: bool = False) -> None:
        super().__init__(message)
        self.over = over


class Policy(ABC):
    """Chooses the next action and learns from each trial. What most policies don't need does nothing here."""

    name: str

    def __init__(self) -> None:
        self._calls: list[PlannerCall] = []

    @property
    def calls(self) -> list[PlannerCall]:
        """Exchanges with a planner since the engine last took them (it empties the list)."""
        return self._calls

    async def start(self) -> None:
        """Get ready (a planner process, say). Raises LamdatuiError when it can't be had."""
        return

    @abstractmethod
    async def propose(self, view: View) -> Proposal:
        """One of the view's candidates, or what `view.candidate` made. Raises PolicyError."""

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Take a finished trial in. Raises PolicyError."""
        return Outcome(by=self.name)

    async def make_room(self, needed: int | None, total: int, device: str) -> None:
        """A step is about to take `needed` bytes (None: unknown) of the device's `total`: give memory back if it must.

        Raises LamdatuiError; the step then runs all the same.
        """
        return

    async def close(self) -> None:
        """Release what `start` took."""
        return
