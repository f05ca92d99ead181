"""kill -9 at the worst moments: no finished trial is lost, no work is done twice, what waits still waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from lamdatui.step.files import Identity
from lamdatui.wire.client import Client
from lamdatui.wire.rundir import StartOptions, is_alive, start_engine, wait_for_end
from tests.conftest import Commands
from tests.test_run import executions, wait_for

ENGINE_POINTS = [
    "loop.before-propose",
    "loop.after-propose",
    "loop.before-decide",
    "loop.after-decide",
    "step.before-intent",
    "step.after-intent",
    "step.after-start",
    "step.before-end",
    "step.after-end",
    "loop.before-score",
    "loop.before-close",
    "loop.after-close",
]


def run_words(profile: Path, name: str, trials: int) -> list[str]:
    return ["run", str(profile), "--name", name, "--headless", "--mode", "auto", "--max-trials", str(trials), "--json"]


def assert_nothing_lost_or_repeated(cli: Commands, run: str, trials: int) -> None:
    found = cli.show(run)
    assert [trial["status"] for trial in found["trials"]] == ["done"] * trials, found["problems"]
    counts = Counter(executions(cli.runs))
    assert set(counts.values()) == {1}
    assert set(counts) == {trial["action"]["digest"] for trial in found["trials"]}


@pytest.mark.parametrize("point", ENGINE_POINTS[::6])
def test_a_killed_engine_loses_and_repeats_nothing(lab_profile, cli: Commands, point: str) -> None:
    kill_and_resume(lab_profile, cli, point)


@pytest.mark.slow
@pytest.mark.parametrize("point", ENGINE_POINTS)
def test_a_killed_engine_loses_and_repeats_nothing_at_any_point(lab_profile, cli: Commands, point: str) -> None:
    kill_and_resume(lab_profile, cli, point)


def kill_and_resume(lab_profile, cli: Commands, point: str) -> None:
    profile = lab_profile()
    words = run_words(profile, "killed", 2)
    # The second hit, so that there is something to lose.
    first = cli(*words, LAMDATUI_FAULTS=f"{point}=kill@2")
    assert first.returncode == 1
    assert "the engine went away" in first.stderr
    assert cli.show("killed")["status"] == "interrupted"
    again = cli(*words)
    assert again.returncode == 0, again.stderr
    assert_nothing_lost_or_repeated(cli, "killed", 2)


def test_three_kills_of_the_engine_during_a_step(lab_profile, cli: Commands) -> None:
    profile = lab_profile(("max_steps: { default: 40,", "max_steps: { default: 300,"))
    words = run_words(profile, "thrice", 1)
    for epoch in (1, 2, 3):
        process = cli.popen(*words)
        state = wait_for(cli, "thrice", lambda s, epoch=epoch: s.epoch == epoch and running_step(s))
        assert state.engine_pid
        os.kill(state.engine_pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 1
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert_nothing_lost_or_repeated(cli, "thrice", 1)
    starts = [json.loads(line)["kind"] for line in done.stdout.splitlines()].count("step.intended")
    assert starts == len([k for k in wait_for(cli, "thrice", lambda s: True).steps])


def running_step(state) -> bool:
    record = next((step for step in state.steps.values() if step.trial and step.status == "running"), None)
    return bool(record and Identity(record.pid, record.start_time, record.boot_id).process())


def test_a_step_that_is_killed_again_and_again_is_a_failed_trial_with_its_class(lab_profile, cli: Commands) -> None:
    profile = lab_profile(("max_steps: { default: 40,", "max_steps: { default: 400,"))
    process = cli.popen(*run_words(profile, "step", 1))
    for key in ("1/1", "1/2"):
        state = wait_for(cli, "step", lambda state, key=key: key in state.steps and running_step(state))
        os.kill(state.steps[key].pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    trial = cli.show("step")["trials"][0]
    assert trial["status"] == "failed"
    assert trial["error"]["class"] == "killed"
    assert "signal 9" in trial["error"]["message"]


def test_a_pending_approval_is_still_pending_after_a_kill(lab_profile, cli: Commands) -> None:
    profile = lab_profile()
    # Make the run with a client that goes away at once; its engine asks and waits.
    from lamdatui.inputs.profile import load_profile
    from lamdatui.wire.rundir import prepare_run

    run_dir = prepare_run(load_profile(profile), "asks", cli.runs)
    start_engine(run_dir, StartOptions(mode="ask"))
    state = wait_for(cli, "asks", lambda s: s.phase == "waiting")
    digest = state.trials[1].action["digest"]
    os.kill(state.engine_pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(state.engine_pid)] if psutil.pid_exists(state.engine_pid) else [], timeout=10)
    assert not is_alive(run_dir)
    start_engine(run_dir, StartOptions())
    after = wait_for(cli, "asks", lambda s: s.phase == "waiting" and s.epoch == 2)
    assert after.trials[1].status == "awaiting"
    assert after.trials[1].action["digest"] == digest
    assert executions(cli.runs) == []
    asyncio.run(veto_then_stop(run_dir, digest))
    ended = wait_for(cli, "asks", lambda s: s.status == "stopped")
    assert ended.trials[1].status == "vetoed"
    assert next(iter(ended.constraints.values()))["text"].endswith(": not this one")
    second = ended.trials[2].proposal["action"]
    assert (second["type"], second["inputs"]) != (ended.trials[1].action["type"], ended.trials[1].action["inputs"])


async def veto_then_stop(run_dir: Path, digest: str) -> None:
    client = await Client.connect(run_dir)
    seen = asyncio.Event()

    async def drain() -> None:
        async for frame in client.frames():
            if (
                frame["type"] == "event"
                and frame["event"]["kind"] == "trial.proposed"
                and frame["event"]["data"]["number"] == 2
            ):
                seen.set()

    reading = asyncio.create_task(drain())
    await client.command("attach", role="console")
    await client.command("decide", number=1, digest=digest, verdict="veto", reason="not this one")
    await asyncio.wait_for(seen.wait(), 30)
    await client.command("stop", when="after-step")
    reading.cancel()
    await client.close()


def test_a_veto_survives_a_kill_right_after_it(lab_profile, cli: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    from lamdatui.inputs.profile import load_profile
    from lamdatui.wire.rundir import prepare_run

    run_dir = prepare_run(load_profile(lab_profile()), "veto", cli.runs)
    monkeypatch.setenv("LAMDATUI_FAULTS", "loop.after-decide=kill")
    start_engine(run_dir, StartOptions(mode="ask"))
    state = wait_for(cli, "veto", lambda s: s.phase == "waiting")
    with contextlib.suppress(ConnectionError):
        asyncio.run(veto(run_dir, state.trials[1].action["digest"]))
    assert wait_for_end(run_dir, 20)
    monkeypatch.delenv("LAMDATUI_FAULTS")
    start_engine(run_dir, StartOptions())
    after = wait_for(cli, "veto", lambda s: s.epoch == 2 and s.phase == "waiting" and 2 in s.trials and s.trials[2].proposal)
    assert after.trials[1].status == "vetoed"
    assert len(after.constraints) == 1


async def veto(run_dir: Path, digest: str) -> None:
    client = await Client.connect(run_dir)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    await client.command("attach", role="console")
    await client.command("decide", number=1, digest=digest, verdict="veto", reason="not this one")
    await reading


def test_only_one_engine_has_a_run(lab_profile, cli: Commands) -> None:
    from lamdatui.inputs.profile import load_profile
    from lamdatui.wire.rundir import prepare_run

    run_dir = prepare_run(load_profile(lab_profile()), "one", cli.runs)
    start_engine(run_dir, StartOptions(mode="ask"))
    state = wait_for(cli, "one", lambda s: s.phase == "waiting")
    for _ in range(3):
        start_engine(run_dir, StartOptions(mode="ask"))
    assert wait_for(cli, "one", lambda s: True).engine_pid == state.engine_pid
    assert wait_for(cli, "one", lambda s: True).epoch == 1
