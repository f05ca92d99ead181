"""Action enumeration: what is legal now, what of it is feasible and untried, and the opening."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import FAMILIES, BoundType, Inputs, Param, Slot, Value
from lamdatui.domain.baselines import TRAINS
from lamdatui.domain.choice import Candidate
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.engine.combinations import Combinations
from lamdatui.engine.judging import Known, judge, undone
from lamdatui.engine.machine import Machine

LIMIT = 64
"""At most this many candidates of a type are offered; more are sampled by the run's seed, and the log says so."""
ENUMERATE = 4096
LENGTH = "max_steps"
TOO_LONG = "takes longer than the time that the run has left"
REASONS = 4
"""The commonest reasons for refusing a combination that are told, for each type."""
OPENING = "opening"
OPENING_SHARE = 1 / 3
"""Of the trials: with more datasets than that, not each of them is trained on alone."""
OPENING_TRIES = 512
"""At most this many combinations of objects are looked at for an opening trial."""


def _slot_options(
    slot: Slot, models: Sequence[ModelObject], datasets: Sequence[DatasetObject], *, most_first: bool = False
) -> Combinations:
    """What a slot can take of these objects, in their order; several at once are of one layout or format."""
    groups: dict[str, list[str]] = {}
    if slot.takes_models:
        for model in models:
            if model.trial is None or not slot.base_only:
                groups.setdefault(model.layout if slot.kind == "models" else "", []).append(model.id)
    else:
        for data in datasets:
            if data.format in slot.formats:
                groups.setdefault(data.format if slot.kind == "datasets" else "", []).append(data.id)
    sizes = range(slot.most, slot.least - 1, -1) if most_first else range(slot.least, slot.most + 1)
    return Combinations(list(groups.values()), sizes, slot.least == 0)


def _combination(index: int, axes: Sequence[Sequence[object]]) -> tuple[object, ...]:
    """The `index`-th element of the product of the axes, without building it."""
    picked = []
    for axis in reversed(axes):
        index, place = divmod(index, len(axis))
        picked.append(axis[place])
    return tuple(reversed(picked))


def _nothing_for(slot: Slot) -> str:
    """Why a slot can't be filled, in words."""
    several = slot.least if slot.least > 1 else "a"
    if slot.takes_models:
        return f"{slot.name}: needs {several} model{'s of one layout' if slot.least > 1 else ''}"
    return f"{slot.name}: needs {several} dataset{'s' if slot.least > 1 else ''} of format {' or '.join(slot.formats)}"


@dataclass(slots=True)
class Listing:
    """The candidates of one type, how many combinations there are, and why what is not offered is not (reason → count)."""

    candidates: list[Candidate] = field(default_factory=list)
    combinations: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """For the event `candidates.listed`; the commonest reasons."""
        return {
            "combinations": self.combinations,
            "offered": len(self.candidates),
            "refused": dict(self.refused.most_common(REASONS)),
        }


def enumerate_type(bound: BoundType, state: RunState, machine: Machine, known: Known, round_: int) -> Listing:
    """The candidates of one type: legal, feasible, untried, allowed."""
    slots = bound.type.slots
    pool = state.usable
    options = [_slot_options(slot, pool.models, pool.datasets) for slot in slots]
    grids: list[Sequence[Value]] = [grid_of(param, bound, state) for param in bound.params]
    axes: list[Sequence[object]] = [*options, *grids]
    size = math.prod(len(axis) for axis in axes)
    listing = Listing(combinations=size)
    if size == 0:
        for slot, found in zip(slots, options, strict=True):
            if not found:
                listing.refused[_nothing_for(slot)] += 1
        return listing
    rng = random.Random(f"{state.seed}/{round_}/{bound.name}")
    order = list(range(size)) if size <= ENUMERATE else sorted({rng.randrange(size) for _ in range(ENUMERATE)})
    rng.shuffle(order)
    seen: set[str] = set()
    for index in order:
        picked = _combination(index, axes)
        inputs = {slot.name: picked[i] for i, slot in enumerate(slots)}
        params = {param.name: picked[len(slots) + i] for i, param in enumerate(bound.params)}
        found = _candidate(bound, inputs, params, state, machine, known)  # type: ignore[arg-type]
        if isinstance(found, str):
            listing.refused[found] += 1
        elif found.action.digest not in seen:
            seen.add(found.action.digest)
            listing.candidates.append(found)
        if len(seen) == LIMIT:
            break
    return listing


def grid_of(param: Param, bound: BoundType, state: RunState) -> Sequence[Value]:
    """What is searched of a hyperparameter: its grid, and where the profile lets training get longer (`policy.longer`), twice the longest training of
    the best model's lineage, once that is as long as the grid's longest."""
    grid = param.choices or (param.default,)
    best = state.trials.get(state.best) if state.best is not None else None
    longer = (state.profile.get("policy") or {}).get("longer") and param.name == LENGTH and bound.type.family in TRAINS
    if not longer or best is None or best.model not in state.pool.items:
        return grid
    steps = [
        int(action["params"][LENGTH])
        for trial in lineage(state, best.model)
        if (action := trial.action) and action["type"] == bound.name and LENGTH in action["params"]
    ]
    longest = max(steps, default=0)
    if longest < max(map(float, grid)):  # type: ignore[arg-type]
        return grid
    doubled = int(min(2 * longest, param.high or math.inf))
    return tuple(dict.fromkeys([*grid, longest, doubled]))


def _candidate(
    bound: BoundType, inputs: Inputs, params: dict[str, Value], state: RunState, machine: Machine, known: Known
) -> Candidate | str:
    """The candidate, or the first reason why it can't be one."""
    judged = judge(bound, inputs, params, state, machine, known, seed=state.seed)
    if judged.problems or judged.action is None or judged.estimate is None:
        return judged.problems[0]
    if judged.action.digest in known.tried:
        return "tried already"
    if known.takes_too_long(bound, judged.estimate):
        return TOO_LONG
    return Candidate(judged.action, judged.estimate)


def legal(
    types: Mapping[str, BoundType], kind: str, inputs: Inputs, params: Mapping[str, Value], state: RunState, machine: Machine
) -> Candidate | str:
    """A candidate from its parts, listed or not, with defaults for what is not given; or the reason why there is none."""
    bound = types.get(kind)
    if bound is None:
        return f"this run has no action type {kind!r}; it has {', '.join(types)}"
    try:
        return _candidate(bound, inputs, bound.fill(params), state, machine, Known.of(state, machine))
    except (ValueError, LamdatuiError) as error:
        return str(error)


def enumerate_all(
    types: Mapping[str, BoundType], state: RunState, machine: Machine, number: int
) -> tuple[dict[str, tuple[Candidate, ...]], dict[str, dict[str, Any]]]:
    """Candidates by type (types with none are left out), and for each type what was looked at, offered and refused."""
    known = Known.of(state, machine)
    candidates, counts = {}, {}
    for name, bound in types.items():
        listing = enumerate_type(bound, state, machine, known, number)
        counts[name] = listing.to_json()
        if listing.candidates:
            candidates[name] = tuple(listing.candidates)
    return candidates, counts


def opening(
    types: Mapping[str, BoundType], state: RunState, machine: Machine, objectives: Mapping[str, float]
) -> Candidate | None:
    """The next trial of the opening: one of each family as soon as it is legal, at defaults, and supervised learning of data (`_on_data`); None when it
    is over.

    Which objects: what supervised learning and distillation change is a base; elsewhere the best model so far comes first,
    and a merge takes produced models; datasets come in the profile's order, and as many at once as data is made of. It is the same for every
    policy, so that policies can be compared.
    """
    counted = [t.action["type"] for t in state.trials.values() if t.action and not undone(state, t)]
    opened = {types[name].type.family for name in counted if name in types}
    known = Known.of(state, machine)
    for family in FAMILIES:
        bound = next((b for b in types.values() if b.type.family == family), None)
        if bound is None or family in opened:
            continue
        # What comes later of a slot is not reached within the tries.
        options = [found[:OPENING_TRIES] for found in _opening_options(bound, state.usable, objectives)]
        for picked in itertools.islice(itertools.product(*options), OPENING_TRIES):
            inputs = {slot.name: ids for slot, ids in zip(bound.type.slots, picked, strict=True)}
            found = _candidate(bound, inputs, bound.defaults(), state, machine, known)
            if isinstance(found, Candidate):
                return found
    return _on_data(types, state, machine, known)


def _on_data(types: Mapping[str, BoundType], state: RunState, machine: Machine, known: Known) -> Candidate | None:
    """Supervised learning of a base on the data that the opening made, and, where the budget has room for it, on each dataset of the profile:
    what data is worth shows in what is trained of it alone."""
    bound = next((b for b in types.values() if b.type.family == "supervised"), None)
    slots = [slot for slot in bound.type.slots if slot.least] if bound else []
    data = next((slot for slot in slots if not slot.takes_models), None)
    if bound is None or data is None or state.pool.base is None or len(slots) != 2:
        return None
    suits = [item.id for item in state.usable.datasets if item.format in data.formats]
    made = [trial.dataset for trial in state.trials.values() if trial.proposed_by == OPENING and trial.dataset in suits]
    given = [name for name in suits if state.pool.items[name].trial is None]
    trained = [
        trial.action
        for trial in state.trials.values()
        if trial.action and not undone(state, trial) and trial.action["type"] in types
        if types[trial.action["type"]].type.family in TRAINS
    ]
    used = {name for action in trained for ids in action["inputs"].values() for name in ids}
    for name in [*made, *(given if len(given) <= OPENING_SHARE * state.max_trials else ())]:
        inputs = {
            slot.name: () if not slot.least else (name,) if slot is data else (state.pool.base,) for slot in bound.type.slots
        }
        if name not in used and isinstance(
            found := _candidate(bound, inputs, bound.defaults(), state, machine, known), Candidate
        ):
            return found
    return None


def _opening_options(bound: BoundType, pool: ObjectPool, objectives: Mapping[str, float]) -> list[Combinations]:
    """For each slot what it can take, the preferred first."""
    bases = [model for model in pool.models if model.trial is None]
    produced = sorted((m for m in pool.models if m.trial is not None), key=lambda m: -objectives.get(m.id, -math.inf))
    family, slots = bound.type.family, bound.type.slots
    subject = next((slot for slot in slots if slot.takes_models and not slot.base_only), None)
    found = []
    for slot in slots:
        if slot.kind == "models":
            models = produced
        elif slot is subject and family in ("supervised", "distillation"):
            models = [*bases, *produced]
        else:
            models = [*produced, *bases]
        found.append(_slot_options(slot, models, pool.datasets, most_first=family == "data"))
    return found
