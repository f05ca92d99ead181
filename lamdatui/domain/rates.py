"""What a model's gain over the base has cost: seconds of the steps that led to it, and the gain per hour of them. Pure."""

from __future__ import annotations

from lamdatui.domain.records import Gain
from lamdatui.domain.replicates import training_seconds
from lamdatui.domain.scores import keep_of, shortfall
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import corrected, looks, measured


def step_seconds(state: RunState) -> dict[str, float]:
    """Model id → seconds of its lineage's steps, each step once, without evaluation; 0 of a base. A result of the store counts as what it was expected to take."""
    return {model.id: round(training_seconds(state, model.id), 3) for model in state.pool.models}


def rates(state: RunState) -> dict[str, Gain]:
    """Model id → the gain of its objective over the base on the search rows per hour of its lineage's steps; not of models whose seconds are not known."""
    found: dict[str, Gain] = {}
    for trial in measured(state):
        seconds = training_seconds(state, trial.model or "")
        if trial.gain and seconds > 0:
            low, high = trial.gain["interval"]
            hours = seconds / 3600
            found[trial.model or ""] = {"mean": trial.gain["mean"] / hours, "interval": (low / hours, high / hours)}
    return found


def most_per_hour(state: RunState) -> str | None:
    """The model with the highest gain per hour of those that are told to be better than the base, on the search rows and for as many models as were scored, and that keep what
    is to be kept; None where there is none."""
    found, keep = rates(state), keep_of(state.profile)

    def is_better(trial: Trial) -> bool:
        ends = corrected(trial.gain, looks(state))
        return ends is not None and ends[0] > 0 and shortfall(trial.scores, keep) == 0

    fine = [t for t in measured(state) if t.model in found and t.model not in state.lost and is_better(t)]
    best = max(fine, key=lambda trial: (found[trial.model or ""]["mean"], -trial.number), default=None)
    return best.model if best else None
