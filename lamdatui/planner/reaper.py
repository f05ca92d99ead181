"""Runs a server so that nothing of it outlives whoever asked for it, not even after `kill -9`.

`python -P -m lamdatui.planner.reaper --parent PID [--grace SECONDS] -- CMD…` runs CMD in a session of its own and passes its
exit code on; a CMD that a signal killed lets the guard end by the same signal. CMD and everything that it started are ended
(SIGTERM, then SIGKILL after the grace time) when stdin ends, when the parent dies, on SIGTERM, SIGINT and SIGHUP, and when CMD
itself has ended. Give it a pipe as stdin: a terminal or /dev/null ends at once.

The guard is two processes. Each adopts what its descendants leave behind (PR_SET_CHILD_SUBREAPER), daemons in sessions of their
own included, so each can find and end them; and when one of the two is killed, the other one ends everything. Not covered:
both killed in the same instant (the kernel then kills CMD alone, by PR_SET_PDEATHSIG), processes of another user (setuid), and
systems other than Linux, where only CMD's process group can be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

GRACE_SECONDS = 8.0
"""Between SIGTERM and SIGKILL: vLLM frees its GPU memory and stops its workers in this time."""

LEFT_SECONDS = 1.0
"""The same for what CMD left behind when it ended by itself."""

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LINUX = sys.platform.startswith("linux")


def set_pdeathsig(number: int, parent: int | None) -> None:
    """Have the kernel signal this process when the thread that made it ends. Raises SystemExit if that was before."""
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        raise SystemExit("the process that asked for the planner has ended")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that it can be found (Linux)."""
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Processes below `root` that still run, from /proc; none where there is no /proc."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything, brackets and spaces included.
            state, parent = entry.read_bytes().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in (b"Z", b"X"):
            below.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = [], [root]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


class Keeper:
    """Watches one child, reaps everything, and ends it all when `lifeline` reaches its end or a stop signal comes."""

    def __init__(self, child: int, lifeline: int, group: int | None) -> None:
        self._child = child
        self._lifeline = lifeline
        self._group = group
        self._status: int | None = None
        self._stopping = False
        self._wake, writer = os.pipe()
        for end in (self._wake, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # A handler that does nothing still makes the wake-up descriptor readable.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPS:
            signal.signal(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def run(self, grace: float, stop_child: int) -> int:
        """Wait for the child's end or the order to end it. Returns the child's wait status; nothing of it is left.

        `stop_child` is the descriptor to close as the order, where the child is a keeper itself; -1 where it gets a signal.
        """
        self._reap()
        while self._status is None and not self._stopping:
            self._sleep(1.0)
            self._reap()
        if self._status is not None:
            self._end(LEFT_SECONDS)
            return self._status
        if stop_child >= 0:
            os.close(stop_child)
            # The inner keeper does the same with `grace`; only if it hangs is it done from here.
            self._until(lambda: self._status is not None, grace + 2 * LEFT_SECONDS)
            grace = LEFT_SECONDS
        self._end(grace)
        return self._status if self._status is not None else signal.SIGKILL

    def _sleep(self, seconds: float) -> None:
        watched = [self._wake] + ([self._lifeline] if not self._stopping else [])
        ready, _, _ = select.select(watched, [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 512):
                pass
        if self._lifeline in ready:
            try:
                self._stopping |= not os.read(self._lifeline, 4096)
            except OSError:
                self._stopping = True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    self._status = status

    def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        self._stopping = True
        while True:
            self._reap()
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._sleep(min(0.05, left))

    def _end(self, grace: float) -> None:
        """SIGTERM to everything below, SIGKILL to what is left of it after `grace` seconds."""

        def gone() -> bool:
            return self._status is not None and not self._left()

        if not gone():
            self._send(signal.SIGTERM)
            for _ in range(50):
                if self._until(gone, grace):
                    break
                # Again and again: what is being killed may have made another process meanwhile.
                self._send(signal.SIGKILL)
                grace = 0.1

    def _left(self) -> list[int]:
        return descendants(os.getpid())

    def _send(self, number: int) -> None:
        # Each gets one SIGTERM only: a second one kills a process that is busy ending itself.
        if self._group is not None and (number == signal.SIGKILL or not _LINUX):
            with contextlib.suppress(OSError):
                os.killpg(self._group, number)
        for pid in self._left():
            with contextlib.suppress(OSError):
                os.kill(pid, number)


def start(command: Sequence[str]) -> int:
    """Start the command in a session of its own, dying with this process. Returns its pid, which is also its group."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        set_pdeathsig(signal.SIGKILL, parent)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # What Python ignores and what is blocked here would stay so in the command.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"{command[0]} can't be started: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def guard(command: Sequence[str], grace: float) -> int:
    """Run the command under two keepers. Returns its wait status, in the outer one; the inner one ends itself."""
    lifeline, order = os.pipe()
    # A stop signal that comes before a keeper is ready waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    outer = os.getpid()
    inner = os.fork()
    if inner:
        os.close(lifeline)
        return Keeper(inner, 0, None).run(grace, order)
    os.close(order)
    # A signal to the outer one's group must not take both.
    os.setsid()
    set_pdeathsig(signal.SIGTERM, outer)
    adopt_orphans()
    child = start(command)
    leave(Keeper(child, lifeline, child).run(grace, -1))


def leave(status: int) -> NoReturn:
    """End this process as a wait status tells: with the same exit code, or by the same signal."""
    sys.stderr.flush()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else 1)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Guard the command of the command line."""
    parser = argparse.ArgumentParser(prog="lamdatui.planner.reaper", description=__doc__)
    parser.add_argument("--parent", type=int, default=None, help="pid that must still be the parent")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+", metavar="CMD")
    options = parser.parse_args(argv)
    set_pdeathsig(signal.SIGTERM, options.parent)
    adopt_orphans()
    leave(guard(options.command, options.grace))


if __name__ == "__main__":
    main()
