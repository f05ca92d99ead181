"""How soon a run goes on after its engine was killed, and how soon a long run is open.

`python -m bench.recovery`: an engine trains on the lab, is killed (SIGKILL) in the midst of its step, and is started again as the console
does it; the step goes on meanwhile. Again and again, at moments that a seed draws. **answers**: from the start to the greeting of the new
engine; **followed**: from the start to the first line of the step's metrics that the new engine passes on, which a step writes about every 0.2 s;
**imports**: what importing the engine takes alone.

`python -m bench.recovery --events 100000`: a run of that many events, written by the real journal (`bench/bigrun.py`), is opened by each
reader in a process of its own, after its imports: seconds, those of CPU (which other work on the machine changes least), and MiB of peak RSS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from lamdatui.base import paths

SLEEP = 0.2
"""Seconds that a training step waits, so that the training takes no core from what is measured."""
CATALOGUE = paths.cache_dir() / "catalogue"
SETS = (
    "mode=auto",
    "budget={trials: 1, wall_minutes: null, baselines: 0, replicates: 0, promotion: 0}",
    "actions={sft: {method: {default: full}, max_steps: {default: 100000}, max_length: {default: 64}}}",
)
READERS = {
    "read_state": "from lamdatui.store.journal import read_state as act",
    "read_run": "from lamdatui.store.journal import read_run as act",
    "engine's journal": "from lamdatui.store.journal import Journal as act",
    "lamdatui show": "from lamdatui.cli.show import print_run\ndef act(db): print_run(str(db.parent), db.parent.parent, planner=False, as_json=False)",
    "lamdatui show --json": "from lamdatui.cli.show import print_run\ndef act(db): print_run(str(db.parent), db.parent.parent, planner=False, as_json=True)",
}
OPEN = """
import json, re, sys, time
from pathlib import Path
{act}
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before, began, cpu = peak(), time.perf_counter(), time.process_time()
kept = act(Path(sys.argv[1]))
print(json.dumps([time.perf_counter() - began, time.process_time() - cpu, before, peak()]), file=sys.stderr)
"""


def row(name: str, seconds: Sequence[float]) -> str:
    """p50, p95 (the nearest rank) and the largest."""
    ranked = sorted(seconds)
    p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]
    return f"{name:12} {statistics.median(ranked):8.2f} {p95:8.2f} {ranked[-1]:8.2f}"


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder on this disk for a home of its own, which shares the catalogue alone, and for runs."""
    with tempfile.TemporaryDirectory(prefix="lamdatui-bench-", dir=".") as name:
        folder = Path(name).resolve()
        (folder / "home" / "cache").mkdir(parents=True)
        (folder / "home" / "cache" / "catalogue").symlink_to(CATALOGUE)
        os.environ["LAMDATUI_HOME"] = str(folder / "home")
        yield folder


# --- kills -----------------------------------------------------------------------------------------------------------


async def followed(run_dir: Path) -> None:
    """Attach as the console does, and wait until a line of the step's metrics comes."""
    from lamdatui.wire.client import Client

    client = await Client.connect(run_dir)
    attach = asyncio.create_task(client.command("attach", role="console", snapshot=True))
    try:
        async for frame in client.frames():
            if frame["type"] == "metric" and "loss" in frame["metric"]:
                return
    finally:
        attach.cancel()
        await client.close()
    raise SystemExit(f"the engine of {run_dir} went away")


def start(run_dir: Path) -> tuple[float, float]:
    """Seconds until a new engine answers, and until it follows the step."""
    from lamdatui.wire.rundir import StartOptions, held_engine

    began = time.monotonic()
    with held_engine(run_dir, StartOptions()) as is_new:
        assert is_new, "there was an engine"
        answers = time.monotonic() - began
        asyncio.run(asyncio.wait_for(followed(run_dir), 120))
    return answers, time.monotonic() - began


def imports() -> float:
    """Seconds that importing the engine takes."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-P", "-c", "import lamdatui.engine.__main__"], check=True)
    return time.monotonic() - began


def kills(count: int, seed: int) -> None:
    """Kill the engine so often; the table."""
    from lamdatui.inputs.profile import find_profile, load_profile
    from lamdatui.store.journal import read_state
    from lamdatui.wire.rundir import prepare_run, wait_for_end

    rng, told = random.Random(seed), dict[str, list[float]](answers=[], followed=[], imports=[])
    with home() as folder:
        run_dir = prepare_run(load_profile(find_profile("lab"), list(SETS)), "killed", folder / "runs")
        os.environ["LAMDATUI_FAULTS"] = f"step.train-step=sleep:{SLEEP}"
        start(run_dir)
        del os.environ["LAMDATUI_FAULTS"]
        (step,) = [
            record for record in read_state(run_dir / "run.db").steps.values() if record.status == "running" and record.trial
        ]
        assert step.pid is not None
        trained = psutil.Process(step.pid)
        try:
            for _ in range(count):
                time.sleep(rng.uniform(0.1, 2.0))
                engine = read_state(run_dir / "run.db").engine_pid
                assert engine is not None
                os.kill(engine, signal.SIGKILL)
                assert wait_for_end(run_dir, 30)
                answers, following = start(run_dir)
                told["answers"].append(answers)
                told["followed"].append(following)
                told["imports"].append(imports())
            state = read_state(run_dir / "run.db")
            assert trained.is_running() and state.epoch == count + 1
            assert [record.status for record in state.steps.values() if record.trial] == ["running"], "it is the same step"
        finally:
            trained.kill()
            engine = read_state(run_dir / "run.db").engine_pid
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(engine, signal.SIGKILL)  # type: ignore[arg-type]
            wait_for_end(run_dir, 30)
    print(f"{'seconds':12} {'p50':>8} {'p95':>8} {'max':>8}   n={count}, seed {seed}, load {os.getloadavg()[0]:.1f}")
    for name, seconds in told.items():
        print(row(name, seconds))
    print(row("beyond", [a - b for a, b in zip(told["followed"], told["imports"], strict=True)]), "  followed less imports")


# --- long runs -------------------------------------------------------------------------------------------------------


def opened(db: Path, act: str) -> list[float]:
    """Seconds, those of CPU, and MiB of peak RSS before and after, of one reader in a process of its own."""
    words = [sys.executable, "-P", "-c", OPEN.format(act=act), str(db)]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stderr.splitlines()[-1])


def opening(events: int, repeats: int) -> None:
    """Make a run of so many events, open it; the table."""
    from bench.bigrun import make
    from lamdatui.store.journal import read_state

    with home() as folder:
        db = folder / "runs" / "big" / "run.db"
        trials = events // 17
        while True:
            make(db.parent, trials)
            count = read_state(db).last_seq
            if count >= events:
                break
            trials += max(250, (events - count) // 17)
        size = sum(file.stat().st_size for file in db.parent.glob("run.db*")) / 2**20
        print(f"{count:,} events of {trials:,} trials, {size:.0f} MiB; medians of {repeats}, load {os.getloadavg()[0]:.1f}")
        print(f"{'':22} {'s':>7} {'CPU s':>7} {'MiB more':>9} {'MiB in all':>10}")
        for name, act in READERS.items():
            found = [opened(db, act) for _ in range(repeats)]
            seconds, cpu, before, after = (statistics.median(part) for part in zip(*found, strict=True))
            print(f"{name:22} {seconds:7.2f} {cpu:7.2f} {after - before:9.0f} {after:10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, help="open a run of so many, and kill nothing")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.events:
        opening(options.events, options.repeats)
    else:
        kills(options.kills, options.seed)


if __name__ == "__main__":
    main()
