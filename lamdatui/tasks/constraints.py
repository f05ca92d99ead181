"""Checking an answer against instructions that a program can verify, after the idea of IFEval (arXiv 2311.07911).

Each kind of instruction is one pure function of (text, arguments). Nothing here decides whether an answer is good or
true, only whether it is what was asked for in form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

MAX_CHARS = 20_000

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
_BULLET = re.compile(r"^\s*[*•-]\s+\S", re.MULTILINE)
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^<>\n]+>>")
_POSTSCRIPT = re.compile(r"(?:^|\s)P\.\s?S\.?\s*\S", re.MULTILINE)
_FENCE = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL)

SEPARATOR = "******"


def count_words(text: str) -> int:
    """Runs of letters and digits; a hyphen or an apostrophe inside joins."""
    return len(_WORD.findall(text))


def split_sentences(text: str) -> list[str]:
    """The pieces that end with `.`, `!` or `?` before a space or the end; a last piece without an end counts too."""
    pieces: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        pieces.append(text[start : end.end()].strip())
        start = end.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if _WORD.search(piece)]


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _min_words(text: str, args: dict[str, Any]) -> bool:
    return count_words(text) >= args["count"]


def _max_words(text: str, args: dict[str, Any]) -> bool:
    return count_words(text) <= args["count"]


def _sentences(text: str, args: dict[str, Any]) -> bool:
    return len(split_sentences(text)) == args["count"]


def _bullets(text: str, args: dict[str, Any]) -> bool:
    return len(_BULLET.findall(text)) == args["count"]


def _paragraphs(text: str, args: dict[str, Any]) -> bool:
    return len([part for part in _PARAGRAPH_BREAK.split(text) if part.strip()]) == args["count"]


def _include(text: str, args: dict[str, Any]) -> bool:
    return all(_occurrences(text, word) for word in args["words"])


def _forbid(text: str, args: dict[str, Any]) -> bool:
    return not any(_occurrences(text, word) for word in args["words"])


def _frequency(text: str, args: dict[str, Any]) -> bool:
    return _occurrences(text, args["word"]) >= args["count"]


def _start_with(text: str, args: dict[str, Any]) -> bool:
    return text.startswith(args["phrase"])


def _end_with(text: str, args: dict[str, Any]) -> bool:
    return text.endswith(args["phrase"])


def _lowercase(text: str, args: dict[str, Any]) -> bool:
    return text == text.lower() and bool(_WORD.search(text))


def _uppercase(text: str, args: dict[str, Any]) -> bool:
    return text == text.upper() and bool(_WORD.search(text))


def _no_commas(text: str, args: dict[str, Any]) -> bool:
    return "," not in text


def _quoted(text: str, args: dict[str, Any]) -> bool:
    return len(text) > 2 and text[0] == text[-1] == '"'


def _json(text: str, args: dict[str, Any]) -> bool:
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _title(text: str, args: dict[str, Any]) -> bool:
    return bool(_TITLE.search(text))


def _postscript(text: str, args: dict[str, Any]) -> bool:
    return bool(_POSTSCRIPT.search(text))


def _repeat(text: str, args: dict[str, Any]) -> bool:
    return _plain(text).startswith(_plain(args["text"]))


def _two_responses(text: str, args: dict[str, Any]) -> bool:
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return len(parts) == 2 and all(_WORD.search(part) for part in parts) and parts[0] != parts[1]


def _placeholders(text: str, args: dict[str, Any]) -> bool:
    return len(_PLACEHOLDER.findall(text)) >= args["count"]


KINDS: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "min_words": _min_words,
    "max_words": _max_words,
    "sentences": _sentences,
    "bullets": _bullets,
    "paragraphs": _paragraphs,
    "include": _include,
    "forbid": _forbid,
    "frequency": _frequency,
    "start_with": _start_with,
    "end_with": _end_with,
    "lowercase": _lowercase,
    "uppercase": _uppercase,
    "no_commas": _no_commas,
    "quoted": _quoted,
    "json": _json,
    "title": _title,
    "postscript": _postscript,
    "repeat": _repeat,
    "two_responses": _two_responses,
    "placeholders": _placeholders,
}


_ARGUMENTS: dict[str, type] = {"count": int, "word": str, "phrase": str, "text": str, "words": list}


def check_arguments(wanted: list[dict[str, Any]]) -> None:
    """Raises TypeError for an argument that no check can use, also one that a check would not look at in every answer."""
    for one in wanted:
        for name, value in one.items():
            kind = _ARGUMENTS.get(name)
            if kind and (type(value) is not kind or (kind is list and not all(isinstance(word, str) for word in value))):
                raise TypeError(f"{name} of {one['kind']!r} is {'a list of texts' if kind is list else kind.__name__}")


def satisfied(constraint: dict[str, Any], completion: str) -> bool:
    """Whether one constraint `{"kind": …, …arguments}` holds for an answer, ignoring white space around it.

    An empty answer satisfies nothing. Raises KeyError on an unknown kind or a missing argument.
    """
    text = completion[:MAX_CHARS].strip()
    check = KINDS[constraint["kind"]]
    return bool(text) and check(text, constraint)


def constraints(reference: dict[str, Any], completion: str) -> float:
    """The share, 0 to 1, of `reference["constraints"]` that the answer satisfies."""
    wanted = reference["constraints"]
    return sum(satisfied(one, completion) for one in wanted) / len(wanted)
