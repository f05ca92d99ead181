"""`python -m tests.simulator`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from lamdatui.base import paths
from tests.simulator.simulation import Simulation
from tests.simulator.spaces import Variant, place, private_home, variants


def simulate(seed: int, known: list[Variant], say: Callable[[str], None] = lambda _: None) -> tuple[Simulation, str]:
    """One seed; the simulation, and what went wrong. The home has to be private: what steps have taken is forgotten, or a seed would depend on those
    before it."""
    paths.measurements_file().unlink(missing_ok=True)
    with place() as folder:
        simulation = Simulation(seed, known, folder, say)
        try:
            simulation.run()
        except Exception:  # noqa: BLE001 (whatever it is, it went wrong)
            return simulation, traceback.format_exc(limit=-6)
        return simulation, ""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone, told")
    options = parser.parse_args(words)
    with place() as folder, private_home(folder):
        known = variants(folder)
        if options.seed is not None:
            simulation, wrong = simulate(options.seed, known, print)
            print(dict(simulation.counts), wrong)
            return bool(wrong)
        began, counts, bad, lives = time.monotonic(), Counter[str](), [], 0
        for seed in range(options.first, options.first + options.seeds):
            simulation, wrong = simulate(seed, known)
            counts += simulation.counts
            lives += simulation.lives
            if wrong:
                bad.append(seed)
                print(f"seed {seed}: {wrong}", flush=True)
            if (done := seed - options.first + 1) % 100 == 0:
                print(f"{done} seeds, {lives} engines, {len(bad)} bad", file=sys.stderr, flush=True)
        for what, times in sorted(counts.items()):
            print(f"{times:8d} {what}")
        print(f"{options.seeds} seeds, {lives} engines, {len(bad)} bad {bad[:20]}, {time.monotonic() - began:.0f} s")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
