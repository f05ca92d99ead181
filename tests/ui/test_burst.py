"""Keys of one burst: each acts where the one before has led, so what is typed behind an opening key is text and no command.

A fast typist on a slow link, a paste into a terminal without bracketed paste: the driver hands all keys over at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.keys import _character_to_key
from textual.widget import Widget
from textual.widgets import Input, TextArea

from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.app.shell import ShellApp
from lamdatui.ui.card.edit import EditScreen
from lamdatui.ui.kit.actionform import ActionScreen, PickRow
from lamdatui.ui.kit.pick import PickScreen
from lamdatui.ui.kit.write import LineScreen, PageScreen
from lamdatui.ui.logs.pane import SearchLine
from lamdatui.ui.logs.view import LogView
from lamdatui.ui.planner.screen import PlannerScreen
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

COMMANDS = "q v a A p m P C l E S y z 1 e f r n u c b ?"
"""What the console does at these keys, nobody wants who types them into a line."""


def key(text: str) -> events.Key:
    """The event that the driver makes of a character or of a key's name."""
    return events.Key(_character_to_key(text), text) if len(text) == 1 else events.Key(text, None)


def burst(console: Console, *keys: str) -> None:
    """Hand keys over as the driver does with what came in one read: none waits for what another one does."""
    for text in keys:
        console.app.post_message(key(text))


def filter_of(console: Console) -> Input:
    return console.app.screen.query_one("#lineage-filter", Input)


def value(console: Console, kind: type[Widget] = Input) -> str:
    """What stands in the field that has the focus; empty while it is another kind of widget."""
    widget = console.app.focused
    if isinstance(widget, Input) and kind is Input:
        return widget.value
    return widget.text if isinstance(widget, TextArea) and kind is TextArea else ""


async def holds_nothing(console: Console) -> None:
    """Keys that are still under way have been dealt with."""
    await console.settle()
    assert console.app.is_running and len(console.app.screen_stack) == 1
    assert [name for name, _ in console.engine.commands] == ["attach"]


async def test_the_filter_takes_all_that_is_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        burst(console, "/", *"sft", "enter")
        await console.until(lambda: filter_of(console).value == "sft", "the filter")
        await console.until(lambda: console.app.focused and console.app.focused.id == "lineage", "the rows again")
        assert "/sft: " in console.text()
        await holds_nothing(console)


async def test_no_key_behind_the_filters_key_is_a_command(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        burst(console, "/", *COMMANDS)
        await console.until(lambda: value(console) == COMMANDS, f"{COMMANDS} in the filter")
        await holds_nothing(console)
        burst(console, "escape", "/", *"dpo")
        await console.until(lambda: value(console) == "dpo", "a new filter")


async def test_a_paste_behind_the_filters_key_is_in_the_filter(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        burst(console, "/", "d")
        console.app.post_message(events.Paste("po m"))
        burst(console, "2")
        await console.until(lambda: value(console) == "dpo m2", "typed and pasted in their order")


async def test_the_search_in_a_log_takes_all_that_is_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_running(engine, engine.run_dir)
    log = engine.run_dir / "steps" / "7" / "1" / "log.txt"
    log.write_text("".join(f"line {number}\n" for number in range(200)), encoding="utf-8")
    async with opened(engine) as console:
        view = console.app.screen.query_one(LogView)
        await console.pilot.press("f5")
        await console.until(lambda: view.has_focus and view.model and view.model.rows == 200, "the log")
        burst(console, "/", *COMMANDS)
        await console.until(lambda: value(console) == COMMANDS, f"{COMMANDS} in the search line")
        burst(console, "escape", "/", *"line 42", "enter", "n")
        await console.until(lambda: view.model and view.model.search and view.model.mark == 42, "the hit")
        assert view.model and view.model.search and view.model.search.needle == "line 42"
        await console.until(lambda: not console.app.screen.query(SearchLine) and view.has_focus, "the log again")
        await holds_nothing(console)


async def test_a_veto_has_the_reason_that_was_typed_behind_its_key_and_waits_for_its_enter(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        await console.answer()
        burst(console, "d", *"a saqx", "enter")
        await console.until(lambda: value(console) == "a saqx", "the reason")
        await console.settle()
        # The enter came in the grace period of the question.
        assert not engine.sent("decide")
        console.now += 1
        await console.pilot.press("enter")
        await console.until(lambda: engine.sent("decide"), "the veto")
        assert [(sent["verdict"], sent["reason"]) for sent in engine.sent("decide")] == [("veto", "a saqx")]


async def test_a_hint_is_sent_as_it_was_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_choices(engine)
    async with opened(engine) as console:
        burst(console, "P", "h", *COMMANDS, "enter")
        await console.until(lambda: engine.sent("hint"), "the hint")
        assert [sent["text"] for sent in engine.sent("hint")] == [COMMANDS]
        await console.until(lambda: isinstance(console.app.screen, PlannerScreen), "the planner's screen again")
        assert [name for name, _ in engine.commands] == ["attach", "hint"]
        burst(console, "h", *"no", "escape", "h", *"quiet")
        await console.until(lambda: value(console) == "quiet" and isinstance(console.app.screen, LineScreen), "another line")
        assert len(engine.sent("hint")) == 1


async def test_the_memory_is_what_was_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_choices(engine)
    async with opened(engine) as console:
        await console.pilot.press("P")
        before = console.app.view.run.memory
        burst(console, "e", *" qx")
        await console.until(lambda: isinstance(console.app.screen, PageScreen), "the memory")
        await console.until(lambda: value(console, TextArea) == f"{before} qx", "what was typed at its end")


async def test_a_list_is_narrowed_by_what_is_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        burst(console, "l", *"3/1 xyz")
        await console.until(lambda: isinstance(console.app.screen, PickScreen), "the list")
        await console.until(lambda: value(console) == "3/1 xyz", "its filter")
        burst(console, *["backspace"] * 4, "enter", "f")
        await console.until(lambda: len(console.app.screen_stack) == 1, "the console")
        # The last key came to the log that was chosen.
        await console.until(lambda: console.app.screen.query_one(LogView).only_problems, "only problems")


async def test_a_form_takes_what_is_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        await console.answer()
        burst(console, "e", "end", *"5")
        await console.until(lambda: isinstance(console.app.screen, EditScreen), "the form")
        await console.until(lambda: value(console) == "0.00035", "the first field, and what was typed at its end")
        assert not engine.sent("decide")


async def test_a_form_that_is_not_there_yet_takes_nothing_and_sends_nothing(engine: FakeEngine) -> None:
    """The engine is asked first: what is typed before it answers was typed at something that nobody could see."""
    script.add_history(engine)
    script.answer_orders(engine)
    async with opened(engine) as console:
        answers, ask = asyncio.Event(), console.app.console_screen.ask

        async def late(command: str, **args: Any) -> Any:
            await answers.wait()
            return await ask(command, **args)

        console.app.console_screen.ask = late
        burst(console, "n", "enter", *"mq", "enter", "ctrl+o")
        await console.until(lambda: isinstance(console.app.screen, ActionScreen), "the form")
        await console.settle()
        answers.set()
        await console.until(lambda: isinstance(console.app.focused, PickRow), "its first row")
        await console.settle()
        assert not engine.sent("propose")
        burst(console, "enter", *"merge", "enter", "ctrl+o")
        await console.until(lambda: engine.sent("propose"), "the action")
        assert [sent["type"] for sent in engine.sent("propose")] == ["merge_ties"]


async def test_the_palette_searches_for_what_is_typed_behind_its_key(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        burst(console, "ctrl+p", *"qzm")
        await console.until(lambda: value(console) == "qzm", "the search of the palette")
        burst(console, "escape", "f1", "f1", "/", *"m2")
        await console.until(lambda: value(console) == "m2", "the filter, after help came and went")
        assert not any(isinstance(screen, HelpScreen) for screen in console.app.screen_stack)


async def test_what_takes_a_key_and_vanishes_keeps_no_other_key(engine: FakeEngine) -> None:
    """A screen or a line that is removed by a key, with others behind it: they go to where the focus is then."""
    script.add_history(engine)
    async with opened(engine) as console:
        for _ in range(5):
            burst(console, "u", "escape", "f5", "/", "x", "escape", "f3", "f1", "escape", "/", *"abc", "escape", "/", *"sft")
            await console.until(lambda: value(console) == "sft", "the last of it")
            burst(console, "escape")
            await console.until(lambda: not filter_of(console).display, "the end of the filter")
        await holds_nothing(console)


class Stuck(Widget, can_focus=True):
    """A widget that does not come back from its first key before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[str] = []
        self.let_go = asyncio.Event()

    async def on_key(self, event: events.Key) -> None:
        self.got.append(event.key)
        await self.let_go.wait()


class StuckApp(ShellApp[str]):
    """With a way out, as the console has it."""

    BINDINGS = [Binding("ctrl+q", "exit('left')", priority=True)]

    def compose(self) -> ComposeResult:
        yield Stuck()

    def action_exit(self, how: str) -> None:
        self.exit(how)


async def test_a_widget_that_hangs_does_not_keep_the_key_that_leaves() -> None:
    app = StuckApp()
    async with app.run_test() as pilot:
        stuck = app.query_one(Stuck)
        try:
            for text in ("x", "y", "ctrl+q"):
                app.post_message(key(text))
            await pilot.pause(0.2)
            assert stuck.got == ["x"] and app.return_value is None
            end = time.monotonic() + 30
            while app.return_value is None:
                assert time.monotonic() < end, "nobody can leave"
                await asyncio.sleep(0.02)
        finally:
            stuck.let_go.set()
    assert app.return_value == "left"
