"""Pipelines of a run as a script that does them again: with more or less data, on another base. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamdatui.domain.actions import BoundType
from lamdatui.domain.baselines import TRAINS
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import DatasetObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial

FULL = math.inf
"""A scale that says: one whole pass over the rows."""


def best(state: RunState, objectives: Mapping[str, float], count: int) -> list[str]:
    """The models of a run's trials with the best objectives on the search rows, the best first."""
    made = [trial.model for trial in state.trials.values() if trial.status == "done" and trial.model in objectives]
    return sorted((name for name in made if name), key=lambda name: (-objectives[name], state.pool.items[name].trial or 0))[
        :count
    ]


def label(run: str, made: str) -> str:
    """What a script calls a result that stands for one of the run."""
    return f"{run}/{made}"


def script(state: RunState, models: Sequence[str], types: Mapping[str, BoundType], scale: float = 1.0) -> list[dict[str, Any]]:
    """Steps (`lamdatui.inputs.profile.ScriptStep`) of the pipelines that led to these models, each step once, after those it needs.

    `scale`: steps that train read so many times as many rows, or all of them once (FULL).
    """
    numbers = sorted({trial.number for model in models for trial in lineage(state, model)})
    found = []
    for trial in (state.trials[number] for number in numbers):
        action = trial.action
        assert action is not None
        found.append(
            {
                "type": action["type"],
                "inputs": {slot: [_called(state, name) for name in ids] for slot, ids in action["inputs"].items()},
                "params": scaled(state, action, types.get(action["type"]), scale),
                "makes": label(state.name, trial.model or trial.dataset or ""),
            }
        )
    return found


def distinct(steps: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Steps without those that do what an earlier one does (a search does nothing twice), and for each result what it is called now."""
    first: dict[str, str] = {}
    called: dict[str, str] = {}
    found = []
    for step in steps:
        if step["makes"] in called:
            continue
        inputs = {slot: [called.get(name, name) for name in ids] for slot, ids in step["inputs"].items()}
        does = repr((step["type"], sorted(inputs.items()), sorted(step["params"].items())))
        called[step["makes"]] = first.setdefault(does, step["makes"])
        if called[step["makes"]] == step["makes"]:
            found.append({**step, "inputs": inputs})
    return found, called


def scaled(state: RunState, action: Mapping[str, Any], bound: BoundType | None, scale: float) -> dict[str, Any]:
    """The hyperparameters of an action that reads `scale` times as many rows; as they are where it does not train."""
    params = dict(action["params"])
    if bound is None or bound.type.family not in TRAINS or "max_steps" not in params or scale == 1.0:
        return params
    steps = int(params["max_steps"]) * scale
    if scale == FULL:
        used = [state.pool.items.get(name) for ids in action["inputs"].values() for name in ids]
        rows = max((item.rows for item in used if isinstance(item, DatasetObject)), default=0)
        steps = math.ceil(rows / int(params.get("batch_size", 1)))
    most = bound.param("max_steps").high or math.inf
    return {**params, "max_steps": int(min(max(1, round(steps)), most))}


@dataclass(frozen=True, slots=True)
class Variant:
    """A pipeline without one step: its steps, and what the script calls the model that they make."""

    steps: list[dict[str, Any]]
    result: str


def without(state: RunState, model: str) -> dict[int, Variant]:
    """Trial of a model's lineage → the model's pipeline without that step: where its result stood, stands what it was made of.

    A step without which there is another kind of result, or the base itself, is left out: a model is made of models, a dataset of datasets.
    """
    line = lineage(state, model)
    found = {}
    for left in line:
        made, inputs = left.model or left.dataset or "", _inputs(left)
        kind = state.pool.items[made].kind
        before = [name for ids in inputs.values() for name in ids if state.pool.items[name].kind == kind]
        if not before or (made == model and state.pool.items[before[0]].trial is None):
            continue
        called = {made: _called(state, before[0])}
        steps = []
        for trial in line:
            if trial is left:
                continue
            own, inputs = trial.model or trial.dataset or "", _inputs(trial)
            changed = any(name in called for ids in inputs.values() for name in ids)
            names = {slot: [called.get(name) or _called(state, name) for name in ids] for slot, ids in inputs.items()}
            makes = label(state.name, f"{own} without {left.number}" if changed else own)
            if changed:
                called[own] = makes
            steps.append({"type": trial.action["type"], "inputs": names, "params": trial.action["params"], "makes": makes})  # type: ignore[index]
        found[left.number] = Variant(steps, called[model])
    return found


def _inputs(trial: Trial) -> Mapping[str, Sequence[str]]:
    return trial.action["inputs"] if trial.action else {}


def _called(state: RunState, name: str) -> str:
    """What a script calls an object of the run: those of the profile keep their names."""
    return name if state.pool.items[name].trial is None else label(state.name, name)
