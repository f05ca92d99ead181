"""The words of a text, to compare texts by. In scripts that are written without spaces each character counts as a word."""

from __future__ import annotations

import re

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f]|[^\W_]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case; the whole text is one word when it has none."""
    return _WORD.findall(text.lower()) or [text.strip()]
