"""What scores say together: the objective, the weighted sum of the tasks' means; answers that did not end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """Task → weight, as the profile in a run's state has them; what is no number is left out."""
    weights = (profile.get("objective") or {}).get("weights") or {}
    known = {str(task): finite(weight) for task, weight in weights.items()}
    return {task: weight for task, weight in known.items() if weight is not None}
