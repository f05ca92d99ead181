"""Every action, done for real: seconds, peak memory, and what it does to the lab's skills against its parent.

    python -m bench.actions                 the lab, every action, 3 seeds (about 10 minutes on one core)
    python -m bench.actions --only dpo kto  some of them
    python -m bench.actions --model         SmolLM2-135M, a few steps of each method (about 10 minutes on two cores)

Each step runs in a process forked from this one, as the step host does it: seconds and peak resident memory are the step's
own. Hyperparameters are those of profiles/methods.yaml. Effects are on the tasks' sealed rows, which no setting was chosen on:
the mean exact match over reverse, copy and call, minus the parent's; the interval is a paired bootstrap over rows within
each seed, averaged over the seeds. A data action is judged by what training on its result does to the model.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamdatui.catalogue.fetch import resolve
from lamdatui.domain.actions import BoundType
from lamdatui.hardware.system import has_fast_bfloat16
from lamdatui.inputs.profile import find_profile, load_profile
from lamdatui.inputs.workspace import bind_types
from lamdatui.tasks.stats import RESAMPLES
from tests.steps import SKILLS, Lab

SEEDS = (1, 2, 3)
ROWS = 200


class Bench(Lab):
    """The lab with each step in a forked process, whose seconds and peak memory are kept."""

    def __init__(self, lab: Path, folder: Path, *, dtype: str = "float32", threads: int = 1) -> None:
        super().__init__(lab, folder, dtype=dtype, threads=threads)
        self.registry.types.update(bind_types(load_profile(find_profile("methods")))[0])
        self.seconds = 0.0
        self.peak = 0

    def execute(self, folder: Path) -> None:
        """As the step host does it; 0.2 s of waiting are not the step's."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            with (folder / "log.txt").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            code = 1
            try:
                super().execute(folder)
                code = 0
            finally:
                os._exit(code)
        began = time.monotonic()
        _, _, usage = os.wait4(pid, 0)
        self.seconds, self.peak = time.monotonic() - began, usage.ru_maxrss * 1024


@dataclass
class Row:
    """What was seen of one action, over seeds."""

    name: str
    against: str
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    before: list[dict[str, list[float]]] = field(default_factory=list)
    after: list[dict[str, list[float]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def effect(self) -> tuple[float, float, float]:
        """Mean gain over skills, rows and seeds, with its 95% interval."""
        rng = np.random.default_rng(0)
        means, draws = [], np.zeros(RESAMPLES)
        for ours, theirs in zip(self.after, self.before, strict=True):
            for skill in SKILLS:
                change = np.array(ours[skill]) - np.array(theirs[skill])
                means.append(change.mean())
                draws += change[rng.integers(0, len(change), size=(RESAMPLES, len(change)))].mean(axis=1)
        low, high = np.quantile(draws / len(means), [0.025, 0.975])
        return float(np.mean(means)), float(low), float(high)

    def line(self) -> str:
        """One row of the table."""
        if not self.after:
            return f"{self.name:24} failed: {'; '.join(self.problems)[:90]}"
        mean, low, high = self.effect()
        seeds = " ".join(f"{_gain(a, b):+.2f}" for a, b in zip(self.after, self.before, strict=True))
        skills = " ".join(f"{np.mean([np.mean(one[skill]) for one in self.after]):.2f}" for skill in SKILLS)
        peak = max(self.peaks) / 2**20
        return (
            f"{self.name:24} {statistics.median(self.seconds):6.2f} {peak:7.0f}  {mean:+.3f} [{low:+.3f}, {high:+.3f}]  "
            f"{seeds:20} {skills}  {self.against}" + (f"  failed: {self.problems[0][:60]}" if self.problems else "")
        )


HEADER = f"{'action':24} {'s':>6} {'RSS MiB':>7}  {'effect [95%]':25} {'by seed':20} {' '.join(s[:4] for s in SKILLS)}  against"


def _gain(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    return float(np.mean([np.mean(ours[skill]) - np.mean(theirs[skill]) for skill in SKILLS]))


class Seed:
    """All actions once, for one seed: parents are made when first asked for."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.seed = seed
        self.scores: dict[str, dict[str, list[float]]] = {}
        self.parents: dict[str, str] = {}

    def parent(self, name: str) -> str:
        """A model that actions start from, made by SFT. `other` and `third` are siblings of `tuned` for merging: another seed,
        another rate. `left` and `right` are adapters."""
        full = {"model": ["llama"], "dataset": ["call_replay"]}
        lora = {"method": "lora", "lora_rank": 8, "learning_rate": 1e-2}
        recipes: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
            "tuned": (full, {}, 0),
            "other": (full, {"learning_rate": 1e-3}, 10),
            "third": (full, {"max_steps": 60}, 20),
            "phi_once": (full | {"model": ["phi"]}, {}, 0),
            "left": (full, lora, 0),
            "right": (full, lora, 10),
        }
        if name not in self.parents:
            inputs, params, offset = recipes[name]
            self.parents[name] = self.bench.model("sft", inputs, seed=self.seed + offset, **params).id
        return self.parents[name]

    def teacher(self) -> str:
        """A phi that was tuned twice: after one stage it is no better than what it should teach."""
        if "big" not in self.parents:
            inputs = {"model": [self.parent("phi_once")], "dataset": ["call_replay"]}
            self.parents["big"] = self.bench.model("sft", inputs, seed=self.seed, max_steps=60).id
        return self.parents["big"]

    def score(self, model: str) -> dict[str, list[float]]:
        """Row scores on the sealed split."""
        if model not in self.scores:
            self.scores[model] = self.bench.scores(model, split="sealed", rows=ROWS)
        return self.scores[model]

    def best(self, models: list[str]) -> str:
        """The model with the highest mean over the skills."""
        return max(models, key=lambda name: sum(float(np.mean(rows)) for rows in self.score(name).values()))

    def run(
        self, row: Row, inputs: dict[str, list[str]], follow: Callable[[str], str] | None = None, before: str | None = None
    ) -> None:
        """One action; what it made (or, with `follow`, what training on that made) against `before`, or its best parent."""
        models = [before] if before else [name for slot, ids in inputs.items() for name in ids if slot in ("model", "models")]
        try:
            made = self.bench.run(row.name, inputs, seed=self.seed)
            row.seconds.append(self.bench.seconds)
            row.peaks.append(self.bench.peak)
            result = follow(made.id) if follow else made.id
        except AssertionError as error:
            row.problems.append(str(error).splitlines()[0])
            return
        row.after.append(self.score(result))
        row.before.append(self.score(self.best(models) if models else "llama"))


def lab_rows(seed: Seed, table: dict[str, Row], only: list[str]) -> None:
    """Every action once; results go into `table`."""
    bench = seed.bench

    def do(
        name: str,
        against: str,
        inputs: dict[str, list[str]],
        follow: Callable[[str], str] | None = None,
        before: str | None = None,
    ) -> None:
        if not only or name in only:
            seed.run(table.setdefault(name, Row(name, against)), inputs, follow, before)
            print(table[name].line(), flush=True)

    def train(model: str) -> Callable[[str], str]:
        return lambda data: bench.model("sft", {"model": [model], "dataset": [data]}, seed=seed.seed).id

    def prefer(model: str) -> Callable[[str], str]:
        return lambda data: bench.model("dpo", {"model": [model], "dataset": [data]}, seed=seed.seed).id

    do("sft", "llama", {"model": ["llama"], "dataset": ["call_replay"]})
    tuned, other, third = seed.parent("tuned"), seed.parent("other"), seed.parent("third")
    for name in ("dpo", "kto", "simpo"):
        do(name, "its parent, an SFT of llama", {"model": [tuned], "dataset": ["prefer"]})
    do("orpo", "llama", {"model": ["llama"], "dataset": ["prefer"]})
    for name in ("grpo", "rloo"):
        do(name, "its parent, an SFT of llama", {"model": [tuned], "dataset": ["verify"]})
    do(
        "distill",
        "llama; teacher: a tuned phi",
        {"model": ["llama"], "teacher": [seed.teacher()], "dataset": ["call_replay"]},
    )
    for name, bound in bench.registry.types.items():
        if name.startswith("merge_") and name != "merge_adapters":
            do(name, "the best of its parents", _merge_inputs(bound, [tuned, other, third]))
    do("merge_adapters", "the best of its parents", {"models": [seed.parent("left"), seed.parent("right")]})
    do("mix", "SFT on it against llama", {"datasets": ["call", "reverse", "copy"]}, train("llama"))
    do("filter", "SFT on it against llama", {"dataset": ["call_replay"], "judge": ["llama"]}, train("llama"))
    do("rejection_sample", "SFT on it against its model", {"model": [tuned], "dataset": ["verify"]}, train(tuned))
    do("make_preferences", "DPO on it against its model", {"model": [tuned], "dataset": ["verify"]}, prefer(tuned))
    # What a model wrote teaches a weaker one; the same rows make the model that wrote them forget what it was unsure of.
    do(
        "self_instruct",
        "SFT of llama on it, against llama",
        {"model": [tuned], "dataset": ["call_replay"]},
        train("llama"),
        "llama",
    )


def _merge_inputs(bound: BoundType, models: list[str]) -> dict[str, list[str]]:
    """The base they all come from where one is asked for, and as many of `models` as are needed."""
    left, inputs = list(models), {}
    for slot in bound.type.slots:
        if slot.base_only:
            inputs[slot.name] = ["llama"] if slot.least else []
        else:
            count = max(1, slot.least)
            inputs[slot.name], left = left[:count], left[count:]
    return inputs


def lab(only: list[str], seeds: tuple[int, ...]) -> None:
    """Print the lab's table."""
    table: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in seeds:
            print(f"seed {number}\n{HEADER}", flush=True)
            lab_rows(Seed(Bench(resolve("catalogue:lab-bases"), Path(scratch) / str(number)), number), table, only)
    print(f"\n{len(seeds)} seeds, {ROWS} sealed rows of each of {', '.join(SKILLS)}\n{HEADER}")
    for row in table.values():
        print(row.line())


def model(only: list[str]) -> None:
    """Print seconds and peak memory of a few steps of each method on SmolLM2-135M."""
    dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(resolve("catalogue:lab-bases"), Path(scratch), dtype=dtype, threads=threads)
        bench.add_model("smol", resolve("catalogue:smollm2-135m"))
        for name in ("mix", "preferences", "call_rewards", "function_calls"):
            bench.add_dataset(f"smol_{name}", resolve(f"catalogue:quickstart-data-2/{name}.jsonl"))
        print(f"SmolLM2-135M, {dtype}, {threads} threads\n{'action':20} {'s':>7} {'RSS MiB':>8}  settings", flush=True)

        def do(name: str, inputs: dict[str, list[str]], **params: Any) -> str:
            try:
                made = bench.run(name, inputs, **params)
            except AssertionError as error:
                # Two steps of five-step models may well find no reward: that is told, and the next method follows.
                print(f"{name:20} {bench.seconds:7.1f} {bench.peak / 2**20:8.0f}  {str(error).splitlines()[0]}", flush=True)
                return ""
            told = ", ".join(f"{key} {value}" for key, value in params.items())
            print(f"{name:20} {bench.seconds:7.1f} {bench.peak / 2**20:8.0f}  {told} → {_told(made)}", flush=True)
            return made.id

        lora: dict[str, Any] = {"method": "lora", "lora_rank": 16, "max_steps": 5, "batch_size": 4}
        one = do("sft", {"model": ["smol"], "dataset": ["smol_mix"]}, learning_rate=1e-3, **lora)
        two = do("sft", {"model": ["smol"], "dataset": ["smol_function_calls"]}, learning_rate=5e-4, **lora)
        for name in ("dpo", "kto", "orpo", "simpo"):
            do(name, {"model": [one], "dataset": ["smol_preferences"]}, learning_rate=5e-5, **lora)
        for name in ("grpo", "rloo"):
            sampling = {"batch_size": 8, "samples": 4, "max_new_tokens": 64, "max_steps": 2}
            do(name, {"model": [one], "dataset": ["smol_call_rewards"]}, learning_rate=1e-5, **{**lora, **sampling})
        for name in ("linear", "ties", "slerp", "dare_ties", "breadcrumbs", "della"):
            base = {"base": ["smol"]} if any(s.base_only for s in bench.registry.get(f"merge_{name}").type.slots) else {}
            do(f"merge_{name}", base | {"models": [one, two]})
        do("merge_adapters", {"models": [one, two]})
        do("rejection_sample", {"model": [one], "dataset": ["smol_call_rewards"]}, prompts=16, samples=4, max_new_tokens=64)


def _told(made: Any) -> str:
    return f"{made.rows} rows" if made.kind == "dataset" else "adapter" if made.adapters else "full weights"


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--model", action="store_true", help="SmolLM2-135M instead of the lab")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # What a step imports is imported once, here: the children are forked from it.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for library in ("mergekit.merge", "peft", "trl.trainer.sft_trainer"):
        importlib.import_module(library)
    importlib.import_module("transformers.utils.logging").disable_progress_bar()

    model(options.only) if options.model else lab(options.only, tuple(options.seeds))


if __name__ == "__main__":
    main()
