"""No table: the hybrid's surrogate and random on the lab itself, through the engine, with every step really run.

    python -m bench.policies.live [--seeds 5] [--trials 20] [--runs DIR]

Prints the winner's sealed objective of each run, and the paired difference with a 95% bootstrap interval over seeds. Runs share a store, so
what one policy has trained is not trained again for the other; scores are the same either way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.policies.report import interval

POLICIES = ("hybrid", "random")


def sealed(runs: Path, name: str) -> tuple[float, float]:
    """(sealed objective of the winner, gain over the base on sealed rows) of a run that has ended."""
    shown = subprocess.run(
        [sys.executable, "-m", "lamdatui", "show", name, "--json", "--runs-dir", str(runs)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(shown.stdout)
    scores = found["winner"]["scores"]
    return sum(splits["sealed"]["mean"] for splits in scores.values()), found["gain"]["sealed"]["objective"]["mean"]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    runs = options.runs or Path(tempfile.mkdtemp(prefix="lamdatui-live-"))
    found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for seed in range(1, options.seeds + 1):
        for policy in POLICIES:
            name = f"{policy}-{seed}"
            command = [
                sys.executable,
                "-m",
                "lamdatui",
                "run",
                "lab",
                "--name",
                name,
                "--headless",
                "--mode",
                "auto",
                "--policy",
                policy,
            ]
            command += [
                "--set",
                f"seed={seed}",
                "--set",
                "budget.wall_minutes=60",
                "--set",
                "budget.baselines=0",
                "--max-trials",
                str(options.trials),
            ]
            subprocess.run([*command, "--runs-dir", str(runs)], check=True, stderr=subprocess.DEVNULL)
            value, gain = sealed(runs, name)
            found[policy].append(value)
            print(
                f"seed {seed} {policy:8} sealed objective of the winner {value:.3f}, gain over the base {gain:+.3f}", flush=True
            )
    mean, low, high = interval([a - b for a, b in zip(found["hybrid"], found["random"], strict=True)])
    print(f"hybrid minus random: {mean:+.3f} [{low:+.3f}, {high:+.3f}], n={options.seeds} seeds of {options.trials} trials")


if __name__ == "__main__":
    main()
