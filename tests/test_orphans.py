"""What an engine has started does not outlive it, but for its steps: also while it is still starting."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lamdatui.inputs.profile import load_profile
from lamdatui.step.files import Identity
from lamdatui.wire.rundir import StartOptions, prepare_run
from lamdatui.wire.rundir import _spawn as spawn  # the engine is not waited for: it is to be met while it starts
from tests.conftest import Commands
from tests.test_run import no_process_below, wait_for

TRAINING = ("max_steps: { default: 40,", "max_steps: { default: 300,")


def host_of(engine: int, seconds: float = 60) -> psutil.Process:
    """The step host of an engine, as soon as it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in psutil.Process(engine).children():
            if "lamdatui.step.warm" in child.cmdline():
                return child
        time.sleep(0.001)
    pytest.fail("the engine has started no step host")


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not get there"
        time.sleep(0.01)


@pytest.mark.parametrize("when", ["at once", "while it imports"])
def test_a_host_that_is_still_starting_ends_with_its_engine(lab_profile, cli: Commands, when: str) -> None:
    run_dir = prepare_run(load_profile(lab_profile()), "x", cli.runs)
    engine = spawn(run_dir, StartOptions(mode="read-only"))
    host = host_of(engine.pid)
    if when == "while it imports":
        until(lambda: "libtorch" in Path(f"/proc/{host.pid}/maps").read_text())
        # Now it can't see the end of its input, however fast its imports are.
        host.suspend()
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()
    assert psutil.wait_procs([host], timeout=10)[1] == []


@pytest.mark.parametrize("kind", ["fork", pytest.param("spare", marks=pytest.mark.slow)])
def test_a_step_outlives_its_engine_and_the_next_engine_takes_it_over(lab_profile, cli: Commands, kind: str) -> None:
    words = ["run", str(lab_profile(TRAINING)), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1"]
    first = cli.popen(*words, LAMDATUI_STEP_HOST=kind)
    state = wait_for(cli, "x", lambda s: bool(s.open_trial and s.open_trial.status == "running" and s.open_trial.step))
    key = state.open_trial.step
    until((cli.runs / "x" / "steps" / key / "metrics.jsonl").exists)
    state = wait_for(cli, "x", lambda s: bool(s.steps[key].pid))
    record = state.steps[key]
    identity = Identity(record.pid, record.start_time, record.boot_id)
    hosts = [child for child in psutil.Process(state.engine_pid).children() if child.pid != record.pid]
    os.kill(state.engine_pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert psutil.wait_procs(hosts, timeout=10)[1] == []
    assert identity.process() is not None
    done = cli(*words, LAMDATUI_STEP_HOST=kind)
    assert done.returncode == 0, done.stderr
    found = cli.show("x")["trials"]
    assert [(trial["status"], trial["cached"]) for trial in found] == [("done", False)]
    assert len(list(cli.runs.glob("x/steps/1/*/trained.json"))) == 1
    assert no_process_below(cli.folder)
