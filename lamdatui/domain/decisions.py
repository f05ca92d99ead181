"""How a run decides on a proposal, and what can be decided."""

from __future__ import annotations

VERDICTS = ("approve", "edit", "veto", "skip", "stop", "rejected")
MODES = ("read-only", "ask", "ask-risky", "auto")


def by_person(by: str) -> bool:
    """Whether an event's author is a person: `person`, or a named one as `USER@TERMINAL`."""
    return by == "person" or "@" in by
