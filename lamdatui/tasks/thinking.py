"""An answer without what the model thought before it: reasoning models write that between tags of their family's own."""

from __future__ import annotations

import re

_NAMES = r"think|thinking|thought|reasoning|seed:think"
_OPEN = re.compile(rf"<(?:{_NAMES})>|\[THINK\]|◁think▷", re.IGNORECASE)
_CLOSE = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷", re.IGNORECASE)


def without_thinking(text: str, asked: str = "") -> str:
    """What follows the last closing tag; nothing where a thought was begun and not ended; a text without tags as it is.

    A closing tag alone counts too: many templates open the thought in the prompt. `asked` is the prompt, where it is known: of a thought that
    was opened there and never closed nothing is an answer.
    """
    if asked and opens_thinking(asked) and not _CLOSE.search(text):
        return ""
    closed = [found.end() for found in _CLOSE.finditer(text)]
    rest = text[closed[-1] :] if closed else text
    return "" if _OPEN.search(rest) else rest.lstrip() if closed else rest


def opens_thinking(asked: str) -> bool:
    """Whether a prompt ends within a thought: then an answer that never closes it is no answer."""
    opened = [found.end() for found in _OPEN.finditer(asked)]
    return bool(opened) and not asked[opened[-1] :].strip()
