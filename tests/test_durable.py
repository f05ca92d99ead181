"""Answers come after the commit, a commit that fails changes nothing, a full disk pauses a run, a damaged record is told."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.store import journal as journals
from lamdatui.store.journal import Journal, JournalFailed, read_run, read_state
from lamdatui.wire import lastwords
from lamdatui.wire.client import Client
from lamdatui.wire.rundir import is_alive, wait_for_end
from tests.conftest import Commands
from tests.landed import Landed
from tests.test_journal import fill

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own; `mount -o remount,size=…` changes it."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def resize(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


async def ask(run_dir: Path, command: str, **args: Any) -> Any:
    """Send one command as a console does."""
    client = await Client.connect(run_dir)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    try:
        await client.command("attach", role="console", after=2**40)
        return await client.command(command, **args)
    finally:
        reading.cancel()
        await client.close()


async def until(run_dir: Path, condition: Any, seconds: float = 90) -> Any:
    """The run's state once the condition holds."""
    for _ in range(int(seconds / 0.1)):
        if (run_dir / "run.db").exists() and condition(state := read_state(run_dir / "run.db")):
            return state
        await asyncio.sleep(0.1)
    pytest.fail(f"{run_dir.name} did not get there in {seconds} s")


# --- the journal -----------------------------------------------------------------------------------------------------


def opened(number: int) -> tuple[str, dict[str, Any]]:
    return "trial.opened", {"number": number}


def test_a_commit_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    before, events, heard = journal.state.run_json(), journal.state.last_seq, []
    journal.on_failure = heard.append

    def full(point: str) -> None:
        if point == "journal.before-commit":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "fault", full)
        with pytest.raises(JournalFailed, match="the disk is full"):
            journal.append(opened(3), opened(4))
    assert journal.state.run_json() == before and 3 not in journal.state.trials
    # The space comes back, and still nothing is recorded by this engine: a gap can't come to be.
    with pytest.raises(JournalFailed):
        journal.append(opened(3))
    assert len(heard) == 1
    journal.close()
    again = Journal(tmp_path / "run.db")
    assert again.state.last_seq == events and again.state.run_json() == before
    again.append(opened(3))
    assert 3 in again.state.trials


def test_a_journal_is_read_where_nothing_can_be_written(disk: Path) -> None:
    journal = Journal(disk / "run.db")
    fill(journal)
    # Not closed: what is in the log beside the file counts too.
    state, run = read_state(disk / "run.db"), read_run(disk / "run.db")
    shutil.copytree(disk, disk.parent / "copy")
    journal.close()
    shutil.copytree(disk.parent / "copy", disk, dirs_exist_ok=True)
    (disk / "run.db-shm").unlink(missing_ok=True)
    resize(disk, "ro")
    assert (read_state(disk / "run.db"), read_run(disk / "run.db")) == (state, run)


def test_a_fact_of_the_wrong_shape_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    with pytest.raises(ValueError, match="Out of range"):
        journal.append(opened(3), ("hint.added", {"id": "h", "text": float("nan"), "by": "b", "trial": None}))
    with pytest.raises(ValueError, match=r"trial\.decided: Object missing required field"):
        journal.append(opened(3), ("trial.decided", {"number": 9, "verdict": "", "by": "", "reason": "", "action": {}}))
    assert 3 not in journal.state.trials
    journal.append(opened(3))
    assert journal.state.last_seq == max(event.seq for event in journal.events())


def test_no_flipped_bit_of_a_database_is_shown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    journal.close()
    path, rng = tmp_path / "run.db", random.Random(5)
    whole = path.read_bytes()
    states = read_state(path), read_run(path)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        for read, good in zip((read_state, read_run), states, strict=True):
            try:
                found = read(path)
            except LamdatuiError as error:
                refused += 1
                assert str(path.parent) in error.where
            else:
                assert found == good
        try:
            Journal(path).close()
        except LamdatuiError:
            refused += 1
        for name in ("run.db-wal", "run.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
    assert refused > 100


def test_an_event_that_was_edited_or_taken_out_is_told(tmp_path: Path) -> None:
    for change in (
        "UPDATE events SET data = replace(data, '0.5', '0.9') WHERE kind = 'evaluation.recorded'",
        "DELETE FROM events WHERE seq = 5",
        "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
        "DELETE FROM chain WHERE seq = 3",
    ):
        path = tmp_path / "run.db"
        path.unlink(missing_ok=True)
        journal = Journal(path)
        fill(journal)
        journal.close()
        db = apsw.Connection(str(path))
        db.execute(change)
        db.close()
        for read in (read_state, Journal):
            with pytest.raises(LamdatuiError, match="is not what was written"):
                read(path)


def test_an_empty_database_is_no_new_run(landed: Landed) -> None:
    (landed.runs / "finished" / "run.db").write_bytes(b"")
    for words in (("show", "finished"), ("export", "finished", "--to", "out")):
        done = landed.cli(*words)
        assert done.returncode == 1 and "the run's database is empty" in done.stderr, done
    done = landed.go_on("finished", 4)
    assert done.returncode == 1 and "the run's database is empty" in done.stderr


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_veto_on_a_full_disk_is_not_answered_ok(landed: Landed, disk: Path) -> None:
    """It was answered ok, lost, and its action was run by the next engine."""
    shutil.copytree(landed.runs / "awaiting", disk / "runs" / "awaiting")
    shutil.copytree(landed.runs / "store", disk / "runs" / "store")
    landed.runs = disk / "runs"
    run_dir = disk / "runs" / "awaiting"
    text = (run_dir / "profile.yaml").read_text()
    (run_dir / "profile.yaml").write_text(text.replace("disk_gib: null", "disk_gib: null\n  keep_free_mib: 1"))
    resize(disk, "size=16m")
    done = landed.cli("run", str(run_dir / "profile.yaml"), "--name", "awaiting", "--no-console")
    assert done.returncode == 0, done.stderr
    state = await until(run_dir, lambda s: s.phase == "waiting" and s.engine_pid)
    trial = state.open_trial
    assert trial is not None and trial.action is not None
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass
    hints = 0
    with pytest.raises(LamdatuiError) as refused:
        for hints in range(400):
            await ask(run_dir, "hint", text=f"number {hints} " + "x" * 250)
        pytest.fail("the disk never was full")
    assert "the disk is full" in str(refused.value)
    assert await asyncio.to_thread(wait_for_end, run_dir, 30)
    words = lastwords.last_words(run_dir)
    assert words is not None and "the disk is full" in words.what
    # A console that is connected says why.
    from lamdatui.ui.view.link import EngineLink
    from lamdatui.ui.view.state import ENDED

    frames: list[dict[str, Any]] = []
    link = asyncio.create_task(EngineLink(run_dir, frames.extend, lambda: 0).run())
    while not frames:
        await asyncio.sleep(0.05)
    link.cancel()
    assert frames[0]["status"] == "lost" and frames[0]["detail"].startswith(ENDED) and "the disk is full" in frames[0]["detail"]
    found = landed.show("awaiting")
    assert found["status"] == "interrupted" and "the disk is full" in found["reason"]
    (disk / "filler").unlink()
    after = read_state(run_dir / "run.db")
    # Every hint that was answered is there, and no other one; the proposal still waits.
    assert len(after.hints) == hints
    assert after.open_trial is not None and after.open_trial.decision is None and after.constraints == {}


async def test_a_decision_is_on_record_when_it_is_answered(landed: Landed) -> None:
    run_dir = landed.runs / "awaiting"
    assert landed.cli("attach", "awaiting", "--no-console").returncode == 0
    state = await until(run_dir, lambda s: s.phase == "waiting" and s.engine_pid)
    trial = state.open_trial
    assert trial is not None and trial.action is not None
    verdict = await ask(run_dir, "decide", number=trial.number, digest=trial.action["digest"], verdict="veto", reason="no")
    at_once = read_state(run_dir / "run.db")
    assert verdict == "veto" and at_once.trials[trial.number].decision == {"verdict": "veto", "by": "person", "reason": "no"}
    assert len(at_once.constraints) == 1
    await ask(run_dir, "stop", when="now")


async def test_a_decision_whose_commit_fails_is_refused_and_nothing_runs(landed: Landed) -> None:
    run_dir = landed.runs / "awaiting"
    assert landed.cli("attach", "awaiting", "--no-console", LAMDATUI_FAULTS="loop.before-decide=enospc").returncode == 0
    state = await until(run_dir, lambda s: s.phase == "waiting" and s.engine_pid)
    trial = state.open_trial
    assert trial is not None and trial.action is not None
    with pytest.raises(LamdatuiError, match="Errno 28"):
        await ask(run_dir, "decide", number=trial.number, digest=trial.action["digest"], verdict="approve")
    after = read_state(run_dir / "run.db").open_trial
    assert after is not None and (after.status, after.decision) == ("awaiting", None)
    await ask(run_dir, "stop", when="now")


# --- the disk --------------------------------------------------------------------------------------------------------


async def test_a_disk_without_room_pauses_a_run_and_room_lets_it_go_on(landed: Landed, disk: Path, cli: Commands) -> None:
    """It ended as done, with exit code 0, and no trial was done."""
    words = ["--runs-dir", str(disk / "runs"), "run", "small.yaml", "--name", "x", "--headless", "--mode", "auto"]
    process = cli.popen(*words, "--max-trials", "1")
    run_dir = disk / "runs" / "x"
    state = await until(run_dir, lambda s: s.paused)
    assert (
        state.paused_by == "engine"
        and "free on the disk of" in state.paused_reason
        and "64 MiB are needed" in state.paused_reason
    )
    assert (state.status, state.phase, state.trials) == ("running", "paused", {})
    shown = json.loads(cli("--runs-dir", str(disk / "runs"), "show", "x", "--json").stdout)
    assert shown["paused"] == {"by": "engine", "reason": state.paused_reason}
    resize(disk, "size=200m")
    _, said = await asyncio.to_thread(process.communicate, timeout=120)
    assert process.returncode == 0, said
    assert "free on the disk of" in said
    assert read_state(run_dir / "run.db").trials[1].status == "done"


async def test_a_step_on_a_full_disk_costs_no_trial(landed: Landed) -> None:
    """ENOSPC while the result is published: the run waits for room, and the trial does not count."""
    run_dir = landed.runs / "finished"
    process = asyncio.create_task(
        asyncio.to_thread(landed.go_on, "finished", 4, LAMDATUI_FAULTS="store.before-manifest=enospc@1")
    )
    state = await until(run_dir, lambda s: s.paused)
    assert state.trials[4].status == "stopped" and state.trials[4].error["class"] == "disk"
    # A person says that there is room now.
    await ask(run_dir, "resume")
    await until(run_dir, lambda s: 5 in s.trials)
    if not process.done():
        await ask(run_dir, "stop", when="now")
    await process
    assert any(problem["where"] == "disk" for problem in read_state(run_dir / "run.db").problems)


@pytest.mark.parametrize(
    "point", [pytest.param("step.before-evaluate=enospc@1", marks=pytest.mark.slow), "step.train-step=enospc@2"]
)
async def test_enospc_inside_training_and_evaluation_is_the_disk(landed: Landed, point: str) -> None:
    run_dir = landed.runs / "finished"
    process = asyncio.create_task(asyncio.to_thread(landed.go_on, "finished", 4, LAMDATUI_FAULTS=point))
    state = await until(run_dir, lambda s: s.paused)
    assert (state.trials[4].status, state.trials[4].error["class"]) == ("stopped", "disk")
    await ask(run_dir, "stop", when="now")
    done = await process
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr
    assert not is_alive(run_dir) or await asyncio.to_thread(wait_for_end, run_dir, 20)


def test_a_run_can_be_read_where_nothing_can_be_written(landed: Landed, disk: Path) -> None:
    resize(disk, "size=32m")
    shutil.copytree(landed.runs, disk / "runs")
    before = landed.cli("show", "killed", "--json").stdout
    landed.runs = disk / "runs"
    resize(disk, "ro")
    for name in ("finished", "killed"):
        assert landed.show(name)["run"] == name
    assert json.loads(landed.cli("show", "killed", "--json").stdout) == json.loads(before)
    done = landed.cli("runs")
    assert done.returncode == 0 and "finished" in done.stdout and "unreadable" not in done.stdout
    done = landed.cli("export", "finished", "--to", str(landed.folder / "out"))
    assert done.returncode == 0, done.stderr
    assert (landed.folder / "out" / "model.safetensors").exists()
