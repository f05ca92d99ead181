"""Successive halving on the size of the data, asynchronously (Li et al. 2020, arXiv 1810.05934).

Actions that offer a `data_fraction` are first tried on the smallest part of their data; the best third of what was tried at one
size is tried again at the next. LaMDAgent found that pipelines keep their order when the data is scaled (arXiv 2505.21963).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui.base.jsonio import canonical
from lamdatui.domain.choice import Candidate, Policy, PolicyError, Proposal, View
from lamdatui.domain.trials import Trial
from lamdatui.planner.session import draw
from lamdatui.policy.features import scored
from lamdatui.policy.merges import draw_type

FIDELITY = "data_fraction"
ETA = 3
"""One in this many of a rung is promoted to the next."""


class HalvingPolicy(Policy):
    """Where no candidate offers several sizes of data it is a uniform draw."""

    name = "halving"

    async def propose(self, view: View) -> Proposal:
        """A promotion where one is due, else something new at the smallest size. Raises PolicyError."""
        if not view.candidates:
            raise PolicyError("there is no legal action left")
        promoted = self._promotion(view)
        if promoted is not None:
            return promoted
        rng = draw(view, self.name)
        kind = draw_type(view, rng)
        group = sorted(view.candidates[kind], key=lambda item: item.action.sort_key)
        sizes = sorted({item.action.params[FIDELITY] for item in group if FIDELITY in item.action.params})
        if len(sizes) > 1:
            group = [item for item in group if item.action.params[FIDELITY] == sizes[0]]
            return Proposal(rng.choice(group).action, f"something new, on {float(sizes[0]):g} of its data first", self.name)
        return Proposal(rng.choice(group).action, f"a uniform draw: one of {len(group)} candidates of a drawn type", self.name)

    def _promotion(self, view: View) -> Proposal | None:
        """The best trial that belongs to the top of its rung and was not tried at the next size, from the largest rung down."""
        larger, reached = _by_configuration(view), _reached(view)
        rungs: dict[float, list[Trial]] = {}
        for trial in scored(view):
            assert trial.action is not None
            if FIDELITY in trial.action["params"]:
                rungs.setdefault(float(trial.action["params"][FIDELITY]), []).append(trial)
        for size in sorted(rungs, reverse=True):
            ranked = sorted(rungs[size], key=lambda trial: (-view.objectives[trial.model or ""], trial.number))
            for trial in ranked[: len(ranked) // ETA]:
                assert trial.action is not None
                known = _configuration(trial.action)
                above = [item for item in larger.get(known, []) if _size(item) > size]
                if above and reached[known] <= size:
                    best = min(above, key=_size)
                    reason = f"trial {trial.number} was in the best third on {size:g} of its data; now on {_size(best):g}"
                    return Proposal(best.action, reason, self.name)
        return None


def _size(candidate: Candidate) -> float:
    return float(candidate.action.params[FIDELITY])


def _configuration(action: Mapping[str, Any]) -> str:
    """All of an action but the size of its data."""
    inputs = {slot: list(ids) for slot, ids in action["inputs"].items()}
    return canonical([action["type"], inputs, {k: v for k, v in action["params"].items() if k != FIDELITY}])


def _reached(view: View) -> dict[str, float]:
    """Configuration → the largest size at which it was tried, whatever came of it."""
    found: dict[str, float] = {}
    for trial in view.trials:
        if trial.action is not None and FIDELITY in trial.action["params"]:
            known, size = _configuration(trial.action), float(trial.action["params"][FIDELITY])
            found[known] = max(size, found.get(known, size))
    return found


def _by_configuration(view: View) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for group in view.candidates.values():
        for item in group:
            if FIDELITY in item.action.params:
                found.setdefault(_configuration(item.action.to_json()), []).append(item)
    return found
