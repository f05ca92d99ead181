"""What is run and killed: an action that waits, profiles, scripts."""

from __future__ import annotations

from typing import Any

KINDS = ("cheap", "sft")
TRIALS = {"cheap": 10, "sft": 5}

ACTION = '''"""Waits, then makes the same rows again; says when it begins and when it has done its work."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lamdatui.actions import ActionType, Estimate, Param, Slot


def mark(word, step):
    digest = step.request["digest"]
    there = (Path(step.request["store"]) / "objects" / digest).exists()
    handle = os.open({marks!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, f"{{word}} {{digest}} {{os.getpid()}} {{int(there)}}\\n".encode())
    os.close(handle)


class Chew(ActionType):
    name = "chew"
    summary = "the same rows again, after a while"
    family = "data"
    source = "lamdatui"
    output = "dataset"
    slots = (Slot("dataset", "dataset", "rows", ("sft",)),)
    params = (Param("salt", "int", 0, "tells one from another", low=0, high=10**9),)

    def estimate(self, call):
        return Estimate(seconds=0.3, memory_bytes=2**26, disk_bytes=2**20)

    def run(self, step):
        mark("begin", step)
        rows = list(step.rows("dataset"))
        until = time.monotonic() + 0.25
        while time.monotonic() < until:
            step.metric(phase="chew", left=until - time.monotonic())
            time.sleep(0.02)
        step.finish_dataset(rows, "sft", {{"salt": step.params["salt"]}})
        mark("end", step)


ACTION = Chew()
'''

PROFILE = {
    "dtype": "float32",
    "threads": 1,
    "models": {"llama": {"path": "catalogue:lab-bases/llama"}},
    "datasets": {"copy": {"path": "catalogue:lab-bases/data/copy.jsonl"}},
    "tasks": {
        "copy": {
            "path": "catalogue:lab-bases/tasks/copy.jsonl",
            "scorer": "exact",
            "max_new_tokens": 8,
            "rows": {"search": 2, "sealed": 2},
        }
    },
    "objective": {"weights": {"copy": 1.0}},
    "mode": "auto",
}


def script(kind: str, number: int, trials: int) -> list[dict[str, Any]]:
    """A run's actions, which no other run has: half of them stand on what an earlier one made."""
    found: list[dict[str, Any]] = []
    for at in range(trials):
        parent = f"r{at - 3}" if at % 2 and at >= 3 else ""
        made = {"makes": f"r{at}"}
        if kind == "cheap":
            found.append(
                {"type": "chew", "inputs": {"dataset": parent or "copy"}, "params": {"salt": number * 100 + at}} | made
            )
        else:
            params = {"method": "full", "max_steps": 40 + at, "batch_size": 16, "learning_rate": 1e-3 * (1 + number / 100)}
            found.append({"type": "sft", "inputs": {"model": parent or "llama", "dataset": "copy"}, "params": params} | made)
    return found
