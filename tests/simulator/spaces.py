"""What simulated runs search, and where."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lamdatui.base import paths
from lamdatui.inputs.profile import Profile, load_profile
from lamdatui.inputs.workspace import Workspace, open_workspace


def truth(digest: str, row: str) -> float:
    """The score of a model on a row."""
    return float(blake2b(f"{digest} {row}".encode(), digest_size=1).digest()[0] % 2)


class Variant:
    """A profile, opened once for all its runs."""

    def __init__(self, path: Path) -> None:
        self.profile: Profile = load_profile(path)
        self._workspace = open_workspace(self.profile)
        self.opened_types = dict(self._workspace.types)
        self._means: dict[tuple[str, str, str], float] = {}

    def opened(self) -> Workspace:
        """As it was opened: what one run makes of the types is no other run's."""
        self._workspace.types.clear()
        self._workspace.types.update(self.opened_types)
        return self._workspace

    def rows(self, task: str, split: str) -> Sequence[Any]:
        """Of a task."""
        return self._workspace.tasks[task].rows[split]

    def mean(self, digest: str, task: str, split: str) -> float:
        """The true score of a model on a task."""
        key = digest, task, split
        if key not in self._means:
            rows = self.rows(task, split)
            self._means[key] = sum(truth(digest, row["id"]) for row in rows) / len(rows)
        return self._means[key]


PROFILE = """
name: lab
seed: 1
device: cpu
dtype: float32
threads: 1
models: { llama: { path: "catalogue:lab-bases/llama" } }
datasets:
  reverse: { path: "catalogue:lab-bases/data/reverse.jsonl" }
  call: { path: "catalogue:lab-bases/data/call.jsonl" }
  prefer: { path: "catalogue:lab-bases/data/prefer.jsonl" }
tasks:
  reverse: { path: "catalogue:lab-bases/tasks/reverse.jsonl", scorer: exact, max_new_tokens: 16, rows: { search: 8, sealed: 8 } }
  call: { path: "catalogue:lab-bases/tasks/call.jsonl", scorer: exact, max_new_tokens: 16, rows: { search: 8, sealed: 8 } }
objective: { weights: { reverse: 1.0, call: 1.0 } }
actions:
  sft:
    method: { default: full, choices: [full] }
    learning_rate: { default: 1.0e-3, choices: [1.0e-3] }
    max_steps: { default: 40, choices: [40, 120] }
    max_length: { default: 64, choices: [64] }
  dpo:
    method: { default: full, choices: [full] }
    learning_rate: { default: 1.0e-4, choices: [1.0e-4] }
    max_steps: { default: 25, choices: [25] }
    max_length: { default: 64, choices: [64] }
  merge_linear: {}
policy: { name: random }
steps: { limit_minutes: 0.1, stall_minutes: 0.03 }
"""
"""The lab, small."""
VARIANTS = {
    "asks": "mode: ask\nbudget: { trials: 4, baselines: 0, replicates: 0, promotion: 0 }",
    "alone": "mode: auto\nbudget: { trials: 5, baselines: 0, replicates: 0 }",
    "compares": "mode: auto\nbudget: { trials: 4, baselines: 0.5, replicates: 0.3, promotion: 0 }",
}


def variants(folder: Path) -> list[Variant]:
    """What runs are drawn from."""
    for name, more in VARIANTS.items():
        (folder / f"{name}.yaml").write_text(f"{PROFILE}{more}\n")
    return [Variant(folder / f"{name}.yaml") for name in VARIANTS]


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="sim-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def private_home(folder: Path) -> Iterator[None]:
    """A home in which simulated times are not taken for the machine's; it shares the catalogue."""
    (folder / "cache").mkdir()
    (folder / "cache" / "catalogue").symlink_to(paths.cache_dir() / "catalogue")
    before = os.environ.get("LAMDATUI_HOME")
    os.environ["LAMDATUI_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LAMDATUI_HOME"]
        if before is not None:
            os.environ["LAMDATUI_HOME"] = before
