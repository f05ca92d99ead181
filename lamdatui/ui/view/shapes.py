"""The types that a frame's values must have to be shown. One that has others is told as unreadable, and nothing is taken from it. Pure.

A shape looks at a whole column of values at once: looking at the trials of a long run's snapshot takes a third of the time that reading
them takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any

Json = dict[str, Any]
Column = Sequence[Any]
Shape = Callable[[Column], bool]
"""Whether all of these values are such."""


class Types:
    """Values of these types. JSON has no others that are like them; True is no number."""

    def __init__(self, *types: type[Any]) -> None:
        self.types = frozenset(types)

    def __call__(self, values: Column) -> bool:
        return self.types.issuperset(map(type, values))


text = Types(str)
whole = Types(int)
number = Types(int, float)
flag = Types(bool)
mapping = Types(dict)
listing = Types(list)
LAST_MOMENT = 253_402_300_800.0
"""The end of the year 9999: no calendar has what comes later."""


def moment(values: Column) -> bool:
    """Seconds since the epoch."""
    return number(values) and all(0 <= value < LAST_MOMENT for value in values)


def _taker(shape: Shape) -> Callable[[Iterable[Any]], Column]:
    """What makes a column of values: one that is looked at once need not be held."""
    return (lambda values: values) if isinstance(shape, Types) else list  # type: ignore[return-value]


def maybe(shape: Shape) -> Shape:
    """The shape, or null."""
    if isinstance(shape, Types):
        return Types(*shape.types, NoneType)
    return lambda values: shape([value for value in values if value is not None])


def several(shape: Shape) -> Shape:
    """A list of such values."""
    take = _taker(shape)
    return lambda values: listing(values) and shape(take(chain.from_iterable(values)))


def each(shape: Shape) -> Shape:
    """An object whose values are such."""
    take = _taker(shape)
    return lambda values: mapping(values) and shape(take(chain.from_iterable(map(dict.values, values))))


def fields(**shapes: Shape) -> Shape:
    """An object in which these names, where they are there, have such values."""
    parts = [(name, itemgetter(name), shape, _taker(shape)) for name, shape in shapes.items()]

    def look(values: Column) -> bool:
        if not mapping(values):
            return False
        for name, get, shape, take in parts:
            try:
                found = shape(take(map(get, values)))
            except KeyError:
                found = shape([value[name] for value in values if name in value])
            if not found:
                return False
        return True

    return look


def needed(shape: Shape, *names: str) -> Shape:
    """The shape, an object in which these names are there."""
    wanted = frozenset(names)
    return lambda values: shape(values) and all(wanted <= value.keys() for value in values)


action = fields(type=text, inputs=each(several(text)), params=mapping, digest=text)
score = fields(mean=number, n=number, interval=maybe(several(number)))
gain = maybe(fields(mean=maybe(number), interval=maybe(several(number))))
error = maybe(fields(**{"class": text, "message": text}))
estimate = maybe(fields(seconds=maybe(number), memory_bytes=maybe(number), disk_bytes=maybe(number), measured=maybe(number)))
alternative = fields(action=text, probability=maybe(number), expected=maybe(number), std=maybe(number))
parameter = fields(name=text, unit=maybe(text), help=maybe(text))
declaration = fields(summary=text, output=text, params=several(parameter))
proposal = fields(
    action=action,
    reason=text,
    proposed_by=text,
    alternatives=maybe(several(alternative)),
    estimate=estimate,
    details=maybe(fields(expected=maybe(number), std=maybe(number))),
    declaration=maybe(declaration),
)
decision = fields(verdict=text, by=text, reason=text)
shadow = fields(policy=text, action=maybe(text), expected=maybe(number))
said = each(fields(text=text, by=text, trial=maybe(whole)))
seconds = maybe(each(maybe(number)))

MODEL: dict[str, Shape] = {
    **dict.fromkeys(("id", "digest", "architecture", "layout", "weights", "tokenizer", "kind"), text),
    "adapters": several(text),
    "parameters": number,
    "bytes": number,
    "trial": maybe(whole),
}
DATASET: dict[str, Shape] = {
    **dict.fromkeys(("id", "digest", "format", "path", "kind"), text),
    **dict.fromkeys(("rows", "chars", "bytes"), number),
    "trial": maybe(whole),
}

SHAPES: dict[str, Shape] = {
    **dict.fromkeys(("name", "mode", "policy", "when", "status", "phase", "detail", "where", "message", "verdict"), text),
    **dict.fromkeys(("step", "purpose", "task", "split", "id", "text", "call", "answer", "note", "by", "reason"), text),
    **dict.fromkeys(("model", "dataset", "winner"), maybe(text)),
    **dict.fromkeys(("number", "max_trials"), whole),
    "trial": maybe(whole),
    "objective": maybe(number),
    "wall_seconds": maybe(number),
    "tokens": number,
    "cached": flag,
    "profile": mapping,
    "action": maybe(action),
    "score": score,
    "scores": maybe(each(each(score))),
    "error": error,
    "object": fields(**{**MODEL, **DATASET}),
    "proposal": proposal,
    "types": each(mapping),
    "shadows": several(shadow),
}
"""Field → shape, the same in every kind of event that has it."""
OTHERS: dict[str, dict[str, Shape]] = {
    # At the end the gain is of the objective, or of each task.
    "trial.closed": {"gain": gain, "seconds": seconds},
    "step.ended": {"seconds": seconds},
    "planner.answered": {"seconds": number},
    "run.created": {"max_trials": maybe(whole)},
    "engine.started": {"types": each(declaration)},
    "run.resumed": {"max_trials": maybe(whole)},
}

EVENT: dict[str, Shape] = {"seq": whole, "kind": text, "wall": moment, "mono": number, "data": mapping}

processes = maybe(several(mapping))
HARDWARE: dict[str, Shape] = {
    "gpus": maybe(several(fields(processes=processes))),
    "host": maybe(fields(cpu_percent=maybe(listing), load=maybe(listing), processes=processes)),
}

RUN: dict[str, Shape] = {
    **dict.fromkeys(("name", "profile_digest", "mode", "policy", "status", "reason", "phase", "phase_detail"), text),
    **dict.fromkeys(("stopping", "memory", "memory_by", "paused_by", "paused_reason", "meter"), text),
    **dict.fromkeys(("last_seq", "epoch", "scheme"), whole),
    **dict.fromkeys(("max_trials", "best", "engine_pid"), maybe(whole)),
    **dict.fromkeys(("last_wall", "engine_since"), maybe(moment)),
    "tasks": each(fields(name=text, path=text, digest=text)),
    "lost": each(text),
    **dict.fromkeys(("last_mono", "used_seconds", "planner_tokens", "planner_seconds", "seed"), number),
    "wall_seconds": maybe(number),
    **dict.fromkeys(("profile", "device"), mapping),
    **dict.fromkeys(("constraints", "rules", "hints"), said),
    "paused": flag,
    "winner": maybe(text),
    "beats_base": maybe(flag),
    "gain": maybe(mapping),
    "queue": each(needed(fields(id=text, action=action, note=text, by=text), "action")),
    "problems": several(fields(where=text, message=text)),
}
TRIAL: dict[str, Shape] = {
    **dict.fromkeys(("status", "proposed_by", "reason"), text),
    **dict.fromkeys(("model", "dataset", "step"), maybe(text)),
    "number": whole,
    "action": maybe(action),
    "decision": maybe(decision),
    "scores": maybe(each(each(score))),
    "objective": maybe(number),
    "gain": gain,
    "cached": flag,
    "seconds": seconds,
    "error": error,
    "proposal": maybe(proposal),
    "shadows": several(shadow),
    "stamps": each(number),
}
STEP: dict[str, Shape] = {
    **dict.fromkeys(("key", "purpose", "status"), text),
    **dict.fromkeys(("digest", "boot_id"), maybe(text)),
    "trial": maybe(whole),
    "pid": maybe(whole),
    "start_time": maybe(number),
    "cached": flag,
    "seconds": seconds,
    "error": error,
}
ROWS = {"trial": TRIAL, "step": STEP, "model": MODEL, "dataset": DATASET}
"""What stands in a snapshot's rows."""
HEAD: dict[str, Shape] = {
    "seq": whole,
    "run": fields(**RUN),
    "fields": needed(each(several(text)), *ROWS),
    "scores": each(each(each(score))),
    "types": each(declaration),
}


def check(kind: str, data: Json) -> None:
    """Raises TypeError that names the first field of an event whose value can't be shown."""
    others = OTHERS.get(kind, {})
    for name, value in data.items():
        shape = others.get(name) or SHAPES.get(name)
        if shape and not shape((value,)):
            raise TypeError(f"{kind}: {_wrong(name, value)}")


def check_event(event: Any) -> None:
    """The same for an event as a frame has it. Raises KeyError where a part of it is missing."""
    if not isinstance(event, dict):
        raise TypeError("an event is an object")
    _check(EVENT, {name: event[name] for name in EVENT})
    check(event["kind"], event["data"])


def check_hardware(frame: Json) -> None:
    """The same for a reading of the hardware, whose numbers are looked at one by one where they are shown."""
    _check(HARDWARE, {name: frame.get(name) for name in HARDWARE})


def check_link(frame: Json) -> None:
    """The same for what happens to the connection."""
    if frame["status"] not in ("lost", "refused") or not text((frame.get("detail", ""),)):
        raise TypeError("no status of a connection")


def check_head(frame: Json) -> None:
    """The same for the first frame of a snapshot (`lamdatui.wire.snapshot`)."""
    # An engine of the version before sends no types.
    _check(HEAD, {name: ({"types": {}} | frame)[name] for name in HEAD})
    _check_objects(frame["objects"], frame["fields"])
    # Each has its place before its values.
    _check_rows("step", frame["steps"], ["place", *frame["fields"]["step"]])


def check_trials(rows: Any, names: Mapping[str, Sequence[str]]) -> None:
    """The same for trials of a snapshot; `names` is `fields` of its first frame."""
    values, steps, objects, scores, _ = _columns("trials", rows, 5)
    _check_rows("trial", list(values), names["trial"])
    for name, column in (("steps", steps), ("objects", objects)):
        if not listing(column):
            raise TypeError(f"{name} of a trial are no list")
    _check_rows("step", list(chain.from_iterable(steps)), names["step"])
    _check_objects(list(chain.from_iterable(objects)), names)
    if not HEAD["scores"](scores):
        raise TypeError("scores of a trial are not what they should be")


def _check_objects(rows: Any, names: Mapping[str, Sequence[str]]) -> None:
    if not listing((rows,)) or not listing(rows):
        raise TypeError("objects are no lists")
    for kind in ("model", "dataset"):
        _check_rows(kind, [row for row in rows if row[0] == kind], ["", *names[kind]])


def _check_rows(kind: str, rows: Any, names: Sequence[str]) -> None:
    """Rows of values, one value for each name."""
    shapes = ROWS[kind]
    for name, column in zip(names, _columns(kind, rows, len(names)), strict=True):
        shape = shapes.get(name)
        if shape and not shape(column):
            raise TypeError(f"{name} of a {kind} is not what it should be")


def _columns(kind: str, rows: Any, width: int) -> Sequence[Column]:
    if not listing((rows,)) or not listing(rows) or not set(map(len, rows)) <= {width}:
        raise TypeError(f"a {kind} is no list of {width} values")
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _check(shapes: Mapping[str, Shape], data: Json) -> None:
    for name, value in data.items():
        if not shapes[name]((value,)):
            raise TypeError(_wrong(name, value))


def _wrong(name: str, value: Any) -> str:
    return f"{name} is {type(value).__name__}, or something in it is of another type than it should be"
