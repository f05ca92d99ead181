"""Starting an engine where one comes up, is there, or is leaving: exactly one is at work, and who starts it is answered."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamdatui.inputs.profile import load_profile
from lamdatui.store.journal import read_state
from lamdatui.wire.client import Client
from lamdatui.wire.rundir import StartOptions, is_alive, prepare_run, start_engine, wait_for_end
from tests.conftest import Commands
from tests.test_run import wait_for
from tests.test_steering import awaiting


@pytest.fixture
def prepared(lab_profile, cli: Commands) -> Path:
    return prepare_run(load_profile(lab_profile()), "x", cli.runs)


async def greeting(run_dir: Path) -> int:
    """The process id that an engine's first frame tells."""
    client = await Client.connect(run_dir)
    try:
        async for frame in client.frames():
            assert frame["type"] == "hello"
            return frame["pid"]
    finally:
        await client.close()
    raise AssertionError("an engine that was started closed the connection without a word")


async def test_an_engine_that_is_leaving_is_waited_for_and_followed_by_another(prepared: Path, cli: Commands) -> None:
    assert start_engine(prepared, StartOptions(mode="ask"))
    assert not start_engine(prepared, StartOptions(mode="ask"))
    first = awaiting(cli, "x", 1)
    assert first.engine_pid is not None
    assert await greeting(prepared) == first.engine_pid
    for epoch in (2, 3, 4):
        leaving = await greeting(prepared)
        os.kill(leaving, signal.SIGTERM)
        # At once: the old engine may still be listening, hold the lock, or both.
        assert start_engine(prepared, StartOptions())
        assert await greeting(prepared) != leaving
        assert wait_for(cli, "x", lambda s, epoch=epoch: s.epoch == epoch).open_trial is not None
    os.kill(await greeting(prepared), signal.SIGTERM)
    assert wait_for_end(prepared, 30)


async def test_two_who_start_a_run_at_once_get_one_engine(prepared: Path, cli: Commands) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: start_engine(prepared, StartOptions(mode="ask")), range(4)))
    assert sum(started) == 1
    state = awaiting(cli, "x", 1)
    assert state.epoch == 1
    assert await greeting(prepared) == state.engine_pid
    os.kill(await greeting(prepared), signal.SIGTERM)
    assert wait_for_end(prepared, 30)


def test_a_run_is_made_longer_again_and_again_without_a_pause(lab_profile, cli: Commands) -> None:
    """The command returns when the run has ended; its engine is still there then, for whoever comes to look."""
    profile = str(lab_profile())
    for trials in ("1", "2", "3"):
        done = cli("run", profile, "--name", "x", "--headless", "--mode", "read-only", "--max-trials", trials)
        assert done.returncode == 0, done.stderr
    assert wait_for_end(cli.runs / "x", 30)
    state = read_state(cli.runs / "x" / "run.db")
    assert (state.epoch, [trial.status for trial in state.trials.values()]) == (3, ["rejected"] * 3)
    assert not is_alive(cli.runs / "x")
