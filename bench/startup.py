"""How soon the command line and the console are there: `--help`, and first paint against an empty Textual app.

First paint is the time from the start of the process until 1,500 bytes have been drawn on a pseudo-terminal of 120x40,
which is after the first whole frame has begun. Each round runs all programs once, so that a change of load meets all.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

FIRST_FRAME_BYTES = 1500
EMPTY_APP = "from textual.app import App; App().run()"
HEAVY = ("torch", "transformers", "trl", "peft", "mergekit", "datasets", "xllamacpp", "numpy")
GOAL_HELP_SECONDS = 0.150
GOAL_PAINT_RATIO = 1.5


def first_paint(words: list[str], environment: dict[str, str]) -> float:
    """Seconds until a program has drawn its first frame; the program is then ended."""
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.execve(sys.executable, [sys.executable, *words], environment)
    drawn, found = 0, float("nan")
    try:
        while drawn < FIRST_FRAME_BYTES:
            drawn += len(os.read(terminal, 65536))
        found = time.perf_counter() - began
    except OSError:
        pass
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(terminal)
    return found


def help_seconds() -> float:
    """Seconds of one `lamdatui --help`."""
    began = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "lamdatui"), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def imported(module: str) -> list[str]:
    """Which heavy libraries importing a module brings in."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def measure(rounds: int) -> dict[str, object]:
    """Medians over the rounds, and what was imported."""
    times: dict[str, list[float]] = {"help": [], "empty": [], "console": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TERM": "xterm-256color", "LAMDATUI_HOME": folder}
        for _ in range(rounds):
            times["help"].append(help_seconds())
            times["empty"].append(first_paint(["-c", EMPTY_APP], environment))
            times["console"].append(first_paint(["-P", "-m", "lamdatui.ui", folder], environment))
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return {
        "rounds": rounds,
        "seconds": medians,
        "paint_ratio": round(medians["console"] / medians["empty"], 2),
        "imported": {
            module: imported(module)
            for module in ("lamdatui.cli.app", "lamdatui.ui.app.consoleapp", "lamdatui.engine.__main__")
        },
        "load": os.getloadavg(),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    seconds: dict[str, float] = found["seconds"]  # type: ignore[assignment]
    print(f"lamdatui --help        {seconds['help']:.3f} s   (goal {GOAL_HELP_SECONDS:.3f})")
    print(f"empty Textual app      {seconds['empty']:.3f} s   to first paint")
    print(
        f"console                {seconds['console']:.3f} s   to first paint, {found['paint_ratio']}x (goal {GOAL_PAINT_RATIO}x)"
    )
    for module, names in found["imported"].items():  # type: ignore[attr-defined]
        print(f"{module:24} imports {', '.join(names) or 'none'} of {', '.join(HEAVY)}")
    print(f"medians of {found['rounds']} rounds; load average {', '.join(f'{value:.1f}' for value in os.getloadavg())}")


if __name__ == "__main__":
    main()
