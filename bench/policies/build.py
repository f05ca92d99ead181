"""Make every model of a space, for real, and store which rows each has right.

    python -m bench.policies.build llama                 about 40 minutes on one core; kill it, start it, it goes on
    python -m bench.policies.build phi --partial         store what there is already

Steps run in this process, one after the other, as a step's own process does them: TRL trains, mergekit merges. Each node is
journaled as soon as it is scored. When the space has grown since, only what is new is made. A node that fails is a result.

A row is right when each token of its answer and the end token after it is the model's most likely one given those before:
greedy decoding's exact match, in one pass. Some nodes are decoded as well (`--check`), and rows that differ are counted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.policies.spaces import FIXED, QUARTER, SEED, SPECS, Planned, Spec, enumerate_space, generated_rows, opening_ids
from bench.policies.table import Bits, Node, Table
from lamdatui.base import paths
from lamdatui.catalogue import lab as catalogue
from lamdatui.catalogue.fetch import resolve
from lamdatui.domain.actions import Action, make_action
from lamdatui.domain.objects import ModelObject
from lamdatui.inputs.datafiles import read_task_rows
from lamdatui.step.request import produced, reference
from lamdatui.tasks.strings import Row
from tests.steps import Lab

SPLITS = ("search", "sealed")
ROWS = {"search": catalogue.SEARCH_ROWS, "sealed": catalogue.SEALED_ROWS}
PACKAGES = ("torch", "transformers", "trl", "mergekit", "datasets", "lamdatui")
CHUNK = 50
"""Rows of one pass: more do not fit into a core's cache, and take twice as long."""
PAUSE = 10.0
"""Seconds between lines of progress."""
BROKEN = ("disk", "killed")
"""Failures that say nothing of the node: they end the build."""


class Works(Lab):
    """The lab, with steps in this process and models in a folder that outlives it."""

    def __init__(self, spec: Spec, work: Path) -> None:
        lab = resolve("catalogue:lab-bases")
        super().__init__(lab, work, dtype="float32", threads=1)
        self.spec = spec
        for number, name in enumerate(spec.generated):
            rows = generated_rows(spec, name, catalogue.SEED + 300 + number)
            path = work / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            self.add_dataset(name, path)
        self.wanted = [_task_rows(lab, task, split) for split in SPLITS for task in spec.tasks]
        self.encoded: list[tuple[Any, Any]] = []

    def execute(self, folder: Path) -> None:
        """Do the step; what it says goes to its log, and an interrupt is no result."""
        from lamdatui.step.child import run_step

        def interrupted(error: BaseException) -> None:
            if not isinstance(error, Exception):
                raise error

        with (folder / "log.txt").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            run_step(folder, self.registry, on_error=interrupted)

    def inputs(self, node: Planned) -> dict[str, list[str]]:
        """Slot → ids of objects in the pool."""
        models = [self.object_id(model) for model in node.models]
        if node.dataset is not None:
            return {"model": models, "dataset": [node.dataset]}
        return {"models": models} | ({"base": [self.spec.base]} if node.type == "merge_ties" else {})

    def object_id(self, node: int) -> str:
        """A node's model in the pool."""
        return f"n{node}" if node else self.spec.base

    @staticmethod
    def params(node: Planned) -> dict[str, Any]:
        """Hyperparameters that are not the action's default."""
        return FIXED[node.type] | node.params | ({"data_fraction": node.fraction} if node.type == "sft" else {})

    def action(self, node: Planned) -> Action:
        """The action of a node whose parents are in the pool."""
        inputs = {slot: tuple(ids) for slot, ids in self.inputs(node).items()}
        return make_action(self.registry.get(node.type), inputs, self.params(node), self.pool, seed=node.seed, dtype=self.dtype)

    def admit(self, node: Planned) -> str:
        """Put a node's model into the pool, whether it was made or not; its digest."""
        if node.id == 0:
            return self.pool.model(self.spec.base).digest
        first, digest = self.pool.model(self.object_id(node.models[0])), self.action(node).digest
        made = produced(digest, {"kind": "full"}, None)
        name = self.object_id(node.id)
        self.pool.add(
            ModelObject(
                name, digest, first.architecture, first.layout, made["weights"], (), first.parameters, node.id, first.tokenizer
            )
        )
        return digest

    def correct(self, name: str) -> Bits:
        """Which rows a model has right: search rows of each task, then sealed rows of each task."""
        import torch

        from lamdatui.step.models import load_tokenizer

        model = self.load(name).eval()
        if not self.encoded:
            tokenizer = load_tokenizer(self.store, reference(self.pool.model(name), self.pool))
            self.encoded = [catalogue.encode(rows, tokenizer) for rows in self.wanted]
        found = []
        with torch.inference_mode():
            for pair in self.encoded:
                for ids, labels in zip(*(each.split(CHUNK) for each in pair), strict=True):
                    best, wanted = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1), labels[:, 1:]
                    found.append(((best == wanted) | (wanted == -100)).all(-1).numpy())
        return np.concatenate(found)

    def decoded(self, name: str) -> Bits:
        """The same from a task's own evaluation, which decodes."""
        found = [self.scores(name, self.spec.tasks, ROWS[split], split) for split in SPLITS]
        return np.array([row == 1.0 for scores in found for task in self.spec.tasks for row in scores[task]])


class Build:
    """A space on its way into a journal."""

    def __init__(self, spec: Spec, work: Path, *, check: int = 12) -> None:
        self.spec = spec
        self.nodes = enumerate_space(spec)
        self.works = Works(spec, work)
        self.digests = [self.works.admit(node) for node in self.nodes]
        self.path = work / "journal.jsonl"
        self.records = _read_journal(self.path)
        self.checked = {node.id for node in self.nodes[:: max(1, len(self.nodes) // check)]} if check else set()

    def run(self, limit: int | None = None) -> None:
        """Make what is missing, at most `limit` nodes of it."""
        missing = [node for node in self.nodes if node.key not in self.records]
        missing = missing if limit is None else missing[:limit]
        said = 0.0
        with self.path.open("a", encoding="utf-8") as journal:
            for number, node in enumerate(missing, 1):
                record = self.make(node)
                journal.write(json.dumps(record) + "\n")
                journal.flush()
                self.records[node.key] = record
                if number == 1:
                    # What was imported lives as long as the process: no collection has to look at it again.
                    gc.collect()
                    gc.freeze()
                if time.monotonic() - said > PAUSE or number == len(missing):
                    said = time.monotonic()
                    self.say(node, record, missing[number:])

    def make(self, node: Planned) -> dict[str, Any]:
        """Make and score a node: its journal record."""
        record: dict[str, Any] = {"key": node.key, "id": node.id, "status": "failed", "error": None}
        began = time.monotonic()
        record["error"] = self.execute(node)
        executed = time.monotonic()
        if record["error"] is None:
            name = self.works.object_id(node.id)
            found = self.works.correct(name)
            record |= {"status": "ok", "correct": base64.b64encode(np.packbits(found).tobytes()).decode()}
            record |= {"objective": round(_objective(self.spec, found), 4)}
            record["seconds"] = {"execute": executed - began, "evaluate": time.monotonic() - executed}
            if node.id in self.checked:
                record["differ"] = int((found != self.works.decoded(name)).sum())
        else:
            record["seconds"] = {"execute": executed - began, "evaluate": 0.0}
        record["seconds"] = {key: round(value, 3) for key, value in record["seconds"].items()}
        if not node.expandable and node.id:
            shutil.rmtree(self.works.store.root / "objects" / self.digests[node.id], ignore_errors=True)
        return record

    def execute(self, node: Planned) -> str | None:
        """See that a node's weights are there, and its parents'; the class of what went wrong.

        Raises RuntimeError for what is no result, such as a full disk.
        """
        if node.id == 0 or self.works.store.find(self.digests[node.id]):
            return None
        for parent in node.models:
            known = self.records.get(self.nodes[parent].key)
            if (known is not None and known["status"] == "failed") or self.execute(self.nodes[parent]) is not None:
                return "parent"
        outcome, folder, action = self.works.attempt(
            node.type, self.works.inputs(node), seed=node.seed, **self.works.params(node)
        )
        assert action["digest"] == self.digests[node.id]
        error = outcome["error"]
        if error is None:
            shutil.rmtree(folder)
            return None
        if error["class"] in BROKEN:
            raise RuntimeError(f"{error['class']}: {error['message']} (log: {folder / 'log.txt'})")
        kept = folder.with_name(f"failed-{node.id}")
        shutil.rmtree(kept, ignore_errors=True)
        folder.rename(kept)
        print(f"node {node.id} ({node.type}) failed: {error['class']}: {error['message']}", flush=True)
        return error["class"]

    def say(self, node: Planned, record: dict[str, Any], left: Sequence[Planned]) -> None:
        """A line of progress; what is left is told from what its kind took so far."""
        taken: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for one in self.nodes:
            if known := self.records.get(one.key):
                taken[_kind(one)].append(sum(known["seconds"].values()))
        every = [value for values in taken.values() for value in values]
        seconds = sum(statistics.fmean(taken.get(_kind(one), every)) for one in left)
        failed = sum(one["status"] == "failed" for one in self.records.values())
        memory = _resident() / 2**20
        print(
            f"{time.strftime('%H:%M:%S')} node {node.id} {node.type:12} {record.get('objective', 0):.3f}  "
            f"{len(self.records)}/{len(self.nodes)} done, {failed} failed, {seconds / 60:.1f} min left, {memory:.0f} MiB",
            flush=True,
        )

    def table(self) -> Table:
        """What the journal has, up to the first node that is missing."""
        known = []
        for node in self.nodes:
            if node.key not in self.records:
                break
            known.append((node, self.records[node.key]))
        width = len(self.spec.tasks) * sum(ROWS.values())
        bits = {
            node.id: np.unpackbits(np.frombuffer(base64.b64decode(record["correct"]), dtype=np.uint8), count=width).astype(bool)
            for node, record in known
            if record["status"] == "ok"
        }
        checks = [record["differ"] for _, record in known if "differ" in record]
        types = self.works.registry
        grids: dict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            grids[node.type] |= {*node.params}
        settings = {kind: types.get(kind).fill(fixed) for kind, fixed in FIXED.items()}
        return Table(
            name=self.spec.name,
            tasks=self.spec.tasks,
            weights=tuple(1.0 for _ in self.spec.tasks),
            rows={"search": ROWS["search"], "sealed": ROWS["sealed"]},
            nodes={node.id: _node(node, record) for node, record in known},
            opening=opening_ids(self.spec, self.nodes),
            settings={
                kind: {name: value for name, value in found.items() if name not in grids[kind] | {"data_fraction"}}
                for kind, found in settings.items()
            },
            made={
                "command": f"python -m bench.policies.build {self.spec.name}",
                "seed": SEED,
                "quarter": QUARTER,
                "dtype": "float32",
                "python": platform.python_version(),
                "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
                "decoded": {"nodes": len(checks), "rows": len(checks) * width, "differ": sum(checks)},
                "whole": len(known) == len(self.nodes),
            },
            bits=bits,
        )


def _node(node: Planned, record: dict[str, Any]) -> Node:
    """A node as the table has it."""
    return Node(
        id=node.id,
        type=node.type,
        models=node.models,
        dataset=node.dataset,
        params=node.params,
        fraction=node.fraction,
        seed=node.seed,
        depth=node.depth,
        status=record["status"],
        error=record["error"],
        seconds=record["seconds"]["execute"],
    )


def _kind(node: Planned) -> tuple[Any, ...]:
    """What a node's time depends on."""
    return (node.type, node.params.get("max_steps"), node.fraction)


def _objective(spec: Spec, found: Bits) -> float:
    """The sum of the search scores."""
    return float(found[: len(spec.tasks) * ROWS["search"]].sum() / ROWS["search"])


def _task_rows(lab: Path, task: str, split: str) -> list[Row]:
    rows = [row for row in read_task_rows(lab / "tasks" / f"{task}.jsonl") if row["split"] == split]
    return [Row(row["messages"][0]["content"], row["reference"], "") for row in rows]


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Key → record. A last line that was not written to its end is cut off."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return {record["key"]: record for record in map(json.loads, whole.splitlines())}


def _resident() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def prepare() -> None:
    """Import what steps import, once, and keep it quiet."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for library in ("mergekit.merge", "peft", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer"):
        importlib.import_module(library)
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    importlib.import_module("datasets").disable_progress_bars()
    importlib.import_module("torch").set_num_threads(1)


def main() -> None:
    """Parse, make, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=sorted(SPECS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    parser.add_argument("--work", type=Path, help="models and the journal (default: in the user's cache)")
    parser.add_argument("--limit", type=int, help="make at most this many nodes now")
    parser.add_argument("--check", type=int, default=12, help="nodes that are decoded as well")
    parser.add_argument("--partial", action="store_true", help="make nothing; store what is there")
    options = parser.parse_args()
    spec = SPECS[options.space]
    work = (options.work or paths.cache_dir() / "bench-policies") / spec.name
    work.mkdir(parents=True, exist_ok=True)
    lock = (work / "lock").open("w")
    if not options.partial:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another build of {spec.name} works in {work}") from None
        prepare()
        for leftover in work.glob("step-*"):
            shutil.rmtree(leftover)
    build = Build(spec, work, check=options.check)
    print(f"{spec.name}: {len(build.nodes)} nodes, {len(build.records)} in {build.path}", flush=True)
    if not options.partial:
        build.run(options.limit)
    table = build.table()
    target = options.out / f"{spec.name}.json.xz"
    table.save(target)
    print(f"{target}: {len(table.nodes)} nodes, {target.stat().st_size / 1024:.0f} KiB; decoded {table.made['decoded']}")


if __name__ == "__main__":
    sys.exit(main())
