"""The types that an event's fields must have to be shown. One that has others is told as unreadable, and nothing is taken from it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Shape = Callable[[Any], bool]


def text(value: Any) -> bool:
    """A string."""
    return isinstance(value, str)


def whole(value: Any) -> bool:
    """A whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> bool:
    """A number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def mapping(value: Any) -> bool:
    """An object of JSON."""
    return isinstance(value, dict)


def maybe(shape: Shape) -> Shape:
    """The shape, or null."""
    return lambda value: value is None or shape(value)


def several(shape: Shape) -> Shape:
    """A list of such values."""
    return lambda value: isinstance(value, list) and all(map(shape, value))


def each(shape: Shape) -> Shape:
    """An object whose values are such."""
    return lambda value: isinstance(value, dict) and all(map(shape, value.values()))


def fields(**shapes: Shape) -> Shape:
    """An object in which these names, where they are there, have such values."""
    return lambda value: (
        isinstance(value, dict) and all(name not in value or shape(value[name]) for name, shape in shapes.items())
    )


action = fields(type=text, inputs=each(several(text)), params=mapping, digest=text)
score = fields(mean=number, n=number, interval=maybe(several(number)))
gain = maybe(fields(mean=maybe(number), interval=maybe(several(number))))
error = maybe(fields(**{"class": text, "message": text}))
estimate = maybe(fields(seconds=maybe(number), memory_bytes=maybe(number), disk_bytes=maybe(number), measured=maybe(number)))
alternative = fields(action=text, probability=maybe(number), expected=maybe(number), std=maybe(number))
parameter = fields(name=text, unit=maybe(text), help=maybe(text))
proposal = fields(
    action=action,
    reason=text,
    proposed_by=text,
    alternatives=maybe(several(alternative)),
    estimate=estimate,
    details=maybe(fields(expected=maybe(number), std=maybe(number))),
    declaration=maybe(fields(summary=text, params=several(parameter))),
)

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
    "object": fields(id=text, kind=text),
    "proposal": proposal,
    "types": each(mapping),
    "shadows": several(fields(policy=text, action=maybe(text), expected=maybe(number))),
}
"""Field → shape, the same in every kind of event that has it."""
OTHERS: dict[str, dict[str, Shape]] = {
    # At the end the gain is of the objective, or of each task.
    "trial.closed": {"gain": gain, "seconds": maybe(each(maybe(number)))},
    "step.ended": {"seconds": maybe(each(maybe(number)))},
    "planner.answered": {"seconds": number},
    "run.created": {"max_trials": maybe(whole)},
    "run.resumed": {"max_trials": maybe(whole)},
}

listed = maybe(lambda value: isinstance(value, list))
processes = maybe(several(mapping))
HARDWARE: dict[str, Shape] = {
    "gpus": maybe(several(fields(processes=processes))),
    "host": maybe(fields(cpu_percent=listed, load=listed, processes=processes)),
}


def check_hardware(frame: Json) -> None:
    """The same for a reading of the hardware, whose numbers are looked at one by one where they are shown."""
    for name, shape in HARDWARE.items():
        if not shape(frame.get(name)):
            raise TypeError(f"{name} is not what it should be")


def check(kind: str, data: Json) -> None:
    """Raises TypeError that names the first field whose value can't be shown."""
    others = OTHERS.get(kind, {})
    for name, value in data.items():
        shape = others.get(name) or SHAPES.get(name)
        if shape and not shape(value):
            raise TypeError(
                f"{kind}: {name} is {type(value).__name__}, or something in it is of another type than it should be"
            )
