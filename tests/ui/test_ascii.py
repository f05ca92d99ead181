"""The ASCII set: same width, every character, every screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lamdatui.ui.app.ascii import ascii_of, wanted
from lamdatui.ui.view.format import MARKS
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine


@given(st.text())
def test_any_text_becomes_ascii_of_the_same_width(text: str) -> None:
    found = ascii_of(text)
    assert found.isascii()
    assert len(found) == sum(cell_len(character) if not character.isascii() else 1 for character in text)


def test_the_states_of_a_run_stay_distinct() -> None:
    """Where two states share a glyph in ASCII their words differ."""
    shown = {(ascii_of(mark.glyph), mark.word) for mark in MARKS.values()}
    assert len({word for _, word in shown}) == len(shown)


def test_levels_of_a_chart_stay_distinct() -> None:
    assert len(set(ascii_of(" ▁▂▃▄▅▆▇█"))) == 9


@pytest.mark.parametrize(
    ("environment", "setting", "expected"),
    [
        ({}, None, False),
        ({"LC_ALL": "C"}, None, True),
        ({"LANG": "de_DE.ISO-8859-1"}, None, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, None, False),
        ({"LANG": "en_US.utf8"}, None, False),
        ({"LC_ALL": "C"}, False, False),
        ({}, True, True),
        ({"LAMDATUI_ASCII": "1"}, False, True),
        ({"LAMDATUI_ASCII": "0", "LC_ALL": "C"}, True, False),
    ],
)
def test_who_decides(
    environment: dict[str, str], setting: bool | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "LAMDATUI_ASCII"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wanted(setting) is expected


@pytest.fixture
async def console(engine: FakeEngine, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Console]:
    """A console in ASCII on a run with every kind of thing in it, a log that is not ASCII among them."""
    monkeypatch.setenv("LAMDATUI_ASCII", "1")
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    engine.extra.append(script.hardware(2))
    (run_dir / "engine.log").write_text("größer ▶ 日本語 ✓\n")
    async with opened(engine) as console:
        yield console


SCREENS = {
    "console": [],
    "card": ["f2"],
    "rule": ["f2", "A"],
    "veto": ["f2", "d"],
    "edit": ["f2", "e"],
    "engine log": ["l"],
    "zoom": ["z"],
    "details": ["f3", "down", "enter"],
    "planner": ["P"],
    "hint": ["P", "h"],
    "memory": ["P", "e"],
    "policy": ["P", "p"],
    "help": ["f1"],
    "palette": ["ctrl+p"],
    "quit": ["ctrl+q"],
}


@pytest.mark.parametrize("keys", SCREENS.values(), ids=SCREENS.keys())
async def test_a_screen_has_only_ascii_in_it(console: Console, keys: list[str]) -> None:
    await console.pilot.resize_terminal(80, 24)
    for key in keys:
        await console.pilot.press(key)
        console.now += 1
        await console.pilot.pause()
    for size in ((80, 24), (200, 60)):
        await console.pilot.resize_terminal(*size)
        await console.settle()
        text = console.text()
        assert text.strip() and len(text.splitlines()) == size[1]
        assert {character for character in text if not character.isascii()} == set(), size
