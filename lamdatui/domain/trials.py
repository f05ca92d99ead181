"""A trial of a run, and an attempt at a step, as the events so far tell of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamdatui.domain.records import ActionRecord, DecisionRecord, Failure, Gain, ProposalRecord, Scores, Seconds, Shadow

REPLICATE = "replicate"
"""Purpose of steps that do a pipeline again with another seed."""
OPEN_STATUSES = ("proposing", "awaiting", "approved", "running")
"""Statuses of a trial that is not over: the engine goes on with it after a restart."""


@dataclass(slots=True)
class Trial:
    """One turn of the loop. The field names are the contract of `lamdatui show --json`."""

    number: int
    status: str = "proposing"
    action: ActionRecord | None = None
    proposed_by: str = ""
    reason: str = ""
    decision: DecisionRecord | None = None
    model: str | None = None
    dataset: str | None = None
    scores: Scores = field(default_factory=dict)
    objective: float | None = None
    gain: Gain | None = None
    cached: bool = False
    seconds: Seconds = field(default_factory=dict)
    error: Failure | None = None
    proposal: ProposalRecord | None = None
    step: str | None = None
    shadows: list[Shadow] = field(default_factory=list)
    stamps: dict[str, float] = field(default_factory=dict)
    """Monotonic seconds at which it was opened, proposed and decided."""

    @property
    def is_open(self) -> bool:
        """Whether the loop still has work to do on it."""
        return self.status in OPEN_STATUSES


@dataclass(slots=True)
class StepRecord:
    """One attempt at one step; `key` is its directory below `steps/`."""

    key: str
    purpose: str
    trial: int | None
    digest: str | None
    status: str = "intended"
    pid: int | None = None
    start_time: float | None = None
    boot_id: str = ""
    cached: bool = False
    seconds: Seconds = field(default_factory=dict)
    error: Failure | None = None
