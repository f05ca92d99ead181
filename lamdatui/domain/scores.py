"""What scores say together: the objective, the weighted sum of the tasks' means; answers that did not end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lamdatui.base.jsonio import finite
from lamdatui.domain.records import Scores
from lamdatui.domain.state import RunState

PENALTY = 2.0
"""What a task that falls short of what is to be kept costs, times the sum of the weights: more than it could bring elsewhere."""


def objective(
    scores: Scores, weights: Mapping[str, float], split: str = "search", keep: Mapping[str, float] | None = None
) -> float | None:
    """Of one model; None without weights, or when a task has no score on the split. What it falls short on tasks that are kept is taken off."""
    means = [finite(scores[task][split]["mean"]) for task in weights if split in scores.get(task, {})]
    known = [mean for mean in means if mean is not None]
    if not weights or len(known) < len(weights):
        return None
    value = sum(weight * mean for weight, mean in zip(weights.values(), known, strict=True))
    return round(value - PENALTY * scale_of(weights) * shortfall(scores, keep or {}, split), 6)


def scale_of(weights: Mapping[str, float]) -> float:
    """The sum of the weights, by their sizes."""
    return sum(map(abs, weights.values())) or 1.0


def shortfall(scores: Scores, keep: Mapping[str, float], split: str = "search") -> float:
    """By how much the lower ends of the paired differences to the base are below what is to be kept, over all tasks; 0 for the base itself."""
    found = 0.0
    for task, room in keep.items():
        change = (scores.get(task, {}).get(split) or {}).get("change")
        low = finite(change["interval"][0]) if change else None
        found += max(0.0, -room - low) if low is not None else 0.0
    return found


def objectives(state: RunState, weights: Mapping[str, float]) -> dict[str, float]:
    """Model id → its objective on the search split, of every model that has all its scores."""
    keep = keep_of(state.profile)
    found = {model: objective(scores, weights, "search", keep) for model, scores in state.scores.items()}
    return {model: value for model, value in found.items() if value is not None}


def front(state: RunState, seconds: Mapping[str, float] | None = None) -> list[str]:
    """Models that no other betters on one task without being worse on another, by the means on the search split; in the order of the pool.

    `seconds`: model id → what it took; fewer are better then as a higher mean is.
    """
    tasks = list(weights_of(state.profile))
    points: dict[str, tuple[float, ...]] = {}
    for model, scores in state.scores.items():
        means = [finite(scores.get(task, {}).get("search", {}).get("mean")) for task in tasks]
        known = tuple(mean for mean in means if mean is not None)
        if tasks and len(known) == len(tasks):
            points[model] = known if seconds is None else (*known, -seconds.get(model, 0.0))

    best: list[tuple[float, ...]] = []
    # Whatever betters a point comes before it in this order: those that were kept are enough to look at.
    for point in sorted(set(points.values()), reverse=True):
        if not any(all(b >= a for a, b in zip(point, other, strict=True)) for other in best):
            best.append(point)
    return [model for model, point in points.items() if point in best]


def remarks(rows: int, counts: Mapping[str, Any]) -> str:
    """Of a score, or of what `counted` counts: `12 of 100 answers did not end, 3 are empty`; nothing where all is well."""
    parts = [f"{count} of {rows} answers did not end" if (count := counts.get("unfinished")) else ""]
    parts.append(f"{count} {'is' if count == 1 else 'are'} empty" if (count := counts.get("empty")) else "")
    return ", ".join(filter(None, parts))


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Of an evaluation's rows: how many answers did not end, and how many are empty; what is 0 or was not counted is left out."""
    rows = list(rows)
    found = {"unfinished": sum(row.get("ended") is False for row in rows)}
    found["empty"] = sum("ended" in row and not row["completion"].strip() for row in rows)
    return {name: count for name, count in found.items() if count}


def weights_of(profile: Mapping[str, Any]) -> dict[str, float]:
    """Task → weight, as the profile in a run's state has them, 0 of tasks that are only kept; what is no number is left out."""
    return _numbers(profile, "weights") | {task: 0.0 for task in keep_of(profile) if task not in _numbers(profile, "weights")}


def keep_of(profile: Mapping[str, Any]) -> dict[str, float]:
    """Task → by how much a model may fall behind the base on it."""
    return _numbers(profile, "keep")


def is_per_hour(profile: Mapping[str, Any]) -> bool:
    """Whether a run looks for the gain per hour of steps."""
    return bool((profile.get("objective") or {}).get("per_hour"))


def _numbers(profile: Mapping[str, Any], part: str) -> dict[str, float]:
    told = (profile.get("objective") or {}).get(part) or {}
    known = {str(task): finite(value) for task, value in told.items()}
    return {task: value for task, value in known.items() if value is not None}
