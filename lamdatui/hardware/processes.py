"""Whose a process is: this run's or a stranger's, by its ancestors, with its name and its user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psutil

Json = dict[str, Any]
Owners = Mapping[int, str]
"""pid → what it is to this run (`engine`, `step 3/1`); their descendants are ours too."""

ANCESTORS = 64
PLANNER = "planner"
ENGINE = "engine"


def owner_of(pid: int, owners: Owners) -> str:
    """What a process is to this run: the word of its nearest ancestor in `owners`, or "" for a stranger's.

    What the engine started and named no other word is the planner.
    """
    if pid in owners:
        return owners[pid]
    try:
        process = psutil.Process(pid)
        for _ in range(ANCESTORS):
            process = process.parent()
            if process is None:
                return ""
            if word := owners.get(process.pid):
                return PLANNER if word == ENGINE else word
    except psutil.Error:
        pass
    return ""


def describe(gpus: Sequence[Json], owners: Owners) -> None:
    """Write name, user and owner to each GPU process. A process of another container has no name here."""
    for gpu in gpus:
        for item in gpu["processes"]:
            item["name"] = item["user"] = None
            item["owner"] = owner_of(item["pid"], owners)
            try:
                process = psutil.Process(item["pid"])
                item["name"], item["user"] = process.name(), process.username()
            except (psutil.Error, KeyError):
                continue


class OwnProcesses:
    """CPU and memory of this run's own processes, with or without a GPU. CPU is since the reading before."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def read(self, owners: Owners) -> list[Json]:
        """`{pid, owner, name, cpu_percent, memory}` for each, the largest first; 100% is one core."""
        found: dict[int, tuple[psutil.Process, str]] = {}
        for pid, word in owners.items():
            try:
                root = psutil.Process(pid)
                inside = [root, *root.children(recursive=True)]
            except psutil.Error:
                continue
            for process in inside:
                if process.pid not in found:
                    # The same object as last time: psutil counts CPU between two readings of one object.
                    same = self._known.get(process.pid)
                    same = same if same is not None and same == process else process
                    found[process.pid] = (same, owner_of(process.pid, owners) or word)
        self._known = {pid: process for pid, (process, _) in found.items()}
        rows = [row for process, word in found.values() if (row := _row(process, word))]
        return sorted(rows, key=lambda row: -row["memory"])


def _row(process: psutil.Process, word: str) -> Json | None:
    try:
        with process.oneshot():
            return {
                "pid": process.pid,
                "owner": word,
                "name": process.name(),
                "cpu_percent": process.cpu_percent(),
                "memory": process.memory_info().rss,
            }
    except psutil.Error:
        return None
