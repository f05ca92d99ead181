"""Lone surrogates: JSON may hold them as escapes, UTF-8 can't. What writes JSON keeps them as escapes; what takes commands drops them."""

from __future__ import annotations

import re
from typing import Any

_LONE = re.compile("[\ud800-\udfff]")


def escaped(text: str) -> str:
    """JSON text with its lone surrogates as escapes: the same value, and every encoder takes it."""
    return text if text.isascii() else _LONE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def has_lone(text: str) -> bool:
    """Whether a text holds a lone surrogate: no tokenizer and no file takes such a text."""
    return not text.isascii() and _LONE.search(text) is not None


def without(value: Any) -> Any:
    """A JSON value in which U+FFFD stands for each lone surrogate, also in keys."""
    if isinstance(value, str):
        return value if value.isascii() else _LONE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {without(key): without(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without(item) for item in value]
    return value
