"""Actions as numbers, for the policies that learn: what an action starts from, on what data, with which settings.

A pool that grows has no fixed list of choices, so a model is described by its scores and its history, not by its name. All of
it is computed from a view, and the same view gives the same numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamdatui.domain.actions import Value
from lamdatui.domain.choice import Candidate, View, datasets_of, parents_of
from lamdatui.domain.trials import Trial
from lamdatui.policy.merges import FAIR

LOG_RATIO = 8.0
"""Settings whose largest value is this many times the smallest are compared by their logarithm."""

Parts = tuple[str, Mapping[str, Sequence[str]], Mapping[str, Value]]
"""(type, inputs, hyperparameters) of an action."""

SCORE_SCALE = 0.25
"""A difference of this much in a task's score is one unit of distance; the other scales are in the same unit."""
TYPE_SCALE, FAMILY_SCALE, DATASET_SCALE, PARAM_SCALE, REUSE_SCALE, DEPTH_SCALE = 0.7, 0.7, 0.7, 0.6, 0.7, 0.25


@dataclass(frozen=True)
class Grid:
    """The values of one hyperparameter that this run has seen, in order; `position` puts a value into [0, 1]."""

    values: tuple[Value, ...]

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers: then near values are alike."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def position(self, value: Value) -> float:
        """Where a value stands: by size for numbers (by logarithm where they span decades), else by place in the list."""
        if not self.ordered:
            return self.values.index(value) / max(1, len(self.values) - 1)
        low, high = float(self.values[0]), float(self.values[-1])
        if high <= low:
            return 0.0
        if low > 0 and high / low >= LOG_RATIO:
            return math.log(float(value) / low) / math.log(high / low)
        return (float(value) - low) / (high - low)


def parts(action: Mapping[str, Any]) -> Parts:
    """The parts of an action's JSON."""
    return action["type"], action["inputs"], action["params"]


def parts_of(candidate: Candidate) -> Parts:
    """The parts of a candidate's action."""
    return candidate.action.type, candidate.action.inputs, candidate.action.params


class Features:
    """One view's actions as vectors; rows of trials and of candidates can be compared with each other."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.tasks = tuple(view.weights) or tuple(next(iter(view.scores.values()), {}))
        every = [parts_of(item) for group in view.candidates.values() for item in group]
        every += [parts(trial.action) for trial in view.trials if trial.action is not None]
        self.grids = _grids(every)
        self.types = sorted({kind for kind, _, _ in every})
        self.datasets = sorted({name for _, inputs, _ in every for name in self.datasets_of(inputs)})
        self._history = _history(view)
        # What one merge did tells the more of another, the more of them there are.
        merges = {kind for kind, inputs, _ in every if inputs.get("models")}
        self._scales = {
            kind: TYPE_SCALE * min(1.0, math.sqrt(FAIR / max(1, len(merges)))) if kind in merges else TYPE_SCALE
            for kind in self.types
        }
        self._columns = {
            key: place for place, key in enumerate(sorted(key for key, grid in self.grids.items() if len(grid.values) > 1))
        }

    def parents(self, inputs: Mapping[str, Sequence[str]]) -> list[str]:
        """The scored models that an action's result descends from, the best first."""
        known = self._view.objectives
        return sorted((name for name in parents_of(self._view, inputs) if name in known), key=lambda name: (-known[name], name))

    def datasets_of(self, inputs: Mapping[str, Sequence[str]]) -> list[str]:
        """The datasets among an action's inputs."""
        return datasets_of(self._view, inputs)

    def scores(self, model: str) -> np.ndarray:
        """[tasks]: a model's score on each task of the objective."""
        known = self._view.scores.get(model, {})
        return np.array([known.get(task, 0.0) for task in self.tasks])

    def reused(self, inputs: Mapping[str, Sequence[str]]) -> int:
        """How many times the models among the inputs were already trained on the action's datasets."""
        used = [self._history.get(name, (0, Counter()))[1] for name in self.parents(inputs)]
        return sum(max((counts[data] for counts in used), default=0) for data in self.datasets_of(inputs))

    def depth(self, model: str) -> int:
        """Length of the longest pipeline that leads to a model."""
        return self._history.get(model, (0, Counter()))[0]

    def vector(self, one: Parts) -> np.ndarray:
        """[features]: parents' scores, type, datasets, settings, repetition and depth, in comparable units."""
        kind, inputs, params = one
        above = [self.scores(name) for name in self.parents(inputs)] or [np.zeros(len(self.tasks))]
        first, best = above[0], np.max(above, axis=0)
        types, families = np.zeros(len(self.types)), np.zeros(2)
        types[self.types.index(kind)] = self._scales[kind]
        families[0 if len(above) > 1 else 1] = FAMILY_SCALE
        data = np.zeros(len(self.datasets))
        for name in self.datasets_of(inputs):
            data[self.datasets.index(name)] = DATASET_SCALE
        settings = np.full(len(self._columns), 0.5)
        for name, value in params.items():
            place = self._columns.get((kind, name))
            if place is not None:
                settings[place] = self.grids[kind, name].position(value)
        depth = max((self.depth(name) for name in self.parents(inputs)), default=0)
        tail = [REUSE_SCALE * math.log1p(self.reused(inputs)), DEPTH_SCALE * depth]
        return np.concatenate(
            [first / SCORE_SCALE, (best - first) / SCORE_SCALE, types, families, data, PARAM_SCALE * settings, tail]
        )


def _grids(every: Sequence[Parts]) -> dict[tuple[str, str], Grid]:
    seen: dict[tuple[str, str], set[Value]] = {}
    for kind, _, params in every:
        for name, value in params.items():
            seen.setdefault((kind, name), set()).add(value)
    return {key: Grid(tuple(sorted(values, key=_order))) for key, values in seen.items()}


def _order(value: Value) -> tuple[bool, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not number, float(value) if number else 0.0, str(value))


def _history(view: View) -> dict[str, tuple[int, Counter[str]]]:
    """Produced model → (steps from a base, how often each dataset was used on the way)."""
    found: dict[str, tuple[int, Counter[str]]] = {}
    for trial in sorted(view.trials, key=lambda trial: trial.number):
        if trial.action is None or trial.model is None:
            continue
        names = [name for ids in trial.action["inputs"].values() for name in ids]
        above = [found[name] for name in names if name in found]
        used: Counter[str] = Counter()
        for _, counts in above:
            used |= counts
        used.update(datasets_of(view, trial.action["inputs"]))
        found[trial.model] = (1 + max((depth for depth, _ in above), default=0), used)
    return found


def scored(view: View) -> list[Trial]:
    """The trials that made a model with a score, in order."""
    return [trial for trial in view.trials if trial.action is not None and trial.model in view.objectives]
