"""Frames whose values have other types than they should: each is told as unreadable, and the console goes on."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.domain.events import event_from_json
from lamdatui.domain.state import RunState
from lamdatui.ui.lineage.forest import Forest
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from lamdatui.wire.snapshot import Snapshots
from lamdatui.wire.validation import check, check_event, check_head, check_trials
from tests.hostile import Disguise, strings
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine
from tests.ui.script import hardware
from tests.ui.test_hostile import journal, late_events

Json = dict[str, Any]
WRONG: tuple[Any, ...] = (None, True, -7, 1e300, "text", [], [7], {}, {"x": 7})


def places(value: Any, whole: bool = False) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value; of a list the first, or with `whole` all of it."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from places(value[key], whole)
    elif isinstance(value, list):
        for key in range(len(value) if whole else min(1, len(value))):
            yield value, key
            yield from places(value[key], whole)


def mutants(frame: Json) -> Iterator[Json]:
    """The frame with each of its values replaced by each of another type."""
    count = len(list(places(frame)))
    for place in range(count):
        for wrong in WRONG:
            changed = copy.deepcopy(frame)
            container, key = list(places(changed))[place]
            if type(container[key]) is not type(wrong):
                container[key] = wrong
                yield changed


def snapshot(run_dir: Path) -> list[Json]:
    """The frames that a console of a long run gets before it is live; of the trials the newest 20 are whole, the others brief."""
    state, source = RunState(), Snapshots()
    events = [event_from_json(event) for event in journal(run_dir)]
    for event in events:
        state.apply(event)
    lines = source.write(source.take(state, {("trial", str(number)) for number in state.trials}))
    past = [{"type": "past", "event": event.to_json()} for event in events[-30:]]
    hello = {"type": "hello", "protocol": 2, "run": "lab", "pid": 1, "seq": state.last_seq}
    # As they come from the socket: nothing in them is also somewhere else.
    return [hello, *map(json.loads, lines), *json.loads(json.dumps(past)), {"type": "live"}]


def changed_snapshots(frames: list[Json], dice: random.Random, count: int) -> Iterator[list[Json]]:
    """Some of the snapshots in which one value is another one, or is missing."""
    for _ in range(count):
        changed = copy.deepcopy(frames)
        container, key = dice.choice(list(places(dice.choice(changed[1:-1]), whole=True)))
        if dice.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(dice.choice(WRONG))
        yield changed


def frames(run_dir: Path) -> list[Json]:
    """One event of each kind, as they should be."""
    told = {event["kind"]: event for event in journal(run_dir)}
    for event in late_events(Disguise(strings(10**9), everything=False), 1):
        told.setdefault(event["kind"], event)
    return list(told.values())


def test_what_the_engine_writes_has_the_right_shapes(run_dir: Path) -> None:
    for event in journal(run_dir):
        check(event["kind"], event["data"])


def test_a_snapshot_of_the_engine_has_the_right_shapes(run_dir: Path) -> None:
    found = snapshot(run_dir)
    heads = [frame for frame in found if frame.get("part") == "run"]
    parts = [frame for frame in found if frame.get("part") == "trials"]
    check_head(heads[0])
    for part in parts:
        check_trials(part["trials"], heads[0]["fields"])
    for frame in found:
        if frame["type"] == "past":
            check_event(frame["event"])
    assert len(heads) == 1 and sum(len(part["trials"]) for part in parts) > 20


@pytest.mark.parametrize("broken", [None, [], [0.1], ["a", "b"], {"mean": 1}])
def test_a_score_without_a_whole_interval_is_refused(broken: Any) -> None:
    score = {"mean": 0.5, "n": 8, "interval": broken}
    with pytest.raises(TypeError, match=r"interval|Array"):
        check("evaluation.recorded", {"model": "m1", "task": "t", "split": "search", "key": "k", "score": score})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The frames of a snapshot, to be changed in ever new copies."""
    return json.dumps(snapshot(tmp_path_factory.mktemp("run")))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_snapshot_is_taken_or_told_as_one_problem(encoded: str, data: st.DataObject) -> None:
    frames = json.loads(encoded)
    whole = sum(len(frame["trials"]) for frame in frames if frame.get("part") == "trials")
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(frames[data.draw(st.integers(1, len(frames) - 2))], whole=True))
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        match data.draw(st.sampled_from(["replace", "delete", "insert"])):
            case "replace":
                container[key] = data.draw(JSON)
            case "delete":
                container.pop(key)
            case "insert" if isinstance(container, list):
                container.insert(key, data.draw(JSON))
            case _:
                container["more"] = data.draw(JSON)
    view = ViewState()
    for frame in frames:
        before = view.activity_total
        reduce(view, frame)
        added = view.activity_total - before
        told = [row for row in list(view.activity)[len(view.activity) - added :] if "unreadable" in row.text]
        assert len(told) <= 1
    assert view.connection == "live"
    # Either all of it or nothing is in the state, and what is in it can be laid out.
    assert view.restored is None
    assert not view.run.trials or abs(len(view.run.trials) - whole) <= 3
    pipeline = Forest()
    pipeline.take(view)
    assert len(pipeline.rows) >= len(view.run.trials)


@pytest.mark.parametrize("count", [120, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
async def test_a_snapshot_with_other_values_ends_nothing(engine: FakeEngine, run_dir: Path, count: int) -> None:
    sane, dice = snapshot(run_dir), random.Random(count)
    async with opened(engine, (180, 50)) as console:
        refused = 0
        for frames in changed_snapshots(sane, dice, count):
            console.app.receive([{"type": "hello", "protocol": 2, "run": "lab", "pid": 1, "seq": 0}])
            console.app.receive(frames)
            await console.pilot.pause()
            assert console.app.is_running, "the console ended"
            refused += any("unreadable" in row.text for row in console.app.view.activity)
        assert refused > count / 4
        console.app.receive([{"type": "hello", "protocol": 2, "run": "lab", "pid": 1, "seq": 0}, *sane])
        await console.until(lambda: 52 in console.app.view.run.trials, "the right snapshot")
        await console.settle()
        assert "can't show" not in console.text()


@pytest.mark.parametrize("screen", ["main", "planner"])
async def test_values_of_other_types_end_nothing(engine: FakeEngine, run_dir: Path, screen: str) -> None:
    sane = journal(run_dir)
    seq = 0

    def send(event: Json) -> None:
        nonlocal seq
        seq += 1
        engine.send({"type": "event", "event": {**event, "seq": seq}})

    async with opened(engine) as console:
        for event in sane:
            send(event)
        await console.until(lambda: console.app.view.run.last_seq == seq)
        if screen != "main":
            await console.pilot.press("f10")
        before = console.app.view.activity_total
        for event in frames(run_dir):
            for data in mutants(event["data"]):
                send({**event, "data": data})
            await console.pilot.pause(0.12)
            assert console.app.is_running, event["kind"]
        for frame in mutants({name: value for name, value in hardware(2).items() if name != "type"}):
            engine.send({"type": "hardware", **frame})
        metric = {"step": 1, "max_steps": 9, "loss": 0.5, "phase": "train", "total": 3, "done": 1}
        for frame in mutants({"step": "7/1", "metric": metric}):
            engine.send({"type": "metric", **frame})
        await console.settle()
        for event in sane[-4:]:
            send(event)
        await console.until(lambda: console.app.view.run.last_seq == seq)
        assert console.app.is_running
        assert console.app.view.activity_total > before + 100
        assert any(row.text.startswith("unreadable event frame") for row in console.app.view.activity)
