"""Ctrl-C and other signals to a headless run, one and many: it leaves quietly, leaves nothing behind, and can go on later."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import AsyncMock

import psutil
import pytest

from lamdatui.cli.headless import Headless
from lamdatui.domain.state import RunState
from lamdatui.wire.client import Client
from lamdatui.wire.rundir import is_alive
from tests.conftest import Commands
from tests.test_run import no_process_below, wait_for

TRAINING = ("max_steps: { default: 40,", "max_steps: { default: 120,")


def storm(process: subprocess.Popen[str], number: signal.Signals, count: int = 50) -> None:
    for _ in range(count):
        process.send_signal(number)
        time.sleep(0.002)


def ended(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """What it said on stderr, once it has ended."""
    _, told = process.communicate(timeout=seconds)
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert "never retrieved" not in told
    assert told.count("leaving") <= 1
    return told


def is_training(state: RunState) -> bool:
    return any(step.status == "running" and step.trial for step in state.steps.values())


@pytest.fixture
def words(lab_profile) -> list[str]:
    return ["run", str(lab_profile(TRAINING)), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1"]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_storm_stops_the_trial_as_one_ctrl_c_does(cli: Commands, words: list[str], number: signal.Signals) -> None:
    process = cli.popen(*words)
    wait_for(cli, "x", is_training)
    storm(process, number)
    told = ended(process)
    assert process.returncode == 130, told
    found = cli.show("x")
    assert (found["status"], [(t["status"], t["error"]["class"]) for t in found["trials"]]) == (
        "stopped",
        [("stopped", "killed")],
    )
    assert no_process_below(cli.folder)
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert [trial["status"] for trial in cli.show("x")["trials"]] == ["stopped", "done"]


async def test_leaving_at_once_waits_for_the_order_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was killed before the engine had the order was a trial that failed, and counted."""
    following, killed = Headless(tmp_path, as_json=True), []
    monkeypatch.setattr(following, "_kill_step", lambda: killed.append(following._is_stopping))
    answered = asyncio.Event()

    async def stop() -> None:
        await answered.wait()
        following._is_stopping = True

    client = AsyncMock(Client)
    leaving = asyncio.create_task(following._leave(client, asyncio.create_task(stop())))
    for _ in range(20):
        await asyncio.sleep(0)
    assert killed == []
    answered.set()
    following._ended.set()
    await asyncio.wait_for(leaving, 60)
    assert killed == [True, True]
    client.close.assert_awaited_once()


@pytest.mark.parametrize("made", ["engine.log", "lock", "socket"])
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_storm_while_the_engine_starts_leaves_no_engine(
    cli: Commands, words: list[str], number: signal.Signals, made: str
) -> None:
    process = cli.popen(*words)
    deadline = time.monotonic() + 60
    while not (cli.runs / "x" / made).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    storm(process, number)
    ended(process)
    assert process.returncode == 130
    assert no_process_below(cli.folder)
    assert not is_alive(cli.runs / "x")


def test_two_leave_an_engine_that_does_not_answer(cli: Commands, words: list[str]) -> None:
    process = cli.popen(*words)
    state = wait_for(cli, "x", is_training)
    engine = psutil.Process(state.engine_pid)
    engine.suspend()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    ended(process)
    assert process.returncode == 130
    assert no_process_below(cli.folder)
    assert not is_alive(cli.runs / "x")


def test_a_closed_terminal_leaves_the_run_at_work(cli: Commands, lab_profile) -> None:
    words = ["run", str(lab_profile()), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1"]
    process = cli.popen(*words)
    wait_for(cli, "x", is_training)
    storm(process, signal.SIGHUP)
    ended(process)
    assert process.returncode == -signal.SIGHUP
    state = wait_for(cli, "x", lambda state: state.has_ended)
    assert [trial.status for trial in state.trials.values()] == ["done"]
    assert no_process_below(cli.folder)
