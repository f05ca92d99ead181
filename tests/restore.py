"""One console on one terminal, brought to a screen and ended in one way; what the terminal is like afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pexpect
import psutil
import pyte

from lamdatui.cli.launcher import console_command, start_command
from tests.tty import modes_left_on

COLUMNS, ROWS = 120, 40
SECONDS = 60.0
GRACE_SECONDS = 0.6
"""The card's grace period is part of the product, so it is waited for."""

ESCAPE, ENTER = "\x1b", "\r"
F1, F2, F5, QUIT, PALETTE = "\x1bOP", "\x1bOQ", "\x1b[15~", "\x11", "\x10"
F10, F11 = "\x1b[21~", "\x1b[23~"
Steps = tuple[tuple[str, str], ...]
CARD: Steps = ((F2, "a approve"),)
PLANNER: Steps = ((F10, "Who proposes"),)
SCREENS: dict[str, Steps] = {
    "main": (),
    "card focused": CARD,
    "rule to remember": (*CARD, ("A", "rule to remember")),
    "veto, input focused": (*CARD, ("d", "why not")),
    "edit form": (*CARD, ("e", "changed")),
    "node screen": ((ENTER, "Scores against the base"),),
    "quit dialog": ((QUIT, "Quit the console?"),),
    "planner's screen": PLANNER,
    "hint, input focused": (*PLANNER, ("h", "Hint to the planner")),
    "memory, text area": (*PLANNER, ("e", "The planner's memory")),
    "who proposes, dialog": (*PLANNER, ("p", "Who proposes?")),
    "progress": ((F11, "Table"),),
    "logs, search line": ((F5, "Search"), ("/", "enter keeps it")),
    "pager": ((F5, "Search"), ("o", "PAGER READY")),
    "editor": (*CARD, ("e", "changed"), ("\x05", "PAGER READY")),
    "compare": (("c", "is marked"), ("jc", "  against  ")),
    "queue": (("u", "Queued by hand"),),
    "help": ((F1, "esc"),),
    "palette": ((PALETTE, "Search"),),
    "start screen": (),
    "start: form of a run": (("\t", ""), ("n", "Start a run of")),
}
"""Screen → keys that lead there, each with what must be seen after it."""

STARTED = ("start screen", "start: form of a run")
"""Those of `lamdatui` without a command; the others are a run's console."""

SUSPENDED = ("pager", "editor")
"""Another program has the terminal there; INT and QUIT are its business, and the console goes on until it is left."""

CAUSES: dict[str, signal.Signals] = {
    "exit": signal.SIGUSR2,
    "exception": signal.SIGUSR1,
    "INT": signal.SIGINT,
    "TERM": signal.SIGTERM,
    "HUP": signal.SIGHUP,
    "QUIT": signal.SIGQUIT,
    "KILL": signal.SIGKILL,
    "SEGV": signal.SIGSEGV,
}
"""What ends the console; the first two are asked for by signals that only the console of these tests knows."""

TYPED = "typed-for-the-console\x1b[<35;40;12M\x1b[<0;3;3M\x1b[I\r"

PAGER = """
import os, sys, tty
tty.setraw(0)
os.write(1, b"\\x1b[?1049h\\x1b[?1h\\x1b=\\x1b[2J\\x1b[HPAGER READY")
while os.read(0, 1) != b"q":
    pass
os.write(1, b"\\x1b[?1l\\x1b>\\x1b[?1049l")
"""
"""What a pager does to a terminal; it does not tidy up when it is killed."""

HOOKED = """
import asyncio, signal, sys
from lamdatui.ui.app import consoleapp, startapp
class Hooks:
    left_with = None
    def on_mount(self):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: self.call_later(self.fail))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self.exit(self.left_with))
    def fail(self):
        raise RuntimeError("failed on purpose \\x1b[31mred \\x9b2J")
class HookedConsole(Hooks, consoleapp.ConsoleApp):
    left_with = 0
class HookedStart(Hooks, startapp.StartApp):
    pass
consoleapp.ConsoleApp, startapp.StartApp = HookedConsole, HookedStart
from lamdatui.ui.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

SHELL = """
import json, os, select, sys, termios
from lamdatui.cli.launcher import run
before = termios.tcgetattr(0)
code = run(json.loads(sys.argv[1]))
after = termios.tcgetattr(0)
raw = termios.tcgetattr(0)
raw[3] &= ~(termios.ICANON | termios.ECHO)
termios.tcsetattr(0, termios.TCSANOW, raw)
left = os.read(0, 4096).decode("latin-1") if select.select([0], [], [], 0.1)[0] else ""
print("REPORT", json.dumps({"code": code, "modes": after == before, "left": left}), flush=True)
"""
"""Stands for the shell: what it would read next is what has leaked."""


@dataclass(frozen=True)
class Cell:
    """One way to end on one screen; `wrong` is empty when the terminal is what it was."""

    screen: str
    cause: str
    code: int | None
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return " + ".join(self.wrong) or "restored"


class Run:
    """A launcher with a console below it."""

    def __init__(self, run_dir: Path, *, started: bool) -> None:
        line = start_command(run_dir.parent) if started else console_command(run_dir)
        command = [sys.executable, "-P", "-c", HOOKED, *line[4:]]
        pager = shlex.join([sys.executable, "-c", PAGER])
        environment = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "PAGER": pager,
            "VISUAL": pager,
            "EDITOR": pager,
        }
        self.child = pexpect.spawn(
            sys.executable, ["-c", SHELL, json.dumps(command)], env=environment, dimensions=(ROWS, COLUMNS)
        )
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def read(self) -> bool:
        """Take in what was written; False at the end."""
        if select.select([self.child.child_fd], [], [], 0.05)[0]:
            try:
                data = os.read(self.child.child_fd, 1 << 16)
            except OSError:
                return False
            self.raw += data
            self.stream.feed(data)
            return bool(data)
        return True

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until something holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert self.read() and time.monotonic() < end, f"{what} never came:\n" + "\n".join(self.screen.display)

    def shows(self, word: str) -> None:
        """Wait for a word on the screen."""
        self.until(lambda: word in "\n".join(self.screen.display).replace("\u00a0", " "), repr(word))

    @property
    def console(self) -> psutil.Process:
        """The console's process."""
        return psutil.Process(self.child.pid).children()[0]

    def report(self) -> tuple[dict[str, object], bytes]:
        """What the shell found, and all that was written before it."""
        self.until(lambda: b"REPORT {" in self.raw and self.raw.rstrip().endswith(b"}"), "the report")
        before, _, told = self.raw.partition(b"REPORT ")
        return json.loads(told), before


def cell(run_dir: Path, screen: str, cause: str) -> Cell:
    """Bring a console to a screen, type, end it, look."""
    run = Run(run_dir, started=screen in STARTED)
    try:
        run.shows("Commands" if screen in STARTED else "Approve trial")
        for keys, word in SCREENS[screen]:
            if keys in ("A", "d", "e"):
                time.sleep(GRACE_SECONDS)
            run.child.send(keys)
            run.shows(word)
        console = run.console
        if cause not in ("exit", "exception"):
            # What is typed now is still unread when the end comes.
            console.send_signal(signal.SIGSTOP)
            run.child.send(TYPED)
        console.send_signal(CAUSES[cause])
        with contextlib.suppress(psutil.NoSuchProcess):
            console.send_signal(signal.SIGCONT)
        if screen in SUSPENDED and cause in ("exit", "exception", "INT", "QUIT"):
            # The console waits for the program that it has given the terminal to.
            run.child.send("q")
            if cause in ("INT", "QUIT"):
                run.until(lambda: run.raw.rfind(b"?1049h") > run.raw.rfind(b"PAGER READY"), "the console again")
                console.send_signal(CAUSES["exit"])
        told, before = run.report()
    except (AssertionError, psutil.Error, IndexError) as error:
        return Cell(screen, cause, None, (f"not reached: {error}",))
    finally:
        run.child.close(force=True)
    wrong = [f"left on: {' '.join(sorted(left))}"] if (left := modes_left_on(before)) else []
    wrong += [] if told["modes"] else ["modes of the tty"]
    wrong += [f"leaked {told['left']!r}"] if told["left"] else []
    wrong += ["traceback"] if b"Traceback" in before else []
    wrong += ["escape from a message"] if b"\x1b[31mred" in before or b"\xc2\x9b2J" in before else []
    return Cell(screen, cause, int(str(told["code"])), tuple(wrong))


def table(run_dir: Path, screens: Iterable[str], causes: Iterable[str], at_once: int = 3) -> list[Cell]:
    """Every cause on every screen."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda pair: cell(run_dir, *pair), product(screens, causes)))


def drawn(cells: list[Cell]) -> str:
    """The table as text: one row a screen, one column a cause; exit codes where all is well."""
    causes = list(dict.fromkeys(item.cause for item in cells))
    lines = [f"{'':22}" + "".join(f"{cause:>11}" for cause in causes)]
    for screen in dict.fromkeys(item.screen for item in cells):
        row = {item.cause: item for item in cells if item.screen == screen}
        lines.append(f"{screen:22}" + "".join(f"{'WRONG' if row[c].wrong else f'ok {row[c].code}':>11}" for c in causes))
    return "\n".join(lines)
