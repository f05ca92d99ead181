"""One line of a log as it is shown: what a terminal would have left of it, its time, its level. No textual."""

from __future__ import annotations

import re
import time
from calendar import timegm
from dataclasses import dataclass
from typing import Literal

from lamdatui.base.text import clean

Level = Literal["", "warning", "error"]

LINE_CHARACTERS = 4000
TAB = 8
GLYPHS: dict[Level, str] = {"": " ", "warning": "!", "error": "✗"}
_REDRAWS = 64
"""A progress bar may have redrawn its line a thousand times; only the last ones can still be seen."""
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_ERASE = re.compile(r"\x1b\[0?K")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z ")
TRACEBACK = "Traceback (most recent call last)"
_ERROR = re.compile(
    rf"\b(?:ERROR|CRITICAL|FATAL)\b|\b(?:[Ee]rror|[Ff]atal(?: error)?):|^\s*{re.escape(TRACEBACK)}"
    r"|^[\w.]*(?:Error|Exception|Interrupt)\b|\bexception:|^\S+ E \w|[Ss]egmentation fault|^Killed\b|\bout of memory\b"
)
_WARNING = re.compile(r"\bWARN(?:ING)?\b|\b\w*[Ww]arning:|^\S+ W \w|\bdeprecated\b")


@dataclass(frozen=True, slots=True)
class LogLine:
    """`wall` is the time that the line itself tells, in seconds since 1970."""

    text: str
    level: Level
    wall: float | None


def show(raw: bytes) -> LogLine:
    """A line of the file, cleaned, without its stamp and with its tabs as spaces."""
    text, wall = log_line(raw), None
    if found := _STAMP.match(text):
        text, wall = text[found.end() :], _seconds(found.group(1))
    return LogLine(text.expandtabs(TAB), level_of(text), wall)


def is_stamped(raw: bytes) -> bool:
    """Whether a line of the file seems to begin with the time that our own processes write."""
    return raw[10:11] in (b"T", b"t") and raw[19:21] in (b"Z ", b"z ")


def log_line(raw: bytes) -> str:
    """One line as it would stand on a terminal after its carriage returns, without colours, cleaned and capped."""
    text = raw.decode("utf-8", "replace").rstrip("\r")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if "\r" in text:
        text = _overwritten(text)
    text = _ERASE.sub("", text)
    cut = len(text) - LINE_CHARACTERS
    return clean(text if cut <= 0 else f"{text[:LINE_CHARACTERS]} … {cut} more characters")


def level_of(text: str) -> Level:
    """Whether a line reports an error or a warning."""
    if _ERROR.search(text):
        return "error"
    return "warning" if _WARNING.search(text) else ""


def clock(wall: float) -> str:
    """The time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(wall))


def _overwritten(text: str) -> str:
    shown = ""
    for part in text.rsplit("\r", _REDRAWS)[-_REDRAWS:]:
        erased = _ERASE.search(part)
        shown = part if erased else part + shown[len(part) :]
    return shown


def _seconds(stamp: str) -> float | None:
    try:
        return float(timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S")))
    except (ValueError, OverflowError):
        return None
