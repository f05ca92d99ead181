"""How a run decides on a proposal, and what can be decided."""

from __future__ import annotations

import re

VERDICTS = ("approve", "edit", "veto", "skip", "stop", "rejected")
MODES = ("read-only", "ask", "ask-risky", "auto")


AUTHOR = re.compile(r"[\w.+-]{1,32}@[\w./:-]{1,32}")
"""A person with a name: `USER@TERMINAL`."""


def by_person(by: str) -> bool:
    """Whether an event's author is a person: `person`, or a named one. Other authors may bring words of a planner's server along."""
    return by == "person" or AUTHOR.fullmatch(by) is not None
