"""Decision situations with known better answers: what a planner's choices are worth, measured before it plans anything.

Each one is a moment of a search over tiny models whose every action was really run (bench/policies), with four of the actions that
were possible then and what each of them led to. They are asked exactly as a run asks: same prompts, same facts, same style.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from lamdatui.base.jsonio import digest
from lamdatui.domain.actions import Estimate, action_from_json
from lamdatui.domain.choice import Candidate, PolicyError, View
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.trials import Trial
from lamdatui.planner import brief

if TYPE_CHECKING:
    from lamdatui.planner.session import PlannerSession

FILE = "situations.jsonl"
RESAMPLES = 4000


@dataclass(frozen=True)
class Situation:
    """`candidates` in a fixed order; `values` are the objectives that they led to; `expected` what a surrogate predicted of each."""

    view: View
    candidates: tuple[Candidate, ...]
    values: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def best(self) -> int:
        """The place of the best candidate."""
        return max(range(len(self.values)), key=lambda place: self.values[place])

    def worth(self, place: int) -> float:
        """0 for what a blind choice gets on average, 1 for the best: how much of the difference a choice takes."""
        mean = sum(self.values) / len(self.values)
        return (self.values[place] - mean) / (self.values[self.best] - mean)


def to_json(view: View, candidates: Sequence[Candidate], values: Sequence[float], expected: Sequence[float]) -> dict[str, Any]:
    """A situation as one JSON object."""
    return {
        "number": view.number,
        "seed": view.seed,
        "objective": view.objective,
        "weights": dict(view.weights),
        "datasets": {item.id: item.format for item in view.pool.datasets},
        "scores": {name: dict(found) for name, found in view.scores.items()},
        "objectives": dict(view.objectives),
        "memory": view.memory,
        "summaries": dict(view.summaries),
        "trials": [{"number": t.number, "action": t.action, "model": t.model, "objective": t.objective} for t in view.trials],
        "options": [
            {"action": item.action.to_json(), "facts": list(item.facts), "value": round(value, 4), "expected": round(guess, 4)}
            for item, value, guess in zip(candidates, values, expected, strict=True)
        ],
    }


def from_json(data: Mapping[str, Any]) -> Situation:
    """The situation that `to_json` wrote."""
    pool = ObjectPool()
    made = {trial["model"]: trial["number"] for trial in data["trials"]}
    for name in data["scores"]:
        pool.add(ModelObject(name, digest(name), "tiny", "one", "none", trial=made.get(name)))
    for name, kind in data["datasets"].items():
        pool.add(DatasetObject(name, digest(name), kind, 1200, "none"))
    trials = tuple(
        Trial(one["number"], "done", one["action"], model=one["model"], objective=one["objective"]) for one in data["trials"]
    )
    candidates = tuple(Candidate(action_from_json(one["action"]), Estimate(), tuple(one["facts"])) for one in data["options"])
    kinds: dict[str, tuple[Candidate, ...]] = {}
    for item in candidates:
        kinds[item.action.type] = (*kinds.get(item.action.type, ()), item)
    view = View(
        number=data["number"],
        seed=data["seed"],
        pool=pool,
        trials=trials,
        candidates=kinds,
        summaries=data["summaries"],
        objective=data["objective"],
        scores=data["scores"],
        objectives=data["objectives"],
        memory=data["memory"],
        weights=data["weights"],
    )
    values = tuple(float(one["value"]) for one in data["options"])
    return Situation(view, candidates, values, tuple(float(one["expected"]) for one in data["options"]))


def shipped() -> list[Situation]:
    """The situations that come with lamdatui."""
    text = (files("lamdatui.planner") / FILE).read_text(encoding="utf-8")
    return [from_json(json.loads(line)) for line in text.splitlines()]


@dataclass(frozen=True)
class SituationScore:
    """Shares over situations with 95% bootstrap intervals: `right` (the best option was preferred), `worth` (see `Situation.worth`)."""

    n: int
    right: float
    right_interval: tuple[float, float]
    chance: float
    worth: float
    worth_interval: tuple[float, float]
    surrogate_right: float
    """How often what a surrogate model expects most of is the best option: no language model is needed for that."""
    seconds: float
    tokens: int

    @property
    def verdict(self) -> str:
        """In words, against chance."""
        if self.right_interval[0] > self.chance:
            return "better than chance"
        return "worse than chance" if self.right_interval[1] < self.chance else "not distinguishable from chance"


def score(situations: Sequence[Situation], places: Sequence[int], seconds: float = 0.0, tokens: int = 0) -> SituationScore:
    """The score of the places that were preferred, one for each situation."""
    right = [place == one.best for one, place in zip(situations, places, strict=True)]
    worth = [one.worth(place) for one, place in zip(situations, places, strict=True)]
    guesses = [max(range(len(one.expected)), key=lambda at: one.expected[at]) == one.best for one in situations]
    return SituationScore(
        n=len(situations),
        right=float(np.mean(right)),
        right_interval=_interval(right),
        chance=float(np.mean([1 / len(one.values) for one in situations])),
        worth=float(np.mean(worth)),
        worth_interval=_interval(worth),
        surrogate_right=float(np.mean(guesses)),
        seconds=seconds,
        tokens=tokens,
    )


def _interval(values: Iterable[float]) -> tuple[float, float]:
    array = np.asarray(list(values), dtype=float)
    draws = array[np.random.default_rng(0).integers(0, len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


async def self_test(
    session: PlannerSession, situations: Sequence[Situation], say: Callable[[int, int], None] = lambda done, of: None
) -> SituationScore:
    """Ask a started planner every situation, as a run would. Raises PolicyError when it stops answering."""
    places, seconds, tokens = [], 0.0, 0
    for done, one in enumerate(situations):
        say(done, len(situations))
        lines = brief.option_lines(one.view, one.candidates, facts=session.settings.facts)
        choice = await session.choose(one.view, "action", lines)
        places.append(max(range(len(lines)), key=lambda at: choice.probabilities[at]))
        seconds, tokens = seconds + choice.seconds, tokens + choice.tokens
        session.calls.clear()
    if not places:
        raise PolicyError("there is no situation to ask about")
    return score(situations, places, seconds, tokens)
