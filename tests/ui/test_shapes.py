"""Frames whose values have other types than they should: each is told as unreadable, and the console goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lamdatui.ui.shapes import check
from tests.hostile import Disguise, strings
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine
from tests.ui.script import hardware
from tests.ui.test_hostile import journal, late_events

Json = dict[str, Any]
WRONG: tuple[Any, ...] = (None, True, -7, 1e300, "text", [], [7], {}, {"x": 7})


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value; of a list the first."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from places(value[key])
    elif isinstance(value, list) and value:
        yield value, 0
        yield from places(value[0])


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


def frames(run_dir: Path) -> list[Json]:
    """One event of each kind, as they should be."""
    told = {event["kind"]: event for event in journal(run_dir)}
    for event in late_events(Disguise(strings(10**9), everything=False), 1):
        told.setdefault(event["kind"], event)
    return list(told.values())


def test_what_the_engine_writes_has_the_right_shapes(run_dir: Path) -> None:
    for event in journal(run_dir):
        check(event["kind"], event["data"])


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
