"""The console's reducer: frames of the engine in, names of changed parts of the screen out. No textual here.

Apart from the state, because the first paint does without it.
"""

from __future__ import annotations

from typing import Any

from lamdatui.base.text import clean_json, one_line
from lamdatui.domain.events import Event, event_from_json
from lamdatui.domain.state import RunState
from lamdatui.ui.view.activityrows import ActivityRow, rows
from lamdatui.ui.view.state import ALL_PARTS, Exchange, Part, ViewState
from lamdatui.wire.protocol import Clean
from lamdatui.wire.snapshot import Restored
from lamdatui.wire.validation import check_event, check_hardware, check_head, check_link, check_trials

Json = dict[str, Any]


def reduce(view: ViewState, frame: Json) -> frozenset[Part]:
    """Take one frame in; the parts of the screen that it changed. Never raises: frames come from another process."""
    if not isinstance(frame, Clean):
        frame = clean_json(frame)
    try:
        handler = _FRAMES.get(frame.get("type", ""))
        return handler(view, frame) if handler else frozenset()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        text = f"unreadable {frame.get('type')} frame: {type(error).__name__} {error}"
        _add(view, [ActivityRow(0.0, "!", "problem", text, "bad", detail=text)])
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
    view.take_metrics(frame["step"], [frame["metric"]])
    return frozenset(("hardware", "status"))


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


def _add(view: ViewState, fresh: list[ActivityRow]) -> None:
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
