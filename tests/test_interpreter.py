"""A Python without asserts or docstrings: everything works all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lamdatui import __version__
from lamdatui.base.interpreter import MARK
from lamdatui.inputs.profile import load_profile
from lamdatui.wire.rundir import StartOptions, prepare_run, start_engine, wait_for_end
from tests.conftest import Commands
from tests.test_run import executions


@pytest.mark.parametrize("flag", ["-O", "-OO", "-OOB"])
def test_a_command_starts_again_without_the_flag(flag: str) -> None:
    words = [sys.executable, flag, "-m", "lamdatui", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lamdatui {__version__}\n", "")
    # Help comes from docstrings: it is there, and its words have arrived.
    words[-1:] = ["runs", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "The runs of a directory." in done.stdout
    # A Python that can't do without the flag is not started for ever.
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, MARK: "1"})
    assert done.returncode == 0
    assert "The runs of a directory." not in done.stdout or flag == "-O"


def test_a_trial_is_trained_where_the_environment_drops_docstrings(lab_profile, cli: Commands) -> None:
    words = ["run", str(lab_profile()), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "1"]
    done = cli(*words, PYTHONOPTIMIZE="2")
    assert done.returncode == 0, done.stderr
    assert [(trial["status"], trial["cached"]) for trial in cli.show("x")["trials"]] == [("done", False)]
    assert len(executions(cli.runs)) == 1


def test_an_engine_that_another_program_starts_does_without_it_too(
    lab_profile, cli: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = prepare_run(load_profile(lab_profile()), "x", cli.runs)
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    assert start_engine(run_dir, StartOptions(headless=True, mode="read-only", max_trials=1))
    assert wait_for_end(run_dir, 120)
    assert cli.show("x")["status"] == "done"
