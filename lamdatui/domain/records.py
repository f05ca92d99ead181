"""Plain JSON that goes through the journal, the socket and the screens: the types of what events and the state hold.

`lamdatui.domain.checked` holds what comes from another process to them. Python's annotations here are evaluated when the module is
imported: only then does a TypedDict know which of its fields may be missing.
"""

from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]
Value = float | int | str | bool
"""Of a hyperparameter."""
Interval = tuple[float, float]
"""The 95% interval, low and high; a list in JSON."""


class ActionRecord(TypedDict):
    """`lamdatui.domain.actions.Action` as JSON; runs of the first version have no `scheme`."""

    type: str
    inputs: dict[str, list[str]]
    params: dict[str, Value]
    seed: int
    digest: str
    scheme: NotRequired[int]


class Gain(TypedDict):
    """The paired mean difference to the base."""

    mean: float
    interval: Interval


class Tried(TypedDict):
    """How a judge tells reference answers from wrong ones: `right` of `n` comparisons, the 95% interval of their share, and how often the order of
    two answers decided."""

    right: int
    n: int
    interval: Interval
    flips: NotRequired[int]


class Judged(TypedDict):
    """Of a task that a model judges: `tried` is None where no row could try it out; `flips`: rows whose verdict followed the order of the two answers."""

    model: str
    tried: Tried | None
    flips: NotRequired[int]


class Score(TypedDict):
    """The mean over `n` rows."""

    mean: float
    n: int
    interval: Interval
    unfinished: NotRequired[int]
    """Answers that did not end within their tokens; not there where all did, or where nobody counted."""
    empty: NotRequired[int]
    change: NotRequired[Gain]
    """The paired difference to the base: of a task that the objective keeps."""
    judge: NotRequired[Judged]


Scores = dict[str, dict[str, Score]]
"""Task → split → score."""


Failure = TypedDict("Failure", {"class": str, "message": str})
"""Why a step or a trial failed."""
Seconds = dict[str, float]
"""Part of a trial or step → its s."""


class EstimateRecord(TypedDict):
    """What an action is expected to cost; `measured`: on how many steps of this machine the time stands."""

    seconds: float | None
    memory_bytes: float | None
    disk_bytes: float | None
    measured: int
    plan: NotRequired[str]
    """How the work is laid out in memory, in words; empty where there is nothing to choose."""


class Alternative(TypedDict):
    """An action that a policy has weighed and not chosen, on one line."""

    action: str
    probability: NotRequired[float | None]
    expected: NotRequired[float | None]
    std: NotRequired[float | None]


class SlotRecord(TypedDict):
    """An input's declaration (`lamdatui.domain.actions.Slot`)."""

    name: str
    kind: Literal["model", "models", "dataset", "datasets"]
    help: str
    formats: list[str]
    least: int
    most: int
    base_only: bool


class ParamRecord(TypedDict):
    """A hyperparameter's declaration (`lamdatui.domain.actions.Param`)."""

    name: str
    type: Literal["float", "int", "str", "bool"]
    default: Value
    choices: list[Value]
    low: float | None
    high: float | None
    unit: str
    help: str
    allowed: list[str]
    introduced: NotRequired[Value | None]
    since: NotRequired[int]


class Declaration(TypedDict):
    """What a screen has to know of an action type. Proposals of the first version's runs say neither family nor slots."""

    summary: str
    output: str
    params: list[ParamRecord]
    family: NotRequired[str]
    slots: NotRequired[list[SlotRecord]]


class ProposalDetails(TypedDict, total=False):
    """What a policy says of its choice: expectations among others."""

    expected: float | None
    std: float | None
    rival: Json | None
    """What the surrogate would have taken in its place."""


class ProposalRecord(TypedDict):
    """What a person decides on."""

    action: ActionRecord
    reason: str
    proposed_by: str
    id: str
    alternatives: list[Alternative]
    estimate: EstimateRecord
    opening: bool
    fallback: str | None
    """Why the policy's fallback has chosen."""
    seconds: float
    """How long the choice took."""
    details: ProposalDetails
    declaration: NotRequired[Declaration]
    """In each proposal of the first version's runs; later ones have it once, with the engine's start."""
    queued: NotRequired[str | None]
    """The entry of the queue that it comes from."""


class DecisionRecord(TypedDict):
    """What was decided on a proposal, and by whom."""

    verdict: str
    by: str
    reason: str


class Shadow(TypedDict):
    """What another policy would have done."""

    policy: str
    action: str | None
    digest: str | None
    expected: float | None
    seconds: float


class ProblemRecord(TypedDict):
    """Something that went wrong and did not end the run."""

    where: str
    message: str


class Told(TypedDict):
    """A sentence for the planner, by whom and at which trial."""

    id: str
    text: str
    by: str
    trial: int | None


class ToldOf(Told):
    """A sentence about the actions that `match` matches: a constraint or a rule."""

    match: Json


class Queued(TypedDict):
    """An action that a person wants next."""

    id: str
    action: ActionRecord
    note: str
    by: str


class TaskFile(TypedDict):
    """A task's file as a run began with it."""

    name: str
    path: str
    digest: str
    judge: NotRequired[str]
    """Identifies the model that judges its answers, and how it is asked."""


class ForkedFrom(TypedDict):
    """The run, and the trial, after which another one goes on by itself; 0: after its bases were scored."""

    run: str
    at: int


class Offered(TypedDict):
    """How many actions of a type are legal, and why others are not: reason → how many."""

    offered: int
    refused: NotRequired[dict[str, int]]


class GainReport(TypedDict):
    """A gain in the objective and in each task."""

    objective: Gain
    tasks: dict[str, Gain]


class BaselinePlan(TypedDict):
    """What is trained for a baseline, one after the other, and for what share of the search's training time."""

    actions: list[ActionRecord]
    length: float


class BaselineRecord(TypedDict):
    """What a winner is compared with; gains are of the sealed rows."""

    model: str
    digest: str
    what: str
    """How it came to be, in words."""
    scores: Scores
    gain: GainReport
    keys: dict[str, dict[str, str]]
    """Task → split → key of the evaluation in the store."""
    winner_gain: NotRequired[Gain]
    """The winner's over it."""
    tried: NotRequired[int]
    of: NotRequired[int]
    """Settings that were tried, of how many."""
    length: NotRequired[float]
    """For what share of the search's training time it was trained."""
    examples: NotRequired[dict[str, str]]
    """Task → the dataset whose rows stand in the prompt."""
    actions: NotRequired[list[ActionRecord]]
    object: NotRequired[Json]
    """A model that is not in the run's pool, and the actions that made it."""


class SeedReport(TypedDict):
    """Gains over the base by rows and seeds: each with an interval over both."""

    objective: Gain
    tasks: dict[str, Gain]
    each: list[float]
    """The gain of the objective of each seed, the search's own first."""


class SeedReports(TypedDict):
    """By split."""

    search: SeedReport
    sealed: SeedReport


class Replicate(TypedDict):
    """A pipeline done again: `shift` was added to each of its seeds."""

    shift: int
    digest: str
    actions: list[ActionRecord]
    scores: Scores
    keys: dict[str, dict[str, str]]
    """Task → split → key of the evaluation in the store."""


class ReplicatesRecord(TypedDict):
    """What other seeds made of one pipeline."""

    made: list[Replicate]
    gain: SeedReports


class ProfileBudget(TypedDict, total=False):
    """Limits of a run, and the shares of its search's time that come after it."""

    trials: float
    wall_minutes: float | None
    step_minutes: float | None
    planner_tokens: float | None
    disk_gib: float | None
    baselines: float
    replicates: float
    promotion: float
    keep_free_mib: float


class ProfilePolicy(TypedDict, total=False):
    """Who chooses."""

    name: str
    longer: bool
    script: list[Json]


class ProfileRecord(TypedDict, total=False):
    """What readers of a run take from the profile that it began with; a profile of another version has less, or more."""

    name: str
    seed: int
    verify: str
    models: dict[str, Json]
    datasets: dict[str, Json]
    tasks: dict[str, Json]
    objective: Json
    policy: ProfilePolicy | None
    budget: ProfileBudget | None
