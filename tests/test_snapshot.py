"""A snapshot and the events after it give what all events give, but for what it says it leaves out."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.domain.events import Event
from lamdatui.domain.state import RunState
from lamdatui.wire.snapshot import LEFT_OUT, Restored, Snapshots
from tests.ui import script
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]


def recorded(folder: Path) -> list[Event]:
    """All that a run can hold: trials of every status, choices with rivals and shadows, a queue, an end and what comes after it."""
    engine = FakeEngine(folder)
    script.add_choices(engine, wins=3, losses=3)
    error = {"class": "oom-train", "message": "out of memory"}
    script.add_trial(engine, 20, script.sft("m2"), "a larger rank", "failed", error=error)
    script.add_trial(engine, 21, script.sft(), "more passes", "vetoed")
    ties = script.action("merge_ties", {"models": ["m2", "m5"]}, {"density": 0.5, "weight": 1.0})
    script.add_trial(engine, 22, ties, "both are good", "done", script.scores(0.4, 0.3), objective=0.4, cached=True)
    for number in range(30, 50):
        script.add_trial(engine, number, script.sft("m2", rank=number), "again", "done", script.scores(0.4, 0.3),
                         objective=0.35 + number / 1000, gain=script.gain(0.1))  # fmt: skip
        for task, score in script.scores(0.4, 0.3).items():
            engine.add("evaluation.recorded", model=f"m{number}", task=task, split="search", key="k", score=score["search"])
    engine.add("action.queued", id="q1", action=script.sft("m30"), note="try this", by="person")
    engine.add("problem.noted", where="planner", message="slow")
    engine.add("run.ended", status="done", reason="12 trials", winner="m49", beats_base=True, gain=None)
    # The sealed split comes after the winner's trial is over.
    engine.add("evaluation.recorded", model="m49", task="tool_use", split="sealed", key="k", score=script.score(0.5))
    engine.add("step.intended", step="sealed-m49/1", purpose="sealed", trial=None, digest="d")
    engine.add("run.resumed", max_trials=90)
    engine.add("trial.opened", number=50)
    engine.add("trial.proposed", number=50, proposal=script.proposal(50, script.sft("m30"), "more", queued="q1"))
    return engine.events


def declared_once(events: list[Event]) -> list[Event]:
    """The same run as newer engines record it: the declared types once, with the engine's start."""
    events, types = deepcopy(events), dict[str, Json]()
    for event in events:
        if event.kind == "trial.proposed":
            proposal = event.data["proposal"]
            types[proposal["action"]["type"]] = proposal.pop("declaration")
    next(event for event in events if event.kind == "engine.started").data["types"] = types
    return events


@pytest.fixture(scope="module", params=["in each proposal", "once"])
def events(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    found = recorded(tmp_path_factory.mktemp("run"))
    return declared_once(found) if request.param == "once" else found


def state_of(events: list[Event]) -> RunState:
    state = RunState()
    for event in events:
        state.apply(deepcopy(event))
    return state


def restored(lines: list[bytes]) -> Restored:
    found: Restored | None = None
    for line in lines:
        frame = json.loads(line)
        if frame["part"] == "run":
            found = Restored(frame)
        elif found and frame["part"] == "trials":
            found.add(frame["trials"])
    assert found is not None and json.loads(lines[-1])["part"] == "end"
    found.end()
    return found


def shown(state: RunState, brief: set[int]) -> Json:
    """A state as plain data, with its orders, without what a snapshot leaves out."""
    told = {
        name: getattr(state, name) for name in RunState.__slots__ if name not in ("trials", "steps", "pool", "keys", "touched")
    }
    told["pool"] = [asdict(item) for item in state.pool.items.values()]
    told["steps"] = [asdict(step) for step in state.steps.values()]
    told["trials"] = []
    for trial in state.trials.values():
        found = asdict(trial)
        if trial.number in brief:
            found["shadows"] = []
            if proposal := found["proposal"]:
                for name in LEFT_OUT:
                    proposal.pop(name, None)
                (proposal.get("details") or {}).pop("rival", None)
        told["trials"].append(found)
    return told


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_snapshot_and_newer_events_give_what_all_events_give(events: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    source = Snapshots()
    found = restored(list(source.write(source.take(state_of(events[:cut]), set()))))
    for event in events[cut:]:
        found.state.apply(deepcopy(event))
    assert shown(found.state, found.brief) == shown(state_of(events), found.brief)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_remembered_trials_are_written_again_when_they_changed(events: list[Event], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), min_size=2, max_size=5)))
    source, state, touched, done = Snapshots(), RunState(), set[tuple[str, str]](), 0
    for cut in cuts:
        for event in events[done:cut]:
            state.apply(deepcopy(event))
            touched |= state.touched
        done = max(done, cut)
        taken = source.take(state, touched)
        touched = set()
        found = restored(list(source.write(taken)))
        assert shown(found.state, found.brief) == shown(state, found.brief)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_happens_between_taking_and_writing_changes_nothing(events: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    source, state = Snapshots(), state_of(events[:cut])
    taken = source.take(state, set())
    for event in events[cut:]:
        state.apply(deepcopy(event))
    found = restored(list(source.write(taken)))
    assert shown(found.state, found.brief) == shown(state_of(events[:cut]), found.brief)


def test_the_newest_trials_are_whole_and_older_ones_brief(events: list[Event]) -> None:
    source = Snapshots()
    found = restored(list(source.write(source.take(state_of(events), set()))))
    assert 50 not in found.brief and found.state.trials[50].proposal["alternatives"]
    assert 49 not in found.brief and found.state.trials[49].proposal["declaration"]
    assert 1 in found.brief and "alternatives" not in found.state.trials[1].proposal
    # What costs nothing is not left out.
    assert ("declaration" in found.state.trials[1].proposal) == bool(found.state.types)


def test_the_declared_types_are_sent_once(events: list[Event], tmp_path: Path) -> None:
    state = state_of(events)
    if not state.types:
        return
    lines = list(Snapshots().write(Snapshots().take(state, set())))
    declaration = json.dumps(next(iter(state.types.values())), separators=(",", ":"))
    assert sum(line.decode().count(declaration) for line in lines) == 1
    older = restored(list(Snapshots().write(Snapshots().take(state_of(recorded(tmp_path)), set()))))
    newer = restored(lines)
    for number, trial in newer.state.trials.items():
        whole = older.state.trials[number].proposal if number not in older.brief else None
        assert whole is None or trial.proposal == whole


def test_fields_of_another_version_are_skipped(events: list[Event]) -> None:
    source = Snapshots()
    frames = [json.loads(line) for line in source.write(source.take(state_of(events), set()))]
    frames[0]["fields"]["trial"].append("mood")
    frames[0]["run"]["weather"] = "fine"
    for row in frames[1]["trials"]:
        row[0].append("glad")
    found = restored([json.dumps(frame).encode() for frame in frames])
    assert found.state.trials[1] == restored(list(source.write(source.take(state_of(events), set())))).state.trials[1]
