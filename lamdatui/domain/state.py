"""What the events say, as one object: a pure reducer that the engine, `lamdatui show` and the console share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.reducer import HANDLERS
from lamdatui.domain.schemes import SCHEME
from lamdatui.domain.trials import StepRecord, Trial

if TYPE_CHECKING:
    from lamdatui.domain.events import Event
    from lamdatui.domain.records import (
        BaselinePlan,
        BaselineRecord,
        Declaration,
        ForkedFrom,
        GainReport,
        ProblemRecord,
        Queued,
        ReplicatesRecord,
        Scores,
        TaskFile,
        Told,
        ToldOf,
    )

Json = dict[str, Any]

PARTS = frozenset(("pool", "trials", "steps", "scores", "keys", "types", "touched", "newer"))
"""Of a state: what is not in the JSON of the run itself."""


@dataclass(slots=True)
class RunState:
    """Everything the events of one run add up to."""

    name: str = ""
    profile: Json = field(default_factory=dict)
    profile_digest: str = ""
    scheme: int = SCHEME
    """The digest scheme of the run's actions (`lamdatui.domain.schemes`): the newest one when it began."""
    forked_from: ForkedFrom | None = None
    """Whose record this one begins with."""
    seed: int = 0
    mode: str = "ask"
    policy: str = ""
    max_trials: int = 0
    wall_seconds: float | None = None
    status: str = "new"
    reason: str = ""
    phase: str = ""
    phase_detail: str = ""
    device: Json = field(default_factory=dict)
    network: str = ""
    """What keeps steps from the network (`lamdatui.base.network`); "" where the engine is of an older version."""
    engine_pid: int | None = None
    epoch: int = 0
    paused: bool = False
    paused_by: str = ""
    paused_reason: str = ""
    """Why it is paused; empty for a plain pause by a person."""
    stopping: str = ""
    winner: str | None = None
    beats_base: bool | None = None
    gain: dict[str, GainReport] | None = None
    sealed_looks: list[str] = field(default_factory=list)
    """Models whose sealed scores were told as the winner's."""
    searched: Json | None = None
    """Once the search is over: how (`status`, `reason`), its limit of `trials`, the `seconds` of work until then."""
    finishing: Json | None = None
    """While a run goes on for its baselines alone, however long they take: how it had ended (the fields of `run.ended`)."""
    earlier_seconds: float = 0.0
    """Of searches that ended before the run was extended."""
    planned: dict[str, BaselinePlan] = field(default_factory=dict)
    """What a baseline is going to train, by its name."""
    baselines: dict[str, BaselineRecord] = field(default_factory=dict)
    """By name: see `lamdatui.domain.baselines`."""
    baselines_missing: dict[str, str] = field(default_factory=dict)
    """Name → why there is none."""
    replicates: dict[str, ReplicatesRecord] = field(default_factory=dict)
    """By model: its pipeline done again with other seeds (`lamdatui.domain.replicates`)."""
    replicates_missing: dict[str, str] = field(default_factory=dict)
    """Model → why there are no more of it."""
    replicate_seconds: float = 0.0
    """Seconds that steps have worked on them."""
    memory: str = ""
    memory_by: str = ""
    best: int | None = None
    """The trial with the best objective so far, the oldest of equals."""
    last_seq: int = 0
    used_seconds: float = 0.0
    engine_since: float | None = None
    """Since when the engine works, on the clock `meter`."""
    last_wall: float = 0.0
    last_mono: float = 0.0
    meter: str = "wall"
    """The clock that work is counted on: `mono` (s since boot), or `wall`, as engines of the first version did."""
    tasks: dict[str, TaskFile] = field(default_factory=dict)
    """By name. Runs of the first version have none at first."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Models whose weights were removed from the store to keep within `disk_gib`, and how many bytes: they are made again when they are needed."""
    lost: dict[str, str] = field(default_factory=dict)
    """Object id → why it is neither in the store nor can be made again."""
    pool: ObjectPool = field(default_factory=ObjectPool)
    trials: dict[int, Trial] = field(default_factory=dict)
    steps: dict[str, StepRecord] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    """By model id."""
    keys: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """model id → task → split → evaluation key in the store."""
    constraints: dict[str, ToldOf] = field(default_factory=dict)
    rules: dict[str, ToldOf] = field(default_factory=dict)
    hints: dict[str, Told] = field(default_factory=dict)
    """What people told the planner, by id."""
    queue: dict[str, Queued] = field(default_factory=dict)
    """Actions that people want next by id, the oldest first."""
    problems: list[ProblemRecord] = field(default_factory=list)
    planner_tokens: int = 0
    planner_seconds: float = 0.0
    types: dict[str, Declaration] = field(default_factory=dict)
    """The declared action types by name."""
    touched: set[tuple[str, str]] = field(default_factory=set)
    """(part, id) of what the last event changed; the parts are run, trial, step, object and score."""

    newer: str = ""
    """Why it is known that a newer version has written the run; empty for one that is understood whole."""

    def apply(self, event: Event) -> None:
        """Take one event in. Unknown kinds are ignored, so that an older console can watch a newer run."""
        self.touched = {("run", "run")}
        self.last_seq = event.seq
        handler = HANDLERS.get(event.kind)
        if handler:
            handler(self, event.data, event)
        self.last_wall, self.last_mono = event.wall, event.mono

    def trial(self, number: int) -> Trial:
        """A trial by number; marks it as changed."""
        self.touched.add(("trial", str(number)))
        return self.trials[number]

    @property
    def usable(self) -> ObjectPool:
        """The pool without what is lost."""
        if not self.lost:
            return self.pool
        return ObjectPool({name: item for name, item in self.pool.items.items() if name not in self.lost})

    @property
    def metered_until(self) -> float:
        """The last event's time on the clock that work is counted on."""
        return self.last_mono if self.meter == "mono" else self.last_wall

    @property
    def has_ended(self) -> bool:
        """Whether the run is over, well or not; one that only lost its engine is not."""
        return self.status not in ("new", "running", "interrupted")

    @property
    def counted(self) -> int:
        """Trials that count against the budget: not those that a stop cut off."""
        return sum(trial.status != "stopped" for trial in self.trials.values())

    @property
    def open_trial(self) -> Trial | None:
        """The trial that is under way, if any: one is opened when the one before it is over."""
        newest = next(reversed(self.trials.values()), None)
        return newest if newest and newest.is_open else None

    def run_json(self) -> Json:
        """The run without its trials, steps, objects and scores, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__ if name not in PARTS}


def details_of(proposal: Mapping[str, Any]) -> Json:
    """What a policy says of its choice beside the action: expectations, probabilities, whom it asked."""
    found = proposal.get("details")
    return found if isinstance(found, dict) else {}


def run_from_json(data: Mapping[str, Any]) -> RunState:
    """A state without trials, steps, objects and scores from `run_json`; unknown fields are left out."""
    state = RunState()
    for name in state.__slots__:
        if name in data and name not in PARTS:
            setattr(state, name, data[name])
    return state
