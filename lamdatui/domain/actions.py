"""Action types, their declarations, and actions: one chosen type with its objects and hyperparameters.

An action type is declared once, in `actions/<family>.py`. The search's grid, the planner's grammar, the edit form, the
validation, the approval card, `lamdatui actions show` and the docs all read that declaration.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import digest
from lamdatui.base.limits import answer
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.plans import Plan
from lamdatui.domain.records import ActionRecord, Value
from lamdatui.domain.schemes import GENERATORS, SCHEME, SCHEMES, numbered

Family = Literal["supervised", "preference", "merge", "reinforcement", "distillation", "data"]
FAMILIES: tuple[Family, ...] = ("supervised", "preference", "merge", "reinforcement", "distillation", "data")
"""In the order in which a run's opening tries them."""
Inputs = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Slot:
    """An input: `model` or `dataset` (one), `models` (several, distinct, of one layout) or `datasets` (several, of one format).

    With `least=0` it may stay empty. The first model slot that is not `base_only` is the one that the result descends from.
    """

    name: str
    kind: Literal["model", "models", "dataset", "datasets"]
    help: str
    formats: tuple[str, ...] = ()
    least: int = 1
    most: int = 1
    base_only: bool = False
    """Only models that the profile names fit: what a merge calls its base."""

    @property
    def takes_models(self) -> bool:
        """Whether its objects are models; else they are datasets."""
        return self.kind in ("model", "models")

    def describe(self) -> str:
        """What it takes: `one model`, `1 to 4 datasets of format sft or preference, optional`."""
        noun = "dataset" if not self.takes_models else "base model" if self.base_only else "model"
        if self.most == 1:
            text = f"one {noun}"
        elif self.least in (self.most, 0):
            text = f"{'up to ' if self.least == 0 else ''}{self.most} {noun}s"
        else:
            text = f"{self.least} to {self.most} {noun}s"
        if self.formats:
            text += f" of format {' or '.join(self.formats)}"
        return f"{text}, optional" if self.least == 0 else text


@dataclass(frozen=True, slots=True)
class Param:
    """A hyperparameter: `choices` is the grid that a search uses; `low`..`high` is what a person may type."""

    name: str
    type: Literal["float", "int", "str", "bool"]
    default: Value
    help: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""
    allowed: tuple[str, ...] = ()
    """Legal values of a `str`."""
    introduced: Value | None = None
    """The default of the day on which it came, where `default` has changed since: at this value it is in no digest."""
    since: int = 1
    """The digest scheme that was the newest when it came: digests of older schemes don't know it."""

    def is_introduced(self, value: Value) -> bool:
        """Whether a value is the default of the day on which the hyperparameter came: such a value changes no digest."""
        return value == (self.default if self.introduced is None else self.introduced)

    def parse(self, value: Any) -> Value:
        """`value` (a string from a form, or a number) as this parameter's type. Raises ValueError in plain words."""
        parsed = self._convert(value)
        if isinstance(parsed, str):
            if self.allowed and parsed not in self.allowed:
                raise ValueError(f"{self.name} is one of {', '.join(self.allowed)}, not {parsed!r}")
            return parsed
        if self.low is not None and parsed < self.low:
            raise ValueError(f"{self.name} is at least {self.low:g}, not {parsed:g}")
        if self.high is not None and parsed > self.high:
            raise ValueError(f"{self.name} is at most {self.high:g}, not {parsed:g}")
        return parsed

    def _convert(self, value: Any) -> Value:
        text = str(value).strip()
        try:
            if self.type == "bool":
                return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
            if self.type == "str":
                return text
            number = float(text)
            if number != number or number in (float("inf"), float("-inf")):
                raise ValueError(text)
            if self.type == "float":
                return number
            if number != int(number):
                raise ValueError(text)
            return int(number)
        except (KeyError, ValueError):
            words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
            raise ValueError(f"{self.name} is {words[self.type]}, not {text!r}") from None


PROCESS_BYTES = 700 * 2**20
"""Memory of a step's process before it has loaded a model: torch and the training libraries."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an action is expected to cost; None means unknown, which is an answer."""

    seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    ram_bytes: int | None = None
    """Memory of the machine beside that of its GPU; on a CPU it is `memory_bytes`."""
    measured: bool = False
    """Whether the seconds stand on steps that this machine did."""


@dataclass(frozen=True)
class Action:
    """An action type + chosen objects + chosen hyperparameters + seed; `digest` identifies the work, under a digest scheme."""

    type: str
    inputs: Inputs
    params: dict[str, Value]
    seed: int
    digest: str
    scheme: int = 1
    place: str = field(default="", compare=False)
    """What actions are sorted by where a choice must not depend on how they were listed; the digest where it is empty."""

    @property
    def sort_key(self) -> str:
        """What actions are sorted by: the same for an action whatever the store has on record."""
        return self.place or self.digest

    def to_json(self) -> ActionRecord:
        """Plain JSON; `action_from_json` reads it back."""
        return {
            "type": self.type,
            "inputs": {slot: list(ids) for slot, ids in self.inputs.items()},
            "params": dict(self.params),
            "seed": self.seed,
            "digest": self.digest,
            "scheme": self.scheme,
        }

    def describe(self) -> str:
        """One line: `sft(model=base, dataset=mix; learning_rate=0.001)`."""
        inputs = ", ".join(f"{slot}={'+'.join(ids)}" for slot, ids in self.inputs.items() if ids)
        params = ", ".join(f"{key}={_short(value)}" for key, value in self.params.items())
        return f"{self.type}({inputs}{'; ' if params else ''}{params})"


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def action_from_json(data: Mapping[str, Any]) -> Action:
    """The action that `Action.to_json` wrote."""
    inputs = {slot: tuple(ids) for slot, ids in data["inputs"].items()}
    return Action(data["type"], inputs, dict(data["params"]), data["seed"], data["digest"], data.get("scheme", 1))


@dataclass(frozen=True)
class Call:
    """An action with its objects looked up: what `check` and `estimate` see."""

    params: Mapping[str, Value]
    models: Mapping[str, tuple[ModelObject, ...]]
    datasets: Mapping[str, tuple[DatasetObject, ...]]
    device: str = "cpu"
    dtype: str = ""
    """Of the weights that are not trained; that of the device where it is not told."""
    plan: Plan | None = None
    """How the work is laid out in memory, where that has been chosen."""

    @property
    def on_gpu(self) -> bool:
        """Whether the work is done on a GPU."""
        return self.device.startswith("cuda")

    @property
    def width(self) -> int:
        """Bytes of a weight that is not trained."""
        return 2 if (self.dtype or ("bfloat16" if self.on_gpu else "float32")) == "bfloat16" else 4

    def model(self, slot: str) -> ModelObject:
        """The (first) model of a slot."""
        return self.models[slot][0]

    def dataset(self, slot: str) -> DatasetObject:
        """The (first) dataset of a slot."""
        return self.datasets[slot][0]


class ActionType(ABC):
    """A named method. Subclass it in a file of an `actions/` folder and put an instance in `ACTION` (or `ACTIONS`)."""

    name: ClassVar[str]
    summary: ClassVar[str]
    family: ClassVar[Family]
    source: ClassVar[str]
    """Paper or library that the method comes from."""
    version: ClassVar[int] = 1
    """Part of every digest: raise it when the same declaration does other work than before."""
    slots: ClassVar[tuple[Slot, ...]]
    params: ClassVar[tuple[Param, ...]]
    output: ClassVar[Literal["model", "dataset"]] = "model"
    samples: ClassVar[bool] = False
    """Whether the result has answers in it that `step.sample` gave: then the generator that gave them is part of the digest."""

    def check(self, call: Call) -> list[str]:
        """Reasons why this call can't work, known before anyone is asked; none by default."""
        return []

    def estimate(self, call: Call) -> Estimate:
        """Seconds, memory and disk; unknown by default."""
        return Estimate()

    def plans(self, call: Call) -> Sequence[Plan]:
        """How the work may be laid out in memory, the fastest first; empty where there is nothing to choose.

        `estimate` is asked for each with `call.plan`, and the first that fits is what `step.layout` gives.
        """
        return ()

    def epoch_rows(self, call: Call) -> float:
        """Rows (in units of `batch_size`) of one pass over the data; those of the slot `dataset` by default."""
        return call.dataset("dataset").rows

    @abstractmethod
    def run(self, step: Any) -> None:
        """Do the work inside a step process; heavy imports belong in here. End with `step.finish_*`.

        `step` is a `lamdatui.step.context.StepContext`, which this pure module does not name: it stands on torch.
        """


@dataclass(frozen=True)
class BoundType:
    """An action type as a profile narrows it: the same declaration with other defaults and grids."""

    type: ActionType
    params: tuple[Param, ...]
    origin: str = "builtin"
    replaces: bool = False
    """Whether it is used in place of a builtin type of that name."""

    @property
    def name(self) -> str:
        return self.type.name

    def param(self, name: str) -> Param:
        """A hyperparameter by name. Raises KeyError."""
        for param in self.params:
            if param.name == name:
                return param
        raise KeyError(f"{self.name} has no hyperparameter {name!r}; it has {', '.join(self.defaults())}")

    def defaults(self) -> dict[str, Value]:
        """Default of each hyperparameter."""
        return {param.name: param.default for param in self.params}

    def narrow(self, name: str, default: Any = None, choices: list[Any] | None = None) -> BoundType:
        """A copy with another default or grid for one hyperparameter; the default always belongs to the grid.

        Raises KeyError for an unknown hyperparameter, ValueError for a value that is not legal.
        """
        param = self.param(name)
        grid = tuple(param.parse(choice) for choice in choices) if choices is not None else param.choices
        base = param.parse(default) if default is not None else param.default
        if grid and base not in grid:
            if default is None:
                base = grid[0]
            else:
                grid = (base,) if param.type == "str" else (*grid, base)
        changed = replace(param, default=base, choices=grid)
        return replace(self, params=tuple(changed if p.name == name else p for p in self.params))

    def fill(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """All hyperparameters: those given, parsed, and the defaults. Raises ValueError in plain words."""
        for name in params:
            if name not in self.defaults():
                close = difflib.get_close_matches(name, self.defaults(), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(self.defaults())}"
                raise ValueError(f"{self.name} has no hyperparameter {name!r}{hint}")
        return {p.name: p.parse(params.get(p.name, p.default)) for p in self.params}

    def call(
        self,
        inputs: Mapping[str, Sequence[str]],
        params: Mapping[str, Value],
        pool: ObjectPool,
        device: str = "cpu",
        dtype: str = "",
    ) -> Call:
        """Look the objects up. Raises KeyError for an object that is not in the pool."""
        models: dict[str, tuple[ModelObject, ...]] = {}
        datasets: dict[str, tuple[DatasetObject, ...]] = {}
        for slot in self.type.slots:
            ids = inputs.get(slot.name, ())
            if slot.takes_models:
                models[slot.name] = tuple(pool.model(name) for name in ids)
            else:
                datasets[slot.name] = tuple(pool.dataset(name) for name in ids)
        return Call(params, models, datasets, device, dtype)

    def problems(self, inputs: Inputs, params: Mapping[str, Value], pool: ObjectPool, device: str = "cpu") -> list[str]:
        """Why these inputs and hyperparameters can't work: slots first, then the type's own `check`."""
        found: list[str] = []
        for slot in self.type.slots:
            ids = inputs.get(slot.name, ())
            if not slot.least <= len(ids) <= slot.most:
                count = str(slot.least) if slot.least == slot.most else f"{slot.least} to {slot.most}"
                found.append(f"{slot.name} takes {count} object{'s' if count != '1' else ''}, not {len(ids)}")
            elif len(set(ids)) != len(ids):
                found.append(f"{slot.name} takes different objects")
            elif unknown := [name for name in ids if name not in pool.items]:
                found.append(f"{slot.name}: no object {unknown[0]!r} in the pool")
        if found:
            return found
        try:
            call = self.call(inputs, params, pool, device)
        except KeyError as error:
            return [str(error.args[0])]
        for slot in self.type.slots:
            if slot.base_only and any(model.trial is not None for model in call.models.get(slot.name, ())):
                found.append(f"{slot.name} takes a model of the profile, not a produced one")
            for data in call.datasets.get(slot.name, ()):
                if data.format not in slot.formats:
                    found.append(f"{data.id} is a dataset of format {data.format}; {slot.name} takes {', '.join(slot.formats)}")
        return found or self._refuses(call)

    def _refuses(self, call: Call) -> list[str]:
        """What the type's own `check` says. One that is not builtin may fail at it, and at its estimate: that is a reason, too."""
        if self.origin.startswith("builtin"):
            return self.type.check(call)
        reasons, failure = answer(f"the check of {self.name}", lambda: _sentences(self.type.check(call)))
        if reasons or failure:
            return reasons or [failure]
        _, failure = answer(f"the estimate of {self.name}", lambda: _sound(self.type.estimate(call)))
        return [failure] if failure else []

    def plans(self, call: Call) -> Sequence[Plan]:
        """The type's own; none where one that is not builtin fails at it."""
        if self.origin.startswith("builtin"):
            return self.type.plans(call)
        return answer(f"the plans of {self.name}", lambda: _plans(self.type.plans(call)))[0] or ()

    def estimate(self, call: Call) -> Estimate:
        """What the type expects; unknown where one that is not builtin fails at it."""
        if self.origin.startswith("builtin"):
            return self.type.estimate(call)
        return answer(f"the estimate of {self.name}", lambda: _sound(self.type.estimate(call)))[0] or Estimate()


def _sentences(reasons: list[str]) -> list[str]:
    """The same, when it is what a check answers. Raises TypeError."""
    if not isinstance(reasons, list | tuple) or not all(isinstance(reason, str) for reason in reasons):
        raise TypeError(f"it answers {reasons!r}, not a list of sentences")
    return list(reasons)


def _plans(plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """The same, when they are plans. Raises TypeError."""
    if not all(isinstance(plan, Plan) for plan in plans):
        raise TypeError(f"they are {plans!r}, not plans")
    return tuple(plans)


def _sound(estimate: Estimate) -> Estimate:
    """The same, when it is one that can be reckoned with. Raises TypeError or ValueError."""
    if not isinstance(estimate, Estimate):
        raise TypeError(f"it is {estimate!r}, not an Estimate")
    for value in (estimate.seconds, estimate.memory_bytes, estimate.disk_bytes, estimate.ram_bytes):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{value!r} is no number from 0")
    return estimate


Records = Callable[[str], Mapping[str, Value] | None]
"""Digest → all hyperparameters of the action that is on record under it, or None when none is."""


def make_action(
    bound: BoundType,
    inputs: Inputs,
    params: Mapping[str, Any],
    pool: ObjectPool,
    *,
    seed: int,
    dtype: str,
    generator: str = GENERATORS[0],
    records: Records = lambda _: None,
    scheme: int = SCHEME,
) -> Action:
    """A validated action with its digest (see `lamdatui.domain.schemes`): the run's scheme's, or an older one's that is on record.

    Raises LamdatuiError when a hyperparameter is out of its legal range or an object is unknown.
    """
    try:
        filled = bound.fill(params)
        parents = {slot.name: pool.digests(inputs.get(slot.name, ())) for slot in bound.type.slots}
    except (ValueError, KeyError) as error:
        raise LamdatuiError(str(error.args[0]), where=f"action {bound.name}") from error
    named = {slot.name: tuple(inputs.get(slot.name, ())) for slot in bound.type.slots}
    # What is in the store must not change what a seed chooses; runs of the first scheme go on choosing by digest.
    place = "" if scheme == 1 else digest([bound.name, named, filled, seed])
    for older in (each for each in SCHEMES if each < scheme):
        known = action_digest(bound, parents, filled, seed, dtype, older, generator=generator)
        if known and (recorded := records(known)) is not None and _same(bound, recorded, filled):
            return Action(bound.name, named, filled, seed, known, older, place)
    found = action_digest(bound, parents, filled, seed, dtype, scheme, generator=generator)
    if found is None or ((recorded := records(found)) is not None and not _same(bound, recorded, filled)):
        # A later hyperparameter that the scheme does not know, or a default that the type's author has changed: other work.
        found = action_digest(bound, parents, filled, seed, dtype, SCHEME, spelled_out=True, generator=generator) or ""
        scheme = SCHEME
    return Action(bound.name, named, filled, seed, found, scheme, place)


def _same(bound: BoundType, recorded: Mapping[str, Value], params: Mapping[str, Value]) -> bool:
    """Whether recorded hyperparameters are these; one that came later had the default of the day on which it came."""
    late = {param.name for param in bound.type.params if param.name not in recorded and param.is_introduced(params[param.name])}
    return {**recorded, **{name: params[name] for name in late}} == dict(params)


def action_digest(
    bound: BoundType,
    parents: Mapping[str, list[str]],
    params: Mapping[str, Value],
    seed: int,
    dtype: str,
    scheme: int = SCHEME,
    *,
    spelled_out: bool = False,
    generator: str = GENERATORS[0],
) -> str | None:
    """The digest of an action under a scheme, from its input digests by slot and all of its hyperparameters.

    From the second scheme on, hyperparameters at the default of the day on which they came are left out, unless `spelled_out`:
    one that comes later then changes no digest. Those defaults are the action type's own, however a profile narrows them.
    None where an older scheme can't tell the action from other work: a later hyperparameter has another value.
    """
    covered = {}
    for param in bound.type.params:
        is_introduced = param.is_introduced(params[param.name])
        if param.since > scheme and not is_introduced:
            return None
        if (param.since <= scheme == 1) or (scheme > 1 and (spelled_out or not is_introduced)):
            covered[param.name] = params[param.name]
    body = {
        "type": bound.name,
        "version": bound.type.version,
        "inputs": parents,
        "params": covered,
        "seed": seed,
        "dtype": dtype,
    }
    if generator != GENERATORS[0] and bound.type.samples:
        body["generator"] = generator
    return digest(numbered(body, scheme))


@dataclass(slots=True)
class Registry:
    """The action types that are offered, by name, with where each came from and what could not be loaded."""

    types: dict[str, BoundType] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def get(self, name: str) -> BoundType:
        """A type by name. Raises LamdatuiError with the nearest valid name, or with what could not be loaded."""
        if name in self.types:
            return self.types[name]
        if self.problems:
            raise LamdatuiError(f"no action type named {name!r}; not loaded: {'; '.join(self.problems)}")
        close = difflib.get_close_matches(name, self.types, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"known types: {', '.join(sorted(self.types))}"
        raise LamdatuiError(f"no action type named {name!r}", fix=fix)
