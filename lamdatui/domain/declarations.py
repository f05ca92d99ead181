"""What an action type declares, as plain JSON and back: recorded once a run, read by forms, the editor and the card. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_origin, get_type_hints

from lamdatui.base.jsonio import finite
from lamdatui.domain.actions import ActionType, BoundType, Param, Slot, Value
from lamdatui.domain.records import Declaration


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """An action type that a run offers, as it was told. Of a type of which only a proposal is known, the slots are not."""

    name: str
    summary: str = ""
    family: str = ""
    output: str = "model"
    slots: tuple[Slot, ...] = ()
    params: tuple[Param, ...] = ()

    def defaults(self) -> dict[str, Value]:
        """Default of each hyperparameter."""
        return {param.name: param.default for param in self.params}


def declaration(bound: BoundType) -> Declaration:
    """The declaration of a type, as the profile narrows it."""
    kind = bound.type
    return {
        "summary": kind.summary,
        "family": kind.family,
        "output": kind.output,
        "slots": [_plain(slot) for slot in kind.slots],
        "params": [_plain(param) for param in bound.params],
    }


def declarations(types: Mapping[str, BoundType]) -> dict[str, Declaration]:
    """Those of a run's types, by name."""
    return {name: declaration(bound) for name, bound in types.items()}


def declared_type(name: str, told: Mapping[str, Any]) -> DeclaredType:
    """The type that `declaration` told of; what another version says besides is left out. Raises KeyError or TypeError for another shape."""
    slots = tuple(_made(Slot, item) for item in told.get("slots", ()))
    params = tuple(_made(Param, item) for item in told["params"])
    return DeclaredType(name, told["summary"], told.get("family", ""), told["output"], slots, params)


def faults(kind: ActionType) -> list[str]:
    """What of a declaration is not of the type that it has to be, one sentence each: nothing else can be said of such a one."""
    found = list(_faults(kind, _HEADER, ""))
    for name, cls in (("slots", Slot), ("params", Param)):
        items = getattr(kind, name, ())
        if not isinstance(items, tuple | list):
            found.append(f"{name}: a tuple, not {type(items).__name__}")
            continue
        for number, item in enumerate(items, 1):
            what = f"{name}, number {number}"
            if not isinstance(item, cls):
                found.append(f"{what}: {cls.__name__}(…), not {type(item).__name__}")
            else:
                found += _faults(item, _hints(cls), f"{what}: ")
    return found


_HEADER: dict[str, Any] = {
    "name": str,
    "summary": str,
    "family": str,
    "source": str,
    "output": str,
    "version": int,
    "samples": bool,
}


@lru_cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    # A word that is none of ours has a sentence of its own.
    return {name: str if get_origin(hint) is Literal else hint for name, hint in get_type_hints(cls).items()}


def _faults(item: object, hints: Mapping[str, Any], what: str) -> Iterator[str]:
    # Not before an action file is looked at: a first paint waits for imports.
    from lamdatui.domain.checked import hold

    for name, hint in hints.items():
        value = getattr(item, name, None)
        if not hasattr(item, name):
            continue
        numbers = [each for each in (value if isinstance(value, tuple | list) else [value]) if isinstance(each, int | float)]
        if not all(isinstance(each, bool) or finite(each) is not None for each in numbers):
            yield f"{what}{name}: a finite number, not {str(value)[:40]}"
            continue
        try:
            hold(list(value) if isinstance(value, tuple) else value, hint, f"{what}{name}")
        except TypeError as error:
            yield str(error)


def _plain(item: Slot | Param) -> Any:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(item).items()}


def _made(cls: Any, item: Mapping[str, Any]) -> Any:
    known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
