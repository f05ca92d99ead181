"""The one boundary for text from outside: after `clean`, a string can't steer the terminal or lie about its order.

Dataset names, planner reasons, engine errors and log lines are written by others. Control characters are shown as
pictures or escapes rather than dropped, so that a person who approves an action sees that something was hidden there.
"""

from __future__ import annotations

import re
from typing import Any

_RANGES = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\xad\u034f\u061c\u0600-\u0605\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u17b4-\u17b5\u180b-\u180f"  # format, fillers
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"  # zero width, bidi, variation
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # tags
    "\ud800-\udfff"  # lone surrogates can't be encoded for the terminal
)
FORBIDDEN = re.compile(f"[{_RANGES}]")
_ZERO_WIDTH = frozenset("\xad\u034f\u200b\u200c\u200d\u2060\ufeff") | {chr(code) for code in range(0xFE00, 0xFE10)}
_ASCII = bytes(range(128))
# JSON has no raw control characters below the space, so that these are what of ASCII a frame can bring.
_SUSPECT = re.compile(rb"\\[urbf]")
_DELETE = b"\x7f"
_BLANKS = re.compile(r"\s+")
_MARK = "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
# Letters of living scripts carry two marks; towers of them would run into the lines above.
_MARKS = re.compile(f"({_MARK}{{3}}){_MARK}+")


def clean(text: str) -> str:
    """`text` without anything that acts on a terminal or hides; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    text = FORBIDDEN.sub(_visible, text.replace("\r\n", "\n"))
    return _MARKS.sub(r"\1", text)


def clean_json(value: Any) -> Any:
    """A JSON value with every string in it cleaned, keys too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    return value


def is_harmless(line: bytes) -> bool:
    """Whether JSON has nothing in it that `clean_json` would change; False where that takes a closer look.

    Ten times as fast as the closer look, because almost all of a run's history is plain text.
    """
    if _DELETE in line or _SUSPECT.search(line):
        return False
    rest = line.translate(None, _ASCII).decode()
    return not (FORBIDDEN.search(rest) or _MARKS.search(rest))


def one_line(text: object) -> str:
    """Cleaned text on one line: runs of white space become one space."""
    return _BLANKS.sub(" ", clean(str(text))).strip()


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if character in _ZERO_WIDTH:
        return ""
    if 0xD800 <= code <= 0xDFFF:
        return "�"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
