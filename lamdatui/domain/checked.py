"""Whether what another process or another version wrote holds values of the declared types, and speaks of things that are there.

The declarations are those that the engine writes by: `lamdatui.domain.events`, the fields of the state's classes, the objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NotRequired, TypedDict, get_type_hints

from msgspec import Meta, ValidationError, convert

from lamdatui.domain import records
from lamdatui.domain.events import EVENTS
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.records import Json, ProfileRecord
from lamdatui.domain.state import PARTS, RunState

Moment = Annotated[float, Meta(ge=0, lt=253_402_300_800.0)]
"""Seconds since the epoch up to the end of the year 9999: no calendar has what comes later."""
_MaybeMoment = Moment | None
MOST_CHARS = 300
"""Of what is said of a value."""
OBJECTS: dict[str, type[Any]] = {"model": ModelObject, "dataset": DatasetObject}


def hold(value: Any, declared: Any, what: str) -> None:
    """Raises TypeError, which begins with `what` and names the place, for a value that is not of the declared type."""
    try:
        convert(value, declared)
    except ValidationError as error:
        # It quotes what stands there in place of a word of ours.
        raise TypeError(f"{what}: {error}"[:MOST_CHARS]) from error
    except UnicodeEncodeError as error:
        raise TypeError(f"{what}: half of a surrogate pair") from error


def check(kind: str, data: Json) -> None:
    """Raises TypeError that names the first field of an event whose value is of another type than declared."""
    if kind in EVENTS:
        hold(data, EVENTS[kind], kind)
    if kind == "run.created":
        hold(data["profile"], ProfileRecord, f"{kind}: profile")
    if kind == "object.added":
        item = data["object"]
        hold(item.get("kind"), str, kind)
        hold(item, OBJECTS.get(item["kind"], DatasetObject), kind)


def check_references(state: RunState, kind: str, data: Json) -> None:
    """Raises ValueError for an event, of the right types, that speaks of a trial or an object that the run does not have: what is shown of a run
    follows these."""
    if kind == "object.added":
        trial = data["object"].get("trial")
        _there(trial is None or trial in state.trials, kind, f"trial {trial}")
    if kind in ("trial.proposed", "trial.decided"):
        action = data["proposal"]["action"] if kind == "trial.proposed" else data["action"]
        for name in (name for ids in action["inputs"].values() for name in ids):
            item = state.pool.items.get(name)
            # An object is made of those before it: whoever follows what led to it comes to an end.
            _there(item is not None and (item.trial is None or item.trial < data["number"]), kind, name)
    for name in {"trial.closed": ("model", "dataset"), "search.ended": ("winner",), "run.ended": ("winner",)}.get(kind, ()):
        wanted = DatasetObject if name == "dataset" else ModelObject
        _there(data[name] is None or isinstance(state.pool.items.get(data[name]), wanted), kind, data[name])


def _there(is_there: bool, kind: str, what: object) -> None:
    if not is_there:
        raise ValueError(f"{kind} speaks of {what}, which the run does not have")


def check_run(data: Any) -> None:
    """Raises TypeError where `RunState.run_json` of some version holds a value of another type than declared."""
    hold(data, _run_fields(), "run")


@cache
def _run_fields() -> Any:
    hints = {**hints_of(RunState), "last_wall": Moment, "engine_since": _MaybeMoment, "profile": ProfileRecord}
    return partial("RunFields", {name: hint for name, hint in hints.items() if name not in PARTS})


def hints_of(cls: type[Any]) -> dict[str, Any]:
    """Field → type of a class."""
    # The state's module knows the records' names for the type checker alone: the console's first paint does without them.
    return get_type_hints(cls, None, vars(records))


def partial(name: str, hints: Mapping[str, Any]) -> Any:
    """An object of which each field may be missing: another version may say less."""
    make: Any = TypedDict
    return make(name, {field: NotRequired[hint] for field, hint in hints.items()})
