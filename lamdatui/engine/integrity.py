"""What a run was promised: its inputs are compared with what it began with, and what the store has damaged is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamdatui.base.fingerprint import Changed
from lamdatui.domain.objects import ModelObject, PoolObject, object_to_json, stored
from lamdatui.domain.schemes import GENERATORS, SCHEMES
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.inputs.taskfiles import Task
from lamdatui.inputs.workspace import Workspace
from lamdatui.store.artifacts import Store

Fact = tuple[str, dict[str, Any]]
SPARE_BYTES = 64 * 2**20
"""After a disk was full, this much more has to be free than there was before the work is tried again."""


class Lost(Exception):
    """An object of the pool is neither in the store nor can be made again."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is lost: {reason}")
        self.name = name
        self.reason = reason


def promised(state: RunState) -> dict[str, str]:
    """Id → digest of what a run's profile named when it began."""
    return {item.id: item.digest for item in state.pool.items.values() if item.trial is None}


def check_promises(workspace: Workspace, state: RunState) -> None:
    """Compare what the profile names with what the run began with. Raises Changed for the first that differs."""
    for name, item in {**workspace.models, **workspace.datasets}.items():
        known = state.pool.items.get(name)
        if known is not None and known.digest != item.digest:
            raise changed(state, item.kind, name, _place(item))
    for name, task in workspace.tasks.items():
        known = state.tasks.get(name)
        if known and known.get("judge", "") != (task.judge.identity if task.judge else ""):
            raise changed(state, "judge of the task", name, task.judge.model.weights if task.judge else "the profile")
        if (known and known["digest"] != task.digest) or (not known and not _scored_alike(task, state)):
            raise changed(state, "task", name, str(task.path))


def changed(state: RunState, kind: str, name: str, where: str) -> Changed:
    """The refusal of an input that has changed: since when, and the two ways on."""
    used = [t.number for t in state.trials.values() if t.status == "done" and "task" not in kind and name in inputs_of(t)]
    last = max(used or (t.number for t in state.trials.values() if t.status == "done"), default=0)
    since = f"since trial {last}" if last else "since the run began"
    return Changed(
        f"the {kind} {name} has changed {since}",
        where=where,
        fix="restore it as it was; or give the new one another name in the profile and start another run with --name",
    )


def inputs_of(trial: Trial) -> list[str]:
    """Ids of the objects that a trial's action takes."""
    return [name for ids in (trial.action or {"inputs": {}})["inputs"].values() for name in ids]


def _place(item: PoolObject) -> str:
    return item.weights if isinstance(item, ModelObject) else item.path


def _scored_alike(task: Task, state: RunState) -> bool:
    """Whether the evaluations that are on record were of these rows: runs of the first version kept no digest of a task's file."""
    dtype, generator = state.device.get("dtype", ""), state.device.get("generator", GENERATORS[0])
    for model, tasks in state.keys.items():
        for split, key in tasks.get(task.name, {}).items():
            digest = state.pool.model(model).digest
            if key not in {task.key(digest, split, dtype, scheme, generator) for scheme in SCHEMES}:
                return False
    return True


def opening_facts(workspace: Workspace, state: RunState) -> list[Fact]:
    """What a run has to know of its inputs: those that are new to it, and where those are that were moved."""
    facts: list[Fact] = []
    for name, item in {**workspace.models, **workspace.datasets}.items():
        known = state.pool.items.get(name)
        if known is not None and _place(known) == _place(item):
            continue
        if isinstance(known, ModelObject) and isinstance(item, ModelObject):
            # What the run has made of it can meet it as before, whatever this version looks at.
            item = replace(item, layout=known.layout, tokenizer=known.tokenizer, traits=known.traits, sizes=known.sizes)
        facts.append(("object.added", {"object": object_to_json(item)}))
        if isinstance(known, ModelObject) and isinstance(item, ModelObject):
            standing = [model for model in state.pool.models if model.trial is not None and model.weights == known.weights]
            facts += [("object.added", {"object": object_to_json(replace(model, weights=item.weights))}) for model in standing]
    for name, task in workspace.tasks.items():
        found = {"name": name, "path": str(task.path), "digest": task.digest}
        found |= {"judge": task.judge.identity} if task.judge else {}
        if state.tasks.get(name) != found:
            facts.append(("task.added", found))
    return facts


def damaged(store: Store, items: Iterable[PoolObject]) -> dict[str, list[str]]:
    """Digest → what is wrong (nothing: it is not there), of the store's objects that these consist of and can't be used.

    Reads them: not for the thread of the engine's loop.
    """
    found = {}
    for digest in dict.fromkeys(digest for item in items for digest in stored(item)):
        wrong = store.problem(digest)
        if wrong or store.find(digest) is None:
            found[digest] = wrong
    return found


def maker(state: RunState, digest: str) -> Trial | None:
    """The trial whose result is `digest`."""
    trials = (t for t in state.trials.values() if t.action and t.action["digest"] == digest and (t.model or t.dataset))
    return next(trials, None)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free
