"""What the console knows, as one object and one reducer: frames in, names of changed parts out. No textual here.

The run's truth is `lamdatui.state.RunState`; what is added is ephemeral: hardware, the running step's metrics, the
activity rows, unread counts and the connection.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from lamdatui.events import Event, event_from_json
from lamdatui.snapshot import Restored
from lamdatui.state import RunState, StepRecord, Trial
from lamdatui.ui.activity import Row, rows
from lamdatui.ui.history import History
from lamdatui.ui.sanitize import Clean, clean_json, one_line
from lamdatui.ui.shapes import check, check_event, check_hardware, check_head, check_link, check_trials
from lamdatui.ui.training import Progress

Json = dict[str, Any]
Part = Literal["status", "pipeline", "activity", "logs", "hardware", "card", "planner"]
Connection = Literal["connecting", "catching-up", "live", "lost"]

ALL_PARTS: frozenset[Part] = frozenset(("status", "pipeline", "activity", "logs", "hardware", "card", "planner"))
ACTIVITY_ROWS = 2000
EXCHANGES = 20
NEWEST_STEPS = 16


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
    activity: deque[Row] = field(default_factory=lambda: deque(maxlen=ACTIVITY_ROWS))
    activity_total: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """Steps that failed while this console watched, until the screen has said so."""
    touched: set[tuple[str, str]] = field(default_factory=set)
    """(projection table, id) of what events changed since the pipeline pane looked."""
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
        check("trial.proposed", {"proposal": found["proposal"]})
        check("shadows.recorded", {"shadows": found["shadows"]})
        trial = self.run.trials[number]
        trial.proposal, trial.shadows = found["proposal"], found["shadows"]
        self.brief.discard(number)

    def read(self, pane: str) -> None:
        """The pane is on the screen: nothing in it is unread."""
        self.unread.pop(pane, None)

    def backfill(self, step: str, metrics: Iterable[Json]) -> None:
        """Metrics that were written before this console attached."""
        if self.progress is None or self.progress.step != step:
            self.progress = Progress(step)
        for metric in metrics:
            _take_metric(self.progress, metric)


def reduce(view: ViewState, frame: Json) -> frozenset[Part]:
    """Take one frame in; the parts of the screen that it changed. Never raises: frames come from another process."""
    if not isinstance(frame, Clean):
        frame = clean_json(frame)
    try:
        handler = _FRAMES.get(frame.get("type", ""))
        return handler(view, frame) if handler else frozenset()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        text = f"unreadable {frame.get('type')} frame: {type(error).__name__} {error}"
        _add(view, [Row(0.0, "!", "problem", text, "bad", detail=text)])
        return frozenset(("activity",))


def _hello(view: ViewState, frame: Json) -> frozenset[Part]:
    view.connection, view.connection_detail, view.restored = "catching-up", "", None
    if frame["seq"] < view.run.last_seq:
        # A journal that is shorter than what was seen is another run in the same place.
        view.progress = None
        _start_over(view, RunState(), set())
    return ALL_PARTS


def _start_over(view: ViewState, run: RunState, brief: set[int]) -> None:
    view.run, view.brief, view.restored = run, brief, None
    view.activity.clear()
    view.exchanges.clear()


def _snapshot(view: ViewState, frame: Json) -> frozenset[Part]:
    # A part that can't be read ends the snapshot: nothing is made of what came before it and comes after it.
    found, view.restored = view.restored, None
    if frame["part"] == "run":
        check_head(frame)
        view.restored = Restored(frame)
    elif found and frame["part"] == "trials":
        check_trials(frame["trials"], found.names)
        found.add(frame["trials"])
        view.restored = found
    elif found and frame["part"] == "end":
        _start_over(view, found.end(), found.brief)
    return frozenset()


def _past(view: ViewState, frame: Json) -> frozenset[Part]:
    """An event that the snapshot counts already: only what it says is of interest."""
    check_event(frame["event"])
    event = event_from_json(frame["event"])
    _add(view, rows(event, view.run))
    if event.kind == "planner.answered":
        view.exchanges.append(_exchange(event.data))
    return frozenset()


def _live(view: ViewState, _: Json) -> frozenset[Part]:
    view.connection, view.connection_detail = "live", ""
    view.unread.clear()
    if view.restored is not None:
        view.restored = None
        raise ValueError("the snapshot before it did not end")
    return ALL_PARTS


def _link(view: ViewState, frame: Json) -> frozenset[Part]:
    # Also this comes from a socket, if somebody writes it there.
    check_link(frame)
    view.connection, view.connection_detail = frame["status"], frame.get("detail", "")
    if view.connection == "lost":
        view.hardware = view.restored = None
    return frozenset(("status", "card", "hardware", "pipeline"))


def _hardware(view: ViewState, frame: Json) -> frozenset[Part]:
    check_hardware(frame)
    view.history.take(frame)
    view.hardware = frame
    return frozenset(("hardware", "status"))


def _metric(view: ViewState, frame: Json) -> frozenset[Part]:
    if view.progress is None or view.progress.step != frame["step"]:
        view.progress = Progress(frame["step"])
    _take_metric(view.progress, frame["metric"])
    return frozenset(("hardware", "status"))


def _take_metric(progress: Progress, metric: Any) -> None:
    if isinstance(metric, dict):
        progress.take(metric)


def _event(view: ViewState, frame: Json) -> frozenset[Part]:
    check_event(frame["event"])
    event: Event = event_from_json(frame["event"])
    if event.seq <= view.run.last_seq:
        return frozenset()
    try:
        fresh = rows(event, view.run)
    finally:
        view.run.apply(event)
        view.touched |= view.run.touched
    if event.kind == "step.ended" and view.connection == "live" and event.data["status"] == "failed":
        view.failures.append(event.data["step"])
    if event.kind == "planner.answered":
        view.exchanges.append(_exchange(event.data))
    changed: set[Part] = set(_PARTS.get(event.kind.split(".")[0], ("status",)))
    if fresh:
        _add(view, fresh)
        changed.add("activity")
    return frozenset(changed)


def _exchange(data: Json) -> Exchange:
    call, answer = one_line(data["call"]), one_line(data["answer"])
    return Exchange(int(data["number"]), call, answer, int(data["tokens"]), float(data["seconds"]))


def _add(view: ViewState, fresh: list[Row]) -> None:
    view.activity.extend(fresh)
    view.activity_total += len(fresh)
    view.unread["activity"] = view.unread.get("activity", 0) + len(fresh)


_FRAMES = {
    "hello": _hello,
    "live": _live,
    "snapshot": _snapshot,
    "past": _past,
    "link": _link,
    "event": _event,
    "hardware": _hardware,
    "metric": _metric,
}

_PARTS: dict[str, tuple[Part, ...]] = {
    "run": ("status", "pipeline", "card", "planner"),
    "object": ("pipeline",),
    "trial": ("status", "pipeline", "card", "planner"),
    "step": ("status", "pipeline", "logs", "hardware"),
    "evaluation": ("pipeline",),
    "action": ("status", "pipeline", "card"),
    "budget": ("status",),
    "constraint": ("card", "planner"),
    "rule": ("card", "planner"),
    "hint": ("planner",),
    "memory": ("planner",),
    "shadows": ("planner",),
    "planner": ("status", "planner"),
    "policy": ("status", "planner"),
}
