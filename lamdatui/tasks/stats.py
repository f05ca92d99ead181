"""Means with intervals by bootstrap over rows; differences are paired by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 4000


def interval(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,). With one value, that value twice."""
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """`mean`, `n` and 95% `interval` of row scores."""
    low, high = interval(values)
    return {"mean": round(float(np.mean(values)), 6), "n": len(values), "interval": [round(low, 6), round(high, 6)]}


def paired_gain(
    ours: Mapping[str, Mapping[str, float]],
    base: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    seed: int = 0,
) -> dict[str, Any]:
    """Weighted sum over tasks of the mean paired difference, with a 95% interval.

    `ours[task][row id]` and `base[task][row id]` are row scores; rows are resampled within each task, so that a row's
    two scores stay together. Raises KeyError when the rows differ.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    mean = 0.0
    for task, weight in weights.items():
        ids = sorted(ours[task])
        if set(ids) != set(base[task]):
            raise KeyError(f"{task}: the rows of the two evaluations differ")
        difference = np.array([ours[task][i] - base[task][i] for i in ids])
        total += weight * difference[rng.integers(0, len(ids), size=(RESAMPLES, len(ids)))].mean(axis=1)
        mean += weight * float(difference.mean())
    low, high = np.quantile(total, [0.025, 0.975])
    return {"mean": round(mean, 6), "interval": [round(float(low), 6), round(float(high), 6)]}
