"""The calls of functions in a model's answer, in the forms that open-weight families write them. Pure; nothing of an answer is evaluated.

Read are `<tool_call>{json}</tool_call>` (Qwen, Hermes, Granite 4, SmolLM3), JSON objects one after another or in one list, after
`<|python_tag|>` (Llama 3) or `[TOOL_CALLS]` (Mistral) or nothing, Mistral's newer `name[ARGS]{json}`, and the Python syntax that the Berkeley leaderboard asks for in prompts,
`[f(a=1), g()]`. What a Python value means follows the leaderboard's reader (package `bfcl-eval`, `model_handler/utils.py`, Apache-2.0), in
code of our own: a name is a text, positional arguments don't count.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lamdatui.tasks.function_call import ARGUMENTS

Call = tuple[str, dict[Any, Any]]
"""A function's name and its arguments by name."""

MAX_CHARS = 50_000
MAX_SYNTAX_CHARS = 10_000
MAX_DEPTH = 100
"""How deep brackets may stand in each other, and how many signs may stand between two commas, in Python syntax."""
MAX_POWER = 64
MAX_BITS = 4096
"""Sizes of numbers that sums in arguments may have."""

_OPEN, _CLOSE, _FENCE = "<tool_call>", "</tool_call>", "```"
_LANGUAGE = re.compile(r"\w+\n")
_NAMED = re.compile(r"(?:\[TOOL_CALLS\])?([\w.-]+)(?:\[ARGS\])?(?=\{)")
_BETWEEN = re.compile(r"[\s;,]*")
_TEXTS = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""")
_FORMATTED = re.compile(r"[fF][rR]?''|[rR][fF]''")
_SIGNS = re.compile(r"[-+~*/%.<>=!|&^@:\[({]|\b(?:not|lambda|if|else|await|in|is|and|or)\b")
_MARKS = ("[TOOL_CALLS]", "<|python_tag|>")
_FAULTS = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, SyntaxError, RecursionError, MemoryError)
_SUMS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def read_calls(completion: str) -> list[Call] | None:
    """The calls of an answer, in order; None of what is no answer of calls. An empty list of calls is one.

    Where there are `<tool_call>` tags, text around them is ignored, and so are tags around what is not JSON, as the leaderboard does; else
    the whole answer must be calls.
    """
    text = completion.strip()
    if len(text) > MAX_CHARS:
        return None
    try:
        if _OPEN in text:
            return [_call(value) for value in map(_json_or_none, _tagged(text)) if value is not None]
        for mark in _MARKS:
            text = text.partition(mark)[2].strip() if mark == _MARKS[0] and mark in text else text.replace(mark, "").strip()
        if text.startswith(_FENCE) and (language := _LANGUAGE.match(text, len(_FENCE))):
            text = text[language.end() :]
        text = text.strip("`\n ")
        if _NAMED.match(text):
            return _named_calls(text)
        return _json_calls(text) if _is_json(text) else _python_calls(text)
    except _FAULTS:
        return None


def _tagged(text: str) -> Iterator[str]:
    """What stands between the tags."""
    end = 0
    while (start := text.find(_OPEN, end)) >= 0 and (stop := text.find(_CLOSE, start)) >= 0:
        yield text[start + len(_OPEN) : stop]
        end = stop


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_json(text: str) -> bool:
    """Whether an answer begins as JSON does: with an object, or with a list that holds one, or nothing."""
    return bool(re.match(r"\[?\s*\{|\[\s*\]$", text))


def _call(value: Any) -> Call:
    """A call as an object, its arguments as an object or as the JSON of one. Raises KeyError, TypeError, ValueError for anything else."""
    arguments = value[next((key for key in ARGUMENTS if key in value), ARGUMENTS[0])]
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(value["name"], str) or not isinstance(arguments, dict):
        raise TypeError("no call")
    return value["name"], arguments


def _json_calls(text: str) -> list[Call]:
    """Raises one of `_FAULTS` for anything but calls."""
    try:
        values = _json_values(text)
    except ValueError:
        # Llama writes Python's constants and quotes, too.
        found = _tree(text)
        values = [_value(each) for each in found.elts] if isinstance(found, ast.List) else [_value(found)]
    return [_call(value) for value in values]


def _json_values(text: str) -> list[Any]:
    """A list's values, or those that stand one after another. Raises ValueError, RecursionError."""
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        value, end = decoder.raw_decode(text, place)
        found += value if isinstance(value, list) and not found else [value]
        between = _BETWEEN.match(text, end)
        place = between.end() if between else end
    return found


def _named_calls(text: str) -> list[Call]:
    """Raises one of `_FAULTS` for anything but names, each with a JSON object."""
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        head = _NAMED.match(text, place)
        if head is None:
            raise ValueError("no name")
        arguments, end = decoder.raw_decode(text, head.end())
        found.append((head[1], arguments))
        between = _BETWEEN.match(text, end)
        place = between.end() if between else end
    return found


def _python_calls(text: str) -> list[Call]:
    """Raises one of `_FAULTS` for anything but calls."""
    text = f"{'' if text.startswith('[') else '['}{text}{'' if text.endswith(']') else ']'}"
    found = _tree(text.strip().strip("'"))
    calls = [found] if isinstance(found, ast.Call) else found.elts  # type: ignore[attr-defined]
    if not all(isinstance(each, ast.Call) for each in calls):
        raise TypeError("no calls")
    return [_python_call(each) for each in calls]


def _tree(text: str) -> ast.expr:
    """The syntax of a Python expression. Raises ValueError, SyntaxError, RecursionError, MemoryError, before a parser's stack is at risk."""
    if len(text) > MAX_SYNTAX_CHARS:
        raise ValueError("too long")
    bare = _TEXTS.sub("''", text)
    depth = deepest = 0
    for sign in bare:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    # Only signs without a comma between them stand in each other.
    chained = max(len(_SIGNS.findall(part)) for part in bare.split(","))
    if max(deepest, chained) > MAX_DEPTH or _FORMATTED.search(bare):
        raise ValueError("too deep, or a formatted text")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


def _python_call(call: ast.Call) -> Call:
    parts, at = [], call.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    parts += [at.id] if isinstance(at, ast.Name) else []
    return ".".join(reversed(parts)), {each.arg: _value(each.value) for each in call.keywords}


def _value(node: ast.expr | None) -> Any:
    """What an argument's syntax means to the leaderboard's reader: every sign before a constant is a minus. Raises one of `_FAULTS`."""
    if isinstance(node, ast.Constant):
        return "..." if node.value is ... else node.value
    if isinstance(node, ast.UnaryOp):
        return -node.operand.value  # type: ignore[attr-defined]
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(each) for each in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.BinOp):
        return _sum(node)
    if isinstance(node, ast.Call):
        name, arguments = _python_call(node)
        return {name: arguments} if node.keywords else ast.unparse(node)
    if isinstance(node, ast.Subscript):
        return f"{ast.unparse(node.value)}[{ast.unparse(node.slice)}]"
    raise TypeError(f"{type(node).__name__} is no value")


def _sum(node: ast.expr) -> Any:
    """A sum of numbers, or texts that are joined; the leaderboard evaluates whatever stands there, here that is all. Raises one of `_FAULTS`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _sum(node.operand)
        return -value if isinstance(node.op, ast.USub) else +value
    if not isinstance(node, ast.BinOp):
        raise TypeError("no sum of constants")
    left, right = _sum(node.left), _sum(node.right)
    texts = isinstance(left, str) + isinstance(right, str)
    if texts and not (texts == 2 and isinstance(node.op, ast.Add)):
        raise TypeError("no sum of numbers")
    if isinstance(node.op, ast.Pow) and abs(right) > MAX_POWER:
        raise ValueError("too large a power")
    found = _SUMS[type(node.op)](left, right)
    if isinstance(found, int) and found.bit_length() > MAX_BITS:
        raise ValueError("too large a number")
    return found
