"""What the planner may say, as GBNF (llama.cpp's grammar notation) and as JSON schemas for other servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REASON_CHARS = 160
"""Longest reason, in characters."""

MEMORY_CHARS = 480
"""Longest memory, in characters."""

_TEXT_CHAR = r'[^"\\\x00-\x1F\x7F]'
_FREE_CHAR = r"[^\x00-\x1F\x7F]"
_FREE_START = r"[^\x00-\x20\x7F]"


def literal(text: str) -> str:
    """`text` as a GBNF string. Raises ValueError on an empty text, which would let the planner say nothing."""
    if not text:
        raise ValueError("an option needs a name")
    escaped = "".join(_escape(char) for char in text)
    return f'"{escaped}"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return f"\\x{ord(char):02X}" if ord(char) < 0x20 or ord(char) == 0x7F else char


def one_of(ids: Sequence[str]) -> str:
    """GBNF that admits exactly one of `ids` and nothing before or after it. Raises ValueError on an empty list."""
    if not ids:
        raise ValueError("there is nothing to choose from")
    return "root ::= " + " | ".join(literal(name) for name in ids)


def choice(ids: Sequence[str], limit: int = REASON_CHARS) -> str:
    """GBNF for `{"choice": "ID", "reason": "…"}` with 1 to `limit` characters, none of them a control character.

    Ids must need no escaping inside JSON. Raises ValueError on an empty list.
    """
    if not ids:
        raise ValueError("there is nothing to choose from")
    options = " | ".join(literal(name) for name in ids)
    opening, middle, closing = literal('{"choice": "'), literal('", "reason": "'), literal('"}')
    return f"root ::= {opening} ( {options} ) {middle} {_TEXT_CHAR}{{1,{limit}}} {closing}"


def choice_of_reasons(reasons: Mapping[str, Sequence[str]]) -> str:
    """GBNF for the same object when each id has its own list of possible reasons: no other text can be written.

    Ids and reasons must need no escaping inside JSON. Raises ValueError on an empty list.
    """
    branches = []
    for name, said in reasons.items():
        if not said:
            raise ValueError(f"{name} has no reason")
        branches.append(f"{literal(name)} middle ( {' | '.join(literal(reason) for reason in said)} )")
    if not branches:
        raise ValueError("there is nothing to choose from")
    opening, middle, closing = literal('{"choice": "'), literal('", "reason": "'), literal('"}')
    return f"root ::= {opening} ( {' | '.join(branches)} ) {closing}\nmiddle ::= {middle}"


def free_text(limit: int = MEMORY_CHARS) -> str:
    """GBNF for one line of 1 to `limit` characters."""
    return f"root ::= {_FREE_START} {_FREE_CHAR}{{0,{limit - 1}}}"


def one_of_schema(key: str, ids: Sequence[str]) -> dict[str, Any]:
    """JSON schema for `{key: one of ids}`."""
    return _object({key: {"type": "string", "enum": list(ids)}})


def choice_schema(ids: Sequence[str], limit: int = REASON_CHARS) -> dict[str, Any]:
    """JSON schema of what `choice` admits."""
    reason = {"type": "string", "minLength": 1, "maxLength": limit}
    return _object({"choice": {"type": "string", "enum": list(ids)}, "reason": reason})


def choice_of_reasons_schema(reasons: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """JSON schema of what `choice_of_reasons` admits."""
    return {
        "anyOf": [
            _object({"choice": {"type": "string", "const": name}, "reason": {"type": "string", "enum": list(said)}})
            for name, said in reasons.items()
        ]
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
