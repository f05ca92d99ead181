"""What it costs that a fact which was acknowledged is on disk: a trial's commits and files, with the disk's syncs and without them.

The commits are those of a trial with a model as `bench/bigrun.py` makes it, with as many events in each as the engine commits at once. The
files are those of its attempt, its result of about 1 MiB and its evaluations, written by the product's own functions. **synced**: as it is;
**off**: `PRAGMA synchronous=OFF`, and `os.fsync` that does nothing. Both take turns, a trial each, on the disk of `--folder`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bigrun import BigRun, Fact
from lamdatui.base.jsonio import make_folder, write_json
from lamdatui.step.files import CONFIG, TRAINED, claim, write_outcome, write_request
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal

TOGETHER = {"object.added": "result", "evaluation.recorded": "result", "memory.updated": "close", "trial.closed": "close"}
"""Events that the engine commits at once, by the name of the commit; each of the others is a commit of its own."""
Json = dict[str, Any]


def commits_of(facts: list[Fact]) -> list[list[Fact]]:
    """A trial's events as the engine commits them."""
    found: list[list[Fact]] = []
    last = ""
    for kind, data in facts:
        name = TOGETHER.get(kind, "")
        if name and name == last:
            found[-1].append((kind, data))
        else:
            found.append([(kind, data)])
        last = name
    return found


@contextmanager
def no_sync() -> Iterator[None]:
    """What is told to be synced is not."""
    sync, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = sync


@contextmanager
def as_it_is() -> Iterator[None]:
    """It is."""
    yield


class Side:
    """A run on the disk, synced or not, and what each of its trials has taken."""

    def __init__(self, folder: Path, synced: bool, big: BigRun) -> None:
        self.journal = Journal(folder / "run.db")
        self.journal.append(*big.start(1000))
        if not synced:
            self.journal._db.execute("PRAGMA synchronous=OFF")  # no product code writes without
        self.store = Store(folder / "store")
        self.folder = folder
        self.how = as_it_is if synced else no_sync
        self.commits: list[float] = []
        self.trials: list[float] = []
        self.files: list[float] = []
        self._big = big

    def trial(self, number: int, weights: bytes) -> None:
        """The commits and the files of one."""
        whole, commits = 0.0, commits_of(self._big.trial(number))
        while len(commits[-3]) == 1:  # it failed, and has no result
            commits = commits_of(self._big.trial(number))
        for facts in commits:
            began = time.perf_counter()
            self.journal.append(*facts)
            self.commits.append(time.perf_counter() - began)
            whole += self.commits[-1]
        self.trials.append(whole)
        with self.how():
            began = time.perf_counter()
            self._write(number, weights)
            self.files.append(time.perf_counter() - began)

    def _write(self, number: int, weights: bytes) -> None:
        place, digest = self.folder / "steps" / f"{number}" / "1", f"{number:064d}"
        make_folder(place)
        request = {"step": f"{number}/1", "digest": digest, "action": {"type": "sft", "params": {"learning_rate": 0.001}}}
        write_request(place, request)
        claim(place, "step")
        write_json(place / TRAINED, {"digest": digest, "pid": os.getpid()})
        write_json(place / CONFIG, {f"argument{n}": n for n in range(120)})
        with self.store.lock(digest), self.store.staging() as staged:
            (staged / "model.safetensors").write_bytes(weights)
            (staged / "config.json").write_text('{"model_type": "llama"}' * 20)
            self.store.publish(staged, digest, {"kind": "full", "action": request["action"]})
        rows = [{"id": f"{n}", "completion": "an answer", "score": 1.0} for n in range(100)]
        for task in range(3):
            self.store.record_evaluation(f"{number}-{task}", {"key": f"{number}-{task}", "rows": rows, "seconds": 1.0})
        write_outcome(place, {"status": "ok", "cached": False, "seconds": {"execute": 2.6, "evaluate": 0.5}, "error": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is measured")
    options = parser.parse_args()
    weights = random.Random(options.seed).randbytes(2**20)
    with tempfile.TemporaryDirectory(prefix="lamdatui-bench-", dir=options.folder) as name:
        sides = {}
        for how in ("synced", "off"):
            (Path(name) / how).mkdir()
            sides[how] = Side(Path(name) / how, how == "synced", BigRun(options.seed))
        for number in range(1, options.trials + 1):
            for side in sides.values():
                side.trial(number, weights)
        for side in sides.values():
            side.journal.close()
    synced, off = sides["synced"], sides["off"]
    print(
        f"{options.trials} trials of {len(synced.commits) / options.trials:.0f} commits, seed {options.seed}, load {os.getloadavg()[0]:.1f}; medians"
    )
    print(f"{'':26} {'synced':>9} {'off':>9} {'ratio':>7}")

    def told(title: str, one: float, other: float) -> None:
        print(f"{title:26} {one:9.2f} {other:9.2f} {one / other:7.2f}")

    told("ms a commit", *(statistics.median(side.commits) * 1000 for side in (synced, off)))
    told("commits a second", *(1 / statistics.median(side.commits) for side in (synced, off)))
    told("ms of commits a trial", *(statistics.median(side.trials) * 1000 for side in (synced, off)))
    told("ms of files a trial", *(statistics.median(side.files) * 1000 for side in (synced, off)))
    wholes = [statistics.median(a + b for a, b in zip(side.trials, side.files, strict=True)) * 1000 for side in (synced, off)]
    told("ms a trial", *wholes)
    print(f"{wholes[0] - wholes[1]:.0f} ms of a trial are the disk's syncs")


if __name__ == "__main__":
    main()
