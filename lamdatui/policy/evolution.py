"""Regularised evolution (Real et al. 2019, arXiv 1802.01548) over the same legal actions.

The population is the latest trials; a tournament picks one of them; its child either goes on from that trial's model or is the same
action with one thing changed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lamdatui.domain.choice import Candidate, Policy, PolicyError, Proposal, View
from lamdatui.planner.session import draw
from lamdatui.policy.features import scored
from lamdatui.policy.merges import FAIR, draw_type, merge_types

POPULATION = 12
TOURNAMENT = 4
GO_ON = 0.6
"""How often a child goes on from the model of the trial that won the tournament, rather than varying its action."""


class EvolutionPolicy(Policy):
    """The oldest die, whatever they scored: that is what keeps one lucky trial from taking over."""

    name = "evolution"

    async def propose(self, view: View) -> Proposal:
        """A child of a trial that won a tournament; a uniform draw before there is one. Raises PolicyError."""
        candidates = sorted((i for group in view.candidates.values() for i in group), key=lambda item: item.action.sort_key)
        if not candidates:
            raise PolicyError("there is no legal action left")
        rng = draw(view, self.name)
        population = scored(view)[-POPULATION:]
        if not population:
            return Proposal(_drawn(view, candidates, rng).action, "a uniform draw: nothing is scored yet", self.name)
        entrants = rng.sample(population, min(TOURNAMENT, len(population)))
        parent = max(entrants, key=lambda trial: (view.objectives[trial.model or ""], -trial.number))
        assert parent.action is not None
        further = [item for item in candidates if any(parent.model in ids for ids in item.action.inputs.values())]
        if further and rng.random() < GO_ON:
            return Proposal(
                _drawn(view, further, rng).action, f"goes on from {parent.model}, which won a tournament", self.name
            )
        changes = {item.action.digest: differences(item, parent.action) for item in candidates}
        least = min(changes.values())
        near = [item for item in candidates if changes[item.action.digest] == least]
        what = "one thing" if least == 1 else f"{least} things"
        return Proposal(
            rng.choice(near).action, f"trial {parent.number}, which won a tournament, with {what} changed", self.name
        )


def _drawn(view: View, items: Sequence[Candidate], rng: random.Random) -> Candidate:
    """One of them; where there are many types of merges, its type is drawn first."""
    groups: dict[str, list[Candidate]] = {}
    for item in items:
        groups.setdefault(item.action.type, []).append(item)
    those = replace(view, candidates={kind: tuple(group) for kind, group in groups.items()})
    return rng.choice(items) if len(merge_types(those)) <= FAIR else rng.choice(groups[draw_type(those, rng)])


def differences(candidate: Candidate, action: Mapping[str, Any]) -> int:
    """In how many slots and settings a candidate differs from an action; another type differs in everything."""
    ours = candidate.action
    if ours.type != action["type"]:
        return 1 + len(ours.inputs) + len(ours.params)
    slots = sum(tuple(action["inputs"].get(slot, ())) != tuple(ids) for slot, ids in ours.inputs.items())
    return slots + sum(action["params"].get(name) != value for name, value in ours.params.items())
