"""Reading the planner's answers: strict about what was chosen, forgiving about the wrapping around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamdatui.base.jsonio import parse_json
from lamdatui.planner.client import PlannerError
from lamdatui.planner.grammar import MEMORY_CHARS


def plain(text: str, limit: int) -> str:
    """One line of printable text of at most `limit` characters, cut at a word: safe to show in a terminal."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head).rstrip(" ,;:") + "…"


def pick(text: str, key: str, ids: Sequence[str]) -> str:
    """The chosen id: bare, or under `key` in a JSON object. Raises PlannerError when it is none of `ids`."""
    bare = text.strip()
    if bare in ids:
        return bare
    found = _json_object(bare).get(key)
    if isinstance(found, str) and found in ids:
        return found
    raise PlannerError(f"the planner chose none of the {len(ids)} options; it said {plain(text, 80)!r}")


def whole_sentences(text: str, limit: int = MEMORY_CHARS) -> str:
    """The memory: `plain`, without the sentence that the token limit cut off, unless there is no other."""
    line = plain(text, limit)
    if line and line[-1] not in ".!?":
        end = max(line.rfind(mark) for mark in (". ", "! ", "? "))
        line = line[: end + 1] if end > 0 else line
    return line


def _json_object(text: str) -> dict[str, Any]:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return {}
    try:
        value = parse_json(text[start : end + 1])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
