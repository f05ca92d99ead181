"""Scorers that look for the answer within what a model says: `number` and `regex`."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

_WHOLE = r"(?:\d{1,3}(?:[, '\u00a0\u202f]\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(rf"[-+−]?{_WHOLE}(?:\.\d+)?(?:[eE][-+]?\d{{1,3}})?|[-+−]?\.\d+")
_MARKED = re.compile(
    rf"(?:####|\\boxed\s*+\{{|(?:final )?answer(?: is|:)?\s*+:?+)\s*+\$?+\\?+\$?+\s*+({_NUMBER.pattern})", re.IGNORECASE
)
"""Nothing of it gives back what it took: a model may write a thousand line ends."""
_FRACTION = re.compile(r"\s*/\s*(\d+)\b")
MOST_CHARACTERS = 200_000
"""Of an answer that is looked through: its end."""


def number(reference: Any, completion: str) -> float:
    """1.0 when the answer's number equals the reference: the last one after `####`, `\\boxed{` or "answer", else the last one of all.

    Thousands may be set apart; `{"value": 3.14, "tolerance": 0.01}` allows that much difference. As GSM8K is scored (Cobbe et al. 2021, arXiv 2110.14168).
    """
    wanted, tolerance = _wanted(reference)
    text = completion[-MOST_CHARACTERS:]
    marked = list(_MARKED.finditer(text))
    found = marked[-1] if marked else next(iter(reversed(list(_NUMBER.finditer(text)))), None)
    if found is None:
        return 0.0
    try:
        given = read_number(found[1] if marked else found[0])
    except ValueError:
        return 0.0
    if (part := _FRACTION.match(text, found.end())) and (below := Decimal(part[1])):
        given = given / below
    return float(abs(given - wanted) <= tolerance)


def read_number(text: str) -> Decimal:
    """A number as people write it. Raises ValueError."""
    plain = re.sub(r"[,'\s]", "", text).replace("−", "-").rstrip(".")
    try:
        value = Decimal(plain)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no number") from error
    if not value.is_finite():
        raise ValueError(f"{text!r} is no number")
    return value


def _wanted(reference: Any) -> tuple[Decimal, Decimal]:
    told = reference if isinstance(reference, dict) else {"value": reference}
    if told.keys() - {"value", "tolerance"}:
        raise ValueError("it has value, and may have tolerance")
    if isinstance(told["value"], bool):
        raise ValueError("true and false are no numbers")
    tolerance = read_number(str(told.get("tolerance", 0)))
    if tolerance < 0:
        raise ValueError("tolerance is at least 0")
    return read_number(str(told["value"])), tolerance


def number_problem(reference: Any) -> str | None:
    """What is wrong with a reference, or None."""
    try:
        _wanted(reference)
    except KeyError:
        return "it has no value"
    except ValueError as error:
        return str(error)
    return None


def regex(reference: Any, completion: str) -> float:
    """1.0 when the last match of `pattern` in the answer is `answer` (or one of a list of them): its first group, where it has one, without blanks around
    it; without `answer`, when it matches at all. `ignore_case: true` for both."""
    import regex as patterns  # the standard library's can't be stopped

    flags = patterns.IGNORECASE if reference.get("ignore_case") else 0
    try:
        found = patterns.findall(reference["pattern"], completion[-MOST_CHARACTERS:], flags=flags, timeout=SECONDS)
    except TimeoutError:
        return 0.0
    if "answer" not in reference:
        return float(bool(found))
    wanted = reference["answer"] if isinstance(reference["answer"], list) else [reference["answer"]]
    given = (found[-1][0] if isinstance(found[-1], tuple) else found[-1]).strip() if found else None
    fold = str.casefold if reference.get("ignore_case") else str
    return float(given is not None and fold(given) in {fold(one.strip()) for one in wanted})


SECONDS = 1.0
"""That a pattern may take over one answer; one that takes longer does not match."""


def regex_problem(reference: Any) -> str | None:
    """What is wrong with a reference, or None."""
    import regex as patterns

    if not isinstance(reference, dict) or not isinstance(reference.get("pattern"), str):
        return "it has a pattern, and may have answer and ignore_case"
    if unknown := reference.keys() - {"pattern", "answer", "ignore_case"}:
        return f"it has a pattern, and may have answer and ignore_case, not {', '.join(sorted(unknown))}"
    wanted = reference.get("answer", "")
    if not all(isinstance(one, str) for one in (wanted if isinstance(wanted, list) and wanted else [wanted])):
        return "answer is a text, or a list of them"
    try:
        patterns.compile(reference["pattern"])
    except patterns.error as error:
        return f"not a pattern: {error}"
    return None
