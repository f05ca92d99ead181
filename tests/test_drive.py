"""A whole run in a real terminal, by keys alone: every decision, an edit, a constraint, a hint, two nodes compared, one forked."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from tests.conftest import Commands
from tests.test_run import wait_for
from tests.test_terminal import F2, GRACE_SECONDS, Terminal

QUICK = ("max_steps: { default: 40, choices: [40, 120, 240] }", "max_steps: { default: 10, choices: [10, 20] }")
F3, F10 = "\x1bOR", "\x1b[21~"
ENTER, ESCAPE = "\r", "\x1b"
SIZES = ((80, 24), (200, 60), (40, 10), (120, 40))


def state_when(cli: Commands, condition: Callable[[RunState], bool]) -> RunState:
    return wait_for(cli, "driven", condition, 180)


def go_to_card(terminal: Terminal, number: int) -> None:
    """To the card of a trial; its grace is part of the product, so it is waited for."""
    terminal.until(lambda text: f"Approve trial {number}" in text, 180)
    terminal.press(F2)
    terminal.until(lambda text: "a approve" in text)
    time.sleep(GRACE_SECONDS)


def decide(terminal: Terminal, cli: Commands, number: int, keys: str = "a") -> None:
    """Answer, and see that it was taken. Where the card shows more than fits, the first `a` shows the rest."""
    for key in keys:
        terminal.press(key)
        time.sleep(GRACE_SECONDS)
    for _ in range(6):
        if wait_for(cli, "driven", lambda state: True).trials[number].decision:
            return
        terminal.press(keys[-1])
        time.sleep(GRACE_SECONDS)
    pytest.fail(f"trial {number} was not decided:\n{terminal.text}")


def ordered(trial: Trial) -> bool:
    """Whether a person queued it."""
    return bool((trial.proposal or {}).get("queued"))


def press_until(terminal: Terminal, key: str, condition: Callable[[str], bool]) -> str:
    """Press a key of the card, again where its grace swallowed it: on a busy machine that ends late."""
    for _ in range(10):
        terminal.press(key)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            terminal.read()
            if condition(terminal.text):
                return terminal.text
    pytest.fail(f"{key!r} did not do it:\n{terminal.text}")


def resize(terminal: Terminal, columns: int, rows: int) -> None:
    terminal.screen.resize(rows, columns)
    terminal.child.setwinsize(rows, columns)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_is_driven_by_keys_from_its_first_proposal_to_its_winner(lab_profile, cli: Commands) -> None:
    # Alternatives are there from the first trial on without an opening.
    profile = lab_profile(("policy: { name: hybrid }", "policy: { name: hybrid, opening: false }"), QUICK)
    terminal = Terminal(cli.line("run", str(profile), "--name", "driven", "--max-trials", "9"), cli.folder)
    try:
        _edit_and_deny(terminal, cli)
        _hint_and_choose_another(terminal, cli)
        _compare_and_fork(terminal, cli)
        terminal = _leave_and_come_back(terminal, cli)
        _to_the_end(terminal, cli)
    finally:
        terminal.child.close(force=True)


def _edit_and_deny(terminal: Terminal, cli: Commands) -> None:
    go_to_card(terminal, 1)
    press_until(terminal, "e", lambda text: "Edit trial 1" in text and "enter uses these values" in text)
    terminal.press("\x01\x0b")  # to the start of the field, cut to its end
    terminal.until(lambda text: "can't be used yet" in text)
    terminal.press("0.0015")
    terminal.until(lambda text: "1 changed" in text)
    terminal.press(ENTER)
    terminal.until(lambda text: "changed by you" in text)
    time.sleep(GRACE_SECONDS)
    decide(terminal, cli, 1)
    state = state_when(cli, lambda state: state.trials[1].status == "done")
    trial = state.trials[1]
    assert trial.decision and trial.decision["verdict"] == "edit"
    assert trial.action and 0.0015 in trial.action["params"].values()
    assert trial.proposal and trial.proposal["action"]["params"] != trial.action["params"]

    go_to_card(terminal, 2)
    press_until(terminal, "d", lambda text: "why not?" in text)
    terminal.press("no more of this")
    time.sleep(GRACE_SECONDS)
    terminal.press(ENTER)
    state = state_when(cli, lambda state: state.trials[2].status == "vetoed")
    (constraint,) = state.constraints.values()
    assert constraint["text"].endswith("no more of this")
    forbidden = (constraint["match"]["type"], constraint["match"]["inputs"])
    state = state_when(cli, lambda state: 3 in state.trials and state.trials[3].proposal is not None)
    proposal = state.trials[3].proposal or {}
    weighed = [proposal["action"], *proposal["alternatives"]]
    assert len(weighed) > 1
    assert forbidden not in [(item["type"], item["inputs"]) for item in weighed]


def _hint_and_choose_another(terminal: Terminal, cli: Commands) -> None:
    terminal.until(lambda text: "Approve trial 3" in text)
    press_until(terminal, F10, lambda text: "h Hint" in text)
    press_until(terminal, "h", lambda text: "One line for the planner" in text)
    terminal.press("merge before the last SFT")
    terminal.press(ENTER)
    state = state_when(cli, lambda state: bool(state.hints))
    (hint,) = state.hints.values()
    assert hint["text"] == "merge before the last SFT"
    terminal.press(ESCAPE)
    terminal.until(lambda text: "1 Pipeline" in text)
    go_to_card(terminal, 3)
    press_until(terminal, "o", lambda text: "Run another one" in text)
    terminal.press("j")  # the first is the proposed one itself
    time.sleep(GRACE_SECONDS)
    terminal.press(ENTER)
    terminal.until(lambda text: "changed by you" in text)
    time.sleep(GRACE_SECONDS)
    decide(terminal, cli, 3)
    trial = state_when(cli, lambda state: state.trials[3].status == "done").trials[3]
    assert trial.decision and trial.decision["verdict"] == "edit"
    assert trial.proposal and trial.action and trial.action["digest"] != trial.proposal["action"]["digest"]

    go_to_card(terminal, 4)
    decide(terminal, cli, 4, "s")
    state_when(cli, lambda state: state.trials[4].status == "skipped")
    go_to_card(terminal, 5)
    for columns, rows in SIZES:
        resize(terminal, columns, rows)
        terminal.until(lambda text: "a approve" in text)
    time.sleep(GRACE_SECONDS)
    decide(terminal, cli, 5, "A\r")
    state = state_when(cli, lambda state: state.trials[5].status == "done")
    (rule,) = state.rules.values()
    assert rule["text"].startswith("always ")


def _compare_and_fork(terminal: Terminal, cli: Commands) -> None:
    state_when(cli, lambda state: any(trial.status == "awaiting" and n > 5 for n, trial in state.trials.items()))
    terminal.press(F3)
    time.sleep(GRACE_SECONDS)
    terminal.press("/")
    terminal.until(lambda text: "words of a row" in text)
    terminal.press("vetoed")
    terminal.until(lambda text: "/vetoed: 1 of" in text)
    terminal.press(ESCAPE)
    terminal.until(lambda text: "/vetoed" not in text)
    terminal.press("g")
    terminal.press("c")
    terminal.until(lambda text: "is marked" in text)
    terminal.press("b")
    time.sleep(GRACE_SECONDS)
    terminal.press("c")
    text = terminal.until(lambda text: "The other one first" in text or "intervals" in text)
    assert "reverse" in text
    terminal.press(ESCAPE)
    terminal.until(lambda text: "1 Pipeline" in text)
    terminal.press("f")
    terminal.until(lambda text: "ctrl+o" in text)
    time.sleep(1)  # the engine says that it is possible
    terminal.press("\x0f")
    state = state_when(cli, lambda state: bool(state.queue) or any(ordered(t) for t in state.trials.values()))
    assert len(state.queue) <= 1


def _leave_and_come_back(terminal: Terminal, cli: Commands) -> Terminal:
    engine = wait_for(cli, "driven", lambda state: True).engine_pid
    terminal.press("\x11")
    terminal.until(lambda text: "Quit the console?" in text)
    terminal.press(ENTER)
    deadline = time.monotonic() + 30
    while terminal.child.isalive() and time.monotonic() < deadline:
        terminal.read()
    assert not terminal.child.isalive()
    again = Terminal(cli.line("attach", "driven"), cli.folder)
    again.until(lambda text: "driven" in text and "ASK" in text and "1 Pipeline" in text)
    assert wait_for(cli, "driven", lambda state: True).engine_pid == engine
    return again


def _to_the_end(terminal: Terminal, cli: Commands) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        state = wait_for(cli, "driven", lambda state: state.has_ended or state.open_trial is not None)
        if state.has_ended:
            break
        trial = state.open_trial
        if trial is None or trial.status != "awaiting":
            terminal.read()
            time.sleep(0.3)
            continue
        go_to_card(terminal, trial.number)
        decide(terminal, cli, trial.number)
    state = state_when(cli, lambda state: state.has_ended)
    assert state.status == "done"
    assert any(ordered(trial) and trial.status == "done" for trial in state.trials.values())
    assert state.winner
    terminal.until(lambda text: "done" in text)
