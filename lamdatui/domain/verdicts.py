"""What may be said of gains: on which split they were measured, and how many were looked at before one was picked. Pure.

The gain of the best of k models on the rows that picked it is too high: of k models that are as good as the base, some look better. So an interval on
the search split is widened for k looks (Bonferroni; Dunn 1961), until all k hold together in 95 of 100 searches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui.base.jsonio import finite
from lamdatui.domain.scores import keep_of
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial

LEVEL = 0.03
"""Not 0.05: percentile bootstrap intervals of some fifty rows are a little narrow (`python -m bench.nulls`)."""


def measured(state: RunState) -> list[Trial]:
    """The trials whose models have a gain."""
    return [trial for trial in state.trials.values() if trial.status == "done" and trial.model and trial.gain]


def looks(state: RunState) -> int:
    """How many models were scored, beside the base: one of them is picked."""
    return max(1, len(state.scores) - 1)


def corrected(gain: Mapping[str, Any] | None, count: int) -> tuple[float, float] | None:
    """A 95% interval of a mean as one of `count` that hold together; None where there is none. It is widened as a normal one would be."""
    if not gain or not isinstance(found := gain.get("interval"), list | tuple) or len(found) != 2:
        return None
    mean, low, high = finite(gain.get("mean")), finite(found[0]), finite(found[1])
    if mean is None or low is None or high is None:
        return None
    from statistics import NormalDist  # not before something is scored: a first paint waits for imports

    normal = NormalDist()
    wider = normal.inv_cdf(1 - LEVEL / (2 * count)) / normal.inv_cdf(0.975) if count > 1 else 1.0
    return mean - (mean - low) * wider, mean + (high - mean) * wider


def direction(gain: Mapping[str, Any] | None, count: int) -> int:
    """1 where a gain is above zero after so many looks, -1 where it is below, else 0: it may be chance."""
    found = corrected(gain, count)
    return 0 if found is None else (found[0] > 0) - (found[1] < 0)


def tied(state: RunState) -> list[Trial]:
    """The trials whose models are not told from the best by their gains on the search split, the cheapest first; the best is one of them.

    Gains are differences to the base on the same rows; what they share is not taken off, so that more are taken for tied than are.
    """
    trials = measured(state)
    best = max(trials, key=lambda trial: (trial.objective or 0.0, -trial.number), default=None)
    if best is None:
        return []

    def error(trial: Trial) -> float:
        low, high = corrected(trial.gain, looks(state)) or (0.0, 0.0)
        return (high - low) / 2

    def mean(trial: Trial) -> float:
        return finite((trial.gain or {}).get("mean")) or 0.0

    near = [trial for trial in trials if mean(best) - mean(trial) <= (error(best) ** 2 + error(trial) ** 2) ** 0.5]
    return sorted({trial.number: trial for trial in [best, *near]}.values(), key=lambda trial: (_cost(trial), trial.number))


def _cost(trial: Trial) -> float:
    return sum(trial.seconds.get(part, 0.0) for part in ("execute", "evaluate"))


def winner_gain(state: RunState) -> tuple[str, Mapping[str, Any]] | None:
    """The split on which the winner's gain over the base was measured, sealed where that was opened, and the gain of the objective."""
    for split in ("sealed", "search"):
        report = (state.gain or {}).get(split)
        if isinstance(report, Mapping) and isinstance(report.get("objective"), Mapping):
            return split, report["objective"]
    return None


def gain_text(gain: Mapping[str, Any]) -> str:
    """`+0.120 [+0.040, +0.200]`, for plain output."""
    low, high = gain["interval"]
    return f"{gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def beats_base(gain: Mapping[str, Any] | None, looks: int = 1) -> bool | None:
    """Whether the winner's gain on the sealed split is above zero, which was opened for so many winners; None where it was not."""
    report = (gain or {}).get("sealed")
    if not isinstance(report, Mapping) or (found := corrected(report.get("objective"), max(1, looks))) is None:
        return None
    return found[0] > 0


def losses(state: RunState) -> list[str]:
    """The tasks on which the winner is worse than the base, and those that it is not shown to keep, in words; on the sealed rows, else the search rows."""
    report = next((found for split in ("sealed", "search") if isinstance(found := (state.gain or {}).get(split), Mapping)), {})
    tasks, keep = report.get("tasks") or {}, keep_of(state.profile)
    found = []
    for task, gain in tasks.items():
        ends = corrected(gain, 1)
        if ends is None:
            continue
        if ends[1] < 0:
            found.append(f"worse than the base on {task}: {gain_text(gain)}")
        elif task in keep and ends[0] < -keep[task]:
            found.append(f"not shown to keep {task} within {keep[task]:g}: {gain_text(gain)}")
    return found


def keeps(gain: Mapping[str, Any], profile: Mapping[str, Any]) -> list[str]:
    """Of a gain by task (`{"tasks": …}`): the tasks that are not shown to be kept."""
    found = ((task, corrected(gain.get("tasks", {}).get(task), 1), room) for task, room in keep_of(profile).items())
    return [task for task, ends, room in found if ends is not None and ends[0] < -room]


def verdict(state: RunState) -> str:
    """What a finished or stopped run says of its winner, in words."""
    seen = len(state.sealed_looks)
    again = f" (look {seen} at it)" if seen > 1 else ""
    match winner_gain(state), beats_base(state.gain, seen):
        case None, _:
            return ""
        case _, True:
            return f"it beats the base on the sealed split{again}"
        case _, False:
            return f"the sealed split does not tell it from the base{again}"
    count = looks(state)
    return f"the sealed split was not opened; on the rows that picked it from {count} model{'s' if count != 1 else ''}:"
