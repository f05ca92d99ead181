"""Action enumeration: what is legal now, what of it is feasible and untried, and the opening."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamdatui.actions import Action, BoundType, Inputs, Slot, Value, make_action
from lamdatui.objects import ObjectPool
from lamdatui.policy.base import Candidate
from lamdatui.state import RunState, Trial

LIMIT = 64
"""At most this many candidates of a type are offered; more are sampled by the run's seed, and the log says so."""
ENUMERATE = 4096
FAMILIES = ("supervised", "preference", "merge")


@dataclass(frozen=True)
class Machine:
    """What an action has to fit into."""

    device: str
    dtype: str
    memory_bytes: int


def _slot_options(slot: Slot, pool: ObjectPool) -> list[tuple[str, ...]]:
    if slot.kind == "dataset":
        return [(item.id,) for item in pool.datasets if item.format in slot.formats]
    models = [item for item in pool.models if item.trial is None or not slot.base_only]
    if slot.kind == "model":
        return [(item.id,) for item in models]
    by_layout: dict[str, list[str]] = {}
    for item in models:
        by_layout.setdefault(item.layout, []).append(item.id)
    sizes = range(slot.least, slot.most + 1)
    return [ids for group in by_layout.values() for size in sizes for ids in itertools.combinations(group, size)]


def _combination(index: int, axes: Sequence[Sequence[object]]) -> tuple[object, ...]:
    """The `index`-th element of the product of the axes, without building it."""
    picked = []
    for axis in reversed(axes):
        index, place = divmod(index, len(axis))
        picked.append(axis[place])
    return tuple(reversed(picked))


def blocked(action: Action, constraints: Mapping[str, dict]) -> str | None:
    """The text of the constraint that forbids an action, if one does."""
    for constraint in constraints.values():
        if matches(action, constraint["match"]):
            return constraint["text"]
    return None


def matches(action: Action, match: Mapping[str, object]) -> bool:
    """Whether a rule or a constraint covers an action: same type, and the same objects in each slot it names."""
    inputs = {slot: list(ids) for slot, ids in action.inputs.items()}
    return match["type"] == action.type and match["inputs"] == inputs


def enumerate_type(
    bound: BoundType, state: RunState, machine: Machine, tried: set[str], round_: int
) -> tuple[list[Candidate], int]:
    """(candidates, how many combinations there are) of one type: legal, feasible, untried, allowed."""
    slots = bound.type.slots
    options = [_slot_options(slot, state.pool) for slot in slots]
    grids: list[Sequence[Value]] = [param.choices or (param.default,) for param in bound.params]
    axes: list[Sequence[object]] = [*options, *grids]
    size = math.prod(len(axis) for axis in axes)
    if size == 0:
        return [], 0
    rng = random.Random(f"{state.seed}/{round_}/{bound.name}")
    order = list(range(size)) if size <= ENUMERATE else sorted({rng.randrange(size) for _ in range(ENUMERATE)})
    rng.shuffle(order)
    found: dict[str, Candidate] = {}
    for index in order:
        picked = _combination(index, axes)
        inputs = {slot.name: picked[i] for i, slot in enumerate(slots)}
        params = {param.name: picked[len(slots) + i] for i, param in enumerate(bound.params)}
        candidate = _candidate(bound, inputs, params, state, machine)  # type: ignore[arg-type]
        if candidate and candidate.action.digest not in tried and not blocked(candidate.action, state.constraints):
            found.setdefault(candidate.action.digest, candidate)
        if len(found) == LIMIT:
            break
    return list(found.values()), size


def _candidate(
    bound: BoundType, inputs: Inputs, params: dict[str, Value], state: RunState, machine: Machine
) -> Candidate | None:
    if bound.problems(inputs, params, state.pool, machine.device):
        return None
    estimate = bound.type.estimate(bound.call(inputs, params, state.pool, machine.device))
    if estimate.memory_bytes is not None and estimate.memory_bytes > machine.memory_bytes:
        return None
    action = make_action(bound, inputs, params, state.pool, seed=state.seed, dtype=machine.dtype)
    return Candidate(action, estimate)


def _undone(state: RunState, trial: Trial) -> bool:
    """Whether nobody said anything about the action itself: a stop cut it off, or there was nobody to ask."""
    return trial.status == "stopped" or (trial.status == "rejected" and state.mode != "read-only")


def tried_digests(state: RunState) -> set[str]:
    """Digests of every action that was proposed or run in this run; one that a stop cut off may come again."""
    found = set()
    for trial in state.trials.values():
        if _undone(state, trial):
            continue
        if trial.action:
            found.add(trial.action["digest"])
        if trial.proposal:
            found.add(trial.proposal["action"]["digest"])
    return found


def enumerate_all(
    types: Mapping[str, BoundType], state: RunState, machine: Machine, number: int
) -> tuple[dict[str, tuple[Candidate, ...]], dict[str, dict[str, int]]]:
    """Candidates by type (types with none are left out), and how many combinations each has against those kept."""
    tried = tried_digests(state)
    candidates, counts = {}, {}
    for name, bound in types.items():
        found, size = enumerate_type(bound, state, machine, tried, number)
        counts[name] = {"combinations": size, "offered": len(found)}
        if found:
            candidates[name] = tuple(found)
    return candidates, counts


def opening(
    types: Mapping[str, BoundType], state: RunState, machine: Machine, objectives: Mapping[str, float]
) -> Candidate | None:
    """The next trial of the opening: one of each family as soon as it is legal, at defaults; None when it is over.

    Which objects: the first base and the first dataset for training, the best model so far for preferences, the two
    best produced models for a merge. It is the same for every policy, so that policies can be compared.
    """
    counted = [t.action["type"] for t in state.trials.values() if t.action and not _undone(state, t)]
    opened = {types[name].type.family for name in counted if name in types}
    tried = tried_digests(state)
    for family in FAMILIES:
        bound = next((b for b in types.values() if b.type.family == family), None)
        if bound is None or family in opened:
            continue
        inputs = _opening_inputs(bound, state.pool, objectives)
        candidate = _candidate(bound, inputs, bound.defaults(), state, machine) if inputs else None
        if candidate and candidate.action.digest not in tried and not blocked(candidate.action, state.constraints):
            return candidate
    return None


def _opening_inputs(bound: BoundType, pool: ObjectPool, objectives: Mapping[str, float]) -> Inputs | None:
    bases = [model for model in pool.models if model.trial is None]
    ranked = sorted((m for m in pool.models if m.id in objectives), key=lambda m: -objectives[m.id])
    produced = [model for model in ranked if model.trial is not None]
    inputs: Inputs = {}
    for slot in bound.type.slots:
        if slot.kind == "dataset":
            fitting = [item for item in pool.datasets if item.format in slot.formats]
            if not fitting:
                return None
            inputs[slot.name] = (fitting[0].id,)
        elif slot.kind == "models":
            same = [model for model in produced if model.layout == produced[0].layout]
            if len(same) < slot.least:
                return None
            inputs[slot.name] = tuple(model.id for model in same[: slot.least])
        elif slot.base_only:
            wanted = produced[0].layout if produced else bases[0].layout
            inputs[slot.name] = (next(base.id for base in bases if base.layout == wanted),)
        else:
            first = bases[0] if bound.type.family == "supervised" or not produced else produced[0]
            inputs[slot.name] = (first.id,)
    return inputs
