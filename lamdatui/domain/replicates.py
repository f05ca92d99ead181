"""The best pipelines done again with other seeds: how much of a gain is the seed's. Pure.

A search reports one training of each pipeline; another seed of the same pipeline scores higher or lower. So the whole lineage of the winner, and of the
next best, is done again with other seeds and scored on the same rows. The models that come of it are no candidates: nothing is chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lamdatui.domain.baselines import TRAINS, family
from lamdatui.domain.budget import GRACE, ledgers, replicates_share
from lamdatui.domain.lineage import lineage
from lamdatui.domain.state import RunState

SEEDS = 3
"""Of each pipeline, with the one that the search had."""
FINALISTS = 2
"""Pipelines that are replicated: the winner's first."""


def finalists(state: RunState, objectives: Mapping[str, float]) -> list[str]:
    """Models whose pipelines train something: the winner, then the best of the others by the search rows."""
    made = {trial.model for trial in state.trials.values() if trial.status == "done" and trial.model}
    usable = [name for name in made if name in objectives and name not in state.lost]
    order = sorted(usable, key=lambda name: (name != state.winner, -objectives[name], state.pool.items[name].trial or 0))
    # A lineage may be long: only as many are looked at as it takes.
    found = list(islice((name for name in order if trains(state, name)), FINALISTS))
    return found if state.winner in found else []


def trains(state: RunState, model: str) -> bool:
    """Whether a model's pipeline has a step that trains."""
    return any(family(state, trial.action or {"type": ""}) in TRAINS for trial in lineage(state, model))


def seconds_left(state: RunState, now: float | None = None) -> float:
    """Seconds that replicates may still take, once the search is over; infinite where somebody asked for all."""
    if state.finishing:
        return math.inf
    if state.searched is None:
        return 0.0
    limits = [one.limit - one.used for one in ledgers(state, now) if one.unit == "s" and one.limit is not None]
    return max(0.0, min([allowed(state) - state.replicate_seconds, *limits]))


def allowed(state: RunState) -> float:
    """Seconds that they may take in all: a share of the whole search."""
    return replicates_share(state) * ((state.searched or {}).get("seconds", 0.0) + state.earlier_seconds)


def until(state: RunState, now: float | None = None) -> float:
    """Seconds after which a replicate's training that begins now is ended: a little more than it may take."""
    return seconds_left(state, now) + GRACE * (allowed(state) + ((state.searched or {}).get("seconds", 0.0)))


@dataclass(frozen=True, slots=True)
class Spread:
    """What replicates say of one pipeline."""

    model: str
    gain: Mapping[str, Any]
    """Of the objective over the base on the sealed rows, mean over the seeds; its interval is over rows and seeds."""
    each: tuple[float, ...]
    """The gain of each seed, the search's own first."""

    @property
    def name(self) -> str:
        """`over 3 seeds`."""
        return f"over {len(self.each)} seeds"


def spread_of(model: str, record: Mapping[str, Any]) -> Spread:
    """What is on record of one pipeline, on the sealed rows."""
    report = record["gain"]["sealed"]
    return Spread(model, report["objective"], tuple(report["each"]))


def spreads(state: RunState) -> list[Spread]:
    """The pipelines that were replicated, the winner's first."""
    order = sorted(state.replicates, key=lambda model: model != state.winner)
    return [spread_of(model, state.replicates[model]) for model in order]


def told(spread: Spread) -> str:
    """`the pipeline of m2; its seeds: +0.695, +0.620, +0.520`."""
    return f"the pipeline of {spread.model}; its seeds: {', '.join(f'{value:+.3f}' for value in spread.each)}"
