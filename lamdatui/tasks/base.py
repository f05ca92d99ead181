"""A task: rows of two disjoint splits, a scorer, and the settings that its answers are generated with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lamdatui.datafiles import read_task_rows
from lamdatui.errors import LamdatuiError
from lamdatui.jsonio import canonical, digest

Split = Literal["search", "sealed"]
PROMPT_FORMAT = "chat-template"
"""Prompts go through the model's own chat template, with the generation prompt added."""


@dataclass(frozen=True)
class Task:
    """`rows[split]` are dicts with `id`, `messages`, `reference`; generation is greedy, at most `max_new_tokens`."""

    name: str
    scorer: str
    max_new_tokens: int
    rows: dict[str, tuple[dict[str, Any], ...]]
    path: Path

    def key(self, model_digest: str, split: str, dtype: str) -> str:
        """Identifies an evaluation: the model, the rows, the scorer, the prompt format and the generation settings."""
        return digest(
            {
                "model": model_digest,
                "rows": digest(self.rows[split]),
                "scorer": self.scorer,
                "format": PROMPT_FORMAT,
                "max_new_tokens": self.max_new_tokens,
                "dtype": dtype,
            }
        )

    def request(self, key: str, split: str) -> dict[str, Any]:
        """What a step needs in order to evaluate one split."""
        return {
            "task": self.name,
            "split": split,
            "key": key,
            "path": str(self.path),
            "rows": len(self.rows[split]),
            "scorer": self.scorer,
            "max_new_tokens": self.max_new_tokens,
        }


def load_task(name: str, path: Path, scorer: str, max_new_tokens: int, limits: dict[str, int]) -> Task:
    """Read a task file and keep the first `limits[split]` rows of each split.

    Raises LamdatuiError when a row is malformed, when a split is empty or too short, or when the splits share a prompt.
    """
    from lamdatui.tasks.scorers import SCORERS, problem

    if scorer not in SCORERS:
        raise LamdatuiError(f"no scorer named {scorer!r}", where=f"task {name}", fix=f"scorers: {', '.join(SCORERS)}")
    every = read_task_rows(path)
    for row in every:
        if wrong := problem(scorer, row["reference"]):
            where = f"{path}, the row {row['id']!r} (task {name})"
            raise LamdatuiError(f"the reference does not suit the scorer {scorer}: {wrong}", where=where)
    rows = {}
    for split in ("search", "sealed"):
        having = tuple(row for row in every if row["split"] == split)
        wanted = limits.get(split, len(having))
        if not having or len(having) < wanted:
            raise LamdatuiError(
                f"{len(having)} {split} rows; the profile asks for {wanted or 'some'}", where=f"{path} (task {name})"
            )
        rows[split] = having[:wanted]
    shared = {canonical(row["messages"]) for row in rows["search"]} & {canonical(row["messages"]) for row in rows["sealed"]}
    if shared:
        raise LamdatuiError(
            f"{len(shared)} prompts are in both splits", where=f"{path} (task {name})", fix="make the splits disjoint"
        )
    return Task(name, scorer, max_new_tokens, rows, path)
