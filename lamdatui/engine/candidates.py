"""Action enumeration: what is legal now, what of it is feasible and untried, and the opening."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.actionkit.timings import Ledger, Measurement, scale
from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import FAMILIES, Action, BoundType, Call, Estimate, Inputs, Records, Slot, Value, make_action
from lamdatui.domain.choice import Candidate
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.schemes import SCHEME
from lamdatui.domain.state import RunState, Trial
from lamdatui.engine.combinations import Combinations
from lamdatui.store.artifacts import read_manifest

LIMIT = 64
"""At most this many candidates of a type are offered; more are sampled by the run's seed, and the log says so."""
ENUMERATE = 4096
REASONS = 4
"""The commonest reasons for refusing a combination that are told, for each type."""
OPENING_TRIES = 512
"""At most this many combinations of objects are looked at for an opening trial."""


@dataclass(frozen=True)
class Machine:
    """What an action has to fit into, and what earlier steps on this machine taught about its cost."""

    device: str
    dtype: str
    memory_bytes: int
    disk: Path | None = None
    """The folder of the store: what is free there bounds what is written."""
    ledger: Ledger = field(default_factory=Ledger)

    def recorded(self, digest: str) -> Mapping[str, Value] | None:
        """The hyperparameters of the action that made the store's object `digest`; None when there is none that can be read."""
        if self.disk is None:
            return None
        try:
            return dict(read_manifest(self.disk / "store", digest)["action"]["params"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def estimate(self, bound: BoundType, call: Call) -> Estimate:
        """The type's own estimate, corrected by what this machine measured."""
        plain = bound.estimate(call)
        return self.ledger.correct(bound.name, bound.type.family, self.device, self.dtype, size_of(call), plain)

    def measured(self, bound: BoundType, call: Call, outcome: Mapping[str, Any]) -> None:
        """Add a step that did its work to the ledger."""
        plain = bound.estimate(call)
        gpu = self.device.startswith("cuda")
        self.ledger.add(
            Measurement(
                type=bound.name,
                family=bound.type.family,
                device=self.device.partition(":")[0],
                dtype=self.dtype,
                scale=scale(size_of(call)),
                predicted_seconds=plain.seconds,
                seconds=outcome["seconds"]["execute"],
                predicted_memory=plain.memory_bytes,
                memory=outcome.get("peak_gpu" if gpu else "peak_rss"),
            )
        )

    def lacks(self, estimate: Estimate) -> str | None:
        """Why the work does not fit, or None: memory of the device, free disk."""
        where = "GPU memory" if self.device.startswith("cuda") else "memory"
        if estimate.memory_bytes is not None and estimate.memory_bytes > self.memory_bytes:
            return f"needs {_gib(estimate.memory_bytes)} of {where}; there are {_gib(self.memory_bytes)}"
        if estimate.disk_bytes is not None and self.disk is not None:
            free = shutil.disk_usage(self.disk).free
            if estimate.disk_bytes > free:
                return f"writes {_gib(estimate.disk_bytes)}; {_gib(free)} are free on the disk"
        return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def size_of(call: Call) -> int:
    """Parameters of the largest model that an action works with; 0 when it works with none."""
    return max((model.parameters for models in call.models.values() for model in models), default=0)


def _slot_options(slot: Slot, models: Sequence[ModelObject], datasets: Sequence[DatasetObject]) -> Combinations:
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
    return Combinations(list(groups.values()), range(slot.least, slot.most + 1), slot.least == 0)


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


def _nothing_for(slot: Slot) -> str:
    """Why a slot can't be filled, in words."""
    several = slot.least if slot.least > 1 else "a"
    if slot.takes_models:
        return f"{slot.name}: needs {several} model{'s of one layout' if slot.least > 1 else ''}"
    return f"{slot.name}: needs {several} dataset{'s' if slot.least > 1 else ''} of format {' or '.join(slot.formats)}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record: digests that are not proposed again, and the hyperparameters behind every digest."""

    tried: frozenset[str] = frozenset()
    records: Records = lambda _: None
    scheme: int = SCHEME

    @classmethod
    def of(cls, state: RunState, machine: Machine) -> Known:
        """Of a run and of its store."""
        actions = [item["action"] for item in state.queue.values()]
        for trial in state.trials.values():
            actions += [trial.action] if trial.action else []
            actions += [trial.proposal["action"]] if trial.proposal else []
        params = {action["digest"]: action["params"] for action in actions}

        def records(digest: str) -> Mapping[str, Value] | None:
            return params[digest] if digest in params else machine.recorded(digest)

        return cls(frozenset(tried_digests(state)), records, state.scheme)

    def action(
        self, bound: BoundType, inputs: Inputs, params: Mapping[str, Any], pool: ObjectPool, *, seed: int, dtype: str
    ) -> Action:
        """`make_action` with what is on record."""
        return make_action(bound, inputs, params, pool, seed=seed, dtype=dtype, records=self.records, scheme=self.scheme)


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
    grids: list[Sequence[Value]] = [param.choices or (param.default,) for param in bound.params]
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


def _candidate(
    bound: BoundType, inputs: Inputs, params: dict[str, Value], state: RunState, machine: Machine, known: Known
) -> Candidate | str:
    """The candidate, or the reason why it can't be one."""
    if problems := bound.problems(inputs, params, state.usable, machine.device):
        return problems[0]
    estimate = machine.estimate(bound, bound.call(inputs, params, state.pool, machine.device))
    if lacking := machine.lacks(estimate):
        return lacking
    action = known.action(bound, inputs, params, state.pool, seed=state.seed, dtype=machine.dtype)
    if action.digest in known.tried:
        return "tried already"
    return blocked(action, state.constraints) or Candidate(action, estimate)


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


def _undone(state: RunState, trial: Trial) -> bool:
    """Whether nobody said anything about the action itself: a stop cut it off, or there was nobody to ask."""
    return trial.status == "stopped" or (trial.status == "rejected" and state.mode != "read-only")


def done_by(state: RunState) -> dict[str, int]:
    """Digest of each action that was run, or is about to be → its trial."""
    ran = ("awaiting", "approved", "running", "done", "failed")
    return {t.action["digest"]: t.number for t in state.trials.values() if t.action and t.status in ran}


def tried_digests(state: RunState) -> set[str]:
    """Digests of every action that was proposed, run or queued in this run; one that a stop cut off may come again."""
    found = {item["action"]["digest"] for item in state.queue.values()}
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
    """The next trial of the opening: one of each family as soon as it is legal, at defaults; None when it is over.

    Which objects: what supervised learning and distillation change is a base; elsewhere the best model so far comes first,
    and a merge takes produced models; datasets come in the profile's order. It is the same for every policy, so that policies
    can be compared.
    """
    counted = [t.action["type"] for t in state.trials.values() if t.action and not _undone(state, t)]
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
        found.append(_slot_options(slot, models, pool.datasets))
    return found
