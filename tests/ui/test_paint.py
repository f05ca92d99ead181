"""What an event costs the screen: it paints what it changed, and lays nothing out where no size changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Region
from textual.screen import Screen
from textual.widget import Widget

from lamdatui.ui.app.consoleapp import ConsoleApp
from lamdatui.ui.hardware.pane import HardwarePane
from lamdatui.ui.lineage.pane import LineageTree, PipelinePane
from lamdatui.ui.planner.screen import PlannerScreen
from lamdatui.ui.view.link import EngineLink
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

SIZES = ((80, 24), (120, 40), (200, 60))
ORDINARY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("trial.opened", {"number": 8}),
    ("phase.changed", {"phase": "planning", "detail": "trial 8"}),
    ("planner.answered", {"number": 8, "call": "action", "answer": "A", "tokens": 840, "seconds": 2.1}),
    ("evaluation.recorded", {"model": "m6", "task": "tool_use", "split": "search", "key": "k", "score": script.score(0.9)}),
    ("memory.updated", {"text": "Merging helped.", "by": "facts"}),
    ("object.added", {"object": {"kind": "dataset", "id": "d8", "digest": "d", "format": "sft", "rows": 8, "path": "/d",
                                 "trial": None, "chars": 20}}),
    ("trial.closed", {"number": 8, "status": "failed", "model": None, "dataset": None, "scores": {}, "objective": None,
                      "gain": None, "cached": False, "seconds": {}, "error": {"class": "oom-train", "message": "no room"}}),
)  # fmt: skip


def metric(step: int) -> dict[str, Any]:
    return {"type": "metric", "step": "7/1", "metric": {"step": step, "max_steps": 120, "loss": 1.0 / step, "seconds": 60.0}}


async def show(console: Console, frame: dict[str, Any]) -> None:
    """Deliver a frame and let all that follows from it happen."""
    console.app.receive([frame])
    await console.pilot.pause()
    await console.pilot.pause()


async def tell(console: Console, kind: str, data: dict[str, Any]) -> None:
    await show(console, {"type": "event", "event": console.engine.add(kind, **data).to_json()})


@contextmanager
def layouts(console: Console) -> Iterator[list[object]]:
    """The layouts of all screens while this goes on."""
    found: list[object] = []
    for screen in console.app.screen_stack:
        screen.screen_layout_refresh_signal.subscribe(screen, found.append, immediate=True)
    yield found
    for screen in console.app.screen_stack:
        screen.screen_layout_refresh_signal.unsubscribe(screen)


@contextmanager
def paints(widget: Widget, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Region, ...]]]:
    """What a widget was asked to paint while this goes on: regions, or nothing for all of it."""
    found: list[tuple[Region, ...]] = []
    refresh = widget.refresh

    def noted(*regions: Region, **options: Any) -> Widget:
        found.append(regions)
        return refresh(*regions, **options)

    monkeypatch.setattr(widget, "refresh", noted)
    yield found
    monkeypatch.setattr(widget, "refresh", refresh)


@pytest.fixture
def running(engine: FakeEngine, run_dir: Path) -> FakeEngine:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    return engine


@pytest.mark.parametrize("size", SIZES)
async def test_ordinary_events_lay_nothing_out(running: FakeEngine, size: tuple[int, int]) -> None:
    async with opened(running, size) as console:
        # The first reading makes the pane's lines, and in a narrow terminal the first row that is unread makes its count.
        await show(console, script.hardware(2))
        await tell(console, "phase.changed", {"phase": "running", "detail": "trial 7"})
        await tell(console, "memory.updated", {"text": "Merging may help.", "by": "facts"})
        with layouts(console) as found:
            for kind, data in ORDINARY:
                await tell(console, kind, data)
                assert found == [], kind
            for number, frame in enumerate((metric(90), metric(91), script.hardware(2), metric(92))):
                await show(console, frame)
                assert found == [], number
        assert "oom-train" in console.text() or size == (80, 24)


async def test_a_score_paints_its_row_and_nothing_else_of_the_pane(
    running: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(running, (200, 60)) as console:
        tree, pane = console.app.console_screen.query_one(LineageTree), console.app.console_screen.query_one(PipelinePane)
        header = pane.query_one("#lineage-header")
        with paints(tree, monkeypatch) as rows, paints(pane, monkeypatch) as frames, paints(header, monkeypatch) as heads:
            await tell(console, *ORDINARY[3])
        # A merge has a row below each of its parents.
        assert [[region.height for region in regions] for regions in rows] == [[1], [1]]
        assert frames == [] and heads == []
        assert "0.90" in console.text()


async def test_the_same_reading_again_paints_nothing(running: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(running, (200, 60)) as console:
        await show(console, script.hardware())
        body = console.app.console_screen.query_one(HardwarePane).query_one("#hardware-body")
        with paints(body, monkeypatch) as found:
            await tell(console, *ORDINARY[1])
            await show(console, metric(90))
            assert len(found) == 1, "the loss is shown"
            await show(console, metric(90))
            assert len(found) == 1


async def test_nothing_is_painted_under_a_screen_that_covers_it(running: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(running, (200, 60)) as console:
        below = console.app.console_screen
        await console.pilot.press("f10")
        await console.until(lambda: isinstance(console.app.screen, PlannerScreen), "the screen")
        await console.pilot.pause()
        with layouts(console) as found, paints(console.app.screen, monkeypatch) as whole:
            await tell(console, "run.paused", {"by": "console"})
            await show(console, script.hardware(2))
            for kind, data in ORDINARY:
                if kind != "memory.updated":
                    await tell(console, kind, data)
            assert below not in found and whole == []
        await console.pilot.press("escape")
        await console.until(lambda: console.app.screen is below, "the console")
        await console.pilot.pause()
        text = console.text()
        assert "failed: oom-train" in text and "0.90" in text and "NVIDIA H200" in text and "paused" in text


def test_the_first_paint_waits_for_nothing_that_it_does_not_show() -> None:
    code = (
        "import sys, lamdatui.ui.app.consoleapp; "
        "later = {'lamdatui.domain.planner_report', 'statistics', 'lamdatui.ui.card.card', 'lamdatui.ui.card.controller', 'lamdatui.ui.view.reduce', "
        "'lamdatui.wire.snapshot', 'lamdatui.wire.client', 'lamdatui.ui.logs.view', 'lamdatui.ui.hardware.text', 'hashlib'}; "
        "assert not later & set(sys.modules), later & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_engine_is_asked_and_garbage_collected_only_after_the_first_paint(
    running: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    display, run, collect = ConsoleApp._display, EngineLink.run, ConsoleApp._collect_garbage

    def painted(self: ConsoleApp, screen: Screen[Any], picture: Any) -> None:
        order.append("paint")
        display(self, screen, picture)

    async def linked(self: EngineLink) -> None:
        order.append("link")
        await run(self)

    def collected(self: ConsoleApp) -> None:
        order.append("garbage")
        collect(self)

    monkeypatch.setattr(ConsoleApp, "_display", painted)
    monkeypatch.setattr(EngineLink, "run", linked)
    monkeypatch.setattr(ConsoleApp, "_collect_garbage", collected)
    async with opened(running):
        assert order[0] == "paint" and {"link", "garbage"} <= set(order)
