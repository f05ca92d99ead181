"""The product in a real terminal: the console on a real engine, killed, attached again, steered by keys."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.conftest import Commands
from tests.screen import COLUMNS, ROWS, Terminal
from tests.test_run import wait_for


def terminal_of(cli: Commands, *words: str, columns: int = COLUMNS, rows: int = ROWS) -> Terminal:
    """A terminal that runs `lamdatui` with these words."""
    return Terminal(cli.line(*words), cli.folder, columns, rows)


@pytest.fixture
def console(lab_profile, cli: Commands) -> Iterator[Terminal]:
    terminal = terminal_of(cli, "run", str(lab_profile()), "--name", "seen")
    yield terminal
    terminal.child.close(force=True)


def console_process(cli: Commands) -> psutil.Process:
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(cli.folder) and "lamdatui.ui" in (process.info["cmdline"] or []):
            return process
    pytest.fail("no console process")


F2 = "\x1bOQ"
GRACE_SECONDS = 0.6


def answer(terminal: Terminal, key: str, number: int) -> None:
    """Go to the card of a trial and answer; the grace period is part of the product, so it is waited for."""
    terminal.until(lambda text: f"Approve trial {number}" in text)
    terminal.press(F2)
    terminal.until(lambda text: "a approve" in text)
    time.sleep(GRACE_SECONDS)
    terminal.press(key)
    # What is below the fold is shown before anything is approved; the same key goes on.
    for _ in range(6 if key == "a" else 0):
        time.sleep(GRACE_SECONDS)
        terminal.read()
        if "Nothing is approved yet" not in terminal.text:
            return
        terminal.press(key)


def test_a_kill_of_the_console_leaves_the_run_and_the_terminal_alone(console: Terminal, lab_profile, cli: Commands) -> None:
    console.until(lambda text: "Approve trial 1" in text)
    answer(console, "a", 1)
    wait_for(cli, "seen", lambda state: any(step.trial == 1 and step.status == "running" for step in state.steps.values()))
    console_process(cli).send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while console.child.isalive() and time.monotonic() < deadline:
        console.read()
    console.read()
    assert not console.child.isalive()
    for mode in (b"?1049l", b"?1000l", b"?1006l", b"?2004l", b"?25h"):
        on = mode[:-1] + (b"l" if mode.endswith(b"h") else b"h")
        assert console.raw.rfind(mode) > console.raw.rfind(on), f"the terminal was left with {on!r}"
    state = wait_for(cli, "seen", lambda state: state.trials[1].status == "done")
    pid = state.engine_pid

    again = terminal_of(cli, "attach", "seen")
    again.until(lambda text: "Approve trial 2" in text)
    assert "sft call_replay" in again.text
    state = wait_for(cli, "seen", lambda state: True)
    assert state.engine_pid == pid
    assert state.trials[2].status == "awaiting"
    assert len(state.steps) == len({step.key for step in state.steps.values()})

    answer(again, "d", 2)
    again.until(lambda text: "why not?" in text)
    again.press("not yet")
    time.sleep(GRACE_SECONDS)
    again.press("\r")
    state = wait_for(cli, "seen", lambda state: state.trials[2].status == "vetoed")
    assert [item["text"] for item in state.constraints.values()] == ["never dpo on m1, prefer: not yet"]
    again.until(lambda text: "Approve trial 3" in text)
    again.child.close(force=True)
    assert wait_for(cli, "seen", lambda state: True).trials[3].status == "awaiting"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (200, 60)])
def test_the_proposal_is_readable_at_every_size(
    lab_profile, cli: Commands, columns: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a shell has exported of another terminal's size.
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "20")
    terminal = terminal_of(cli, "run", str(lab_profile()), "--name", "size", columns=columns, rows=rows)
    text = terminal.until(lambda text: "Approve trial 1" in text and "learning_rate 0.002" in text)
    assert "call_replay" in text
    assert "ASK" in text
    assert "no GPU" in text or columns == 80
    assert max(len(line.rstrip()) for line in text.splitlines()) > columns - 3
    terminal.child.close(force=True)
