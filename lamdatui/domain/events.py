"""The vocabulary between the engine, its journal and its clients: every event kind with the fields it carries.

An event is a fact that has been written to the journal. Frames on the socket that are not events (`hardware`, `reply`,
`hello`, `live`) are described in `lamdatui.wire.client`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KINDS: dict[str, tuple[str, ...]] = {
    # the run and its engine
    "run.created": ("name", "profile", "profile_digest", "seed", "mode", "policy", "max_trials", "wall_seconds"),
    "engine.started": ("pid", "epoch", "boot_id", "version", "device"),
    "engine.stopped": ("reason",),
    "run.resumed": ("max_trials",),
    "run.paused": ("by",),
    "run.unpaused": ("by",),
    "run.stopping": ("when", "by"),
    "run.ended": ("status", "reason", "winner", "beats_base", "gain"),
    "mode.changed": ("mode", "by"),
    "policy.changed": ("name", "by"),
    "budget.changed": ("max_trials", "by"),
    "phase.changed": ("phase", "detail"),
    "problem.noted": ("where", "message"),
    # the pool
    "object.added": ("object",),
    "object.lost": ("id", "reason"),
    "task.added": ("name", "path", "digest"),
    # one trial, in order
    "trial.opened": ("number",),
    "candidates.listed": ("number", "types"),
    "trial.proposed": ("number", "proposal"),
    "shadows.recorded": ("number", "shadows"),
    "trial.decided": ("number", "verdict", "by", "reason", "action"),
    "trial.closed": ("number", "status", "model", "dataset", "scores", "objective", "gain", "cached", "seconds", "error"),
    # steps: intent before effect, outcome after it
    "step.intended": ("step", "purpose", "trial", "digest"),
    "step.started": ("step", "pid", "start_time", "boot_id"),
    "step.ended": ("step", "status", "cached", "seconds", "error"),
    "evaluation.recorded": ("model", "task", "split", "key", "score"),
    # actions that people want next, until a trial takes them (trial.proposed with proposal.queued) or they are withdrawn
    "action.queued": ("id", "action", "note", "by"),
    "action.withdrawn": ("id", "by"),
    # what the planner is told and what people said
    "memory.updated": ("text", "by"),
    "hint.added": ("id", "text", "by", "trial"),
    "hint.revoked": ("id", "by"),
    "planner.answered": ("number", "call", "answer", "tokens", "seconds"),
    "constraint.added": ("id", "text", "match", "by", "trial"),
    "constraint.revoked": ("id", "by"),
    "rule.added": ("id", "text", "match", "by", "trial"),
    "rule.revoked": ("id", "by"),
}

LATER: dict[str, tuple[str, ...]] = {
    "run.created": ("scheme",),
    "engine.started": ("clock", "types"),
    "run.paused": ("reason",),
}
"""Fields that events of the first version don't have."""

VERDICTS = ("approve", "edit", "veto", "skip", "stop", "rejected")
MODES = ("read-only", "ask", "ask-risky", "auto")


@dataclass(frozen=True, slots=True)
class Event:
    """`seq` orders events (from 1); `wall` (s since the epoch) is for people, `mono` (s since boot) for durations."""

    seq: int
    kind: str
    wall: float
    mono: float
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One JSON object, as in `--json` and on the socket."""
        return {"seq": self.seq, "kind": self.kind, "wall": self.wall, "mono": self.mono, "data": self.data}


def by_person(by: str) -> bool:
    """Whether an event's author is a person: `person`, or a named one as `USER@TERMINAL`."""
    return by == "person" or "@" in by


def event_from_json(data: dict[str, Any]) -> Event:
    """The event that `Event.to_json` wrote. Raises KeyError or TypeError on another shape."""
    return Event(data["seq"], data["kind"], data["wall"], data["mono"], data["data"])


def check_fields(kind: str, data: dict[str, Any]) -> None:
    """Raises ValueError unless `data` has the fields that the kind declares, and no other ones."""
    if kind not in KINDS:
        raise ValueError(f"unknown event kind {kind!r}")
    if not set(KINDS[kind]) <= set(data) <= {*KINDS[kind], *LATER.get(kind, ())}:
        raise ValueError(f"{kind} carries {sorted(KINDS[kind])}, not {sorted(data)}")
