"""How the console does on long runs: opening, memory, key to paint, engine to screen, first paint.

A run of each length is made once (`bench/bigrun.py`), served by the engine's own socket server and opened by the real console on a
pseudo-terminal of 120x40. `opening` is from the connection to the first whole screen of the run. `key to paint` is from the parsing of
a key to the end of the paint that shows its effect; once while nothing happens, once while events arrive. `delay` is from the moment
at which the engine makes an event to the end of the paint that follows it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GOALS = {"opening": 1.0, "key p99": 0.050, "delay p99": 0.2, "paint ratio": 1.5}
KEYS_PER_SECOND = 10
Json = dict[str, Any]


# --- the engine's end ------------------------------------------------------------------------------------------------


async def serve(run_dir: Path, rate: float) -> None:
    """Serve a run; from SIGUSR1 on events arrive at `rate` a second. They are sent, not written, so that the run stays as it is."""
    from bench.bigrun import BigRun
    from lamdatui.base.paths import socket_path
    from lamdatui.domain.events import Event
    from lamdatui.engine.server import Server
    from lamdatui.store.journal import Journal

    journal = Journal(run_dir / "run.db")
    state = journal.state
    server = Server(socket_path(run_dir), journal, lambda command, args, role, name: None, asyncio.Event())
    go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
    await server.start()
    await go.wait()
    big = BigRun(2, [model.id for model in state.pool.models])
    number = max(state.trials, default=0)
    began, sent = time.monotonic(), 0
    while True:
        number += 1
        for kind, data in big.trial(number):
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
            event = Event(state.last_seq + 1, kind, time.time(), time.monotonic(), data)
            state.apply(event)
            server.publish({"type": "event", "event": event.to_json()})
            sent += 1


# --- the console's end -----------------------------------------------------------------------------------------------


def console(run_dir: Path, report: Path) -> None:
    """The console with a stop watch; it writes what it saw to `report` on SIGUSR1 and goes on."""
    import gc

    gc.disable()
    import psutil

    from lamdatui.ui.app.consoleapp import ConsoleApp
    from lamdatui.wire.client import Client

    connected: list[float] = []
    connect = Client.connect.__func__  # type: ignore[attr-defined]

    async def timed(cls: type[Client], *args: Any) -> Client:
        client = await connect(cls, *args)
        connected.append(time.monotonic())
        return client

    Client.connect = classmethod(timed)  # type: ignore[assignment]

    class Timed(ConsoleApp):
        """Notes when what was painted."""

        def __init__(self) -> None:
            super().__init__(run_dir)
            self.own_process = True
            self.seen: dict[str, list[float]] = {"opening": [], "key": [], "delay": []}
            self.frames = 0
            self._due: list[tuple[str, float]] = []
            self._keys: list[tuple[float, object]] = []

        def on_mount(self) -> None:
            super().on_mount()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._write)

        def _write(self) -> None:
            seen, self.seen = self.seen, {name: [] for name in self.seen}
            found = {"seen": seen, "rss": psutil.Process().memory_info().rss, "frames": self.frames, "at": time.monotonic()}
            report.with_suffix(".new").write_text(json.dumps(found))
            report.with_suffix(".new").rename(report)

        def receive(self, frames: list[Json]) -> None:
            was = self.view.connection
            super().receive(frames)
            due = [("opening", connected[-1])] if was != "live" and self.view.connection == "live" else []
            if was == "live":
                due += [("delay", frame["event"]["mono"]) for frame in frames if frame["type"] == "event"]
            if due:
                # After the message that updates the parts; the paint that follows shows them.
                self.console_screen.call_later(self._due.extend, due)

        async def on_event(self, event: Any) -> None:
            if type(event).__name__ == "Key":
                self._keys.append((event.time, self._place()))
            await super().on_event(event)

        def _place(self) -> object:
            widget = self.focused
            return [getattr(widget, name, None) for name in ("id", "_cursor", "cursor_line", "highlighted", "scroll_y")]

        def _display(self, screen: Any, renderable: Any) -> None:
            super()._display(screen, renderable)
            now, self.frames = time.monotonic(), self.frames + 1
            for name, since in self._due:
                self.seen[name].append(now - since)
            self._due.clear()
            if self._keys and self._place() != self._keys[0][1]:
                self.seen["key"].append(now - self._keys.pop(0)[0])
                self._keys.clear()

    Timed().run()


# --- the measurement -------------------------------------------------------------------------------------------------


@contextmanager
def engine_of(run_dir: Path, rate: float, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves a run."""
    from lamdatui.wire.rundir import greeted

    def answers() -> bool:
        connection = greeted(run_dir)
        if connection is not None:
            connection.close()
        return connection is not None

    words = [sys.executable, "-m", "bench.console", "--serve", str(run_dir), "--rate", str(rate)]
    process = subprocess.Popen(words, env=environment)
    try:
        _wait(lambda: answers() or process.poll() is not None, 120)
        yield process
    finally:
        process.kill()
        process.wait()


class Terminal:
    """A console on a pseudo-terminal whose output is read and dropped."""

    def __init__(self, run_dir: Path, folder: Path, environment: dict[str, str]) -> None:
        self.report = folder / "report.json"
        self.report.unlink(missing_ok=True)
        self.bytes = 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
            words = [sys.executable, "-m", "bench.console", "--console", str(run_dir), "--report", str(self.report)]
            os.execve(sys.executable, words, environment)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self._terminal, 65536):
                self.bytes += len(data)
        except OSError:
            return

    def press(self, seconds: float) -> None:
        """Cursor keys, down and up in turn."""
        for number in range(int(seconds * KEYS_PER_SECOND)):
            os.write(self._terminal, b"\x1b[B" if number % 2 == 0 else b"\x1b[A")
            time.sleep(1 / KEYS_PER_SECOND)

    def ask(self) -> Json:
        """What the console saw since it was last asked."""
        self.report.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        _wait(self.report.exists, 60)
        return json.loads(self.report.read_text())

    def opened(self) -> float:
        """Seconds that the opening took."""
        # The handler is there once something was painted.
        _wait(lambda: self.bytes > 1500, 60)
        time.sleep(0.5)
        found: list[float] = []

        def is_there() -> bool:
            found.extend(self.ask()["seen"]["opening"])
            return bool(found)

        _wait(is_there, 120, 0.25)
        return found[0]

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)


@contextmanager
def console_on(run_dir: Path, folder: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """A console that is ended in the end."""
    terminal = Terminal(run_dir, folder, environment)
    try:
        yield terminal
    finally:
        terminal.close()


def _wait(condition: Callable[[], object], seconds: float, step: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the console or its engine does not answer")
        time.sleep(step)


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie; nan without values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def measure(run_dir: Path, folder: Path, rounds: int, seconds: float, rate: float) -> Json:
    """All of one run."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    openings: list[float] = []
    with engine_of(run_dir, rate, environment) as engine:
        for _ in range(rounds - 1):
            with console_on(run_dir, folder, environment) as terminal:
                openings.append(terminal.opened())
        with console_on(run_dir, folder, environment) as terminal:
            openings.append(terminal.opened())
            terminal.press(seconds)
            time.sleep(1)
            idle = terminal.ask()
            engine.send_signal(signal.SIGUSR1)
            time.sleep(1)
            before = terminal.ask()
            terminal.press(seconds)
            load = terminal.ask()
    keys, busy, delays = idle["seen"]["key"], load["seen"]["key"], load["seen"]["delay"]
    return {
        "opening": round(statistics.median(openings), 3),
        "openings": [round(value, 3) for value in openings],
        "rss_mb": round(idle["rss"] / 1e6),
        "keys": [len(keys), len(busy)],
        "idle": {"p50": quantile(keys, 0.5), "p99": quantile(keys, 0.99)},
        "load": {"p50": quantile(busy, 0.5), "p99": quantile(busy, 0.99)},
        "delay": {"p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99)},
        "frames_per_second": round((load["frames"] - before["frames"]) / (load["at"] - before["at"]), 1),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=5, help="openings of each run; the median is printed")
    parser.add_argument("--seconds", type=float, default=20.0, help="of key presses, idle and under load")
    parser.add_argument("--rate", type=float, default=100.0, help="events a second under load")
    parser.add_argument("--paint-rounds", type=int, default=7, help="of the first paint; 0 leaves it out")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "lamdatui-bench-console")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--console", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.rate))
        return
    if options.console:
        console(options.console, options.report)
        return
    from bench.bigrun import make
    from bench.startup import measure as startup

    os.environ["LAMDATUI_HOME"] = str(options.folder / "home")
    found: Json = {}
    for trials in options.trials:
        run_dir = options.folder / f"big-{trials}"
        make(run_dir, trials)
        found[str(trials)] = measure(run_dir, options.folder, options.rounds, options.seconds, options.rate)
    if options.paint_rounds:
        found["paint_ratio"] = startup(options.paint_rounds)["paint_ratio"]
    found["load_average"] = os.getloadavg()
    print(json.dumps(found, indent=1) if options.json else table(found, options.rate))


def table(found: Json, rate: float) -> str:
    """For people."""
    head = f"{'trials':>7} {'opening':>9} {'memory':>8} {'key p50/p99':>15} {f'at {rate:g}/s':>15} {'delay p50/p99':>15} {'frames/s':>9}"
    lines = [head]
    for trials, row in found.items():
        if not trials.isdigit():
            continue
        pairs = " ".join(f"{row[k]['p50'] * 1000:6.0f}/{row[k]['p99'] * 1000:4.0f} ms" for k in ("idle", "load", "delay"))
        lines.append(f"{trials:>7} {row['opening']:7.2f} s {row['rss_mb']:5} MB {pairs} {row['frames_per_second']:9.1f}")
    if "paint_ratio" in found:
        lines.append(f"first paint: {found['paint_ratio']}x an empty Textual app's (goal {GOALS['paint ratio']}x)")
    lines.append(
        f"goals: opening {GOALS['opening']} s, key p99 {GOALS['key p99'] * 1000:.0f} ms, delay p99 {GOALS['delay p99'] * 1000:.0f} ms; "
        f"load average {', '.join(f'{value:.1f}' for value in found['load_average'])}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
