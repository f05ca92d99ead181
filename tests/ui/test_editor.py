"""A person's editor on a real terminal: it has the terminal to itself, and the console comes back whole."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

from lamdatui.cli.launcher import KEEP_TITLE
from lamdatui.ui.card.grace import GRACE_SECONDS
from tests.ui import script
from tests.ui.fake_engine import FakeEngine, in_thread

# Says what the terminal is like, waits for a key as an editor does, changes a value, and can be interrupted.
EDITOR = """
import signal, sys, termios, time
modes = termios.tcgetattr(0)[3]
print("EDITING", "cooked" if modes & termios.ICANON and modes & termios.ECHO else "raw", flush=True)
signal.signal(signal.SIGINT, lambda *_: print("INTERRUPTED", flush=True))
while (line := sys.stdin.readline().strip()) != "done":
    print("TYPED", line, flush=True)
path = sys.argv[1]
text = open(path).read()
print("HEAD", text.splitlines()[0], flush=True)
open(path, "w").write(text.replace("epochs: 1", "epochs: 3"))
"""
F2 = "\x1bOQ"


class Screen:
    """A console on a pseudo-terminal, as a terminal shows it."""

    def __init__(self, run_dir: Path, editor: Path) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "VISUAL": f"{sys.executable} {editor}"}
        environment.pop("NO_COLOR", None)
        words = ["-P", "-m", "lamdatui.cli.launcher", sys.executable, "-P", "-m", "lamdatui.ui", str(run_dir)]
        self.child = pexpect.spawn(sys.executable, words, env=environment, dimensions=(40, 120), timeout=5)
        self.screen = pyte.Screen(120, 40)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.screen.display).replace("\u00a0", " ")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{what} never came:\n{self.text}\n{self.raw[-600:]!r}"
            try:
                data = self.child.read_nonblocking(65536, timeout=0.1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert condition(), f"{what} never came before the end:\n{self.text}"
                return
            self.raw += data
            self.stream.feed(data)

    def since(self, mark: bytes) -> bytes:
        """What came after the newest `mark`."""
        return self.raw.rpartition(mark)[2]


@pytest.fixture
def console(engine: FakeEngine, run_dir: Path, tmp_path: Path) -> Iterator[Screen]:
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    script.answer_orders(engine)
    program = tmp_path / "editor.py"
    program.write_text(EDITOR)
    with in_thread(engine):
        screen = Screen(run_dir, program)
        yield screen
        screen.child.close(force=True)


def test_an_action_is_changed_in_an_editor_and_the_terminal_comes_back(console: Screen, engine: FakeEngine) -> None:
    console.until(lambda: "Approve trial 5: sft?" in console.text and "to answer it" in console.text, "the card")
    console.until(lambda: "● lamdatui: approve sft?".encode() in console.raw, "the title")
    console.child.send(F2)
    console.until(lambda: "a approve" in console.text, "the keys of the card")
    time.sleep(GRACE_SECONDS * 1.7)
    console.child.send("\x05")
    console.until(lambda: b"EDITING cooked" in console.raw, "the editor, on a terminal that is not raw")
    left = console.raw[: console.raw.index(b"EDITING")]
    for mode in (1000, 1003, 1006, 2004, 1004, 1049):
        assert left.rfind(b"\x1b[?%dl" % mode) > left.rfind(b"\x1b[?%dh" % mode), f"mode {mode} is on in the editor"
    console.child.send("hello\r")
    console.until(lambda: b"TYPED hello" in console.raw, "what was typed")
    console.child.send("\x03")
    console.until(lambda: b"INTERRUPTED" in console.raw, "the interrupt, which is the editor's")
    console.child.send("done\r")
    console.until(lambda: b"HEAD # Trial 5: sft" in console.raw and "epochs 1 → 3" in console.text, "the difference")
    back = console.since(b"HEAD")
    for mode in (1049, 1000, 1003, 1006, 2004, 1004):
        assert b"\x1b[?%dh" % mode in back, f"mode {mode} is not on again"
    assert "changed by you" in console.text and not engine.sent("decide")
    console.until(lambda: "objective 0.410" in console.text, "the engine's word")
    time.sleep(GRACE_SECONDS * 1.7)
    console.child.send("a")
    console.until(lambda: engine.sent("decide"), "the decision")
    [args] = engine.sent("decide")
    assert args["verdict"] == "edit" and args["action"]["params"]["epochs"] == 3
    console.child.send("\x11")
    console.until(lambda: "Quit the console?" in console.text, "the question")
    console.child.send("\r")
    console.until(lambda: not console.child.isalive(), "the end")
    assert console.raw.count(KEEP_TITLE.encode()) == 1
    assert console.raw.endswith(b"\x1b[23;0t")
