"""Whether a frame that came from the engine's process holds values of the types that are declared.

The declarations are those that the engine writes by: `lamdatui.domain.events`, the fields of the state's classes, the objects. A frame
with other values is told as unreadable by whoever reads it, and nothing is taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_type_hints

from msgspec import Meta, ValidationError, convert

from lamdatui.domain import records
from lamdatui.domain.events import EVENTS
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.records import Declaration, Json, ProposalRecord, Scores
from lamdatui.domain.state import PARTS, RunState
from lamdatui.domain.trials import StepRecord, Trial

Moment = Annotated[float, Meta(ge=0, lt=253_402_300_800.0)]
"""Seconds since the epoch up to the end of the year 9999: no calendar has what comes later."""
_MaybeMoment = Moment | None


class _Types(TypedDict):
    types: dict[str, Declaration]


class _Processes(TypedDict, total=False):
    processes: list[Json] | None


class _HostReading(_Processes, total=False):
    cpu_percent: list[Any] | None
    load: list[Any] | None


class _Hardware(TypedDict, total=False):
    """Its numbers are looked at one by one where they are shown."""

    gpus: list[_Processes] | None
    host: _HostReading | None


class _Link(TypedDict):
    status: Literal["lost", "refused"]
    detail: NotRequired[str]


class _Event(TypedDict):
    seq: int
    kind: str
    wall: Moment
    mono: float
    data: Json


class _Names(TypedDict):
    """In which order the values of a row stand."""

    trial: list[str]
    step: list[str]
    model: list[str]
    dataset: list[str]


class _Head(TypedDict):
    seq: int
    run: Json
    fields: _Names
    objects: list[list[Any]]
    steps: list[list[Any]]
    scores: dict[str, Scores]
    types: NotRequired[dict[str, Declaration]]
    """Engines of the version before send none."""


_Trials = list[tuple[list[Any], list[list[Any]], list[list[Any]], dict[str, Scores], bool]]
_OBJECTS: dict[str, type[Any]] = {"model": ModelObject, "dataset": DatasetObject}
_ROWS: dict[str, type[Any]] = {"trial": Trial, "step": StepRecord, **_OBJECTS}


def check(kind: str, data: Json) -> None:
    """Raises TypeError that names the first field of an event whose value is of another type than declared."""
    if kind in EVENTS:
        _hold(data, EVENTS[kind], kind)
    if kind == "object.added":
        item = data["object"]
        _hold(item, _OBJECTS[item["kind"]], kind)


def check_event(event: Any) -> None:
    """The same for an event as a frame has it."""
    _hold(event, _Event, "event")
    check(event["kind"], event["data"])


def check_types(reply: Any) -> None:
    """The same for the answer to the command `actions`."""
    _hold(reply, _Types, "actions")


def check_hardware(frame: Json) -> None:
    """The same for a reading of the hardware."""
    _hold(frame, _Hardware, "hardware")


def check_link(frame: Json) -> None:
    """The same for what happens to the connection."""
    _hold(frame, _Link, "link")


def check_head(frame: Json) -> None:
    """The same for the first frame of a snapshot (`lamdatui.wire.snapshot`)."""
    _hold(frame, _Head, "snapshot")
    _hold(frame["run"], _run_fields(), "run")
    _check_objects(frame["objects"], frame["fields"])
    # Each has its place before its values.
    _check_rows("step", frame["steps"], ["place", *frame["fields"]["step"]])


def check_trials(rows: Any, names: Mapping[str, Sequence[str]]) -> None:
    """The same for trials of a snapshot; `names` is `fields` of its first frame."""
    _hold(rows, _Trials, "trials")
    _check_rows("trial", [row[0] for row in rows], names["trial"])
    _check_rows("step", [step for row in rows for step in row[1]], names["step"])
    _check_objects([item for row in rows for item in row[2]], names)


def _check_objects(rows: Sequence[list[Any]], names: Mapping[str, Sequence[str]]) -> None:
    for kind in _OBJECTS:
        _check_rows(kind, [row for row in rows if row[0] == kind], ["", *names[kind]])


def _check_rows(kind: str, rows: Sequence[list[Any]], names: Sequence[str]) -> None:
    """Rows of values, one value for each name."""
    if not set(map(len, rows)) <= {len(names)}:
        raise TypeError(f"a {kind} has not {len(names)} values")
    columns = _columns(kind)
    for name, values in zip(names, zip(*rows, strict=True), strict=False):
        if name in columns:
            _hold(values, columns[name], f"{name} of a {kind}")


@cache
def _columns(kind: str) -> dict[str, Any]:
    """Field → type of a column of its values."""
    hints = _hints(_ROWS[kind])
    if kind == "trial":
        # Of a brief trial's proposal what the trial says too is left out, and scores that are its model's.
        brief = _partial("BriefProposal", get_type_hints(ProposalRecord))
        hints |= {"proposal": brief | None, "scores": Scores | None}
    return {name: list[hint] for name, hint in hints.items()}


@cache
def _run_fields() -> Any:
    """What a snapshot says of the run itself."""
    hints = {**_hints(RunState), "last_wall": Moment, "engine_since": _MaybeMoment}
    return _partial("RunFields", {name: hint for name, hint in hints.items() if name not in PARTS})


def _hints(cls: type[Any]) -> dict[str, Any]:
    # The state's module knows the records' names for the type checker alone: the console's first paint does without them.
    return get_type_hints(cls, None, vars(records))


def _partial(name: str, hints: Mapping[str, Any]) -> Any:
    """An object of which each field may be missing: another version may say less."""
    make: Any = TypedDict
    return make(name, {field: NotRequired[hint] for field, hint in hints.items()})


def _hold(value: Any, declared: Any, what: str) -> None:
    try:
        convert(value, declared)
    except ValidationError as error:
        raise TypeError(f"{what}: {error}") from error
