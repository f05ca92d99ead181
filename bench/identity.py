"""What it costs to compare what is read with what was promised.

`python -m bench.identity RUN_DIR`: for each trial of a run that was made, the milliseconds of looking at its inputs, its result and its
evaluations, and their share of the trial. `python -m bench.identity --sparse GIB`: opening a model directory of that size (sparse
files: zeros are hashed like anything else), the first and the second time, and with `verify: always`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lamdatui.base.jsonio import read_record
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.step.files import OLDER_REQUEST, REQUEST
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state

REPEATS = 9
SHARD = 2 * 2**30


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median over so many calls."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def of_run(run_dir: Path) -> None:
    """A row a trial: milliseconds by part, and their sum's share of the trial's execute and evaluate."""
    from lamdatui.step.promises import check_inputs

    state, store = read_state(run_dir / "run.db"), Store(run_dir.parent / "store")
    print(f"{'trial':>5} {'type':14} {'inputs ms':>10} {'result ms':>10} {'scores ms':>10} {'trial s':>8} {'share':>7}")
    shares = []
    for number, trial in state.trials.items():
        if trial.step is None or trial.status != "done" or trial.action is None:
            continue
        request = read_record(run_dir / "steps" / trial.step / REQUEST, OLDER_REQUEST)
        parts = [
            seconds(lambda request=request: check_inputs(store, request)),
            seconds(lambda request=request: store.verify(request["digest"])),
            seconds(lambda request=request: [store.evaluation(each["key"]) for each in request["evaluations"]]),
        ]
        whole = trial.seconds["total"]
        shares.append(sum(parts) / whole)
        told = " ".join(f"{part * 1000:10.2f}" for part in parts)
        print(f"{number:5} {trial.action['type']:14} {told} {whole:8.2f} {shares[-1]:7.2%}")
    events = seconds(lambda: read_state(run_dir / "run.db"))
    print(
        f"median share {statistics.median(shares):.2%}, n={len(shares)}; reading {state.last_seq} chained events {events * 1000:.1f} ms"
    )


def of_sparse(gib: float) -> None:
    """Opening a model of that size, in seconds."""
    os.environ["LAMDATUI_HOME"] = tempfile.mkdtemp(prefix="lamdatui-bench-")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "tokenizer.json").write_text("{}")
        left, number = int(gib * 2**30), 0
        while left > 0:
            count = min(left, SHARD) // 2
            header = json.dumps({f"w{number}": {"dtype": "BF16", "shape": [count], "data_offsets": [0, count * 2]}}).encode()
            with (folder / f"model-{number}.safetensors").open("wb") as handle:
                handle.write(struct.pack("<Q", len(header)) + header)
                handle.truncate(8 + len(header) + count * 2)
            left, number = left - SHARD, number + 1
        for title, always in (("first", False), ("second", False), ("verify: always", True)):
            print(f"{title:15} {seconds(lambda always=always: inspect_model(folder, always=always), 1):8.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, nargs="?")
    parser.add_argument("--sparse", type=float, metavar="GIB")
    options = parser.parse_args()
    if options.sparse:
        of_sparse(options.sparse)
    if options.run_dir:
        of_run(options.run_dir)


if __name__ == "__main__":
    main()
