"""The owner of the terminal: starts the console as a child and restores the terminal whatever way the child ends.

A process that is killed can't clean up after itself, and a terminal that is left in raw mode on the alternate screen
with mouse reports on looks broken for good. So the process that cleans up is another one, too small to fail.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import termios
except ImportError:  # pragma: no cover - there is no termios on Windows
    termios = None  # type: ignore[assignment]

KEEP_TITLE = "\x1b[22;0t"
"""Puts the terminal's title aside; `RESET` takes it back. Terminals and multiplexers that don't know it ignore both."""
RESET = (
    "\x1b[?2026l"  # end of a synchronised update, or nothing below would be shown
    "\x1b[<u"  # pop the kitty keyboard protocol
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1016l\x1b[?1006l"  # mouse reports
    "\x1b]22;\x07"  # the pointer's shape
    "\x1b[?2004l"  # bracketed paste
    "\x1b[?1004l"  # focus reports
    "\x1b[?2048l"  # in-band size reports
    "\x1b7\x1b[?1049l"  # alternate screen; saved first, so that the cursor stays where no alternate screen was left
    "\x1b[?7h"  # long lines wrap
    "\x1b[?1l\x1b>"  # cursor and number keys, which a pager that was killed may have switched
    "\x1b[?25h"  # cursor
    "\x1b[0m"  # colours and attributes
    "\x1b[23;0t"  # title
)
LEFT_SECONDS = 1.0
"""What a child that was killed had started on this terminal, an editor say, has this long to save and go."""
SETTLE_SECONDS = 0.05
"""Keys and reports of the mouse that are on their way when the terminal is told to stop them are thrown away with the rest."""
PR_SET_CHILD_SUBREAPER = 36
FORWARDED = (signal.SIGTERM, signal.SIGHUP)
IGNORED = (signal.SIGINT, signal.SIGQUIT)


def console_command(run_dir: Path) -> list[str]:
    """The child that shows the console of a run directory. `-P`: nothing in the current folder shadows a module."""
    return [sys.executable, "-P", "-m", "lamdatui.ui", str(run_dir)]


def start_command(runs_dir: Path) -> list[str]:
    """The child that shows the start screen, and the consoles that are opened from it."""
    return [sys.executable, "-P", "-m", "lamdatui.ui", "--start", str(runs_dir)]


def run(argv: list[str]) -> int:
    """Run `argv` on this terminal until it ends; its exit code, or 128 + the signal that killed it.

    The child shares the terminal and the process group. TERM and HUP are passed on to it; INT and QUIT are its own
    business. When the terminal is gone the child is ended. The terminal's modes and screen are restored afterwards, in every case.
    """
    saved = _save()
    if saved is not None:
        with contextlib.suppress(OSError):
            os.write(_output(saved[0]), KEEP_TITLE.encode())
    try:
        with _signals() as adopt:
            _adopt_orphans()
            before = set(_children())
            child = subprocess.Popen(argv)
            adopt(child)
            code = _wait(child, saved[0] if saved else None)
            if code < 0:
                _end(set(_children()) - before)
    finally:
        _restore(saved)
    return 128 - code if code < 0 else code


def _wait(child: subprocess.Popen[bytes], terminal: int | None) -> int:
    """The child's exit code. Where its terminal goes it is told, and killed if it stays: the kernel tells the session's leader alone, and `make`, say,
    tells nobody and waits; a console would go on for ever, reading the end of its input."""
    try:
        watched = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # not Linux, or a kernel before 5.3
        return child.wait()
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        if terminal is not None:
            poll.register(terminal, 0)  # whatever is asked for, a hang-up is told
        if any(descriptor == watched for descriptor, _ in poll.poll()):
            return child.wait()
    finally:
        os.close(watched)
    child.send_signal(signal.SIGHUP)
    try:
        return child.wait(LEFT_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


@contextlib.contextmanager
def _signals() -> Iterator[Any]:
    """Handlers for the time in which the child runs; a signal that came before the child did is passed on to it."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if not children:
            early.append(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    def adopt(child: subprocess.Popen[bytes]) -> None:
        children.append(child)
        for number in early:
            child.send_signal(number)

    # A handler that does nothing, not SIG_IGN: an ignored signal stays ignored in the child across exec.
    handlers = dict.fromkeys(FORWARDED, forward) | dict.fromkeys(IGNORED, lambda *_: None)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield adopt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _adopt_orphans() -> None:
    """Become the parent of what the child leaves behind, so that it can be found (Linux)."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> list[int]:
    """Our children that use this terminal: those of our own process group. None where there is no /proc."""
    found = []
    for entry in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in entry.read_text().split()]
    with contextlib.suppress(ProcessLookupError):
        found = [pid for pid in found if os.getpgid(pid) == os.getpgrp()]
    return found


def _end(left: set[int]) -> None:
    """HUP, as when a terminal is closed, then KILL: two programs on one terminal would both read what is typed."""
    for number in (signal.SIGHUP, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + LEFT_SECONDS
        while left and time.monotonic() < deadline:
            for pid in list(left):
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG) == (0, 0):
                        continue
                left.discard(pid)
            time.sleep(0.01)


def _save() -> tuple[int, list[Any]] | None:
    """The terminal's file descriptor and attributes; None where there is no terminal."""
    if termios is None:
        return None
    for descriptor in (0, 1, 2):
        with contextlib.suppress(termios.error, OSError):
            return descriptor, termios.tcgetattr(descriptor)
    return None


def _output(descriptor: int) -> int:
    return next((number for number in (1, 2, 0) if os.isatty(number)), descriptor)


def _restore(saved: tuple[int, list[Any]] | None) -> None:
    if saved is None or termios is None:
        return
    descriptor, attributes = saved
    # The terminal may have been given to another process group; setting it back must not stop us.
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        with contextlib.suppress(OSError):
            os.write(_output(descriptor), RESET.encode())
        # Also what was written to a pseudo-terminal gets to its queue only when the kernel has time for it.
        time.sleep(SETTLE_SECONDS)
        with contextlib.suppress(termios.error, OSError):
            # What was typed or reported by the mouse for the dead console must not reach the shell.
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, attributes)
    finally:
        signal.signal(signal.SIGTTOU, before)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
