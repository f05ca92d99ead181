"""What the planner may say, as GBNF (llama.cpp's grammar notation) and as JSON schemas for other servers."""

from __future__ import annotations

from collections.abc import Sequence
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


def free_text(limit: int = MEMORY_CHARS) -> str:
    """GBNF for one line of 1 to `limit` characters."""
    return f"root ::= {_FREE_START} {_FREE_CHAR}{{0,{limit - 1}}}"


def one_of_schema(key: str, ids: Sequence[str]) -> dict[str, Any]:
    """JSON schema for `{key: one of ids}`."""
    return _object({key: {"type": "string", "enum": list(ids)}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
