"""What an action type declares, as plain JSON and back: recorded once a run, read by forms, the editor and the card. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lamdatui.domain.actions import BoundType, Param, Slot, Value
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


def _plain(item: Slot | Param) -> Any:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(item).items()}


def _made(cls: Any, item: Mapping[str, Any]) -> Any:
    known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
