"""What the console looks like. A new picture needs a person's eye: `pytest tests/ui --snapshot-update`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from lamdatui.ui.app.consoleapp import ConsoleApp
from tests.ui import script
from tests.ui.fake_engine import FakeEngine, in_thread

SIZES = [(80, 24), (120, 40), (200, 60)]


class Clock:
    """Time of the grace period: stands until it is told to go on."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


STILL = 6
"""Equal pictures in a row, a fifth of a second apart, after which nothing more is on its way (logs are polled slower)."""


async def settle(app: ConsoleApp, pilot: Pilot) -> None:
    """Wait until the screen does not change any more, however slow the machine is."""
    end = time.monotonic() + 30
    equal, last = 0, ""
    while equal < STILL:
        assert time.monotonic() < end, "the screen does not come to rest"
        await pilot.pause(0.2)
        for field in app.screen.query("Input, TextArea"):
            assert isinstance(field, Input | TextArea)
            field.cursor_blink = False
        shown = "\n".join(str(line) for line in app.screen._compositor.render_strips())
        equal, last = (equal + 1 if shown == last else 0), shown


def picture(engine: FakeEngine, clock: Clock, keys: list[str]) -> tuple[ConsoleApp, Callable[[Pilot], object]]:
    """An app and what is to happen before its picture is taken."""
    app = ConsoleApp(engine.run_dir, clock=clock)

    async def prepare(pilot: Pilot) -> None:
        end = time.monotonic() + 10
        while app.view.connection != "live" or len(app.view.activity) == 0 or app.view.hardware is None:
            assert time.monotonic() < end
            await pilot.pause(0.02)
        await settle(app, pilot)
        for key in keys:
            await pilot.press(key)
            await settle(app, pilot)
            clock.now += 1

    return app, prepare


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_running(snap_compare, engine: FakeEngine, run_dir: Path, size: tuple[int, int]) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    engine.extra.append(script.hardware(2))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), [])
        assert snap_compare(app, terminal_size=size, run_before=prepare)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_waiting(snap_compare, engine: FakeEngine, size: tuple[int, int]) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    engine.extra.append(script.hardware(0))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), [])
        assert snap_compare(app, terminal_size=size, run_before=prepare)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_over(snap_compare, engine: FakeEngine, size: tuple[int, int]) -> None:
    script.add_history(engine)
    script.add_end(engine)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), [])
        assert snap_compare(app, terminal_size=size, run_before=prepare)


@pytest.mark.parametrize("keys", [["f2"], ["f2", "A"], ["f2", "e"]], ids=["answering", "rule", "edit"])
def test_card(snap_compare, engine: FakeEngine, keys: list[str]) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), keys)
        assert snap_compare(app, terminal_size=(80, 24), run_before=prepare)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_planner(snap_compare, engine: FakeEngine, size: tuple[int, int]) -> None:
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), ["P", "tab"])
        assert snap_compare(app, terminal_size=size, run_before=prepare)


@pytest.mark.parametrize("key", ["h", "e"], ids=["hint", "memory"])
def test_planner_dialog(snap_compare, engine: FakeEngine, key: str) -> None:
    script.add_choices(engine)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), ["P", key])
        assert snap_compare(app, terminal_size=(80, 24), run_before=prepare)


@pytest.mark.parametrize("theme", ["lamdatui-light", "ansi-dark"])
def test_themes(snap_compare, engine: FakeEngine, theme: str) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), [])
        app.theme = theme
        assert snap_compare(app, terminal_size=(120, 40), run_before=prepare)


def test_no_color(snap_compare, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    script.add_history(engine)
    script.add_waiting(engine)
    engine.extra.append(script.hardware(1))
    with in_thread(engine):
        app, prepare = picture(engine, Clock(), [])
        assert snap_compare(app, terminal_size=(120, 40), run_before=prepare)
