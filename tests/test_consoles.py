"""Several consoles on one real engine, and the way from the start screen into a run and back."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Commands
from tests.test_run import wait_for
from tests.test_terminal import Terminal, answer


@pytest.fixture
def terminals(cli: Commands) -> Iterator[Callable[..., Terminal]]:
    """Opens commands on terminals of their own; all are closed at the end."""
    opened: list[Terminal] = []

    def start(*words: str) -> Terminal:
        opened.append(Terminal(cli.line(*words), cli.folder))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.child.close(force=True)


def test_a_decision_in_one_console_is_seen_in_the_other_with_its_author(
    lab_profile: Callable[..., Path], cli: Commands, terminals: Callable[..., Terminal]
) -> None:
    first = terminals("run", str(lab_profile()), "--name", "both")
    first.until(lambda text: "Approve trial 1" in text)
    second = terminals("attach", "both")
    second.until(lambda text: "Approve trial 1" in text)
    answer(second, "s", 1)
    state = wait_for(cli, "both", lambda state: state.trials[1].status == "skipped")
    by = state.trials[1].decision["by"]
    assert by.startswith(f"{getpass.getuser()}@pts/")
    for terminal in (first, second):
        terminal.until(lambda text: "Approve trial 2" in text and f"skipped by {by}" in text)
    first.press("m")
    state = wait_for(cli, "both", lambda state: state.mode != "ask")
    for terminal in (first, second):
        terminal.until(lambda text: "ASK-RISKY" in text and "ask-risky, by" in text)
    told = [event for event in _events(cli, "both") if event["kind"] == "mode.changed"]
    assert told[-1]["data"]["by"].startswith(f"{getpass.getuser()}@pts/") and told[-1]["data"]["by"] != by


def _events(cli: Commands, run: str) -> list[dict]:
    import apsw

    connection = apsw.Connection(str(cli.runs / run / "run.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [{"kind": kind, "data": json.loads(data)} for kind, data in connection.execute("SELECT kind, data FROM events")]
    finally:
        connection.close()


def test_from_the_start_screen_into_a_run_and_back(cli: Commands, terminals: Callable[..., Terminal]) -> None:
    start = terminals()
    start.until(lambda text: "No run in this folder yet" in text and "quickstart" in text)
    start.press("\r")
    start.until(lambda text: "Start a run of lab" in text and "checks" in text, 90)
    start.press("\r")
    start.until(lambda text: "Approve trial 1" in text, 120)
    start.press("\x11")
    start.until(lambda text: "Leave it running" in text)
    start.press("\r")
    start.until(lambda text: "going" in text and "lab-1" in text and "This machine" in text, 90)
    start.press("q")
    start.until(lambda text: "come back with: lamdatui" in text, 30)
    rows = json.loads(cli("runs", "--json").stdout)
    assert [(row["run"], row["status"], row["mode"], row["profile"]) for row in rows] == [("lab-1", "running", "ask", "lab")]
    assert rows[0]["engine"] and rows[0]["max_trials"] == 12


def test_without_a_terminal_the_choices_are_printed(cli: Commands) -> None:
    done = cli()
    assert done.returncode == 2
    assert "lamdatui run lab" in done.stdout and "lamdatui run quickstart" in done.stdout
    assert "--headless --mode auto" in done.stderr


def test_a_run_can_be_started_and_opened_without_a_console(lab_profile: Callable[..., Path], cli: Commands) -> None:
    made = cli("run", str(lab_profile()), "--name", "quiet", "--mode", "ask", "--no-console")
    assert made.returncode == 0, made.stderr
    assert Path(made.stdout.strip()) == cli.runs / "quiet"
    again = cli("attach", "quiet", "--no-console")
    assert again.stdout == made.stdout
    assert cli("stop", "quiet", "--now").returncode == 0
