"""What is wrong with the shape of a profile, in the words of people who write profiles: every fault, each with its line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lamdatui.base.errors import LamdatuiError

MOST = 8
"""As many faults are told at once."""
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is missing",
    "string_type": lambda _: "is text",
    "dict_type": lambda _: "is a section: names with their values",
    "list_type": lambda _: "is a list",
    "greater_than": lambda told: f"is more than {told['gt']:,}",
    "greater_than_equal": lambda told: f"is at least {told['ge']:,}",
    "less_than": lambda told: f"is less than {told['lt']:,}",
    "less_than_equal": lambda told: f"is at most {told['le']:,}",
    "literal_error": lambda told: f"is {told['expected']}",
    "too_short": lambda _: "has at least one entry",
    "string_too_short": lambda _: "is not empty",
    "finite_number": lambda _: "is a finite number",
}
_KINDS = {
    "model": "is a section: names with their values",
    "int": "is a whole number",
    "float": "is a number",
    "bool": "is true or false",
}
"""How a type of fault begins → what is said of it, where it is not in `_WORDS`."""


def explain(
    error: ValidationError,
    path: Path,
    line_of: Callable[[tuple[Any, ...]], int | None],
    sections: Mapping[str, type[BaseModel]],
    whole: type[BaseModel],
) -> LamdatuiError:
    """One error for all faults; `line_of` tells the line (from 1) of a place, `sections` which keys are known in it."""
    found: dict[tuple[Any, ...], tuple[str, str]] = {}
    for item in error.errors():
        location = tuple(
            part
            for part in item["loc"]
            if not str(part).startswith(("dict[", "function-", "list[")) and part not in ("str", "int", "float", "bool")
        )
        if location not in found:
            found[location] = _fault(item, location, sections, whole)
    # A misspelt key also makes the right one missing: the misspelling comes first.
    order = sorted(found, key=lambda place: (not found[place][1], line_of(place) or 0))
    places = [f"line {line}" if (line := line_of(place)) else "" for place in order]
    where = f"{path}, {places[0]}" if places[0] else str(path)
    first, fix = found[order[0]]
    more = [
        f"{f'{place}: ' if place else ''}{found[each][0]}{f' ({found[each][1]})' if found[each][1] else ''}"
        for place, each in zip(places[1:MOST], order[1:MOST], strict=True)
    ]
    if len(order) > MOST:
        more.append(f"and {len(order) - MOST} more")
    return LamdatuiError("; ".join([first, *more]), where=where, fix=fix)


def _fault(
    item: Mapping[str, Any], location: tuple[Any, ...], sections: Mapping[str, type[BaseModel]], whole: type[BaseModel]
) -> tuple[str, str]:
    """What is wrong, and a fix where there is one."""
    spelled = ".".join(map(str, location))[:200] or "the profile"
    kind = str(item["type"])
    if kind == "extra_forbidden":
        owner = next((sections[str(part)] for part in reversed(location[:-1]) if str(part) in sections), whole)
        known = list(owner.model_fields)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return f"unknown key {spelled!r}", f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    words = _WORDS.get(kind)
    told = (
        words(item.get("ctx", {}))
        if words
        else next((text for start, text in _KINDS.items() if kind.startswith(start)), str(item["msg"]).lower())
    )
    given = "" if kind == "missing" else f", not {_shown(item.get('input'))}"
    return f"{spelled} {told}{given}", ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return "nothing" if value is None else repr(value)[:60]
