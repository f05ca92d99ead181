"""What commands say: text for a terminal is cleaned, text for another program is what it is, JSON is always plain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO


def say(text: object, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a text that may hold names and messages of others. On a terminal nothing in it acts; nowhere does it fail."""
    stream = file if file is not None else sys.stdout
    told = str(text)
    if not (told.isascii() and told.isprintable()):
        told = _shown(told) if stream.isatty() else _encodable(told, stream.encoding or "utf-8")
    print(told, file=stream, flush=flush)


def complain(text: object) -> None:
    """The same on stderr."""
    say(text, file=sys.stderr, flush=True)


def say_json(value: Any, *, indent: int | None = 1, flush: bool = False) -> None:
    """Print JSON. What acts on a terminal or can't be encoded stands in it as an escape: the value is the same."""
    print(_as_encoded(value, indent), flush=flush)


def say_findings(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON array of flat objects, one a line, so that a line says all of one."""
    print("[\n " + ",\n ".join(_as_encoded(dict(row), None) for row in rows) + "\n]")


def _as_encoded(value: Any, indent: int | None) -> str:
    text = json_text(value, indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json_text(value, indent, ascii_only=True)
    return text


def json_text(value: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """JSON in which every character that acts or hides is an escape."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if text.isascii() and "\x7f" not in text:
        return text
    # Only where it is needed: most output is plain.
    from lamdatui.base.text import FORBIDDEN

    return FORBIDDEN.sub(lambda match: json.dumps(match.group())[1:-1].replace("\x7f", "\\u007f"), text)


def _shown(text: str) -> str:
    from lamdatui.base.text import clean

    return clean(text)


def _encodable(text: str, encoding: str) -> str:
    # Names of files may hold bytes that are no text.
    return text.encode(encoding, "backslashreplace").decode(encoding)
