"""The classical sampler: Optuna's Tree-structured Parzen Estimator (Bergstra et al. 2011) over the same legal actions.

The space is define-by-run: the type first, then what that type asks for. A model is given by how good it is among the models of the
pool, because the pool grows; data and settings are given by name and value. What TPE suggests is then looked up among the candidates.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamdatui.base.jsonio import digest
from lamdatui.domain.choice import Candidate, Policy, PolicyError, Proposal, View
from lamdatui.domain.trials import Trial
from lamdatui.policy.features import Features, Parts, parts, parts_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SUGGESTIONS = 32
"""Suggestions that are looked up exactly before the nearest candidate to the last one is taken."""
STARTUP = 4
"""Trials (the opening's included) before TPE models anything; until then it draws at random."""


class TpePolicy(Policy):
    """Learns from nothing but the view: the study is built anew for each proposal, so a resumed run proposes the same."""

    name = "tpe"

    async def propose(self, view: View) -> Proposal:
        """The candidate that TPE suggests. `details.misses` counts suggestions that no candidate was. Raises PolicyError."""
        if not view.candidates:
            raise PolicyError("there is no legal action left")
        space = _Space(view)
        study = space.study()
        known = {space.key(space.encode(parts_of(item))): item for item in space.candidates}
        told, misses, suggested = len(study.trials), 0, {}
        for _ in range(SUGGESTIONS):
            suggested = space.suggest(study.ask())
            found = known.get(space.key(suggested))
            if found is not None:
                return self._told(found, f"suggested by TPE after {told} trials", misses)
            misses += 1
        return self._told(space.nearest(suggested), "the legal action that is nearest to what TPE suggested", misses)

    def _told(self, candidate: Candidate, reason: str, misses: int) -> Proposal:
        return Proposal(candidate.action, reason, self.name, details={"misses": misses})


class _Space:
    """One view's actions as Optuna parameters."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._features = Features(view)
        self._ranks = _ranks(view.objectives)
        # By digest, so that the listing's order does not matter.
        every = [item for group in view.candidates.values() for item in group]
        self.candidates = sorted(every, key=lambda item: item.action.sort_key)
        self._distributions = self._describe()
        self._known = self._values()

    def _describe(self) -> dict[str, dict[str, BaseDistribution]]:
        """Type → its parameters: `type` first, then everything that any of its actions has."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        rows: list[Parts] = [parts_of(item) for item in self.candidates]
        rows += [parts(trial.action) for trial in self._view.trials if trial.action is not None]
        kinds = CategoricalDistribution(sorted({kind for kind, _, _ in rows}))
        values: dict[str, set[Any]] = {}
        for row in rows:
            for name, value in self._raw(row).items():
                values.setdefault(name, set()).add(value)
        found: dict[str, dict[str, BaseDistribution]] = {}
        for row in rows:
            mine = found.setdefault(row[0], {"type": kinds})
            for name in self._raw(row):
                numbers = all(isinstance(value, float) for value in values[name])
                mine[name] = FloatDistribution(0.0, 1.0) if numbers else CategoricalDistribution(sorted(values[name], key=str))
        return found

    def _raw(self, row: Parts) -> dict[str, Any]:
        """An action's parameters but its type; floats are in [0, 1]."""
        kind, inputs, params = row
        found: dict[str, Any] = {}
        for place, name in enumerate(self._features.parents(inputs)[:2]):
            found[f"{kind}/parent{place + 1}"] = self._ranks[name]
        data = self._features.datasets_of(inputs)
        if data:
            found[f"{kind}/data"] = "+".join(data)
        for name, value in params.items():
            grid = self._features.grids[kind, name]
            if len(grid.values) > 1:
                found[f"{kind}/{name}"] = grid.position(value) if grid.ordered else str(value)
        return found

    def encode(self, row: Parts) -> dict[str, Any]:
        """An action as Optuna parameters."""
        return {"type": row[0], **self._raw(row)}

    def key(self, values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """Equal for two actions that TPE can't tell apart."""
        return tuple(sorted((name, round(v, 2) if isinstance(v, float) else v) for name, v in values.items()))

    def study(self) -> Any:
        """An in-memory study with every trial of the view."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            # Multivariate sampling by groups is what a conditional space needs; Optuna still calls it experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            seed = int(digest(["tpe", self._view.seed, self._view.number])[:8], 16)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in self._view.trials:
            told = self._frozen(trial)
            if told is not None:
                study.add_trial(told)
        return study

    def _frozen(self, trial: Trial) -> FrozenTrial | None:
        from optuna.trial import TrialState, create_trial

        if trial.action is None or trial.is_open:
            return None
        values = self.encode(parts(trial.action))
        shapes = {name: self._distributions[values["type"]][name] for name in values}
        if trial.model in self._view.objectives:
            return create_trial(params=values, distributions=shapes, value=self._view.objectives[trial.model or ""])
        # TPE counts what was pruned without a value among the bad ones: a failure is worth avoiding.
        return create_trial(params=values, distributions=shapes, state=TrialState.PRUNED) if trial.status == "failed" else None

    def suggest(self, trial: Any) -> dict[str, Any]:
        """TPE's next point, snapped to the values that there are."""
        kinds = self._distributions[next(iter(self._distributions))]["type"]
        kind = trial.suggest_categorical("type", kinds.choices)  # type: ignore[attr-defined]
        found = {"type": kind}
        for name, shape in self._distributions[kind].items():
            if name == "type":
                continue
            if hasattr(shape, "choices"):
                found[name] = trial.suggest_categorical(name, shape.choices)  # type: ignore[attr-defined]
            else:
                value = trial.suggest_float(name, 0.0, 1.0)
                found[name] = min(self._known.get(name, ()), key=lambda known: abs(known - value), default=value)
        return found

    def _values(self) -> dict[str, list[float]]:
        """Parameter → the numbers that candidates have for it."""
        found: dict[str, set[float]] = {}
        for item in self.candidates:
            for name, value in self._raw(parts_of(item)).items():
                if isinstance(value, float):
                    found.setdefault(name, set()).add(value)
        return {name: sorted(values) for name, values in found.items()}

    def nearest(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate with the smallest distance to a suggestion: of its type if there is one; ties by digest."""

        def distance(item: Candidate) -> tuple[float, str]:
            mine = self.encode(parts_of(item))
            total = 0.0
            for name in {*mine, *values}:
                ours, theirs = mine.get(name), values.get(name)
                both = isinstance(ours, float) and isinstance(theirs, float)
                total += abs(ours - theirs) if both else float(ours != theirs)  # type: ignore[operator]
            return total + 10.0 * (mine["type"] != values["type"]), item.action.sort_key

        return min(self.candidates, key=distance)


def _ranks(objectives: Mapping[str, float]) -> dict[str, float]:
    """Model → where its objective stands between the worst (0) and the best (1) so far."""
    low, high = min(objectives.values(), default=0.0), max(objectives.values(), default=0.0)
    return {name: (value - low) / (high - low) if high > low else 1.0 for name, value in objectives.items()}
