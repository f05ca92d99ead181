"""Keys that come all at once open a screen once, leave it once, and end nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual import events

import lamdatui.ui
from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.byhand.queue import QueueScreen
from lamdatui.ui.kit.actionform import ActionScreen
from lamdatui.ui.kit.dialogs import ChoiceScreen
from lamdatui.ui.kit.stack import leave, open_over
from lamdatui.ui.node.compare_screen import CompareScreen
from lamdatui.ui.node.screen import NodeScreen
from lamdatui.ui.planner.screen import PlannerScreen
from lamdatui.ui.progress.screen import ProgressScreen
from lamdatui.ui.view.drafts import Draft
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine


@pytest.fixture
def waiting(engine: FakeEngine) -> FakeEngine:
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    script.answer_orders(engine)
    return engine


def type_at_once(console: Console, *keys: str) -> None:
    """Queue keys before the first of them has done anything."""
    for key in keys:
        console.app.post_message(events.Key(key, key if len(key) == 1 else None))


def kinds(console: Console) -> list[type[object]]:
    """The screens above the console, lowest first."""
    return [type(screen) for screen in console.app.screen_stack[1:]]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("enter", NodeScreen), ("f10", PlannerScreen), ("f11", ProgressScreen), ("u", QueueScreen), ("n", ActionScreen),
        ("e", ActionScreen), ("ctrl+q", ChoiceScreen),
    ],
)  # fmt: skip
async def test_a_key_that_comes_many_times_opens_one_screen(waiting: FakeEngine, key: str, kind: type[object]) -> None:
    async with opened(waiting) as console:
        for _ in range(2):
            type_at_once(console, key, key)
            await console.settle()
            assert kinds(console) == [kind]
            await console.pilot.press("escape")
            await console.until(lambda: not kinds(console), "the console")
            # Again, while the first is still being taken away.
            type_at_once(console, key, "escape", key, "escape", key)
            await console.settle()
            assert kinds(console) in ([], [kind])
            await console.pilot.press(*["escape"] * len(kinds(console)))
            await console.until(lambda: not kinds(console), "the console again")


async def test_two_nodes_are_compared_once(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("c", "down")
        type_at_once(console, "c", "c", "c")
        await console.until(lambda: kinds(console), "the comparison")
        await console.settle()
        assert kinds(console) == [CompareScreen]


async def test_what_is_asked_for_in_a_screen_that_is_covered_is_not_opened(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        main, first, second = (
            console.app.console_screen,
            ChoiceScreen("One", "", {"": "Yes"}),
            ChoiceScreen("Two", "", {"": "Yes"}),
        )
        answers: list[str | None] = []
        assert open_over(main, first, answers.append)
        assert not open_over(main, second)
        await console.settle()
        await console.pilot.press("f1")
        leave(first, "covered")
        await console.settle()
        assert kinds(console) == [ChoiceScreen, HelpScreen] and not answers
        await console.pilot.press("escape")
        leave(first, "once")
        leave(first, "twice")
        await console.settle()
        assert kinds(console) == [] and answers == ["once"]


async def test_an_answer_that_is_given_twice_is_given_once(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("f10", "p")
        await console.until(lambda: kinds(console) == [PlannerScreen, ChoiceScreen], "the question")
        await console.settle()
        type_at_once(console, "enter", "enter", "enter")
        await console.settle()
        assert kinds(console) == [PlannerScreen]


async def test_a_form_that_was_sent_while_help_covers_it_closes_after_help(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("e")
        await console.settle()
        form, held = console.app.screen, asyncio.Event()
        assert isinstance(form, ActionScreen)
        use = form._use

        async def late(draft: Draft) -> None:
            await held.wait()
            await use(draft)

        form._use = late
        await console.pilot.press("ctrl+o", "f1")
        held.set()
        await console.until(lambda: waiting.sent("propose"), "the order")
        await console.settle()
        assert kinds(console) == [ActionScreen, HelpScreen]
        await console.pilot.press("escape")
        await console.until(lambda: not kinds(console), "the console")
        assert len(waiting.sent("propose")) == 1


async def test_keys_after_the_last_screen_is_gone_end_in_nothing(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("ctrl+q")
        await console.settle()
        type_at_once(console, "enter", *"aAsx" * 20, "f10")
        await console.until(lambda: console.app._exit, "the end")
    assert console.app.return_value == 0


def test_screens_are_opened_in_one_way() -> None:
    """What opens or closes one without looking whether it is the one on top may hit another one."""
    folder = Path(lamdatui.ui.__file__).parent
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if ".push_screen(" in path.read_text() or "self.dismiss(" in path.read_text()
    }
    # The app itself is asked by keys, one after the other; a text that was refused comes back wherever the person is.
    assert found == {"app/consoleapp.py", "app/shell.py", "planner/screen.py", "kit/stack.py"}
