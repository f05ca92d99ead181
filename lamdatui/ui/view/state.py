"""What the console knows, as one object; `lamdatui.ui.view.reduce` takes frames into it. No textual here.

The run's truth is `lamdatui.domain.state.RunState`; what is added is ephemeral: hardware, the running step's metrics, the
activity rows, unread counts and the connection.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lamdatui.domain.state import RunState
from lamdatui.domain.trials import StepRecord, Trial
from lamdatui.ui.view.history import History
from lamdatui.ui.view.training import Progress

if TYPE_CHECKING:
    from lamdatui.ui.view.activityrows import ActivityRow
    from lamdatui.wire.snapshot import Restored

Json = dict[str, Any]
Part = Literal["status", "pipeline", "activity", "logs", "hardware", "card", "planner"]
Connection = Literal["connecting", "catching-up", "live", "lost"]

ALL_PARTS: frozenset[Part] = frozenset(("status", "pipeline", "activity", "logs", "hardware", "card", "planner"))
ACTIVITY_ROWS = 2000
EXCHANGES = 20
NEWEST_STEPS = 16
ENDED = "the engine ended: "
"""How the detail of a lost connection begins when the engine has left its reason."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to the planner and its answer, each on one line."""

    number: int
    call: str
    answer: str
    tokens: int
    seconds: float


@dataclass(slots=True)
class ViewState:
    """Everything the console shows."""

    run: RunState = field(default_factory=RunState)
    connection: Connection = "connecting"
    connection_detail: str = ""
    hardware: Json | None = None
    history: History = field(default_factory=History)
    progress: Progress | None = None
    activity: deque[ActivityRow] = field(default_factory=lambda: deque(maxlen=ACTIVITY_ROWS))
    activity_total: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """Steps that failed while this console watched, until the screen has said so."""
    touched: set[tuple[str, str]] = field(default_factory=set)
    """(part, id) of what events changed since the pipeline pane looked."""
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=EXCHANGES))
    """The newest questions to the planner; the journal and planner.log have all of them."""
    brief: set[int] = field(default_factory=set)
    """Trials that came with a snapshot, without their heavy parts: the engine gives those when they are looked at."""
    restored: Restored | None = None
    """The part of a snapshot that is there already."""

    @property
    def waiting(self) -> Trial | None:
        """The trial that waits for a person, while an engine is there to take the answer."""
        if self.connection != "live" or self.is_over:
            return None
        trial = self.run.open_trial
        return trial if trial and trial.status == "awaiting" and trial.proposal and not trial.decision else None

    @property
    def running_step(self) -> StepRecord | None:
        """The newest step that has not ended; only the newest ones are looked at."""
        newest = itertools.islice(reversed(self.run.steps.values()), NEWEST_STEPS)
        return next((step for step in newest if step.status in ("intended", "running")), None)

    @property
    def shown_step(self) -> StepRecord | None:
        """The running step, or the last one."""
        return self.running_step or next(reversed(self.run.steps.values()), None)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended: nothing is left to leave running."""
        return self.run.phase == "ended" and self.run.status != "running"

    def best_trial(self) -> Trial | None:
        """The winner once there is one; before, the trial with the best objective."""
        if self.run.winner:
            made = self.run.pool.items.get(self.run.winner)
            return self.run.trials.get(made.trial) if made and made.trial is not None else None
        return self.run.trials.get(self.run.best) if self.run.best is not None else None

    def complete(self, number: int, found: Json) -> None:
        """The whole of a brief trial, as the command `trial` gave it. Raises KeyError or TypeError where that can't be shown."""
        from lamdatui.wire.validation import check

        check("trial.proposed", {"number": number, "proposal": found["proposal"]})
        check("shadows.recorded", {"number": number, "shadows": found["shadows"]})
        trial = self.run.trials[number]
        trial.proposal, trial.shadows = found["proposal"], found["shadows"]
        self.brief.discard(number)

    def read(self, pane: str) -> None:
        """The pane is on the screen: nothing in it is unread."""
        self.unread.pop(pane, None)

    def take_metrics(self, step: str, metrics: Iterable[Any]) -> None:
        """Lines of a step's metrics.jsonl, those that were written before this console attached or one that just came."""
        if self.progress is None or self.progress.step != step:
            self.progress = Progress(step)
        for metric in metrics:
            if isinstance(metric, dict):
                self.progress.take(metric)
