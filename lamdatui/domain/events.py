"""The vocabulary between the engine, its journal and its clients: every event kind with the fields it carries.

An event is a fact that has been written to the journal. Frames on the socket that are not events (`hardware`, `reply`,
`hello`, `live`) are described in `lamdatui.wire.client`.
"""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from lamdatui.domain.records import (
    ActionRecord,
    BaselinePlan,
    BaselineRecord,
    DecisionRecord,
    Declaration,
    Failure,
    ForkedFrom,
    Gain,
    GainReport,
    Json,
    Offered,
    ProblemRecord,
    ProposalRecord,
    Queued,
    ReplicatesRecord,
    Score,
    Scores,
    Seconds,
    Shadow,
    TaskFile,
    Told,
    ToldOf,
)

# ---------------------------------------------------------------- the run and its engine


class RunSpec(TypedDict):
    name: str
    profile: Json
    profile_digest: str
    seed: int
    mode: str
    policy: str
    max_trials: int
    wall_seconds: float | None


class RunCreated(RunSpec):
    scheme: NotRequired[int]


class RunForked(RunSpec):
    forked_from: ForkedFrom
    looks: list[str]


class EngineStarted(TypedDict):
    pid: int
    epoch: int
    boot_id: str
    version: str
    device: Json
    clock: NotRequired[str]
    types: NotRequired[dict[str, Declaration]]
    network: NotRequired[str]
    """What keeps steps from the network (`lamdatui.base.network`)."""


class Reason(TypedDict):
    reason: str


class MaxTrials(TypedDict):
    max_trials: int


class By(TypedDict):
    by: str


class RunPaused(By):
    reason: NotRequired[str]


class RunStopping(By):
    when: str


class RunEnded(TypedDict):
    status: str
    reason: str
    winner: str | None
    beats_base: bool | None
    gain: dict[str, GainReport] | None
    """By split."""


class SearchEnded(RunEnded):
    pass


class BaselinePlanned(TypedDict):
    name: str
    plan: BaselinePlan


class BaselineRecorded(TypedDict):
    name: str
    baseline: BaselineRecord


class BaselineMissing(TypedDict):
    name: str
    reason: str


class ReplicatesRecorded(TypedDict):
    model: str
    replicates: ReplicatesRecord


class ReplicatesMissing(TypedDict):
    model: str
    reason: str


class ModeChanged(By):
    mode: str


class PolicyChanged(By):
    name: str


class BudgetChanged(By):
    max_trials: int


class PhaseChanged(TypedDict):
    phase: str
    detail: str


# ---------------------------------------------------------------- the pool


class ObjectAdded(TypedDict):
    object: Json


class ObjectLost(TypedDict):
    id: str
    reason: str


class ObjectDropped(TypedDict):
    id: str
    bytes: int


class ObjectRestored(TypedDict):
    id: str


# ---------------------------------------------------------------- one trial, in order


class TrialOpened(TypedDict):
    number: int


class CandidatesListed(TrialOpened):
    types: dict[str, Offered | int]


class TrialProposed(TrialOpened):
    proposal: ProposalRecord


class ShadowsRecorded(TrialOpened):
    shadows: list[Shadow]


class TrialDecided(DecisionRecord):
    number: int
    action: ActionRecord | None


class TrialClosed(TrialOpened):
    status: str
    model: str | None
    dataset: str | None
    scores: Scores | None
    objective: float | None
    gain: Gain | None
    cached: bool
    seconds: Seconds | None
    error: Failure | None


# ---------------------------------------------------------------- steps: intent before effect, outcome after it


class StepIntended(TypedDict):
    step: str
    purpose: str
    trial: int | None
    digest: str | None


class StepStarted(TypedDict):
    step: str
    pid: int
    start_time: float
    boot_id: str


class StepEnded(TypedDict):
    step: str
    status: str
    cached: bool
    seconds: Seconds | None
    error: Failure | None


class EvaluationRecorded(TypedDict):
    model: str
    task: str
    split: str
    key: str
    score: Score


# ---------------------------------------------------------------- what people and the planner say


class Revoked(By):
    id: str


class MemoryUpdated(By):
    text: str


class PlannerAnswered(TypedDict):
    number: int
    call: str
    answer: str
    tokens: int
    seconds: float


EVENTS: dict[str, type[Any]] = {
    "run.created": RunCreated,
    # All before it is the record of another run, which this one begins with; `looks`: for which winners the sealed split was opened there.
    "run.forked": RunForked,
    "engine.started": EngineStarted,
    "engine.stopped": Reason,
    "run.resumed": MaxTrials,
    "run.paused": RunPaused,
    "run.unpaused": By,
    "run.stopping": RunStopping,
    # The winner is known, and is compared with baselines before the run ends.
    "search.ended": SearchEnded,
    "baseline.planned": BaselinePlanned,
    "baseline.recorded": BaselineRecorded,
    "baseline.missing": BaselineMissing,
    # The winner's pipeline, and the next best, are done again with other seeds: all of a pipeline's so far, or why there are no more.
    "replicates.recorded": ReplicatesRecorded,
    "replicates.missing": ReplicatesMissing,
    # Somebody wants the baselines of a run that has ended.
    "baselines.asked": By,
    "run.ended": RunEnded,
    "mode.changed": ModeChanged,
    "policy.changed": PolicyChanged,
    "budget.changed": BudgetChanged,
    "phase.changed": PhaseChanged,
    "problem.noted": ProblemRecord,
    "object.added": ObjectAdded,
    "object.lost": ObjectLost,
    "object.dropped": ObjectDropped,
    "object.restored": ObjectRestored,
    "task.added": TaskFile,
    "trial.opened": TrialOpened,
    "candidates.listed": CandidatesListed,
    "trial.proposed": TrialProposed,
    "shadows.recorded": ShadowsRecorded,
    "trial.decided": TrialDecided,
    "trial.closed": TrialClosed,
    "step.intended": StepIntended,
    "step.started": StepStarted,
    "step.ended": StepEnded,
    "evaluation.recorded": EvaluationRecorded,
    # Actions that people want next, until a trial takes them (trial.proposed with proposal.queued) or they are withdrawn.
    "action.queued": Queued,
    "action.withdrawn": Revoked,
    "memory.updated": MemoryUpdated,
    "hint.added": Told,
    "hint.revoked": Revoked,
    "planner.answered": PlannerAnswered,
    "constraint.added": ToldOf,
    "constraint.revoked": Revoked,
    "rule.added": ToldOf,
    "rule.revoked": Revoked,
}
"""Kind → the fields that its events carry. One that may be missing came with a later version."""


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


def event_from_json(data: dict[str, Any]) -> Event:
    """The event that `Event.to_json` wrote. Raises KeyError or TypeError on another shape."""
    return Event(data["seq"], data["kind"], data["wall"], data["mono"], data["data"])


def check_fields(kind: str, data: dict[str, Any]) -> None:
    """Raises ValueError unless `data` has the fields that the kind declares, and no other ones."""
    fields = EVENTS.get(kind)
    if fields is None:
        raise ValueError(f"unknown event kind {kind!r}")
    if not fields.__required_keys__ <= data.keys() <= fields.__annotations__.keys():
        raise ValueError(f"{kind} carries {sorted(fields.__annotations__)}, not {sorted(data)}")
