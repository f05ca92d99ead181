"""Whatever way the child dies, the terminal is what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pexpect
import psutil
import pyte
import pytest

from lamdatui.cli.launcher import RESET, console_command, run

# Enters every mode that the console uses, says READY with its pid, and waits for its end.
CHILD = """
import os, signal, sys, termios, time, tty
tty.setraw(0)
os.write(1, b"\\x1b[?1049h\\x1b[?1000h\\x1b[?1002h\\x1b[?1003h\\x1b[?1015h\\x1b[?1006h\\x1b[?2004h\\x1b[?1004h"
            b"\\x1b[?25l\\x1b[>1u\\x1b[31m")
if sys.argv[1] == "ignore-int":
    signal.signal(signal.SIGINT, lambda *_: os.write(1, b"INT-SEEN"))
if sys.argv[1] == "ignore-hup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.write(1, f"READY {os.getpid()} ".encode())
if sys.argv[1].startswith("exit"):
    os._exit(int(sys.argv[1][4:]))
while True:
    time.sleep(0.05)
"""
PARENT = "import sys; from lamdatui.cli.launcher import run; code = run([sys.executable, '-c', {child!r}, {how!r}]); print('CODE', code)"
MODES_OFF = [b"\x1b[?%dl" % mode for mode in (1000, 1002, 1003, 1006, 1015, 2004, 1004, 1049)]


def launch(how: str) -> tuple[pexpect.spawn, int]:
    """A launcher on a terminal of its own, and the pid of its child; the child has set all modes."""
    code = PARENT.format(child=CHILD, how=how)
    terminal = pexpect.spawn(sys.executable, ["-c", code], timeout=20, dimensions=(24, 80))
    terminal.expect(rb"READY (\d+) ")
    return terminal, int(terminal.match.group(1))


def finish(terminal: pexpect.spawn) -> tuple[bytes, int]:
    """What came after READY, and the code that `run` gave."""
    terminal.expect(rb"CODE (\d+)")
    code = int(terminal.match.group(1))
    output = terminal.before
    terminal.expect(pexpect.EOF)
    return output, code


def assert_restored(output: bytes, terminal: pexpect.spawn, before: list) -> None:
    for sequence in (*MODES_OFF, b"\x1b[?25h", b"\x1b[0m", b"\x1b[<u"):
        assert sequence in output
    assert b"h" not in output.split(b"\x1b[?25h")[-1], "nothing is switched on after the reset"
    assert local_modes(terminal) == before


def local_modes(terminal: pexpect.spawn) -> list:
    return termios.tcgetattr(terminal.child_fd)[:4]


# The time is long here, so that a busy machine writes within it; then what the shell would read is what has leaked.
IN_FLIGHT = """
import os, select, sys, tty
from lamdatui.cli import launcher
launcher.SETTLE_SECONDS = 3.0
launcher.run([sys.executable, '-c', {child!r}, 'wait'])
tty.setraw(0)
left = os.read(0, 4096) if select.select([0], [], [], 0.1)[0] else b""
print('LEFT', left, 'END')
"""


def test_a_report_of_the_mouse_that_was_on_its_way_is_thrown_away() -> None:
    terminal = pexpect.spawn(sys.executable, ["-c", IN_FLIGHT.format(child=CHILD)], timeout=20, dimensions=(24, 80))
    terminal.expect(rb"READY (\d+) ")
    os.kill(int(terminal.match.group(1)), signal.SIGKILL)
    terminal.expect_exact(b"\x1b[?1003l")
    terminal.send("\x1b[<35;40;12M")
    terminal.expect(rb"LEFT (.*) END")
    assert terminal.match.group(1) == b"b''"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP, signal.SIGABRT])
def test_a_killed_child_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    before = local_modes(pexpect.spawn("/bin/cat", dimensions=(24, 80)))
    terminal, child = launch("wait")
    assert local_modes(terminal) != before, "the child went into raw mode"
    os.kill(child, number)
    output, code = finish(terminal)
    assert code == 128 + number
    assert_restored(output, terminal, before)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_child_that_exits_gives_its_code(code: int) -> None:
    before = local_modes(pexpect.spawn("/bin/cat", dimensions=(24, 80)))
    terminal, _ = launch(f"exit{code}")
    output, seen = finish(terminal)
    assert seen == code
    assert_restored(output, terminal, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_term_and_hup_reach_the_child(number: signal.Signals) -> None:
    terminal, child = launch("wait")
    os.kill(terminal.pid, number)
    output, code = finish(terminal)
    assert code == 128 + number
    assert MODES_OFF[0] in output
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_an_interrupt_is_the_childs_own_business() -> None:
    terminal, child = launch("ignore-int")
    os.kill(terminal.pid, signal.SIGINT)
    os.kill(child, signal.SIGINT)
    terminal.expect("INT-SEEN")
    time.sleep(0.2)
    assert terminal.isalive()
    os.kill(child, signal.SIGTERM)
    _, code = finish(terminal)
    assert code == 128 + signal.SIGTERM


def test_text_stays_where_it_is_when_no_alternate_screen_was_left() -> None:
    screen = pyte.Screen(40, 6)
    stream = pyte.ByteStream(screen)
    # pyte does not know the kitty protocol and would print its last letter.
    stream.feed(b"first\r\nsecond\r\n" + RESET.replace("\x1b[<u", "").encode() + b"third")
    assert [line.rstrip() for line in screen.display[:3]] == ["first", "second", "third"]
    assert not screen.cursor.hidden


def test_without_a_terminal_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from lamdatui.cli.launcher import run; sys.exit(run([sys.executable, '-c', 'print(7)']))"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"7\n")


def test_a_command_that_does_not_exist_raises_and_restores() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        run(["/does/not/exist"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_launcher_stays_small() -> None:
    code = "import sys, lamdatui.cli.launcher; assert not {'textual', 'asyncio', 'rich', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_console_that_is_killed_leaves_the_terminal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMDATUI_HOME", str(tmp_path / "home"))
    before = local_modes(pexpect.spawn("/bin/cat", dimensions=(24, 80)))
    command = [*console_command(tmp_path)]
    code = f"from lamdatui.cli.launcher import run; print('CODE', run({command!r}))"
    terminal = pexpect.spawn(sys.executable, ["-c", code], timeout=30, dimensions=(24, 80))
    terminal.expect("Pipeline")
    [child] = children(terminal.pid)
    os.kill(child, signal.SIGKILL)
    output, result = finish(terminal)
    assert result == 128 + signal.SIGKILL
    assert_restored(output, terminal, before)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


# As `make` does: it hears that the terminal is gone, tells nobody, and waits for its children.
DEAF = "import signal, subprocess, sys; signal.signal(signal.SIGHUP, lambda *_: None); subprocess.run([sys.executable, '-c', {code!r}])"


@pytest.mark.parametrize("how", ["wait", "ignore-hup"])
def test_the_console_ends_with_its_terminal_whoever_else_waits(how: str) -> None:
    code = PARENT.format(child=CHILD, how=how)
    terminal = pexpect.spawn(sys.executable, ["-c", DEAF.format(code=code)], timeout=20, dimensions=(24, 80))
    terminal.expect(rb"READY (\d+) ")
    child = psutil.Process(int(terminal.match.group(1)))
    ours = [child, *child.parents()[:2]]
    assert ours[-1].pid == terminal.pid
    # The window is closed: nobody reads, and the leader alone is told. By the object that has the descriptor, which would close the number again.
    terminal.ptyproc.fileobj.close()
    _, alive = psutil.wait_procs(ours, timeout=10)
    for process in alive:
        process.kill()
    terminal.ptyproc.closed = terminal.closed = True  # nothing is left to be ended
    assert not alive, f"{[process.pid for process in alive]} of {[process.pid for process in ours]} outlive the terminal"
