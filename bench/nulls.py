"""Searches in which nothing works: how often something looks like a gain all the same, and how often a true one is seen.

    python -m bench.nulls [--searches 500] [--rows 48] [--seed 1]
    python -m bench.nulls --seeds

Each search scores k models whose rows are right by chance, as often as the base's (a share of `--keep` of the rows has the base's own answer, as fine-tuned
models have), and picks the best. Told: the share of searches with a green row, with the plain 95% interval and with the widened one; of the
picked model's sealed rows above zero; and the same for one model that is truly better. `--seeds`: how often an interval over rows and seeds holds the gain
of a pipeline whose seeds differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lamdatui.domain.verdicts import direction
from lamdatui.tasks.stats import gain_over_seeds, paired_gain

BASE = 0.4
"""Share of rows that the base has right."""


def draw(rng: np.random.Generator, base: np.ndarray, keep: float, better: float) -> np.ndarray:
    """Rows of a model that is better by `better` in truth: kept from the base, or drawn anew."""
    again = rng.random(len(base)) < min(0.98, BASE + better / (1 - keep))
    return np.where(rng.random(len(base)) < keep, base, again).astype(float)


def gain(ours: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Paired, as the product computes it."""

    def named(rows: np.ndarray) -> Mapping[str, Mapping[str, float]]:
        return {"t": {f"{at:05}": float(value) for at, value in enumerate(rows)}}

    return paired_gain(named(ours), named(base), {"t": 1.0})


def search(rng: np.random.Generator, k: int, rows: int, sealed: int, keep: float, better: float) -> dict[str, bool]:
    """One search; the last of its models is `better`."""
    base, base_sealed = (rng.random(size) < BASE for size in (rows, sealed))
    truths = [0.0] * (k - 1) + [better]
    gains = [gain(draw(rng, base, keep, truth), base) for truth in truths]
    best = max(range(k), key=lambda at: gains[at]["mean"])
    told = gain(draw(rng, base_sealed, keep, truths[best]), base_sealed)
    return {
        "green, plain": any(direction(one, 1) > 0 for one in gains),
        "green, widened": any(direction(one, k) > 0 for one in gains),
        "beats_base": told["interval"][0] > 0,
        "the better one is green": direction(gains[-1], k) > 0,
    }


def rates(searches: int, k: int, rows: int, sealed: int, keep: float, better: float, seed: int) -> dict[str, float]:
    """Shares of searches."""
    rng = np.random.default_rng(seed)
    found = [search(rng, k, rows, sealed, keep, better) for _ in range(searches)]
    return {name: round(sum(one[name] for one in found) / searches, 3) for name in found[0]}


def coverage(pipelines: int, n: int, seeds: int, spread: float, seed: int) -> float:
    """Share of pipelines whose interval over `n` rows and so many seeds holds their true gain of 0.25; seeds differ by `spread` (standard deviation)."""
    rng = np.random.default_rng(seed)

    def named(rows: np.ndarray) -> Mapping[str, Mapping[str, float]]:
        return {"t": {f"{at:05}": float(value) for at, value in enumerate(rows)}}

    hits = 0
    for _ in range(pipelines):
        easy = rng.uniform(0.2, 0.5, n)
        ours = [named(rng.random(n) < easy + 0.25 + spread * rng.standard_normal()) for _ in range(seeds)]
        low, high = gain_over_seeds(ours, named(rng.random(n) < easy), {"t": 1.0})["interval"]
        hits += low <= 0.25 <= high
    return hits / pipelines


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=500)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--sealed", type=int, default=120)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", action="store_true")
    given = parser.parse_args()
    if given.seeds:
        for n, count, spread in ((48, 2, 0.0), (48, 3, 0.0), (120, 2, 0.04), (120, 3, 0.04), (72, 3, 0.08), (120, 3, 0.12)):
            held = coverage(3 * given.searches, n, count, spread, given.seed)
            print(json.dumps({"rows": n, "seeds": count, "spread": spread, "holds": round(held, 3)}), flush=True)
        return
    for k in (6, 20, 100):
        for better in (0.0, 0.03, 0.05) if k < 100 else (0.0,):
            told = rates(given.searches, k, given.rows, given.sealed, given.keep, better, given.seed)
            print(json.dumps({"k": k, "truly better by": better, **told}), flush=True)


if __name__ == "__main__":
    main()
