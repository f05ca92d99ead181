"""The logs pane under a flood: a million lines come to a step's log at 10,000 a second while keys are pressed.

`headless`: the console in this process; a key counts from when it is posted to the end of the first paint that shows its
effect. `terminal`: the console as its own process on a pseudo-terminal of 120x40; a key counts from when it is written
to when the screen (pyte) shows its effect. Each is measured twice in the same run: idle, with a short log that does not
grow, and flooded; the ratio of the two is what can be compared between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import selectors
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyte
from rich.console import RenderableType
from textual.events import Key
from textual.screen import Screen

from lamdatui.ui.app.consoleapp import ConsoleApp
from tests.ui import script
from tests.ui.fake_engine import FakeEngine, in_thread

SIZE = (120, 40)
KEY_PAUSE = 0.1
FRAME_GAP = 0.01
KEY_SECONDS = 5.0
IDLE_KEYS = 100
GOAL_P99_MS = 50.0
MIB = 2**20
WRITER = """
import sys, time
path, lines, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
line = "step %d/1000000  loss 0.%04d  grad norm 0.734  tokens per second 5321\\n"
began, done = time.monotonic(), 0
with open(path, "a") as log:
    while done < lines:
        due = min(lines, int((time.monotonic() - began) * rate) + 1)
        log.write("".join(line % (number, number % 9973) for number in range(done, due)))
        log.flush()
        done = due
        time.sleep(0.01)
"""


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if not seconds:
        return {"keys": 0, "p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    found = sorted(seconds)
    p99 = found[min(len(found) - 1, round(0.99 * (len(found) - 1)))]
    values = {"p50": statistics.median(found), "p99": p99, "max": found[-1]}
    return {"keys": len(found)} | {name: round(1000 * value, 1) for name, value in values.items()}


def writer(log: Path, lines: int, rate: float) -> subprocess.Popen[bytes]:
    """The process that writes."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(log), str(lines), str(rate)])


class TimedApp(ConsoleApp):
    """Counts its paints and tells the one that waits for an effect when it was painted."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        # As where the console is alone; the bench may take longer to leave it.
        self.own_process, self.leave_within = True, 600.0
        self.paints = 0
        self.awaited: Callable[[], bool] | None = None
        self.shown = asyncio.Event()
        self.shown_at = 0.0

    def send_key(self, key: str) -> None:
        """As the terminal's driver would."""
        character = " " if key == "space" else key if len(key) == 1 else None
        self.post_message(Key("slash" if key == "/" else key, character))

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, renderable)
        self.paints += 1
        if self.awaited is not None and self.awaited():
            self.awaited, self.shown_at = None, time.perf_counter()
            self.shown.set()


async def press(app: TimedApp, key: str, effect: Callable[[], object]) -> float:
    """Seconds until the effect of a key is painted. Raises TimeoutError."""
    before = effect()
    app.shown.clear()
    app.awaited = lambda: effect() != before
    began = time.perf_counter()
    app.send_key(key)
    await asyncio.wait_for(app.shown.wait(), KEY_SECONDS)
    return app.shown_at - began


async def keys(app: TimedApp, enough: Callable[[int], bool]) -> dict[str, dict[str, float]]:
    """Times on and off at the end, then scrolling up in the log, then a search that is typed; round and round."""
    view = app.console_screen.log_view
    times: dict[str, list[float]] = {"follow": [], "scroll": [], "search": []}
    pressed = 0

    async def one(kind: str, key: str, effect: Callable[[], object]) -> None:
        nonlocal pressed
        times[kind].append(await press(app, key, effect))
        pressed += 1
        await asyncio.sleep(KEY_PAUSE)

    while not enough(pressed):
        await press(app, "G", lambda: (view.following, view.times, time.perf_counter()))
        for _ in range(10):
            await one("follow", "t", lambda: view.times)
        for key in ("pageup", "k", "k", "j", "pageup", "k", "pageup", "k", "j", "pagedown"):
            await one("scroll", key, lambda: view.scroll_y)
        app.send_key("slash")
        while app.focused is None or app.focused.id != "log-search":
            await asyncio.sleep(0.02)
        await asyncio.sleep(KEY_PAUSE)
        for key in "step 99":
            await one("search", "space" if key == " " else key, needle_of(app))
        app.send_key("escape")
        await asyncio.sleep(KEY_PAUSE)
    everything = [value for group in times.values() for value in group]
    return {kind: quantiles(group) for kind, group in times.items()} | {"all": quantiles(everything)}


def needle_of(app: TimedApp) -> Callable[[], object]:
    """What is searched for."""

    def now() -> object:
        model = app.console_screen.log_view.model
        return model.search.needle if model and model.search else ""

    return now


async def headless(run_dir: Path, log: Path, lines: int, rate: float) -> dict[str, Any]:
    """In this process."""
    app = TimedApp(run_dir)
    found: dict[str, Any] = {}
    async with app.run_test(size=SIZE, notifications=True):
        while app.view.connection != "live":
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        app.send_key("3")
        await asyncio.sleep(0.5)
        found["idle"] = await keys(app, lambda pressed: pressed >= IDLE_KEYS)
        before = psutil.Process().memory_info().rss
        process = writer(log, lines, rate)
        model = app.console_screen.log_view.model
        assert model is not None
        begun, paints = time.perf_counter(), app.paints
        await asyncio.sleep(3.0)
        found["frames a second, following"] = round((app.paints - paints) / (time.perf_counter() - begun), 1)
        found["flooded"] = await keys(app, lambda _: process.poll() is not None)
        found["seconds of flood"] = round(time.perf_counter() - begun, 1)
        while model.is_busy or model.index.ends < lines:
            await asyncio.sleep(0.05)
        found["lines"] = model.index.count
        found["memory MiB"] = {
            "before": round(before / MIB, 1),
            "grown by": round((psutil.Process().memory_info().rss - before) / MIB, 1),
        }
        found["whole log, then"] = await keys(app, lambda pressed: pressed >= IDLE_KEYS)
    return found


class Terminal:
    """A console on a pseudo-terminal and what its screen shows."""

    def __init__(self, run_dir: Path, environment: dict[str, str]) -> None:
        self.screen = pyte.Screen(*SIZE)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
            os.execve(sys.executable, [sys.executable, "-P", "-m", "lamdatui.ui", str(run_dir)], environment)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._file, selectors.EVENT_READ)
        self.frames = 0
        self._read_at = 0.0

    def wait(self, condition: Callable[[], bool], seconds: float = 30.0) -> float:
        """Read until something is on the screen; when that was read. Raises TimeoutError."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if self._selector.select(0.05):
                data = os.read(self._file, 1 << 16)
                at = time.perf_counter()
                self._stream.feed(data)
                if condition():
                    return at
        raise TimeoutError("\n".join(self.screen.display))

    def drain(self, seconds: float) -> None:
        """Read for a while."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if self._selector.select(left):
                data = os.read(self._file, 1 << 16)
                # What comes after a gap is another frame.
                self.frames += time.perf_counter() - self._read_at > FRAME_GAP
                self._stream.feed(data)
                self._read_at = time.perf_counter()

    def send(self, text: str) -> float:
        """Write keys; when."""
        at = time.perf_counter()
        os.write(self._file, text.encode())
        return at

    def shows(self, text: str) -> bool:
        """Whether a text is on the screen."""
        return any(text in line for line in self.screen.display)

    def close(self) -> None:
        """End the console."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self._file)


def typed(terminal: Terminal, enough: Callable[[int], bool]) -> dict[str, float]:
    """Search texts that are typed and taken back, letter by letter."""
    times: list[float] = []
    while not enough(len(times)):
        terminal.send("/")
        terminal.wait(lambda: terminal.shows("search; enter keeps it"))
        text = ""
        for letter in "qstep 99":
            text += letter
            began = terminal.send(letter)
            times.append(terminal.wait(lambda wanted=text: terminal.shows(f"│{wanted}"), KEY_SECONDS) - began)
            terminal.drain(KEY_PAUSE)
        while len(text) > 1:
            text = text[:-1]
            began = terminal.send("\x7f")
            gone = f"│{text} "
            times.append(terminal.wait(lambda wanted=gone: terminal.shows(wanted), KEY_SECONDS) - began)
            terminal.drain(KEY_PAUSE)
        terminal.send("\x1b")
        terminal.drain(0.3)
    return quantiles(times)


def on_terminal(run_dir: Path, log: Path, lines: int, rate: float) -> dict[str, Any]:
    """As its own process."""
    terminal = Terminal(run_dir, {**os.environ, "TERM": "xterm-256color"})
    try:
        terminal.wait(lambda: terminal.shows("3 Logs · step"))
        terminal.send("3")
        terminal.drain(1.0)
        found: dict[str, Any] = {"idle": typed(terminal, lambda count: count >= IDLE_KEYS)}
        console = psutil.Process(terminal.pid)
        before = console.memory_info().rss
        process = writer(log, lines, rate)
        terminal.frames, begun = 0, time.perf_counter()
        terminal.drain(3.0)
        found["frames a second, following"] = round(terminal.frames / (time.perf_counter() - begun), 1)
        found["flooded"] = typed(terminal, lambda _: process.poll() is not None)
        terminal.drain(2.0)
        found["memory MiB"] = {
            "before": round(before / MIB, 1),
            "grown by": round((console.memory_info().rss - before) / MIB, 1),
        }
    finally:
        terminal.close()
    return found


def measure(kind: str, lines: int, rate: float) -> dict[str, Any]:
    """One kind, in a run directory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAMDATUI_HOME"] = f"{folder}/home"
        run_dir = Path(folder) / "run"
        run_dir.mkdir()
        engine = FakeEngine(run_dir)
        script.add_history(engine)
        script.add_running(engine, run_dir)
        engine.extra.clear()
        log = run_dir / "steps/7/1/log.txt"
        with in_thread(engine):
            if kind == "headless":
                return asyncio.run(headless(run_dir, log, lines, rate))
            return on_terminal(run_dir, log, lines, rate)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--only", choices=("headless", "terminal"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = [options.only] if options.only else ["headless", "terminal"]
    found = {kind: measure(kind, options.lines, options.rate) for kind in kinds}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for kind, values in found.items():
        idle = values["idle"].get("all", values["idle"])
        flooded = values["flooded"].get("all", values["flooded"])
        print(f"{kind}: {options.lines:,} lines at {options.rate:,.0f} a second")
        for name, value in values.items():
            print(f"  {name:28} {json.dumps(value)}")
        for name in ("p50", "p99"):
            print(
                f"  key to paint {name}: {flooded[name]} ms, {flooded[name] / idle[name]:.2f}x idle (goal p99 {GOAL_P99_MS} ms)"
            )
    print(f"load average {', '.join(f'{value:.1f}' for value in os.getloadavg())}")


if __name__ == "__main__":
    main()
