"""The footer: whole entries only, the most important ones at every width, also in a window without the focus."""

from __future__ import annotations

import pytest
from textual.binding import Binding
from textual.events import AppBlur
from textual.widgets._footer import FooterKey

from lamdatui.ui.kit.footer import KeyFooter, fitting
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine


@pytest.fixture
def waiting(engine: FakeEngine) -> FakeEngine:
    """A run with a history, and a proposal that waits."""
    script.add_history(engine)
    script.add_waiting(engine)
    return engine


def entries(console: Console) -> list[str]:
    return [key.description for key in console.app.screen.query_one(KeyFooter).query(FooterKey)]


def cut(console: Console) -> list[str]:
    """Entries that are not on the screen as a whole."""
    width = console.app.size.width
    keys = console.app.screen.query_one(KeyFooter).query(FooterKey)
    return [
        key.description
        for key in keys
        if key.region.right > width or key.region.x < 0 or key.size.width < key.content_size.width
    ]


@pytest.mark.parametrize("opens", ["", "f4", "P"])
async def test_help_and_the_way_out_are_there_at_every_width(waiting: FakeEngine, opens: str) -> None:
    """At 80 columns neither could be seen, and half of an entry was drawn at the edge."""
    async with opened(waiting) as console:
        if opens:
            await console.pilot.press(opens)
        for width in (40, 60, 80, 100, 120, 200):
            await console.pilot.resize_terminal(width, 30)
            await console.until(lambda: {"Help", "Quit"} <= set(entries(console)), f"the footer at {width}")
            await console.settle()
            assert cut(console) == [], width
            assert width < 200 or "Commands" in entries(console), entries(console)


async def test_a_window_without_the_focus_shows_its_keys_too(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.settle()
        console.app.post_message(AppBlur())
        await console.until(lambda: not console.app.app_focus, "the focus went elsewhere")
        await console.app.screen.query_one(KeyFooter).query(FooterKey).remove()
        console.app.screen.refresh_bindings()
        await console.until(lambda: {"Help", "Quit"} <= set(entries(console)), "the footer")


def key(name: str) -> tuple[Binding, int]:
    return Binding("x", name, name, id=name), 10


def test_what_is_left_out_is_the_least_important() -> None:
    keys = [key(name) for name in ("tree-open", "tree-sort", "review", "mode", "node-back", "help", "quit")]
    assert [binding.id for binding in fitting(keys, 1000)] == [binding.id for binding, _ in keys]
    assert [binding.id for binding in fitting(keys, 43)] == ["review", "node-back", "help", "quit"]
    assert [binding.id for binding in fitting(keys, 21)] == ["help", "quit"]
    assert fitting(keys, 9) == []
