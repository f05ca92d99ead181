"""Means with intervals over rows: by bootstrap, and exact where few rows tell; differences are paired by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lamdatui.domain.records import Gain

RESAMPLES = 4000
Z = 1.959964
"""Of a normal distribution, 95% lie within as many standard deviations."""
EXACT = 14
"""Where at most so many rows differ, all ways in which they could have differed are counted."""


def interval(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,). With one value, that value twice."""
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """`mean`, `n` and 95% `interval` of row scores: Wilson's where each is 0 or 1, which a bootstrap takes for certain near the edges."""
    mean = float(np.mean(values))
    low, high = wilson(mean, len(values)) if {0.0, 1.0} >= set(values) else interval(values)
    return {"mean": round(mean, 6), "n": len(values), "interval": [round(low, 6), round(high, 6)]}


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% score interval of a share of n (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of so many wins and losses if both were as likely: McNemar's test, where a row is won or lost."""
    n = wins + losses
    logs = (
        math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1) - n * math.log(2)
        for count in range(min(wins, losses) + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _flipped(parts: np.ndarray) -> float:
    """Exact two-sided p of the sum of `parts` (m,) if each could as well have had the other sign (Fisher's randomisation test)."""
    signs = 1 - 2 * ((np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts))) & 1)
    sums = np.abs(signs @ parts)
    return float(np.mean(sums >= abs(parts.sum()) - 1e-12))


def paired_gain(
    ours: Mapping[str, Mapping[str, float]],
    base: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    seed: int = 0,
) -> dict[str, Any]:
    """Weighted sum over tasks of the mean paired difference, with a 95% interval.

    `ours[task][row id]` and `base[task][row id]` are row scores; rows are resampled within each task, so that a row's
    two scores stay together. Where at most `EXACT` rows differ, an interval that leaves out zero reaches to it unless the exact test rejects it
    at 5%: of four wins without a loss, no bootstrap knows that one in eight such results is chance. Raises KeyError when the rows differ.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    mean = 0.0
    parts = []
    for task, weight in weights.items():
        ids = sorted(ours[task])
        if set(ids) != set(base[task]):
            raise KeyError(f"{task}: the rows of the two evaluations differ")
        difference = np.array([ours[task][i] - base[task][i] for i in ids])
        total += weight * difference[rng.integers(0, len(ids), size=(RESAMPLES, len(ids)))].mean(axis=1)
        mean += weight * float(difference.mean())
        if weight:  # a task that is only kept changes nothing, and must not hide how few rows do
            parts.append(weight * difference[difference != 0] / len(ids))
    low, high = np.quantile(total, [0.025, 0.975])
    differing = np.concatenate(parts) if parts else np.zeros(0)
    if 0 < len(differing) <= EXACT and not low <= 0 <= high and _flipped(differing) > 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    return {"mean": round(mean, 6), "interval": [round(float(low), 6), round(float(high), 6)]}


def gain_over_seeds(
    ours: Sequence[Mapping[str, Mapping[str, float]]], base: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> Gain:
    """`paired_gain` of one pipeline that was done with several seeds: the mean over the seeds, and a 95% interval over rows and seeds.

    `ours` has each seed's row scores, of the same rows. Rows and seeds are crossed: the variance of the mean is that of the rows' mean
    differences over their number, plus that of the seeds' gains over theirs, which counts what is of both twice and so is rather too wide;
    degrees of freedom by Satterthwaite (1946, doi 10.2307/3002019). Raises KeyError when the rows differ, ValueError of fewer than two seeds.
    """
    from scipy.stats import t  # a second of imports, for a run's end alone

    if len(ours) < 2:
        raise ValueError("an interval over seeds needs two")
    gains = np.zeros(len(ours))
    parts: list[tuple[float, int]] = []
    for task, weight in weights.items():
        ids = sorted(base[task])
        if any(set(ids) != set(one[task]) for one in ours):
            raise KeyError(f"{task}: the rows of the evaluations differ")
        difference = np.array([[one[task][i] - base[task][i] for i in ids] for one in ours])
        gains += weight * difference.mean(axis=1)
        if len(ids) > 1:
            parts.append((float(weight**2 * difference.mean(axis=0).var(ddof=1) / len(ids)), len(ids) - 1))
    parts.append((float(gains.var(ddof=1) / len(ours)), len(ours) - 1))
    variance = sum(one for one, _ in parts)
    mean = float(gains.mean())
    freedom = variance**2 / sum(one**2 / degrees for one, degrees in parts) if variance else 1.0
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    return {"mean": round(mean, 6), "interval": (round(mean - half, 6), round(mean + half, 6))}


def kendall(one: Sequence[float], other: Sequence[float]) -> tuple[float, tuple[float, float] | None] | None:
    """Kendall's tau-b of two orders (Kendall 1945, doi 10.1093/biomet/33.3.239), with a 95% percentile bootstrap interval over the pairs from five of them
    on; None of fewer than three, or where one order is no order."""
    from scipy.stats import kendalltau

    def tau(places: np.ndarray) -> float:
        found: Any = kendalltau(np.asarray(one)[places], np.asarray(other)[places])
        return float(found.statistic)

    value = tau(np.arange(len(one))) if len(one) > 2 else math.nan
    if math.isnan(value):
        return None
    if len(one) < 5:
        return value, None
    rng = np.random.default_rng(0)
    drawn = np.array([tau(rng.integers(0, len(one), len(one))) for _ in range(1000)])
    low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975])
    return value, (float(low), float(high))
