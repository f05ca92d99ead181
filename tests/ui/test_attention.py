"""A person who looks elsewhere is called once; a person who is there is left alone."""

from __future__ import annotations

from textual import events

from lamdatui.ui.app.attention import AWAY_SECONDS, BLOCKED_SECONDS, Attention
from tests.ui import script
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine

WAITING = (7, "d" * 8, "sft")
TITLE = "\x1b]2;● lamdatui: approve sft?\x1b\\"
CALL = "\a\x1b]9;lamdatui: approve sft?\a"


class Person:
    """An `Attention` with a clock of its own."""

    def __init__(self, how: str = "full", environment: dict[str, str] | None = None) -> None:
        self.now = 50.0
        self.attention = Attention(lambda: self.now, how, environment or {})

    def after(self, seconds: float, waiting: tuple[int, str, str] | None = WAITING) -> str:
        """What is written after some time."""
        self.now += seconds
        return self.attention.due(waiting, "lab-01")

    def start(self) -> None:
        """The run's title is set and a proposal comes."""
        assert self.after(0, None) == "\x1b]2;lamdatui: lab-01\x1b\\"
        assert self.after(0) == ""


def test_the_title_says_that_a_proposal_waits_and_stops_saying_it() -> None:
    person = Person()
    person.start()
    assert person.after(BLOCKED_SECONDS) == TITLE
    assert person.after(1) == ""
    assert person.after(1, None) == "\x1b]2;lamdatui: lab-01\x1b\\"


def test_a_proposal_that_is_decided_at_once_calls_nobody() -> None:
    person = Person()
    person.start()
    person.attention.focus(False)
    assert person.after(BLOCKED_SECONDS / 2) == ""
    assert person.after(BLOCKED_SECONDS, None) == ""


def test_a_window_without_the_focus_is_called_once_for_each_proposal() -> None:
    person = Person()
    person.start()
    person.attention.focus(False)
    assert person.after(BLOCKED_SECONDS) == TITLE + CALL
    assert [person.after(30) for _ in range(3)] == ["", "", ""]
    assert person.after(0, (8, "e" * 8, "dpo")) == ""
    assert "\a" in person.after(BLOCKED_SECONDS, (8, "e" * 8, "dpo"))


def test_who_presses_no_key_for_long_is_called() -> None:
    person = Person()
    person.start()
    assert person.after(BLOCKED_SECONDS) == TITLE
    person.attention.touched()
    assert person.after(AWAY_SECONDS - 0.1) == ""
    assert person.after(0.2) == CALL


def test_in_tmux_the_notification_is_passed_on() -> None:
    person = Person(environment={"TMUX": "/tmp/tmux"})
    person.start()
    person.attention.focus(False)
    assert person.after(BLOCKED_SECONDS) == TITLE + "\a\x1bPtmux;\x1b\x1b]9;lamdatui: approve sft?\a\x1b\\"


def test_it_can_be_switched_off_or_down_to_the_bell() -> None:
    person = Person("off")
    person.attention.focus(False)
    assert [person.after(10) for _ in range(5)] == [""] * 5
    person = Person("bell")
    person.start()
    person.attention.focus(False)
    assert person.after(BLOCKED_SECONDS) == TITLE + "\a"


def test_a_name_can_not_steer_the_terminal() -> None:
    person = Person()
    person.attention.focus(False)
    nasty = (7, "d", "sft\x07\x1b]0;owned\x1b\\" + "x" * 500)
    person.after(0, nasty)
    told = person.after(BLOCKED_SECONDS, nasty)
    assert told.count("\x1b") == 3 and told.count("\a") == 2
    assert len(told) < 300


async def test_the_console_writes_it_to_the_terminal(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        written: list[str] = []
        console.app.write_terminal = written.append
        console.app.call_person()
        console.now += BLOCKED_SECONDS
        console.app.call_person()
        assert written == [TITLE]
        console.app.post_message(events.AppBlur())
        await console.pilot.pause()
        console.app.call_person()
        assert written == [TITLE, CALL]
        console.app.post_message(events.AppFocus())
        await console.pilot.press("tab")
        console.now += AWAY_SECONDS * 2
        console.app.call_person()
        assert written == [TITLE, CALL]
