"""Training that is cut off and goes on: the same weights to the last bit, and no checkpoint that is not whole is taken."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import TrainerControl, TrainerState

from lamdatui.engine.steps import Patience
from lamdatui.step.checkpoints import CheckpointCallback, Checkpoints
from lamdatui.step.errors import Stopped
from lamdatui.step.files import LOG, write_request
from lamdatui.store.checkpoints import folder_of, kept_steps
from tests.conftest import Commands
from tests.steps import Lab
from tests.test_run import wait_for

STEP = (
    "import sys; from pathlib import Path; from lamdatui.config.resources import load_registry; from lamdatui.step.child import enter, run_step; "
    "enter(Path(sys.argv[1])); run_step(Path(sys.argv[1]), load_registry())"
)
SHORT = 0.001
"""Minutes between two checkpoints."""
METHODS: dict[str, tuple[str, dict[str, list[str]], dict[str, Any]]] = {
    "lora": (
        "sft",
        {"model": ["llama"], "dataset": ["call_replay"]},
        {"max_steps": 60, "batch_size": 16, "neftune_alpha": 5.0},
    ),
    "full": ("sft", {"model": ["llama"], "dataset": ["call_replay"]}, {"max_steps": 60, "batch_size": 16, "method": "full"}),
    "held out": (
        "sft",
        {"model": ["llama"], "dataset": ["call_replay"]},
        {"max_steps": 60, "batch_size": 16, "method": "full", "holdout": 0.1, "patience": 20},
    ),
    "dpo": ("dpo", {"model": ["llama"], "dataset": ["prefer"]}, {"max_steps": 40}),
    "kto": ("kto", {"model": ["llama"], "dataset": ["prefer"]}, {"max_steps": 40}),
    "orpo": ("orpo", {"model": ["llama"], "dataset": ["prefer"]}, {"max_steps": 40}),
    "grpo": (
        "grpo",
        {"model": ["llama"], "dataset": ["verify"]},
        {"method": "full", "max_steps": 20, "batch_size": 16, "samples": 4, "max_new_tokens": 12, "learning_rate": 2e-4},
    ),
    "distill": (
        "distill",
        {"model": ["llama"], "teacher": ["phi"], "dataset": ["call_replay"]},
        {"method": "full", "max_steps": 20, "max_new_tokens": 12, "on_policy": 0.5},
    ),
}


QUICK = ("lora", "grpo")
"""`make test` tries these, `make test-slow` all."""


class Cut(Lab):
    """A lab whose steps run in processes of their own; the first is ended by `number` (if any) as soon as `when` says so of its directory."""

    def __init__(
        self, lab: Path, folder: Path, number: int = 0, when: Callable[[Path], bool] = lambda _: False, faults: str = ""
    ) -> None:
        super().__init__(lab, folder)
        self.number, self.when = number, when
        self.faults = faults
        """Fault points that are armed in the first attempt."""
        self.between: Callable[[], None] = lambda: None
        """What happens after the first attempt."""
        self.attempts: list[Path] = []

    def execute(self, folder: Path) -> None:
        request = json.loads((folder / "action.json").read_text())
        request.pop("seal", None)
        for attempt in range(2 if self.number or self.faults else 1):
            place = folder.parent / f"{folder.name}.{attempt}"
            place.mkdir()
            write_request(place, {**request, "checkpoint_minutes": SHORT})
            self.attempts.append(place)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "LAMDATUI_FAULTS": "" if attempt else self.faults}
            with subprocess.Popen([sys.executable, "-W", "ignore", "-c", STEP, str(place)], env=environment) as process:
                if self.number and not attempt:
                    while process.poll() is None and not self.when(place):
                        time.sleep(0.005)
                    process.send_signal(self.number)
                process.wait(timeout=120)
            if not attempt:
                self.between()
        shutil.copy(self.attempts[-1] / "outcome.json", folder / "outcome.json")


def steps_of(attempt: Path) -> list[int]:
    """The optimiser steps in an attempt's metrics, in their order."""
    records = map(json.loads, (attempt / "metrics.jsonl").read_text().splitlines())
    return [record["step"] for record in records if record["phase"] == "train"]


def weights(steps: Lab, action: dict[str, Any]) -> str:
    """Digest of the weights that an action made."""
    found = hashlib.sha256()
    for file in sorted((steps.store.root / "objects" / action["digest"]).glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()


def has_checkpoint_of(step: int) -> Callable[[Path], bool]:
    """Whether an attempt's log tells of a checkpoint at this optimiser step or later, written in that attempt."""

    def when(place: Path) -> bool:
        log = (place / LOG).read_text() if (place / LOG).exists() else ""
        told = [
            int(line.rpartition("checkpoint at step ")[2].split(",")[0])
            for line in log.splitlines()
            if "checkpoint at step" in line
        ]
        return any(number >= step for number in told)

    return when


@pytest.mark.parametrize("method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS])
def test_a_training_that_was_killed_makes_the_same_weights(lab: Path, tmp_path: Path, method: str) -> None:
    kind, inputs, params = METHODS[method]
    whole, cut = Cut(lab, tmp_path / "whole"), Cut(lab, tmp_path / "cut", signal.SIGKILL, has_checkpoint_of(5))
    outcome, _, action = whole.attempt(kind, inputs, **params)
    again, _, _ = cut.attempt(kind, inputs, **params)
    assert outcome["status"] == again["status"] == "ok", (outcome, again)
    assert weights(whole, action) == weights(cut, action)
    first, second = map(steps_of, cut.attempts)
    # At most what was trained after the newest checkpoint is done again.
    assert 0 < second[0] <= first[-1]
    assert second[-1] == params["max_steps"]
    assert not folder_of(cut.store.root, action["digest"]).exists()


def test_a_stop_writes_a_checkpoint_first(lab: Path, tmp_path: Path) -> None:
    kind, inputs, params = METHODS["lora"]
    cut = Cut(lab, tmp_path, signal.SIGTERM, has_checkpoint_of(3))
    outcome, _, action = cut.attempt(kind, inputs, **params)
    assert json.loads((cut.attempts[0] / "outcome.json").read_text())["error"]["message"] == "stopped on request"
    first, second = map(steps_of, cut.attempts)
    assert second[0] == first[-1] and outcome["status"] == "ok"
    assert kept_steps(folder_of(cut.store.root, action["digest"])) == []


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torn", "no manifest"))]
)
def test_a_damaged_checkpoint_is_not_taken_but_the_one_before_it(lab: Path, tmp_path: Path, damage: str) -> None:
    kind, inputs, params = METHODS["lora"]
    cut = Cut(lab, tmp_path, signal.SIGKILL, has_checkpoint_of(10))
    broken: list[int] = []

    def break_newest() -> None:
        (folder,) = (cut.store.root / "checkpoints").iterdir()
        newest = folder / str(kept_steps(folder)[-1])
        broken.append(int(newest.name))
        file = newest / "optimizer.pt"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "no manifest":
            (newest / "manifest.json").unlink()
        else:
            file.write_bytes(data[: len(data) // 2] if damage == "torn" else data)

    cut.between = break_newest
    outcome, _, action = cut.attempt(kind, inputs, **params)
    assert outcome["status"] == "ok"
    assert 0 < steps_of(cut.attempts[1])[0] < broken[0]
    assert f"the checkpoint of step {broken[0]} is damaged" in (cut.attempts[1] / LOG).read_text()
    whole = Cut(lab, tmp_path / "whole")
    _, _, same = whole.attempt(kind, inputs, **params)
    assert weights(whole, same) == weights(cut, action)


def callback(tmp_path: Path, told: list[str], stop: bool = False) -> CheckpointCallback:
    """One that writes at every step."""
    return CheckpointCallback(Checkpoints(tmp_path, "d", 0.0, told.append, lambda: stop), Stopped, tmp_path / "busy")


def test_no_checkpoint_is_written_where_the_disk_has_no_room_nor_at_the_last_step(tmp_path: Path) -> None:
    told: list[str] = []
    saving = callback(tmp_path, told)

    def wants(step: int) -> bool:
        control = TrainerControl()
        saving.on_step_end(None, TrainerState(global_step=step, max_steps=10), control)
        return control.should_save

    assert wants(3) and not wants(10)
    saving.needed = 2**60
    assert not wants(4) and not wants(5)
    assert len(told) == 1 and "no checkpoint: it takes about" in told[0]
    with pytest.raises(Stopped):
        stopping = callback(tmp_path, told, stop=True)
        stopping.needed = 2**60
        stopping.on_step_end(None, TrainerState(global_step=6, max_steps=10), TrainerControl())


def test_attempts_that_are_killed_are_repeated_while_they_get_on() -> None:
    reached = [0]
    patience = Patience(lambda: reached[0])
    assert patience.allows() and not patience.allows()
    for step in (5, 9):
        reached[0] = step
        assert patience.allows()
    assert not patience.allows() and patience.deaths == 5


LONG = ("max_steps: { default: 40,", "max_steps: { default: 300,")
OFTEN = ("dtype: float32", "dtype: float32\nsteps: { checkpoint_minutes: 0.005 }")


def running(cli: Commands, name: str) -> Any:
    """The first attempt's record, once it has written a checkpoint."""
    log = cli.runs / name / "steps" / "1" / "1" / LOG
    state = wait_for(cli, name, lambda _: log.exists() and "checkpoint at step" in log.read_text())
    return state.steps["1/1"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "as a machine goes down"])
def test_a_killed_step_of_a_run_goes_on_as_another_attempt(lab_profile, cli: Commands, number: int) -> None:
    profile = lab_profile(LONG, OFTEN)
    process = cli.popen("run", str(profile), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "1")
    os.kill(running(cli, "r").pid, number)
    process.communicate(timeout=300)
    shown = cli.show("r")
    assert shown["trials"][0]["status"] == "done"
    assert any("it goes on from step" in problem["message"] for problem in shown["problems"])
    second = steps_of(cli.runs / "r" / "steps" / "1" / "2")
    assert second[0] > 0


def test_cancel_ends_one_step_and_the_search_goes_on(lab_profile, cli: Commands) -> None:
    profile = lab_profile(LONG, OFTEN)
    process = cli.popen("run", str(profile), "--name", "c", "--headless", "--mode", "auto", "--max-trials", "2")
    running(cli, "c")
    refused = cli("cancel", "c", "7")
    assert refused.returncode == 1 and "trial 7 is not at work: trial 1 is" in refused.stderr
    assert cli("cancel", "c", "1").returncode == 0
    process.communicate(timeout=300)
    first, second = cli.show("c")["trials"]
    assert (first["status"], first["error"]["class"]) == ("failed", "cancelled")
    assert second["status"] == "done"
    late = cli("cancel", "c", "2")
    assert late.returncode != 0 and "no engine is at work" in late.stderr


def test_a_suspended_step_frees_the_machine_and_goes_on(lab_profile, cli: Commands) -> None:
    """Also when the engine is killed meanwhile."""
    profile = lab_profile(LONG, OFTEN)
    process = cli.popen("run", str(profile), "--name", "s", "--headless", "--mode", "auto", "--max-trials", "1")
    record = running(cli, "s")
    done = cli("suspend", "s")
    assert done.returncode == 0 and "lamdatui resume" in done.stderr
    state = wait_for(cli, "s", lambda found: found.steps["1/1"].status == "failed" and found.phase == "paused")
    # It has said what became of it before it is gone.
    assert record.pid
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(record.pid).wait(10)
    assert state.steps["1/1"].error and state.steps["1/1"].error["class"] == "suspended"
    assert state.steps["1/1"].seconds["execute"] > 0
    assert state.trials[1].status == "running" and state.paused_reason == "its step is suspended"
    refused = cli("suspend", "s")
    assert refused.returncode == 1 and "no step is at work" in refused.stderr
    assert cli("resume", "s").returncode == 0
    wait_for(cli, "s", lambda found: "1/2" in found.steps and found.steps["1/2"].pid)
    assert cli("suspend", "s").returncode == 0
    state = wait_for(cli, "s", lambda found: found.steps["1/2"].status == "failed" and found.phase == "paused")
    os.kill(state.engine_pid, signal.SIGKILL)
    process.communicate(timeout=120)
    again = cli("run", str(profile), "--name", "s", "--headless", "--mode", "auto", "--max-trials", "1")
    assert again.returncode == 0, again.stderr
    assert cli.show("s")["trials"][0]["status"] == "done"
    assert steps_of(cli.runs / "s" / "steps" / "1" / "3")[0] > 0


@pytest.mark.parametrize("order", ["cancel", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_suspended_step_can_be_given_up(lab_profile, cli: Commands, order: str) -> None:
    process = cli.popen(
        "run", str(lab_profile(LONG, OFTEN)), "--name", "g", "--headless", "--mode", "auto", "--max-trials", "1"
    )
    running(cli, "g")
    assert cli("suspend", "g").returncode == 0
    wait_for(cli, "g", lambda found: found.steps["1/1"].status == "failed" and found.phase == "paused")
    words = ("stop", "g", "--now") if order == "stop" else ("cancel", "g", "1")
    assert cli(*words).returncode == 0
    state = wait_for(cli, "g", lambda found: not found.trials[1].is_open)
    trial = state.trials[1]
    assert trial.error
    if order == "cancel":
        assert (trial.status, trial.error["class"]) == ("failed", "cancelled") and state.paused
        assert cli("stop", "g", "--now").returncode == 0
    else:
        # Nobody said anything about the action itself: it may come again, from its checkpoint.
        assert trial.status == "stopped"
    process.communicate(timeout=120)
