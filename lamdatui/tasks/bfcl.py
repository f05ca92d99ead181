"""The Berkeley Function-Calling Leaderboard's verdicts on single-turn answers, for Python-typed functions.

The rules are those of its checker (package `bfcl-eval` 2026.3.23, `eval_checker/ast_eval/ast_checker.py`, Apache-2.0), in code of our own;
`bench/bfcl_verdicts.py` compares both. Where that checker would stumble (a text where an object is due, a number too large for a float),
the call is wrong here. A function's name may have `_` for each `.`, as the leaderboard offers it to models with tools of their own.
"""

from __future__ import annotations

from typing import Any

from lamdatui.tasks.calls import Call, read_calls
from lamdatui.tasks.function_call import standard_string

TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
"""Declared type → type of its values."""
NESTED = ("array", "tuple")
WANTS = ("calls", "none", "some")


def bfcl(reference: dict[str, Any], completion: str) -> float:
    """1.0 when an answer is right, else 0.0.

    reference: `want` is "calls", "none" (right: no call at all) or "some" (right: at least one call, of whatever). With "calls", `answer` is
    `[{name: {argument: [allowed values]}}]`: as many calls, in any order; `function` is `[{"name", "parameters": {"properties", "required"}}]`.
    Raises KeyError on a reference without its own function.
    """
    calls = read_calls(completion)
    if reference["want"] != "calls":
        return float(bool(calls) == (reference["want"] == "some"))
    left = list(calls or ())
    if len(left) != len(reference["answer"]):
        return 0.0
    schemas = {function["name"]: function["parameters"] for function in reversed(reference["function"])}
    for wanted in reference["answer"]:
        ((name, allowed),) = wanted.items()
        # The first that suits is taken, as there: no other distribution is tried.
        found = next((at for at, call in enumerate(left) if _is_call(call, name, allowed, schemas[name])), None)
        if found is None:
            return 0.0
        del left[found]
    return 1.0


def underscored(name: str) -> str:
    """A function's name as tools are offered by: dots are not legal there."""
    return name.replace(".", "_")


def _is_call(call: Call, name: str, allowed: dict[str, list[Any]], schema: dict[str, Any]) -> bool:
    called, arguments = call
    properties = schema["properties"]
    return (
        underscored(called) == underscored(name)
        and all(key in arguments for key in schema["required"])
        and all(
            key in properties and key in allowed and _suits(value, allowed[key], properties[key])
            for key, value in arguments.items()
        )
        and all(key in arguments or "" in choices for key, choices in allowed.items())
    )


def _suits(value: Any, allowed: list[Any], schema: dict[str, Any]) -> bool:
    """Whether an argument's value has its declared type and is one of the allowed."""
    declared = schema["type"]
    kind = TYPES[declared]
    nested = TYPES[schema["items"]["type"]] if declared in NESTED else None
    if declared == "tuple" and type(value) is tuple:
        value = list(value)
    if declared == "float" and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return False
    variable = _typed(value, allowed, kind, nested)
    return variable is not None and (value in allowed if variable else _is_allowed(value, allowed, kind, nested))


def _typed(value: Any, allowed: list[Any], kind: type, nested: type | None) -> bool | None:
    """None for a value of the wrong type; else whether the allowed values are of another than the declared type (a variable's name).

    Elements have the type `nested`, or that of the elements of one of the allowed lists.
    """
    known = next((type(one) for one in allowed if one != ""), None)
    if type(value) is kind:
        if nested is not None and not any(
            not isinstance(one, list) or all(_typed(item, one, nested, None) is not None for item in value) for one in allowed
        ):
            return None
        return known is not None and known is not kind
    return True if known is not None and type(value) is known else None


def _is_allowed(value: Any, allowed: list[Any], kind: type, nested: type | None) -> bool:
    if kind is dict:
        return any(one != "" and _is_object(value, one) for one in allowed)
    if kind is list and nested is dict:
        return any(len(one) == len(value) and all(map(_is_object, value, one)) for one in allowed)
    if kind is list:
        # "" (may be left out) is an empty list here.
        return _elements(value) in map(_elements, allowed)
    if kind is str:
        return standard_string(value) in [standard_string(one) for one in allowed if type(one) is str]
    return value in allowed


def _is_object(value: Any, wanted: Any) -> bool:
    """`wanted` maps each key to the list of its allowed values; "" in that list makes the key optional. What is nested is compared as it stands."""
    return (
        isinstance(value, dict)
        and isinstance(wanted, dict)
        and all(key in wanted and _plain(item) in _elements(wanted[key]) for key, item in value.items())
        and all(key in value or "" in choices for key, choices in wanted.items())
    )


def _elements(values: Any) -> list[Any]:
    return [_plain(each) for each in values]


def _plain(value: Any) -> Any:
    return standard_string(value) if type(value) is str else value


def bfcl_problem(reference: Any) -> str | None:
    """What is wrong with a reference of `bfcl`, or None. Raises KeyError, TypeError, AttributeError, ValueError where it has another shape."""
    if reference["want"] not in WANTS:
        return f"want is one of {', '.join(WANTS)}, not {reference['want']!r}"
    if reference["want"] != "calls":
        return None
    if not reference["answer"]:
        return "the answer has no call; a row without one has want: none"
    schemas = {function["name"]: function["parameters"] for function in reversed(reference["function"])}
    for wanted in reference["answer"]:
        ((name, allowed),) = wanted.items()
        if name not in schemas:
            return f"the answer calls {name!r}, which is not among the functions"
        for key, schema in schemas[name]["properties"].items():
            if wrong := _schema_problem(schema):
                return f"the argument {key!r} of {name}: {wrong}"
        _ = [key in schemas[name]["properties"] for key in schemas[name]["required"]]
        for key, choices in allowed.items():
            schema = schemas[name]["properties"].get(key, {"type": "any"})
            if wrong := _choices_problem(choices, schema):
                return f"the argument {key!r} of {name}: {wrong}"
    return None


def _schema_problem(schema: dict[str, Any]) -> str | None:
    types = [schema["type"]] + ([schema["items"]["type"]] if schema["type"] in NESTED else [])
    unknown = next((each for each in types if each not in TYPES), None)
    return None if unknown is None else f"there is no type {unknown!r}; types are {', '.join(TYPES)}"


def _choices_problem(choices: Any, schema: dict[str, Any]) -> str | None:
    if not isinstance(choices, list):
        return "its allowed values are a list"
    known = next((type(one) for one in choices if one != ""), None)
    kind = TYPES[schema["type"]]
    if known is not kind or kind not in (dict, list):
        return None
    if other := next((one for one in choices if one != "" and type(one) is not kind), None):
        return f"{other!r} is no {schema['type']}"
    inside = choices if kind is dict else [each for one in choices for each in one if schema["items"]["type"] == "dict"]
    for one in inside:
        if one != "" and not (isinstance(one, dict) and all(isinstance(each, list) for each in one.values())):
            return "an object maps each key to the list of its allowed values"
    return None
