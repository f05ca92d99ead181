"""The guard: no process of a server outlives whoever asked for it. Real processes, real kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

TREE = """
import os, signal, sys, time

def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(sys.argv[1], "a") as told:
        told.write(f"{name} {os.getpid()}\\n")
    while True:
        time.sleep(60)

if os.fork() == 0:
    stay("worker")
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    stay("daemon")
stay("main")
"""
"""A server that ignores SIGTERM, with a worker in its group and a daemon that left both its group and its parent."""

PARENT = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
time.sleep(600)
"""


def guarded(*command: str, grace: float = 0.5) -> list[str]:
    return [sys.executable, "-P", "-m", "lamdatui.planner.reaper", "--grace", str(grace), "--", *command]


class Tree:
    """The stubborn server under a guard, and what became of its processes."""

    def __init__(self, folder: Path) -> None:
        self.told = folder / "told"
        self.told.write_text("")
        script = folder / "tree.py"
        script.write_text(TREE)
        self.line = guarded(sys.executable, str(script), str(self.told))
        self.processes: dict[str, psutil.Process] = {}

    def up(self) -> None:
        """Wait for all three."""
        deadline = time.monotonic() + 20
        while len(self.told.read_text().splitlines()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for line in self.told.read_text().splitlines():
            name, pid = line.split()
            self.processes[name] = psutil.Process(int(pid))

    def gone(self, *names: str, within: float = 10.0) -> bool:
        """Whether these (all, if none is named) end in time."""
        watched = [self.processes[name] for name in names or self.processes]
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not any(running_still(process) for process in watched):
                return True
            time.sleep(0.05)
        return False


def running_still(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    for process in made.processes.values():
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def running(line: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def inner_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


def test_everything_ends_when_stdin_does(tree: Tree) -> None:
    with running(tree.line) as guard:
        tree.up()
        assert not tree.gone(within=0.3)
        assert guard.stdin is not None
        guard.stdin.close()
        assert guard.wait(15) == -signal.SIGKILL
        assert tree.gone(within=0.5)


def kill_outer(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()


def kill_inner(guard: subprocess.Popen[bytes]) -> None:
    inner_of(guard).kill()


def kill_outer_group(guard: subprocess.Popen[bytes]) -> None:
    os.killpg(guard.pid, signal.SIGKILL)


def terminate(guard: subprocess.Popen[bytes]) -> None:
    guard.terminate()


@pytest.mark.parametrize("blow", [kill_outer, kill_inner, kill_outer_group, terminate])
def test_everything_ends_whichever_guard_process_is_hit(tree: Tree, blow: Callable[[subprocess.Popen[bytes]], None]) -> None:
    with running(tree.line) as guard:
        tree.up()
        tree.processes["inner"] = inner_of(guard)
        blow(guard)
        assert tree.gone()
        guard.wait(10)


def test_everything_ends_when_the_parent_is_killed(tree: Tree) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, *tree.line]) as parent:
        tree.up()
        parent.kill()
        assert tree.gone()


def test_with_both_guard_processes_killed_the_kernel_ends_the_server_itself(tree: Tree) -> None:
    with running(tree.line) as guard:
        tree.up()
        inner = inner_of(guard)
        inner.suspend()
        guard.kill()
        inner.kill()
        assert tree.gone("main")


def test_what_a_server_leaves_behind_ends_with_it(tree: Tree) -> None:
    with running(tree.line) as guard:
        tree.up()
        tree.processes["main"].kill()
        assert guard.wait(15) == -signal.SIGKILL
        assert tree.gone("worker", "daemon", within=0.5)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV)],
)
def test_the_exit_code_is_passed_on(code: str, expected: int) -> None:
    with running(guarded(sys.executable, "-c", code)) as guard:
        assert guard.wait(15) == expected


def test_a_server_may_end_politely(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    pathlib.Path(sys.argv[2]).write_text('bye'); raise SystemExit(5)\n"
        "signal.signal(signal.SIGTERM, end)\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(60)"
    )
    up, bye = tmp_path / "up", tmp_path / "bye"
    with running(guarded(sys.executable, "-c", code, str(up), str(bye), grace=10)) as guard:
        while not up.exists():
            time.sleep(0.02)
        assert guard.stdin is not None
        started = time.monotonic()
        guard.stdin.close()
        assert guard.wait(15) == 5
        assert time.monotonic() - started < 5
    assert bye.read_text() == "bye"


def test_a_command_that_is_not_there_is_told() -> None:
    with subprocess.Popen(
        guarded("no-such-server-anywhere"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.wait(15) == 127
        assert process.stderr is not None
        assert "no-such-server-anywhere can't be started" in process.stderr.read()


def test_a_parent_that_has_gone_already_starts_nothing(tmp_path: Path) -> None:
    line = guarded("touch", str(tmp_path / "made"))
    done = subprocess.run([*line[:4], "--parent", "1", *line[4:]], stdin=subprocess.PIPE, capture_output=True, text=True)
    assert done.returncode == 1
    assert "has ended" in done.stderr
    assert not (tmp_path / "made").exists()
