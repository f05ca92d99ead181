"""Many types of merges, and one search: together they count as a few types, each by what it did so far.

Otherwise a profile that lists all of mergekit's methods would do little else: they are most of the types, and each new one looks unexplored.
"""

from __future__ import annotations

import random

from lamdatui.domain.choice import View, parents_of

FAIR = 2
"""As many types of merges count as types of their own; where there are more, all together count as this many."""
OFFERED = 4
"""At most this many of them are put to a planner that chooses a type."""


def merge_types(view: View) -> list[str]:
    """The types whose actions join several models into one."""
    return sorted(kind for kind, group in view.candidates.items() if group[0].action.inputs.get("models"))


def worth(view: View, kind: str) -> float:
    """The mean of a Beta(1, 1) posterior over trials of a type that came out better than the best of their parents."""
    tried = [trial for trial in view.trials if trial.action is not None and trial.action["type"] == kind]
    won = 0
    for trial in tried:
        assert trial.action is not None
        parents = [view.objectives[name] for name in parents_of(view, trial.action["inputs"]) if name in view.objectives]
        won += view.objectives.get(trial.model or "", 0.0) > max(parents, default=0.0)
    return (won + 1) / (len(tried) + 2)


def draw_type(view: View, rng: random.Random) -> str:
    """A type by chance: all alike, but for merges, which share their part by their worth."""
    kinds, merges = sorted(view.candidates), merge_types(view)
    if len(merges) <= FAIR:
        return rng.choice(kinds)
    worths = {kind: worth(view, kind) for kind in merges}
    total = sum(worths.values())
    return rng.choices(kinds, [FAIR * worths[kind] / total if kind in worths else 1.0 for kind in kinds])[0]


def offered(view: View, rng: random.Random) -> list[str]:
    """The types in a drawn order; of many merges, those that were worth most, and by chance where that is alike."""
    kinds, merges = sorted(view.candidates), merge_types(view)
    rng.shuffle(kinds)
    if len(merges) <= OFFERED:
        return kinds
    best = sorted(merges, key=lambda kind: (-worth(view, kind), kinds.index(kind)))[:OFFERED]
    return [kind for kind in kinds if kind not in merges or kind in best]
