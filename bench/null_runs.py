"""Real searches whose training hardly changes anything: how often a run says that something is a gain.

    python -m bench.null_runs [--runs 10] [--rate 1e-8] [--trials 8]

Each is a whole run of the lab with every learning rate set to `--rate`, real training, merges and scores included, with other seeds. Told of each: how many of its
models score otherwise than the base, how many models are green on the search rows, how many are red, and what is said of the winner on the sealed ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lamdatui.domain.verdicts import direction, looks, measured
from lamdatui.store.journal import read_state


def run(folder: Path, seed: int, rate: float, trials: int) -> dict[str, Any]:
    """One run in `folder`, and what it said. Raises RuntimeError when it does not end well."""
    sets = [f"seed={seed}", f"budget={{trials: {trials}, baselines: 0, replicates: 0}}"]
    sets += [f"actions.{kind}.learning_rate={{default: {rate:.1e}, choices: [{rate:.1e}]}}" for kind in ("sft", "dpo")]
    words = [sys.executable, "-m", "lamdatui", "run", "lab", "--headless", "--mode", "auto", "--name", f"null-{seed}"]
    words += [word for each in sets for word in ("--set", each)]
    done = subprocess.run(words, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    state = read_state(folder / "lamdatui-runs" / f"null-{seed}" / "run.db")
    gains = [trial.gain or {} for trial in measured(state)]
    signs = [direction(gain, looks(state)) for gain in gains]
    return {
        "seed": seed,
        "models": len(gains),
        "changed": sum(gain.get("mean") != 0 for gain in gains),
        "green": sum(sign > 0 for sign in signs),
        "red": sum(sign < 0 for sign in signs),
        "beats_base": state.beats_base,
    }


def main() -> None:
    """Print one JSON object a run, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-8)
    parser.add_argument("--trials", type=int, default=8)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, given.runs + 1):
            found.append(run(Path(folder), seed, given.rate, given.trials))
            print(json.dumps(found[-1]), flush=True)
    sums = {
        name: sum(bool(one[name]) if name == "beats_base" else one[name] for one in found)
        for name in found[0]
        if name != "seed"
    }
    print(json.dumps({"runs": len(found), "with a green model": sum(one["green"] > 0 for one in found), **sums}))


if __name__ == "__main__":
    main()
