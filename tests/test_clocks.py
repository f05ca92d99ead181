"""Every wait has a clock: steps that stall, engines that are stopped, clocks that jump, records that are damaged."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.paths import socket_path
from lamdatui.cli import headless
from lamdatui.domain.budget import worked
from lamdatui.domain.trials import StepRecord
from lamdatui.engine import steps, watch
from lamdatui.engine.steps import StepRunner
from lamdatui.engine.warmhost import StepHost
from lamdatui.engine.watch import Watch
from lamdatui.inputs.profile import StepsSpec, load_profile
from lamdatui.step.files import Identity
from lamdatui.store.journal import Journal, read_state
from lamdatui.wire import client as clients
from lamdatui.wire import rundir
from lamdatui.wire.client import Client
from lamdatui.wire.protocol import encode
from tests.conftest import Commands
from tests.landed import Landed
from tests.test_durable import ask, until
from tests.test_journal import CREATED, HandClock

# --- steps -----------------------------------------------------------------------------------------------------------


class Hand:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_without_progress_is_reported_once_until_it_moves(tmp_path: Path) -> None:
    now, said, file = Hand(), [], tmp_path / "log.txt"
    limits = StepsSpec(stall_minutes=1)
    looked = Watch([file, tmp_path / "metrics.jsonl"], limits, said.append, now)
    for minutes, words in ((0.9, 0), (1.1, 1), (5, 1)):
        now.now = minutes * 60
        assert looked.look(None) is None and len(said) == words
    file.write_text("a line")
    now.now = 6 * 60
    assert looked.look(None) is None
    now.now = 7.1 * 60
    assert looked.look(None) is None and len(said) == 2
    assert "no sign of progress for 1 minutes" in said[0]


def test_limits_end_a_step(tmp_path: Path) -> None:
    now = Hand()
    stalled = Watch([tmp_path / "x"], StepsSpec(stall_minutes=1, on_stall="stop"), lambda _: None, now)
    limited = Watch([tmp_path / "x"], StepsSpec(limit_minutes=2), lambda _: None, now)
    now.now = 61
    assert (verdict := stalled.look(None)) is not None and verdict.kind == "stalled"
    assert limited.look(None) is None
    now.now = 121
    assert (verdict := limited.look(None)) is not None and verdict.kind == "limit"


def test_the_end_of_the_run_ends_a_step(tmp_path: Path) -> None:
    now = Hand()
    looked = Watch([tmp_path / "x"], StepsSpec(), lambda _: None, now, until=50.0)
    now.now = 49
    assert looked.look(None) is None
    now.now = 51
    assert (verdict := looked.look(None)) is not None and verdict.kind == "time"


def test_a_run_ends_when_its_minutes_do(lab_profile, cli: Commands) -> None:
    """A trial that does not end in time is ended; when the run goes on, it goes on from its checkpoint."""
    profile = str(lab_profile(("wall_minutes: 10", "wall_minutes: 0.4")))
    words = ("run", profile, "--name", "short", "--headless", "--mode", "auto")
    done = cli(*words, "--max-trials", "1", LAMDATUI_FAULTS="step.train-step=sleep:1.5")
    assert done.returncode == 0, done.stderr
    found = cli.show("short")
    # A slow machine is some moments early, and says so.
    early = r": nothing that is left to try fits into the \d s that are left"
    assert found["status"] == "done" and re.fullmatch(rf"0\.4 minutes({early})?", found["reason"]), found["reason"]
    (cut,) = found["trials"]
    assert (cut["status"], cut["error"]["class"]) == ("stopped", "time")
    wall = next(one for one in found["ledgers"] if one["name"] == "wall")
    # A step of training and a look at the clock may pass.
    assert wall["limit"] == 24 and wall["used"] < 24 * 1.05 + 4

    again = cli(*words, "--max-trials", "2")
    assert again.returncode == 0, again.stderr
    trial = cli.show("short")["trials"][1]
    assert (trial["status"], trial["action"]["digest"]) == ("done", cut["action"]["digest"])
    steps = [json.loads(line) for line in (cli.runs / "short/steps/2/1/metrics.jsonl").read_text().splitlines()]
    assert next(line["step"] for line in steps if line.get("phase") == "train") > 1


def with_steps(landed: Landed, text: str) -> None:
    """The run's profile with other limits: they are no part of what it searches."""
    path = landed.runs / "finished" / "profile.yaml"
    path.write_text(path.read_text() + f"steps: {text}\n")


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ("{stall_minutes: 0.05, on_stall: stop}", "stalled"),
        pytest.param("{limit_minutes: 0.05}", "limit", marks=pytest.mark.slow),
    ],
)
async def test_a_step_that_hangs_is_ended_as_the_profile_says(landed: Landed, limits: str, kind: str) -> None:
    """It hangs in its second training step, stopped by a signal on top: only a kill or a continue ends such a process."""
    run_dir = landed.runs / "finished"
    before = load_profile(run_dir / "profile.yaml").search_digest()
    with_steps(landed, limits)
    going = asyncio.create_task(asyncio.to_thread(landed.go_on, "finished", 4, LAMDATUI_FAULTS="step.train-step=sleep:500@2"))
    state = await until(run_dir, lambda s: (r := s.steps.get("4/1")) and r.pid)
    with_pid = state.steps["4/1"].pid
    assert with_pid is not None
    await until(run_dir, lambda _: (run_dir / "steps/4/1/metrics.jsonl").exists())
    os.kill(with_pid, signal.SIGSTOP)
    done = await asyncio.wait_for(going, 120)
    assert done.returncode == 0, done.stderr
    trial = landed.show("finished")["trials"][3]
    assert (trial["status"], trial["error"]["class"]) == ("failed", kind)
    assert not psutil.pid_exists(with_pid) or psutil.Process(with_pid).status() == psutil.STATUS_ZOMBIE
    assert load_profile(run_dir / "profile.yaml").search_digest() == before


async def test_a_stall_is_reported_and_the_step_goes_on(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    with_steps(landed, "{stall_minutes: 0.05}")
    run_dir = landed.runs / "finished"
    going = asyncio.create_task(asyncio.to_thread(landed.go_on, "finished", 4, LAMDATUI_FAULTS="step.train-step=sleep:8@2"))
    done = await asyncio.wait_for(going, 120)
    assert done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert found["trials"][3]["status"] == "done"
    assert any("step 4/1: no sign of progress for 0.05 minutes" in problem["message"] for problem in found["problems"])
    assert "no sign of progress" in done.stderr
    assert run_dir.exists()


async def test_stop_now_ends_a_step_that_a_signal_has_stopped(landed: Landed) -> None:
    run_dir = landed.runs / "finished"
    going = asyncio.create_task(asyncio.to_thread(landed.go_on, "finished", 4, LAMDATUI_FAULTS="step.train-step=sleep:500@1"))
    state = await until(run_dir, lambda s: (r := s.steps.get("4/1")) and r.pid)
    pid = state.steps["4/1"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await ask(run_dir, "stop", when="now")
    # A machine that is slow here lets it come to its training: the end of an optimiser step is waited for, for the grace.
    done = await asyncio.wait_for(going, 2 * watch.GRACE_SECONDS)
    assert done.returncode == 0 and landed.show("finished")["trials"][3]["status"] == "stopped"


SWALLOWED = """
import os, signal, sys
from pathlib import Path
from lamdatui.step import stop
from lamdatui.step.context import StepContext
from lamdatui.step.errors import Stopped

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

stop.listen()
here = Path(sys.argv[1])
step = StepContext(here, {"action": None, "device": "cpu", "dtype": "float32", "store": str(here), "always": False}, here)
step.metric(phase="before")
Dropped()
try:
    if sys.argv[2] == "train":
        with stop.deferred():
            print("it trains")
    else:
        step.metric(phase="after")
except Stopped:
    print("stopped")
"""


@pytest.mark.parametrize("then", ["train", "report"])
def test_a_stop_that_was_swallowed_ends_the_step_where_it_next_can(tmp_path: Path, then: str) -> None:
    """What a handler raises inside a destructor is printed and forgotten: the step went on until it was killed."""
    done = subprocess.run([sys.executable, "-P", "-c", SWALLOWED, tmp_path, then], capture_output=True, text=True)
    assert "Exception ignored in" in done.stderr and done.stdout == "stopped\n", done.stderr


BEGIN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.{0})\nprint('begun', flush=True)\ntime.sleep(1000)\n"


@pytest.mark.parametrize("how", ["hangs", "is stopped by a signal", "hears nothing"])
async def test_a_step_over_its_limit_is_ended_whatever_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nothing looked at a step while it ran; and one that is stopped ends of no signal but a kill, unless it is let go on."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(steps, "GRACE_SECONDS", 0.5 if how == "hears nothing" else 60)
    step = subprocess.Popen([sys.executable, "-c", BEGIN.format("SIG_IGN" if how == "hears nothing" else "SIG_DFL")], stdout=-1)
    assert step.stdout is not None and step.stdout.readline() == b"begun\n"
    if how == "is stopped by a signal":
        os.kill(step.pid, signal.SIGSTOP)
    journal = Journal(tmp_path / "run.db")
    runner = StepRunner(tmp_path, journal, StepHost(tmp_path / "log", 1), lambda _: None, StepsSpec(limit_minutes=0.002))
    runner.current = Identity.of(step.pid)
    try:
        verdict = await asyncio.wait_for(runner._see_to_end(StepRecord("1/1", "trial", 1, "d"), runner.current), 20)
    finally:
        step.kill()
    assert verdict is not None and verdict.kind == "limit"
    assert step.wait() == -(signal.SIGKILL if how == "hears nothing" else signal.SIGTERM)
    journal.close()


# --- engines ---------------------------------------------------------------------------------------------------------

STOPPED = """
import fcntl, os, signal, socket, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[2])
listening.listen()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_whoever_starts_an_engine_that_is_stopped_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited two minutes, and then said that the engine does not answer."""
    monkeypatch.setattr(rundir, "HELLO_SECONDS", 0.2)
    monkeypatch.setattr(rundir, "START_SECONDS", 3.0)
    words = [sys.executable, "-c", STOPPED, str(tmp_path / "lock"), str(socket_path(tmp_path))]
    engine = subprocess.Popen(words)
    try:
        while not rundir.is_stopped(engine.pid):
            time.sleep(0.01)
        with pytest.raises(LamdatuiError, match=f"process {engine.pid}\\) is stopped by a signal"):
            rundir.start_engine(tmp_path, rundir.StartOptions())
    finally:
        engine.kill()
        engine.wait()


async def test_a_stopped_engine_is_named_and_nobody_waits_for_it(landed: Landed) -> None:
    """`stop` waited for ever, `run` for two minutes."""
    assert landed.cli("attach", "awaiting", "--no-console").returncode == 0
    run_dir = landed.runs / "awaiting"
    state = await until(run_dir, lambda s: s.phase == "waiting" and s.engine_pid)
    pid = state.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        words = ("run", str(run_dir / "profile.yaml"), "--name", "awaiting", "--headless", "--mode", "auto")
        for command in (("stop", "awaiting"), words, ("attach", "awaiting", "--no-console")):
            began = time.monotonic()
            done = await asyncio.to_thread(landed.cli, *command)
            assert done.returncode == 1, done
            assert f"process {pid}) is stopped by a signal" in done.stderr and f"kill -CONT {pid}" in done.stderr
            assert time.monotonic() - began < 60
    finally:
        os.kill(pid, signal.SIGCONT)
    assert landed.cli("stop", "awaiting", "--now").returncode == 0


async def test_a_command_that_is_not_answered_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ANSWER_SECONDS", 0.2)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode({"type": "hello", "protocol": 2, "run": "x", "pid": 1, "seq": 0}))
        await reader.read()

    server = await asyncio.start_unix_server(mute, str(socket_path(tmp_path)))
    client = await Client.connect(tmp_path)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    with pytest.raises(LamdatuiError, match="has not answered in 0 s"):
        await client.command("pause")
    reading.cancel()
    await client.close()
    server.close()


async def test_a_run_that_is_followed_without_a_screen_says_that_its_engine_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waited in silence, for as long as the engine did."""
    monkeypatch.setattr(headless, "LOOK_SECONDS", 0.05)
    stopped = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.kill(stopped.pid, signal.SIGSTOP)
    gone = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode({"type": "hello", "protocol": 2, "run": "x", "pid": stopped.pid, "seq": 0}))
        await gone.wait()
        writer.close()

    server = await asyncio.start_unix_server(engine, str(socket_path(tmp_path)))
    try:
        following = asyncio.create_task(headless.Headless(tmp_path, as_json=True).follow())
        text = ""
        async with asyncio.timeout(30):
            while "kill -CONT" not in text:
                await asyncio.sleep(0.02)
                text += capsys.readouterr().err
        assert f"process {stopped.pid}) is stopped by a signal" in text
        await asyncio.sleep(0.3)
        assert capsys.readouterr().err == "", "said once"
        gone.set()
        with pytest.raises(LamdatuiError):
            await following
    finally:
        stopped.kill()
        stopped.wait()
        server.close()


# --- time ------------------------------------------------------------------------------------------------------------


class Jumping(HandClock):
    """A wall clock that somebody sets, beside one that only goes on."""

    wall_offset = 0.0

    def wall(self) -> float:
        return self.now + self.wall_offset

    def mono(self) -> float:
        return self.now


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_changes_no_budget(tmp_path: Path, jump: float) -> None:
    clock = Jumping()
    journal = Journal(tmp_path / "run.db", clock)
    started: dict[str, Any] = {"pid": 1, "epoch": 1, "boot_id": "b", "version": "0", "device": {}, "clock": "mono"}
    journal.append(("run.created", CREATED), ("engine.started", started))
    clock.now += 10
    clock.wall_offset = jump
    journal.append(("phase.changed", {"phase": "planning", "detail": ""}))
    clock.now += 5
    assert worked(journal.state, clock.mono()) == pytest.approx(15)
    journal.append(("engine.stopped", {"reason": ""}))
    assert journal.state.used_seconds == pytest.approx(15)
    journal.close()
    assert read_state(tmp_path / "run.db").used_seconds == pytest.approx(15)


# --- damaged records of an attempt -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["outcome.json", *(pytest.param(name, marks=pytest.mark.slow) for name in ("claim.json", "metrics.jsonl", "action.json"))],
)
def test_a_damaged_record_of_an_attempt_loses_nothing_and_repeats_nothing(landed: Landed, name: str) -> None:
    """The engine dies right after the step has ended; then the record is damaged."""
    run_dir = landed.runs / "finished"
    done = landed.go_on("finished", 4, LAMDATUI_FAULTS="step.before-end=kill")
    assert done.returncode == 1 and "the engine went away" in done.stderr
    file = run_dir / "steps" / "4" / "1" / name
    assert (run_dir / "steps" / "4" / "1" / "outcome.json").exists()
    if name == "metrics.jsonl":
        file.write_bytes(b'[1]\n"x"\n{"loss": NaN}\n\xff\xfe\n' + b"[" * 5000 + b"\n" + file.read_bytes()[:50])
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x11
        file.write_bytes(content)
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    found = landed.show("finished")
    assert [trial["status"] for trial in found["trials"]] == ["done"] * 4
    digest = found["trials"][3]["action"]["digest"]
    begun = [path for path in run_dir.glob("steps/*/*/trained.json") if json.loads(path.read_text())["digest"] == digest]
    assert len(begun) == 1
