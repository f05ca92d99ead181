"""A cheap model of what actions do: a Gaussian process over each task's change from the parent (scikit-learn).

Sequential model-based search (Jones et al. 1998, expected improvement; Rasmussen & Williams 2006 for the process). What is
predicted is the change, not the score: a dataset that taught one model something is likely to teach another, whatever the level
that one starts from. Tasks are separate outputs of one process, because a dataset moves some and not others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lamdatui.domain.choice import Candidate, View
from lamdatui.domain.scores import PENALTY, scale_of
from lamdatui.policy.features import Features, parts, parts_of, scored

LEAST_TRIALS = 2
MOST_TRIALS = 400
"""The newest ones that are fitted, of those with a score and of those that failed: the time grows with the cube of their number."""
PRIOR_STD = 0.15
"""Standard deviation of a task's change before anything was measured."""
FAILED_CHANGE = -0.25
"""What a failed trial counts as, for each task: a score was not had, and the time is gone."""
DATA_WORTH = 0.5
"""A data action has no score of its own; it is worth this share of the median promise of the actions that have one."""


@dataclass(frozen=True)
class Forecast:
    """What is expected of a candidate's objective, and how much it is expected to better the best so far."""

    expected: float
    std: float
    improvement: float


class Surrogate:
    """Fitted to one view's trials when it is made. Everything is deterministic."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.features = Features(view)
        self._weights = np.array([view.weights.get(task, 1.0) for task in self.features.tasks])
        self._process = self._fit()

    def _fit(self) -> object | None:
        rows, changes = self._measured()
        if len(rows) < LEAST_TRIALS:
            return None
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        # The bounds keep a handful of trials from explaining everything, or nothing, by noise.
        kernel = ConstantKernel(1.0, (0.3, 4.0)) * Matern(1.5, (0.7, 6.0), nu=2.5) + WhiteKernel(0.1, (0.02, 0.5))
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        # A hyperparameter at its bound is what the bounds are for. For good: to put the filters back is not safe between threads.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(np.array(rows), np.array(changes))

    def _measured(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        features = self.features
        rows, changes = [], []
        for trial in scored(self._view)[-MOST_TRIALS:]:
            assert trial.action is not None and trial.model is not None
            above = features.parents(trial.action["inputs"])
            if above:
                rows.append(features.vector(parts(trial.action)))
                changes.append(features.scores(trial.model) - features.scores(above[0]))
        failed = [trial for trial in self._view.trials if trial.status == "failed"]
        for trial in failed[-MOST_TRIALS:]:
            if trial.action is not None and features.parents(trial.action["inputs"]):
                rows.append(features.vector(parts(trial.action)))
                changes.append(np.full(len(features.tasks), FAILED_CHANGE))
        return rows, changes

    def forecast(self, candidates: Sequence[Candidate]) -> list[Forecast]:
        """One forecast for each candidate; those that start from no scored model are judged as data actions are."""
        features, best = self.features, max(self._view.objectives.values(), default=0.0)
        above = [features.parents(item.action.inputs) for item in candidates]
        makes_data = self._view.makes_data
        places = [place for place, names in enumerate(above) if names and candidates[place].action.type not in makes_data]
        found = [Forecast(best, PRIOR_STD, 0.0)] * len(candidates)
        if places:
            rows = np.array([features.vector(parts_of(candidates[place])) for place in places])
            means, stds = self._predict(rows)
            starts = np.array([features.scores(above[place][0]) for place in places])
            # A score is a share: what is forecast beyond 1 can't be had.
            scores = np.clip(starts + means, 0.0, 1.0)
            expected = scores @ self._weights - self._penalty(scores)
            spread = np.sqrt((stds**2) @ (self._weights**2))
            for place, mean, std, gain in zip(places, expected, spread, improvement(expected, spread, best), strict=True):
                found[place] = Forecast(float(mean), float(std), float(gain))
        typical = float(np.median([found[place].improvement for place in places])) if places else 1.0
        waiting = self._unused_data()
        for place in set(range(len(candidates))) - set(places):
            found[place] = Forecast(best, PRIOR_STD, 0.0 if waiting else DATA_WORTH * typical)
        return found

    def _penalty(self, scores: np.ndarray) -> np.ndarray:
        """What expected scores [rows, tasks] lose for tasks that are to be kept, where they are below the base's."""
        view, tasks = self._view, self.features.tasks
        base = view.scores.get(view.pool.base or "", {})
        found = np.zeros(len(scores))
        for task, room in view.keep.items():
            if task in base and task in tasks:
                found += np.maximum(0.0, base[task] - room - scores[:, tasks.index(task)])
        return PENALTY * scale_of(view.weights) * found

    def knows(self, candidate: Candidate) -> bool:
        """Whether a forecast of it stands on trials: some were measured, and it makes a model out of one with scores."""
        action = candidate.action
        measured = self._process is not None and action.type not in self._view.makes_data
        return measured and bool(self.features.parents(action.inputs))

    def _predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([rows, tasks], [rows, tasks]): mean and standard deviation of the change."""
        shape = (len(rows), len(self.features.tasks))
        if self._process is None:
            return np.zeros(shape), np.full(shape, PRIOR_STD)
        means, stds = self._process.predict(rows, return_std=True)  # type: ignore[attr-defined]
        return np.reshape(means, shape), np.reshape(stds, shape)

    def _unused_data(self) -> bool:
        """Whether a dataset that was made still waits to be trained on."""
        used = {name for t in self._view.trials if t.action for ids in t.action["inputs"].values() for name in ids}
        return any(item.trial is not None and item.id not in used for item in self._view.pool.datasets)


def told(view: View, candidates: Sequence[Candidate]) -> list[Forecast | None]:
    """A forecast for each candidate, listed in the view or not; None where it would be a guess."""
    listed = {item.action.digest for group in view.candidates.values() for item in group}
    every = dict(view.candidates)
    for item in candidates:
        if item.action.digest not in listed:
            every[item.action.type] = (*every.get(item.action.type, ()), item)
    surrogate = Surrogate(replace(view, candidates=every))
    known = [item for item in candidates if surrogate.knows(item)]
    found = dict(zip((item.action.digest for item in known), surrogate.forecast(known), strict=True))
    return [found.get(item.action.digest) for item in candidates]


def load() -> None:
    """Import what a fit and a forecast need; it takes about a second."""
    import sklearn.gaussian_process  # noqa: F401


def improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over `best` of normal variables (Jones et al. 1998); never negative."""
    from scipy.special import ndtr

    std = np.maximum(std, 1e-9)
    z = (mean - best) / std
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.maximum(0.0, (mean - best) * ndtr(z) + std * density)
