"""Help, palette, themes and screenshots: what every screen of the console has."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color
from textual.widgets import Static

from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.app.help_text import ABOUT
from lamdatui.ui.app.theme import OURS
from lamdatui.ui.keys.table import KEYS
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.view.format import MARKS
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG)."""

    def luminance(colour: str) -> float:
        parts = [
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in Color.parse(colour).normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", OURS, ids=lambda theme: theme.name)
def test_every_colour_that_carries_meaning_can_be_read(theme) -> None:
    least = 7.0 if "contrast" in theme.name else 4.5
    for colour in ("foreground", "primary", "warning", "error", "success", "accent"):
        assert contrast(getattr(theme, colour), theme.background) >= least, colour


def test_every_state_differs_by_its_word_without_any_colour() -> None:
    assert all(mark.word and mark.glyph for mark in MARKS.values())


def focused(console: Console, name: str) -> bool:
    """Whether the focus is on something or inside of it."""
    widget = console.app.focused
    return widget is not None and name in [node.id for node in widget.ancestors_with_self]


def told(console: Console) -> str:
    """The whole text of the help, also what is below the fold."""
    lines = console.app.screen.query_one(Hanging)._lines
    return " ".join(" ".join("".join(text for text, _ in line).split()) for line in lines)


PANES = {"f3": "lineage", "f4": "activity", "f5": "logs", "f6": "hardware"}


@pytest.mark.parametrize("key", PANES)
async def test_help_is_about_the_focused_pane(engine: FakeEngine, key: str) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        await console.pilot.press(key)
        await console.until(lambda: focused(console, PANES[key]), "the focus")
        await console.pilot.press("f1")
        await console.until(lambda: isinstance(console.app.screen, HelpScreen), "help")
        await console.settle()
        assert ABOUT[PANES[key]] == str(console.app.screen.query_one(".dialog-text", Static).content)
        assert "F2 ctrl+r Review" in told(console) and "Everywhere" in told(console)
        await console.pilot.press("f1")
        await console.until(lambda: not isinstance(console.app.screen, HelpScreen), "the console again")


async def test_everything_that_takes_the_focus_says_what_it_is(engine: FakeEngine) -> None:
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    async with opened(engine) as console:
        for keys in ([], ["f2"], ["escape", "P"]):
            for key in keys:
                await console.pilot.press(key)
            await console.settle()
            for widget in console.app.screen.focus_chain:
                ids = [node.id for node in widget.ancestors_with_self]
                assert any(name in ABOUT for name in ids[:2]), widget


async def test_help_and_screenshot_work_over_a_dialog(engine: FakeEngine, home: Path) -> None:
    script.add_choices(engine)
    async with opened(engine) as console:
        for keys in (["P", "h"], ["escape", "e"], ["escape", "escape", "ctrl+q"]):
            for key in keys:
                await console.pilot.press(key)
            await console.settle()
            dialog = console.app.screen
            before = set((home / "state").glob("screenshots/*.svg"))
            for old in before:
                old.unlink()
            await console.pilot.press("f8")
            await console.until(lambda: list((home / "state" / "screenshots").glob("*.svg")), "the picture")
            await console.pilot.press("f1")
            await console.until(lambda: isinstance(console.app.screen, HelpScreen), "help")
            await console.pilot.press("escape")
            await console.until(lambda dialog=dialog: console.app.screen is dialog, "the dialog again")


async def titles(console: Console) -> list[str]:
    return [command.title for command in console.app.get_system_commands(console.app.screen)]


VISITED = ("always", "app", "run", "console", "card", "planner")


async def test_the_palette_has_every_command_of_the_place(engine: FakeEngine) -> None:
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    async with opened(engine) as console:
        found = set(await titles(console))
        await console.answer()
        found |= set(await titles(console))
        await console.pilot.press("escape", "P")
        await console.settle()
        found |= set(await titles(console))
        assert {key.palette for key in KEYS if key.palette and key.where in VISITED} <= found


async def test_deciding_is_in_the_palette_only_while_the_card_is_being_answered(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        assert not [title for title in await titles(console) if title.startswith("Card: approve")]
        await console.answer()
        assert "Card: approve" in await titles(console)
        await console.pilot.press("ctrl+p", *"Card: skip", "enter")
        console.now += 1
        await console.until(lambda: engine.sent("decide"), "the decision")
        assert engine.sent("decide")[0]["verdict"] == "skip"


async def test_a_theme_is_remembered_unless_the_settings_name_one(engine: FakeEngine, home: Path) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        assert console.app.theme == "lamdatui-dark"
        console.app.theme = "lamdatui-contrast"
        await console.settle()
    async with opened(engine) as console:
        assert console.app.theme == "lamdatui-contrast"
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text('[ui]\ntheme = "light"\n')
    async with opened(engine) as console:
        assert console.app.theme == "lamdatui-light"
        console.app.theme = "ansi-dark"
        await console.settle()
        assert any("Until you leave" in note.message for note in console.app._notifications)
    (home / "config" / "config.toml").write_text('[ui]\ntheme = "lihgt"\n')
    async with opened(engine) as console:
        assert console.app.theme == "lamdatui-contrast"
        assert any("no theme 'lihgt'" in note.message and "'light'" in note.message for note in console.app._notifications)


async def test_the_mouse_reaches_tabs_panes_card_and_footer(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        for pane, focus in (("#activity", "activity"), ("#logs", "logs"), ("#hardware", "hardware"), ("#pipeline", "lineage")):
            await console.pilot.click(pane, offset=(5, 0))
            await console.until(lambda focus=focus: focused(console, focus), f"the focus of {pane}")
        await console.pilot.click("#card-facts")
        await console.until(lambda: console.card.has_focus_within, "the card")
        console.now += 1
        await console.pilot.press("escape")
        await console.until(lambda: not console.card.has_focus_within, "the pane again")
        await console.settle()
        [pause] = [key for key in console.app.screen.query("FooterKey") if getattr(key, "description", "") == "Pause"]
        await console.pilot.click(pause)
        await console.until(lambda: engine.sent("pause"), "pause by a click")
        await console.pilot.resize_terminal(80, 24)
        await console.settle()
        await console.pilot.click("#tab-logs")
        await console.until(lambda: focused(console, "logs"), "logs by its tab")


async def test_no_color_with_a_terminals_own_colours_is_not_black_on_black(
    engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[ui]\ntheme = "ansi-dark"\n')
    script.add_history(engine)
    async with opened(engine) as console:
        strips = console.app.screen._compositor.render_strips()
        colours = {str(part.style.color) for strip in strips for part in strip if part.style and part.style.color}
        assert not any("#000000" in colour for colour in colours), colours
