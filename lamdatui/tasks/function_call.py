"""Scoring one function call against the answers that the Berkeley Function-Calling Leaderboard (BFCL) accepts.

The rules follow the leaderboard's published checker for Python-typed calls (package `bfcl-eval`, Apache-2.0), in code
of our own, with one difference: an integer is also accepted where a *nested* float is declared, as it is at the top
level, because JSON does not tell 3 from 3.0.
"""

from __future__ import annotations

import json
import re
from typing import Any

ARGUMENTS = ("arguments", "parameters")
"""How models call the arguments of a call: Llama 3.1 says parameters, all others arguments."""
MAX_CHARS = 20_000
MAX_STARTS = 50

_IGNORED = re.compile(r"[ ,./\-_*^]")
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)


def _no_constant(token: str) -> Any:
    raise ValueError(f"{token} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects in `text`, in order. Text around them is ignored."""
    found: list[dict[str, Any]] = []
    position = text.find("{")
    for _ in range(MAX_STARTS):
        if position < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            found.append(value)
        position = text.find("{", end)
    return found


def _arguments(value: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The arguments of a call; None of what is none."""
    found = next((value[key] for key in keys if key in value), None)
    return found if isinstance(value.get("name"), str) and isinstance(found, dict) else None


def parse_call(completion: str, keys: tuple[str, ...] = ARGUMENTS) -> tuple[str, dict[str, Any]] | None:
    """The one call in a model's answer as (function name, arguments), or None.

    A call is a JSON object `{"name": str, "arguments": object}` (`keys`: how the arguments may be called), bare, in a code fence or in
    `<tool_call>` tags; text around it is ignored. An answer with another JSON object first, or with two calls, holds no acceptable call.
    """
    text = completion[:MAX_CHARS]
    wrapped = _TOOL_CALL.findall(text)
    objects = _objects("\n".join(wrapped) if wrapped else text)
    calls = [_arguments(each, keys) for each in objects]
    if not calls or calls[0] is None or any(other is not None for other in calls[1:]):
        return None
    return objects[0]["name"], calls[0]


def standard_string(text: str) -> str:
    """BFCL's spelling of a string value: lower case, one kind of quote, without spaces and `,./-_*^`."""
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _numbers_match(value: int | float, expected: int | float, declared: str) -> bool:
    if isinstance(value, float) and isinstance(expected, int) and declared == "integer":
        return False
    return value == expected


def _dicts_match(value: dict[str, Any], expected: dict[str, Any], schema: dict[str, Any]) -> bool:
    """`expected` maps each key to the list of its allowed values; "" in that list makes the key optional."""
    schemas = schema.get("properties", {})
    if any(key not in expected for key in value):
        return False
    for key, allowed in expected.items():
        choices = allowed if isinstance(allowed, list) else [allowed]
        if key not in value:
            if "" not in choices:
                return False
        elif not matches_any(value[key], choices, schemas.get(key, {})):
            return False
    return True


def _matches(value: Any, expected: Any, schema: dict[str, Any]) -> bool:
    if isinstance(value, bool) or isinstance(expected, bool):
        return isinstance(value, bool) and value is expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        return _numbers_match(value, expected, schema.get("type", ""))
    if isinstance(value, str) and isinstance(expected, str):
        return standard_string(value) == standard_string(expected)
    if isinstance(value, list) and isinstance(expected, list):
        items = schema.get("items", {})
        return len(value) == len(expected) and all(
            _matches(one, other, items) for one, other in zip(value, expected, strict=True)
        )
    if isinstance(value, dict) and isinstance(expected, dict):
        return _dicts_match(value, expected, schema)
    return value is None and expected is None


def matches_any(value: Any, allowed: list[Any], schema: dict[str, Any]) -> bool:
    """Whether an argument's value is one of the allowed, under its declared parameter `schema` (`type`, `items`, …).

    "" among the allowed values of anything but a string means "may be left out", not an empty string.
    """
    kind = schema.get("type", "string")
    choices = [one for one in allowed if one != "" or kind in ("string", "any")]
    return any(_matches(value, one, schema) for one in choices)


def _schema_of(reference: dict[str, Any], name: str) -> dict[str, Any]:
    for function in reference["function"]:
        if function["name"] == name:
            return function["parameters"]
    raise KeyError(name)


def why_wrong(reference: dict[str, Any], completion: str, keys: tuple[str, ...] = ARGUMENTS) -> str | None:
    """The first reason why a completion is not the wanted call, for people; None when it is right.

    reference: `{"function": [{"name", "parameters": {"properties", "required"}}],
    "answer": {name: {argument: [allowed values]}}}`.
    Raises KeyError on a reference without its own function.
    """
    call = parse_call(completion, keys)
    if call is None:
        return "no single JSON call with a name and arguments"
    name, arguments = call
    ((wanted, allowed),) = reference["answer"].items()
    if name != wanted:
        return f"called {name!r}, wanted {wanted!r}"
    parameters = _schema_of(reference, wanted)
    properties = parameters.get("properties", {})
    for key, choices in allowed.items():
        needed = key in parameters.get("required", ()) or "" not in choices
        if needed and key not in arguments:
            return f"argument {key!r} is missing"
    for key, value in arguments.items():
        if key not in allowed or key not in properties:
            return f"argument {key!r} is not wanted"
        if not matches_any(value, allowed[key], properties[key]):
            return f"argument {key!r} has a wrong value or type"
    return None


def function_call(reference: dict[str, Any], completion: str) -> float:
    """1.0 for exactly the wanted call, else 0.0; the reference is described at `why_wrong`."""
    return 0.0 if why_wrong(reference, completion) else 1.0


def function_call_of_arguments(reference: dict[str, Any], completion: str) -> float:
    """The same as the first versions scored it: a call's arguments are called so."""
    return 0.0 if why_wrong(reference, completion, ("arguments",)) else 1.0
