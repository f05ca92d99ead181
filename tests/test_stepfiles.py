"""The files of an attempt: one claim in the world, a process that can't be mistaken, an outcome or damage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lamdatui.base.clock import boot_id
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import Damaged, write_json, write_record
from lamdatui.step.files import (
    CLAIM,
    OUTCOME,
    Identity,
    attempt_directory,
    claim,
    read_claim,
    read_outcome,
    write_outcome,
    write_request,
)


def test_exactly_one_claims_an_attempt(tmp_path: Path) -> None:
    assert read_claim(tmp_path) is None
    assert claim(tmp_path, "step") is True
    assert claim(tmp_path, "engine") is False
    assert read_claim(tmp_path) == ("step", Identity.of(os.getpid()))
    assert list(tmp_path.glob(".claim*")) == []


def test_exactly_one_of_many_at_once_claims_an_attempt(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lamdatui.step.files import claim\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "print(claim(Path(sys.argv[1]), sys.argv[2]))\n"
    )
    line = [sys.executable, "-c", script, str(tmp_path)]
    racers = [
        subprocess.Popen([*line, f"racer {n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in range(6)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(answers) == ["False"] * 5 + ["True"]
    found = read_claim(tmp_path)
    assert found is not None and found[0] == f"racer {answers.index('True')}"
    assert list(tmp_path.glob(".claim*")) == []


def test_a_reused_pid_is_not_taken_for_the_step() -> None:
    own = Identity.of(os.getpid())
    assert own.boot_id == boot_id() and own.process() == psutil.Process()
    for other in (
        replace(own, start_time=own.start_time - 5),
        replace(own, start_time=own.start_time + 0.03),
        replace(own, boot_id="another boot"),
    ):
        assert other.process() is None


def test_processes_that_were_started_one_after_the_other_are_told_apart() -> None:
    with subprocess.Popen(["sleep", "60"]) as first:
        time.sleep(0.05)
        with subprocess.Popen(["sleep", "60"]) as second:
            early, late = Identity.of(first.pid), Identity.of(second.pid)
            assert 0.03 < late.start_time - early.start_time < 30
            assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - late.start_time < 30
            assert replace(early, pid=second.pid).process() is None
            second.kill()
        first.kill()
        # Until it is reaped there is still an entry of its number.
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert early.process() is None
    assert early.process() is None
    with pytest.raises(psutil.NoSuchProcess):
        Identity.of(first.pid)


@pytest.mark.parametrize("content", ["{", "[]", '{"by": "step"}', '{"by": "step", "pid": 1, "start_time": 2.0, "seal": "x"}'])
def test_a_damaged_claim_is_none_of_anybody(tmp_path: Path, content: str) -> None:
    (tmp_path / CLAIM).write_text(content)
    with pytest.raises(Damaged):
        read_claim(tmp_path)
    assert claim(tmp_path, "step") is False


def test_claims_and_outcomes_of_the_first_version_are_read(tmp_path: Path) -> None:
    own = Identity.of(os.getpid())
    write_json(tmp_path / CLAIM, {"by": "step", "pid": own.pid, "start_time": own.start_time, "boot_id": own.boot_id})
    assert read_claim(tmp_path) == ("step", own)
    old = {"status": "ok", "cached": False, "seconds": {}, "error": None, "peak_rss": 1, "peak_gpu": 2}
    write_json(tmp_path / OUTCOME, old)
    assert read_outcome(tmp_path) == old


def test_an_outcome_has_a_status_or_is_damage(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) is None
    for status in ("ok", "failed", "dry-run"):
        write_request(tmp_path, {"step": "1/1"})
        write_outcome(tmp_path, {"status": status})
        assert read_outcome(tmp_path) == {"status": status}
    write_record(tmp_path / OUTCOME, {"status": "perhaps"})
    with pytest.raises(Damaged, match=r"outcome\.json.*status"):
        read_outcome(tmp_path)
    (tmp_path / OUTCOME).unlink()
    (tmp_path / OUTCOME).mkdir()
    with pytest.raises(Damaged, match="regular file"):
        read_outcome(tmp_path)


@pytest.mark.parametrize("key", ["base-../../x/1", "../1", "/tmp/x/1", "a/../../b/1", "a\0b/1"])
def test_no_key_leads_out_of_the_run(tmp_path: Path, key: str) -> None:
    """A model called ../../x had its step's files written beside the run."""
    with pytest.raises(LamdatuiError, match="is none of this run"):
        attempt_directory(tmp_path, key)
    assert attempt_directory(tmp_path, "base-a/b/1") == tmp_path / "steps" / "base-a" / "b" / "1"
