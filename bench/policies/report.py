"""The bench's results as tables with intervals, and a plot. Everything is a mean over seeds; differences are paired by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.policies.arms import CHEAP, LLM, Arm
from bench.policies.table import Table

RESAMPLES = 10_000
OPENING = 3
ENOUGH = 0.95
"""Share of the attainable gain that counts as found."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """An arm's runs: seed → what `bench.policies run` kept."""

    arm: Arm
    runs: dict[int, dict[str, Any]]

    def cut(self, trials: int, seeds: Sequence[int]) -> Seen:
        """The same arm with only these seeds and the first trials."""
        lists = ("sealed", "search", "seconds", "nodes", "chosen_by")
        return Seen(
            self.arm,
            {
                seed: {name: value[:trials] if name in lists else value for name, value in self.runs[seed].items()}
                for seed in seeds
                if seed in self.runs
            },
        )

    def regret(self, seed: int) -> Array:
        """[trials]: share of the attainable gain on sealed rows that is still missing, from the end of the opening on."""
        run = self.runs[seed]
        return (run["attainable"] - np.array(run["sealed"][OPENING - 1 :])) / (run["attainable"] - run["base"])

    def area(self, seed: int) -> float:
        """Mean regret over the trials after the opening: the area under the anytime curve."""
        return float(self.regret(seed)[1:].mean())

    def area_by_seconds(self, seed: int, budget: float) -> float:
        """Mean regret over `budget` seconds of compute after the opening."""
        run = self.runs[seed]
        ends = np.array(run["seconds"][OPENING - 1 :]) - run["seconds"][OPENING - 1]
        grid = np.linspace(0.0, budget, 400)
        return float(self.regret(seed)[np.searchsorted(ends, grid, side="right") - 1].mean())

    def found(self, seed: int) -> float:
        """The trial (the opening's included) after which 95% of the attainable gain is there; infinite when it never is."""
        places = np.flatnonzero(self.regret(seed) <= 1 - ENOUGH)
        return float(places[0] + OPENING) if len(places) else math.inf

    def gap(self, seed: int) -> float:
        """Search score minus sealed score of the run's best model: what selection on few rows adds."""
        run = self.runs[seed]
        return run["search"][-1] - run["sealed"][-1]


def load(folder: Path) -> dict[str, Seen]:
    """Arms by name, in the order of the bench; only those that were run."""
    found: dict[str, Seen] = {}
    kept = {}
    for path in folder.glob("*.json"):
        value = json.loads(path.read_text())
        kept[value["arm"]["name"]] = {int(seed): run for seed, run in value["runs"].items()}
    for arm in (*CHEAP, *LLM):
        if kept.get(arm.name):
            found[arm.name] = Seen(arm, kept[arm.name])
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% bootstrap interval over seeds."""
    array = np.asarray(values, dtype=float)
    draws = array[np.random.default_rng(0).integers(0, len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(array.mean()), float(low), float(high)


def against(ours: Seen, theirs: Seen, measure: Callable[[Seen, int], float] = Seen.area) -> str:
    """The paired difference over the seeds that both have."""
    seeds = sorted(set(ours.runs) & set(theirs.runs))
    mean, low, high = interval([measure(ours, seed) - measure(theirs, seed) for seed in seeds])
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def uniform(table: Table, draws: int) -> list[float]:
    """Expected sealed objective of the model that is best on search rows among the first k of uniform draws, k = 1…draws.

    Exact, by order statistics, for draws from the whole table at once: what blind luck gives where everything is legal from the start.
    """
    nodes = [node for node in table.bits if node]
    ordered = sorted(nodes, key=table.objective)
    sealed = np.array([table.objective(node, "sealed") for node in ordered])
    found, count = [], len(ordered)
    for k in range(1, draws + 1):
        # P(the best of k is the i-th from below) = C(i, k - 1) / C(count, k).
        logs = [_choose(i, k - 1) - _choose(count, k) for i in range(count)]
        found.append(float(np.exp(logs) @ sealed))
    return found


def _choose(n: int, k: int) -> float:
    return -math.inf if k > n else math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


HEADER = (
    "| policy | seeds | area under regret [95%] | minus random | minus TPE | minus surrogate | by compute | final regret | trials to 95% (share) "
    "| gap | refused | tokens |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(seen: Seen, every: dict[str, Seen], budget: float) -> str:
    """One row of the table."""
    seeds = sorted(seen.runs)
    mean, low, high = interval([seen.area(seed) for seed in seeds])
    ends = [seen.found(seed) for seed in seeds]
    reached = [end for end in ends if math.isfinite(end)]
    median = f"{float(np.median(ends)):.0f}" if len(reached) * 2 > len(ends) else "never"
    trials = sum(len(run["nodes"]) - OPENING for run in seen.runs.values())
    refused = sum(run["refused"] for run in seen.runs.values()) / max(1, trials)
    tokens = sum(run["tokens"] for run in seen.runs.values()) / len(seeds)
    others = ("random", "tpe", "surrogate")
    versus = [against(seen, every[other]) if other in every and other != seen.arm.name else "" for other in others]
    by_seconds = float(np.mean([seen.area_by_seconds(seed, budget) for seed in seeds]))
    final = float(np.mean([seen.regret(seed)[-1] for seed in seeds]))
    gap = float(np.mean([seen.gap(seed) for seed in seeds]))
    return (
        f"| {seen.arm.name} | {len(seeds)} | {mean:.3f} [{low:.3f}, {high:.3f}] | {' | '.join(versus)} | {by_seconds:.3f} "
        f"| {final:.3f} | {median} ({len(reached) / len(ends):.0%}) | {gap:+.3f} | {refused:.1%} | {tokens:.0f} |"
    )


def report(results: Path, tables: Path) -> None:
    """Print the tables for each space that was run, and draw the curves."""
    seen = {}
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        table = Table.load(tables / f"{folder.name}.json.xz")
        every = load(folder)
        base, best = table.objective(0, "sealed"), max(table.objective(node, "sealed") for node in table.bits)
        good = np.mean([table.objective(n, "sealed") >= base + ENOUGH * (best - base) for n in table.bits if n])
        print(
            f"\n### {folder.name}: {len(table.bits)} models, sealed objective of the base {base:.3f}, of the best {best:.3f}\n"
        )
        cheap = {name: one for name, one in every.items() if not one.arm.planner}
        length = max(len(run["nodes"]) for one in cheap.values() for run in one.runs.values())
        print_table(f"Without a planner, {length} trials", cheap)
        asked = {name: one for name, one in every.items() if one.arm.planner}
        if asked:
            length = min(len(run["nodes"]) for one in asked.values() for run in one.runs.values())
            seeds = sorted(set.union(*(set(one.runs) for one in asked.values())))
            seen[folder.name] = {name: one.cut(length, seeds) for name, one in every.items()}
            print_table(f"With a planner, {length} trials; differences over the seeds that both arms have", seen[folder.name])
        else:
            seen[folder.name] = cheap
        print(f"\n{good:.1%} of the models have 95% of the attainable gain", end="")
        print(f"; an even chance to draw one takes {math.log(0.5) / math.log(1 - good):.0f} blind draws." if good else ".")
        luck = [(best - value) / (best - base) for value in uniform(table, 20)]
        print(
            f"Uniform draws from the whole table, exact: regret {luck[4]:.3f} after 5, {luck[9]:.3f} after 10, {luck[19]:.3f} after 20."
        )
        if "tpe" in cheap:
            misses = sum(run["misses"] for run in cheap["tpe"].runs.values())
            chosen = sum(len(run["nodes"]) - OPENING for run in cheap["tpe"].runs.values())
            share = misses / (misses + chosen)
            print(
                f"Of what TPE suggested, {share:.0%} was not legal or was tried already; it was asked again, or the nearest was taken."
            )
    draw(seen, Path(__file__).parents[2] / "docs" / "policies.svg")


def print_table(title: str, every: dict[str, Seen]) -> None:
    """All arms over the same trials; compute is measured up to what the median random search spends."""
    budget = float(np.median([run["seconds"][-1] - run["seconds"][OPENING - 1] for run in every["random"].runs.values()]))
    print(f"\n{title}:\n\n{HEADER}")
    for one in every.values():
        print(line(one, every, budget))


def draw(seen: dict[str, dict[str, Seen]], path: Path) -> None:
    """Regret by trial of the main arms, a panel for each table."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lamdatui"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(seen), figsize=(5.2 * len(seen), 3.8), sharey=True, squeeze=False)
    for panel, (name, every) in zip(panels[0], seen.items(), strict=True):
        for one in every.values():
            if one.arm in CHEAP or one.arm in LLM[:6]:
                curves = np.array([one.regret(seed) for seed in sorted(one.runs)])
                trials = np.arange(OPENING, OPENING + curves.shape[1])
                panel.plot(trials, curves.mean(axis=0), label=one.arm.name, linestyle="--" if one.arm.planner else "-")
        panel.set_title(f"{name}: regret on sealed rows")
        panel.set_xlabel("trial")
        panel.legend(fontsize=7)
    panels[0][0].set_ylabel("share of the attainable gain that is missing")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    print(f"\n{path.name} drawn")
