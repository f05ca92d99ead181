"""The ASCII set: every character that reaches the screen, from us or from outside, as one of ASCII that is as wide.

One place for all of them: a filter over finished lines, so that borders, scrollbars, charts and tree guides of any widget
are covered as well as our own glyphs.
"""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_PAIRS = {
    # states, marks, arrows
    "▶": ">", "►": ">", "✓": "+", "✗": "x", "⊘": "/", "↷": ">", "■": "#", "‖": "=", "●": "*", "○": "o", "◐": "o", "★": "*", "☆": "*",
    "·": ".", "•": "*", "→": ">", "←": "<", "↑": "^", "↓": "v", "↔": "-", "↕": "|", "▼": "v", "▲": "^", "▸": ">", "▾": "v", "◆": "*", "◇": "o",
    "…": "~", "–": "-", "—": "-", "−": "-", "×": "x", "÷": "/", "±": "~", "≤": "<", "≥": ">", "≈": "~", "≠": "!", "°": "o", "µ": "u", "∞": "~",
    "‘": "'", "’": "'", "“": '"', "”": '"', "«": "<", "»": ">", "└": "`", "├": "|", "␡": "^", "⏎": "<", "⌄": "v", "❯": ">", "✔": "+", "✘": "x",
    # levels: sparklines from low to high, bars from empty to full
    "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%", "█": "#",
    "▏": ".", "▎": ".", "▍": ":", "▌": ":", "▋": "+", "▊": "+", "▉": "*", "░": ".", "▒": ":", "▓": "%", "▔": "-", "▕": "|", "▀": "-", "▐": "|",
}  # fmt: skip


@lru_cache(8192)
def ascii_of(text: str) -> str:
    """`text` in ASCII, in the same number of cells."""
    return text if text.isascii() else "".join(_character(character) for character in text)


def _character(character: str) -> str:
    if character.isascii():
        return character
    if found := _PAIRS.get(character):
        return found
    code = ord(character)
    if 0x2500 <= code <= 0x257F:
        return _box(character)
    if 0x2580 <= code <= 0x259F or 0x1FB00 <= code <= 0x1FBFF:
        return "#"
    if 0x2800 <= code <= 0x28FF:
        return " .::+**##"[(code - 0x2800).bit_count()]
    if 0x2400 <= code <= 0x241F:
        return "^"
    width = cell_len(character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain if plain.isprintable() and len(plain) == width and plain else "?" * width


def _box(character: str) -> str:
    words = set(unicodedata.name(character, "").replace("-", " ").split())
    if "ARC" in words or "DIAGONAL" in words:
        return "+"
    vertical = bool(words & {"VERTICAL", "UP", "DOWN"})
    horizontal = bool(words & {"HORIZONTAL", "LEFT", "RIGHT"})
    return "+" if vertical and horizontal else "|" if vertical else "-"


class AsciiFilter(LineFilter):
    """Applied to every line of every widget before it is drawn."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(ascii_of(text), style, control) for text, style, control in segments]


def wanted(setting: bool | None) -> bool:
    """Whether to use ASCII: `LAMDATUI_ASCII` (what `--ascii` sets), else the setting, else the locale."""
    if told := os.environ.get("LAMDATUI_ASCII"):
        return told not in ("0", "false", "no")
    if setting is not None:
        return setting
    name = next((value for key in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(key))), "")
    return bool(name) and "utf-8" not in name.lower() and "utf8" not in name.lower()
