"""Bursts of keys in a real terminal, each in one write: what is typed behind an opening key is text there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.screen import Terminal
from tests.ui import script
from tests.ui.fake_engine import FakeEngine, in_thread
from tests.ui.test_burst import COMMANDS

F2, F5, F10 = "\x1bOQ", "\x1b[15~", "\x1b[21~"
GRACE_SECONDS = 0.6
"""The card's own pause is part of the product, so it is waited for."""


@pytest.fixture
def terminal(engine: FakeEngine) -> Iterator[Terminal]:
    """A console on a run with a step's log and a proposal that waits."""
    script.add_history(engine)
    script.add_running(engine, engine.run_dir)
    engine.extra.clear()
    engine.add("step.ended", step="7/1", status="done", cached=False, seconds={"total": 12.0}, error=None)
    script.add_waiting(engine, 8)
    with in_thread(engine):
        terminal = Terminal([sys.executable, "-m", "lamdatui.ui", str(engine.run_dir)], engine.run_dir)
        terminal.until(lambda text: "Approve trial 8" in text and "m6 merge_ties" in text)
        yield terminal
        terminal.child.close(force=True)


@pytest.mark.parametrize("early", [f"/{COMMANDS}", f"{F2}a"])
def test_keys_that_come_before_the_console_is_there_do_not_end_it(engine: FakeEngine, early: str) -> None:
    script.add_history(engine)
    script.add_waiting(engine, 8)
    with in_thread(engine):
        terminal = Terminal([sys.executable, "-m", "lamdatui.ui", str(engine.run_dir)], engine.run_dir)
        terminal.press(early)
        # The line that `/` opened has taken the rest.
        terminal.until(lambda text: "Approve trial 8" in text and (COMMANDS in text or COMMANDS not in early))
        assert terminal.child.isalive()
        assert not engine.sent("decide")
        terminal.child.close(force=True)


def test_the_filter_of_the_rows(terminal: Terminal, engine: FakeEngine) -> None:
    terminal.press("/sft\r")
    terminal.until(lambda text: "/sft: " in text and "words of a row" not in text)
    # On its own: with a key right behind it, it would be that key with alt.
    terminal.press("\x1b")
    terminal.until(lambda text: "/sft: " not in text)
    terminal.press(f"/{COMMANDS}")
    terminal.until(lambda text: COMMANDS in text)
    assert [name for name, _ in engine.commands] == ["attach"]
    assert terminal.child.isalive()


def test_the_search_in_a_log(terminal: Terminal, engine: FakeEngine) -> None:
    terminal.press(f"{F5}/{COMMANDS}")
    terminal.until(lambda text: f"{COMMANDS} " in text and "0 hits" in text)
    terminal.press("\x1b")
    terminal.until(lambda text: "hits" not in text)
    terminal.press("/step  42\rn")
    terminal.until(lambda text: "1 of 1 hits" in text)
    assert [name for name, _ in engine.commands] == ["attach"]


def test_the_reason_of_a_veto(terminal: Terminal, engine: FakeEngine) -> None:
    terminal.press(F2)
    terminal.until(lambda text: "a approve" in text)
    time.sleep(GRACE_SECONDS)
    terminal.press("d too sAqx slow\r")
    terminal.until(lambda text: " too sAqx slow" in text)
    time.sleep(GRACE_SECONDS)
    # The enter of the burst came in the pause that the question begins.
    assert not engine.sent("decide")
    terminal.press("\r")
    deadline = time.monotonic() + 20
    while not engine.sent("decide") and time.monotonic() < deadline:
        terminal.read()
    assert [(sent["verdict"], sent["reason"]) for sent in engine.sent("decide")] == [("veto", "too sAqx slow")]


def test_a_hint(terminal: Terminal, engine: FakeEngine) -> None:
    terminal.press(f"{F10}h{COMMANDS}\r")
    deadline = time.monotonic() + 20
    while not engine.sent("hint") and time.monotonic() < deadline:
        terminal.read()
    assert [sent["text"] for sent in engine.sent("hint")] == [COMMANDS]
    terminal.until(lambda text: "Who proposes" in text)


def test_the_list_of_logs(terminal: Terminal, engine: FakeEngine) -> None:
    terminal.press("l3/1 qA")
    terminal.until(lambda text: "3/1 qA" in text and "Nothing matches" in text)
    assert [name for name, _ in engine.commands] == ["attach"]
