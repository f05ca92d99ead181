"""Whether the profiles run on a CUDA machine, and what they take there: seconds, memory, device, step host, scores.

Where there is no GPU that this torch can use, it says so and ends with 0: nothing is claimed that was not run.

    python bench/gpu_smoke.py [--profiles lab quickstart] [--trials 4] [--dtype bfloat16] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.engine.warmhost import StepHost
from lamdatui.hardware.gpu import read_gpus

SAMPLE_SECONDS = 0.5
PROGRAM = [sys.executable, "-m", "lamdatui"]


@dataclass
class Readings:
    """NVML over the time of a run; `memory_before` is what the GPUs held already."""

    memory_before: list[int]
    memory_peak: list[int]
    util_peak: list[int]
    power_peak_w: list[float]
    samples: int = 0


class Sampler(threading.Thread):
    """Reads the GPUs every half second until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        gpus, _ = read_gpus()
        held = [gpu["memory_used"] or 0 for gpu in gpus]
        self.readings = Readings(held, list(held), [0] * len(gpus), [0.0] * len(gpus))

    def run(self) -> None:
        """Keep the peak of every value that the driver gives."""
        found = self.readings
        while not self._over.wait(SAMPLE_SECONDS):
            for at, gpu in enumerate(read_gpus()[0][: len(found.memory_peak)]):
                found.memory_peak[at] = max(found.memory_peak[at], gpu["memory_used"] or 0)
                found.util_peak[at] = max(found.util_peak[at], gpu["util"] or 0)
                found.power_peak_w[at] = max(found.power_peak_w[at], gpu["power_w"] or 0.0)
            found.samples += 1

    def stop(self) -> Readings:
        """The peaks."""
        self._over.set()
        self.join()
        return self.readings


@dataclass
class Smoke:
    """One profile's run."""

    profile: str
    dtype: str
    exit_code: int
    seconds: float
    readings: Readings
    shown: dict[str, Any] = field(default_factory=dict)
    told: str = ""

    def problems(self) -> list[str]:
        """What is not as it has to be on CUDA."""
        if not self.shown:
            return [f"the run left nothing to show: {self.told}"]
        found = [] if self.exit_code == 0 else [f"exit code {self.exit_code}: {self.told}"]
        engine = self.shown["engine"]
        if engine.get("device") != "cuda" or engine.get("dtype") != self.dtype:
            found.append(f"ran on {engine.get('device')} in {engine.get('dtype')}, not on cuda in {self.dtype}")
        done = [trial for trial in self.shown["trials"] if trial["status"] == "done"]
        found += [] if done else ["no trial was done"]
        for trial in self.shown["trials"]:
            if trial["error"]:
                found.append(f"trial {trial['number']}: {trial['error'].get('class')}: {trial['error'].get('message')}")
        grown = [peak - held for peak, held in zip(self.readings.memory_peak, self.readings.memory_before, strict=True)]
        if max(grown, default=0) <= 0:
            found.append("no GPU's memory grew: the steps did not use one")
        return found


def step_host() -> dict[str, Any]:
    """The warm host's own words: how it starts steps and what CUDA it sees. Raises LamdatuiError when it dies."""

    async def ask(log: Path) -> dict[str, Any]:
        host = StepHost(log, 1)
        try:
            return await host.ready()
        finally:
            await host.close()

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(ask(Path(folder) / "host.log"))


def run_profile(profile: str, trials: int, dtype: str, runs_dir: Path) -> Smoke:
    """Run a profile headless under the sampler and read what it recorded."""
    name = f"smoke-{Path(profile).stem}"
    place = ["--runs-dir", str(runs_dir)]
    command = [*PROGRAM, "run", profile, "--name", name, "--headless", "--mode", "auto", "--max-trials", str(trials)]
    command += ["--set", "budget.baselines=0"]
    sampler = Sampler()
    sampler.start()
    began = time.monotonic()
    # The lab asks for float32: without saying otherwise its run would show nothing of bf16.
    done = subprocess.run(
        [*command, "--set", "device=cuda", "--set", f"dtype={dtype}", *place],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seconds = time.monotonic() - began
    smoke = Smoke(profile, dtype, done.returncode, seconds, sampler.stop(), told=" ".join(done.stderr.split())[-500:])
    shown = subprocess.run([*PROGRAM, "show", name, "--json", *place], capture_output=True, text=True)
    if shown.returncode == 0:
        smoke.shown = json.loads(shown.stdout)
    return smoke


def why_not() -> tuple[str, dict[str, Any]]:
    """(why nothing can be run here, "" when it can; what the step host says)."""
    gpus, reason = read_gpus()
    if not gpus:
        return reason, {}
    try:
        host = step_host()
    except LamdatuiError as error:
        raise SystemExit(f"the step host does not start: {error}") from error
    return ("" if host["cuda"] else "NVML sees a GPU, but this build of torch has no CUDA"), host


def describe(smoke: Smoke) -> list[str]:
    """A profile's run for people."""
    mib = 1024 * 1024
    lines = [f"{smoke.profile}: {smoke.seconds:.1f} s, exit code {smoke.exit_code}"]
    if smoke.shown:
        engine = smoke.shown["engine"]
        lines.append(f"  engine.device {engine.get('device')}, dtype {engine.get('dtype')}; {smoke.shown['status']}")
    for trial in smoke.shown.get("trials", ()):
        parts = "  ".join(f"{name} {value:.1f}" for name, value in trial["seconds"].items() if value)
        scores = "  ".join(f"{task} {splits['search']['mean']:.3f}" for task, splits in trial["scores"].items())
        kind = trial["action"]["type"] if trial["action"] else "-"
        lines.append(f"  trial {trial['number']}: {kind} {trial['status']}  s: {parts}  {scores}")
    found = smoke.readings
    for at, peak in enumerate(found.memory_peak):
        grown = (peak - found.memory_before[at]) / mib
        lines.append(
            f"  GPU {at}: peak memory {peak / mib:.0f} MiB ({grown:+.0f} by this run), utilisation {found.util_peak[at]} %, "
            f"power {found.power_peak_w[at]:.0f} W, {found.samples} samples"
        )
    return lines + [f"  PROBLEM {text}" for text in smoke.problems()]


def main() -> int:
    """Run what can be run; 1 when it ran and was not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", default=["lab", "quickstart"])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args()
    reason, host = why_not()
    if reason:
        print(json.dumps({"run": False, "reason": reason}) if options.json else f"not run: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="lamdatui-smoke-") as folder:
        smokes = [run_profile(profile, options.trials, options.dtype, Path(folder)) for profile in options.profiles]
    expected = os.environ.get("LAMDATUI_STEP_HOST") or "spare"
    wrong = [] if host["mode"] == expected else [f"the step host's mode is {host['mode']}, not {expected}"]
    if options.json:
        found = [{**asdict(smoke), "problems": smoke.problems()} for smoke in smokes]
        print(json.dumps({"run": True, "host": host, "problems": wrong, "profiles": found}, indent=1))
    else:
        print(f"step host: {host['mode']} ({host['why']}), {host['cuda']} CUDA devices")
        print("\n".join([*(f"PROBLEM {text}" for text in wrong), *(line for smoke in smokes for line in describe(smoke))]))
    return 1 if wrong or any(smoke.problems() for smoke in smokes) else 0


if __name__ == "__main__":
    sys.exit(main())
