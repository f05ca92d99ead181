"""What a model's gain over the base has cost: seconds of the steps that led to it, and the gain per hour of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import compress
from operator import or_

from lamdatui.domain.budget import seconds_of
from lamdatui.domain.lineage import parents
from lamdatui.domain.records import Gain
from lamdatui.domain.scores import keep_of, shortfall
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import corrected, looks, measured

_BITS = bytes.maketrans(b"01", b"\0\1")


def step_seconds(state: RunState) -> dict[str, float]:
    """Model id → seconds of its lineage's steps, each step once, without evaluation; 0 of a base. A result of the store counts as what it was expected to take."""
    # Lineages of a long run overlap: each is a number that has the bit of every trial in it, made of those before it.
    places = {number: place for place, number in enumerate(sorted(state.trials))}
    seconds = [seconds_of(state.trials[number]) for number in places]
    lines = {item.id: 0 for item in state.pool.items.values() if item.trial is None}
    for trial, name in sorted((item.trial, item.id) for item in state.pool.items.values() if item.trial is not None):
        lines[name] = reduce(or_, (lines[each] for each in parents(state, name)), 1 << places[trial])
    taken = {model.id: bin(lines[model.id])[:1:-1].encode().translate(_BITS) for model in state.pool.models}
    return {name: round(sum(compress(seconds, bits)), 3) for name, bits in taken.items()}


def rates(state: RunState, seconds: Mapping[str, float]) -> dict[str, Gain]:
    """Model id → the gain of its objective over the base on the search rows per hour of its `step_seconds`; not of models whose seconds are not known."""
    found: dict[str, Gain] = {}
    for trial in measured(state):
        took = seconds.get(trial.model or "", 0.0)
        if trial.gain and took > 0:
            low, high = trial.gain["interval"]
            hours = took / 3600
            found[trial.model or ""] = {"mean": trial.gain["mean"] / hours, "interval": (low / hours, high / hours)}
    return found


def most_per_hour(state: RunState) -> str | None:
    """The model with the highest gain per hour of those that are told to be better than the base, on the search rows and for as many models as were scored, and that keep what
    is to be kept; None where there is none."""
    found, keep = rates(state, step_seconds(state)), keep_of(state.profile)

    def is_better(trial: Trial) -> bool:
        ends = corrected(trial.gain, looks(state))
        return ends is not None and ends[0] > 0 and shortfall(trial.scores, keep) == 0

    fine = [t for t in measured(state) if t.model in found and t.model not in state.lost and is_better(t)]
    best = max(fine, key=lambda trial: (found[trial.model or ""]["mean"], -trial.number), default=None)
    return best.model if best else None
