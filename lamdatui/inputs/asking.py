"""How a task's row may be put to a model other than by its chat template: as plain text, with stops, or as choices to be rated. A row says it in `asking`:

| key | meaning |
|---|---|
| `plain` | text that the model continues as it stands; `messages` say for people and for overlap checks what is asked |
| `until` | texts, the first of which ends an answer and is no part of it |
| `choices` | texts; each one's log-likelihood after the prompt is measured, nothing is generated |
| `contexts` | beside `choices`: what stands before each, where that differs |
| `rolling` | true: the log-likelihood of `plain` itself is measured |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("plain", "until", "choices", "contexts", "rolling")
MOST_CHOICES = 1000


def read_asking(row: Mapping[str, Any]) -> dict[str, Any]:
    """What `asking` of a row says. Raises ValueError where it is not of its types, or does not go together."""
    told = row.get("asking") or {}
    if not isinstance(told, Mapping) or not told.keys() <= set(KEYS):
        raise ValueError(f"asking has {', '.join(KEYS)}")
    found = {key: told[key] for key in KEYS if told.get(key) is not None}
    if not isinstance(found.get("plain", ""), str):
        raise ValueError("plain is a text")
    for key in ("until", "choices", "contexts"):
        value = found.get(key, ["a"])
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise ValueError(f"{key} is a list of texts")
    if not all(found.get("until", ["a"])) or not all(found.get("choices", ["a"])):
        raise ValueError("a stop and a choice have at least one letter")
    if len(found.get("choices", ())) > MOST_CHOICES:
        raise ValueError(f"a row has at most {MOST_CHOICES} choices")
    if "contexts" in found and len(found["contexts"]) != len(found.get("choices", ())):
        raise ValueError("contexts has one text for each of choices")
    if found.get("rolling", True) is not True or ("rolling" in found and (not found.get("plain") or "choices" in found)):
        raise ValueError("rolling is true, and goes with plain alone")
    return found


def is_rated(asked: Mapping[str, Any]) -> bool:
    """Whether log-likelihoods are measured of a question, or of what `asking` of a row says, and nothing is generated."""
    return "choices" in asked or "rolling" in asked
