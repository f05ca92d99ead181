"""The objective: the weighted sum of the tasks' means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui.base.jsonio import finite
from lamdatui.domain.records import Scores
from lamdatui.domain.state import RunState


def objective(scores: Scores, weights: Mapping[str, float], split: str = "search") -> float | None:
    """Of one model; None without weights, or when a task has no score on the split."""
    means = [finite(scores[task][split]["mean"]) for task in weights if split in scores.get(task, {})]
    known = [mean for mean in means if mean is not None]
    if not weights or len(known) < len(weights):
        return None
    return round(sum(weight * mean for weight, mean in zip(weights.values(), known, strict=True)), 6)


def objectives(state: RunState, weights: Mapping[str, float]) -> dict[str, float]:
    """Model id → its objective on the search split, of every model that has all its scores."""
    found = {model: objective(scores, weights) for model, scores in state.scores.items()}
    return {model: value for model, value in found.items() if value is not None}


def weights_of(profile: Mapping[str, Any]) -> dict[str, float]:
    """Task → weight, as the profile in a run's state has them; what is no number is left out."""
    weights = (profile.get("objective") or {}).get("weights") or {}
    known = {str(task): finite(weight) for task, weight in weights.items()}
    return {task: weight for task, weight in known.items() if weight is not None}
