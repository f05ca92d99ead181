"""Fixtures of the console tests: a home of one's own, a run directory, a clock that stands still."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from lamdatui.ui.app.consoleapp import ConsoleApp
from tests.ui.fake_engine import FakeEngine


class Console:
    """A console under test with its engine and the clock of its grace period."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.now = 100.0
        self.app = ConsoleApp(engine.run_dir, clock=lambda: self.now)
        self.pilot: Pilot[int]

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        """Wait until something holds; fails after a minute, which a busy machine may need."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, f"{what} never came true"
            await self.pilot.pause(0.02)

    async def settle(self) -> None:
        """Let frames and keys that are under way reach the screen."""
        await self.pilot.pause(0.25)
        await self.until(lambda: self.app.keys_are_through, "the end of the keys")
        await self.pilot.pause()

    async def answer(self) -> None:
        """Focus the card and let the grace period pass."""
        await self.pilot.press("f2")
        await self.until(lambda: self.card.has_focus_within, "focus of the card")
        self.now += 1

    @property
    def card(self):
        """The approval card."""
        from lamdatui.ui.card.card import ApprovalCard

        return self.app.console_screen.query_one(ApprovalCard)

    def text(self) -> str:
        """What stands on the screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every place of the program below a directory of this test; times in UTC."""
    monkeypatch.setenv("LAMDATUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "UTC")
    for name in ("NO_COLOR", "TEXTUAL_ANIMATIONS"):
        monkeypatch.delenv(name, raising=False)
    time.tzset()
    yield tmp_path / "home"
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run directory."""
    path = tmp_path / "lab-01"
    path.mkdir()
    return path


@pytest.fixture
def engine(run_dir: Path) -> FakeEngine:
    """An engine that has not started to listen."""
    return FakeEngine(run_dir)


@asynccontextmanager
async def opened(engine: FakeEngine, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Console]:
    """Start the engine, open a console on it and wait until it is live."""
    await engine.start()
    console = Console(engine)
    try:
        async with console.app.run_test(size=size, notifications=True) as pilot:
            console.pilot = pilot
            await console.until(lambda: console.app.view.connection == "live", "the connection")
            await console.settle()
            yield console
    finally:
        await engine.stop()
