"""Whether a frame that came from the engine's process holds values of the types that are declared.

What is declared, and how a value is held against it: `lamdatui.domain.checked`. A frame with other values is told as unreadable by whoever
reads it, and nothing is taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NotRequired, TypedDict, get_type_hints

from lamdatui.domain.checked import OBJECTS, Moment, check, check_run, hints_of, hold, partial
from lamdatui.domain.records import Declaration, Json, ProposalRecord, Scores
from lamdatui.domain.trials import StepRecord, Trial

__all__ = ["check", "check_event", "check_hardware", "check_head", "check_link", "check_trials", "check_types"]


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
_ROWS: dict[str, type[Any]] = {"trial": Trial, "step": StepRecord, **OBJECTS}


def check_event(event: Any) -> None:
    """`lamdatui.domain.checked.check` of an event as a frame has it. Raises TypeError."""
    hold(event, _Event, "event")
    check(event["kind"], event["data"])


def check_types(reply: Any) -> None:
    """The same for the answer to the command `actions`."""
    hold(reply, _Types, "actions")


def check_hardware(frame: Json) -> None:
    """The same for a reading of the hardware."""
    hold(frame, _Hardware, "hardware")


def check_link(frame: Json) -> None:
    """The same for what happens to the connection."""
    hold(frame, _Link, "link")


def check_head(frame: Json) -> None:
    """The same for the first frame of a snapshot (`lamdatui.wire.snapshot`)."""
    hold(frame, _Head, "snapshot")
    check_run(frame["run"])
    _check_objects(frame["objects"], frame["fields"])
    # Each has its place before its values.
    _check_rows("step", frame["steps"], ["place", *frame["fields"]["step"]])


def check_trials(rows: Any, names: Mapping[str, Sequence[str]]) -> None:
    """The same for trials of a snapshot; `names` is `fields` of its first frame."""
    hold(rows, _Trials, "trials")
    _check_rows("trial", [row[0] for row in rows], names["trial"])
    _check_rows("step", [step for row in rows for step in row[1]], names["step"])
    _check_objects([item for row in rows for item in row[2]], names)


def _check_objects(rows: Sequence[list[Any]], names: Mapping[str, Sequence[str]]) -> None:
    for kind in OBJECTS:
        _check_rows(kind, [row for row in rows if row[0] == kind], ["", *names[kind]])


def _check_rows(kind: str, rows: Sequence[list[Any]], names: Sequence[str]) -> None:
    """Rows of values, one value for each name."""
    if not set(map(len, rows)) <= {len(names)}:
        raise TypeError(f"a {kind} has not {len(names)} values")
    columns = _columns(kind)
    for name, values in zip(names, zip(*rows, strict=True), strict=False):
        if name in columns:
            hold(values, columns[name], f"{name} of a {kind}")


@cache
def _columns(kind: str) -> dict[str, Any]:
    """Field → type of a column of its values."""
    hints = hints_of(_ROWS[kind])
    if kind == "trial":
        # Of a brief trial's proposal what the trial says too is left out, and scores that are its model's.
        brief = partial("BriefProposal", get_type_hints(ProposalRecord))
        hints |= {"proposal": brief | None, "scores": Scores | None}
    return {name: list[hint] for name, hint in hints.items()}
