"""Pipelines of a run as a script that does them again: with more or less data, on another base. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lamdatui.domain.actions import BoundType
from lamdatui.domain.baselines import TRAINS
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import DatasetObject
from lamdatui.domain.state import RunState

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


def script(
    state: RunState,
    models: Sequence[str],
    types: Mapping[str, BoundType],
    scale: float = 1.0,
    rename: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Steps (`lamdatui.inputs.profile.ScriptStep`) of the pipelines that led to these models, each step once, after those it needs.

    `scale`: steps that train read so many times as many rows, or all of them once (FULL); `rename`: objects of the profile → what they are called now.
    """
    numbers = sorted({trial.number for model in models for trial in lineage(state, model)})
    found = []
    for number in numbers:
        trial = state.trials[number]
        action = trial.action
        assert action is not None
        names = {
            name: label(state.name, name) if state.pool.items[name].trial is not None else (rename or {}).get(name, name)
            for ids in action["inputs"].values()
            for name in ids
        }
        found.append(
            {
                "type": action["type"],
                "inputs": {slot: [names[name] for name in ids] for slot, ids in action["inputs"].items()},
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


def without(state: RunState, model: str) -> dict[int, list[dict[str, Any]]]:
    """Trial of a model's lineage → the model's pipeline without that step, as steps of a script: where its result stood, stands what it was made of.

    A step without which there is another kind of result, or the base itself, is left out: a model is made of models, a dataset of datasets.
    """
    line = lineage(state, model)
    found = {}
    for left in line:
        action = left.action
        assert action is not None
        made = left.model or left.dataset or ""
        kind = state.pool.items[made].kind
        before = [name for ids in action["inputs"].values() for name in ids if state.pool.items[name].kind == kind]
        if not before or (made == model and state.pool.items[before[0]].trial is None):
            continue
        stands = {made: before[0]}
        steps = []
        for trial in line:
            if trial is left:
                continue
            own = trial.model or trial.dataset or ""
            inputs = (trial.action or {"inputs": {}})["inputs"]
            changed = any(name in stands for ids in inputs.values() for name in ids)
            names = {
                slot: [_called(state, stands.get(name, name), left.number, stands) for name in ids]
                for slot, ids in inputs.items()
            }
            if changed:
                stands[own] = f"{own} without {left.number}"
            called = _called(state, stands.get(own, own), left.number, stands)
            steps.append({"type": trial.action["type"], "inputs": names, "params": trial.action["params"], "makes": called})  # type: ignore[index]
        found[left.number] = steps
    return found


def _called(state: RunState, name: str, left: int, stands: Mapping[str, str]) -> str:
    """What a script calls an object, or what stands for it without a step."""
    if name.endswith(f" without {left}"):
        return label(state.name, name)
    item = state.pool.items[name]
    return label(state.name, name) if item.trial is not None else name


def outcome(state: RunState, model: str, left: int) -> str:
    """What the script of `without` calls what stands for the model."""
    line = lineage(state, model)
    trial = next(one for one in line if one.number == left)
    made = trial.model or trial.dataset or ""
    if made != model:
        return label(state.name, f"{model} without {left}")
    kind = state.pool.items[made].kind
    action = trial.action
    assert action is not None
    return label(
        state.name, next(name for ids in action["inputs"].values() for name in ids if state.pool.items[name].kind == kind)
    )
