"""What a model was made of: bases, data, actions in order, seeds, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui import __version__
from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.baselines import ALL_ROWS
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject, object_from_json
from lamdatui.domain.records import BaselineRecord
from lamdatui.domain.schemes import ASKED
from lamdatui.domain.scores import weights_of
from lamdatui.domain.state import RunState

RECIPE = "recipe.yaml"
"""Its file in an exported model."""


def recipe(state: RunState, model_id: str) -> dict[str, Any]:
    """The pipeline of a model, in full: bases, data, actions in order, seeds, and what was measured."""
    baseline = baseline_of(state, model_id)
    if baseline is None:
        steps = [{"makes": t.model or t.dataset, "trial": t.number, **(t.action or {})} for t in lineage(state, model_id)]
    else:
        actions = baseline.get("actions", [])
        makes = [*[ALL_ROWS] * (len(actions) - 1), model_id]
        steps = [{"makes": name, **action} for name, action in zip(makes, actions, strict=True)]
    used = {name for step in steps for ids in step["inputs"].values() for name in ids}
    used |= {model_id} if not steps else set()
    bases = [m for m in state.pool.models if m.trial is None and m.id in used]
    return {
        "lamdatui": __version__,
        "run": state.name,
        "model": model_id,
        "device": state.device,
        "bases": {
            m.id: {
                "path": state.profile["models"][m.id]["path"],
                "digest": m.digest,
                "profile": state.profile["models"][m.id],
            }
            for m in bases
        },
        "datasets": {
            d.id: {
                "path": state.profile["datasets"][d.id]["path"],
                "sha256": d.digest,
                "rows": d.rows,
                "profile": state.profile["datasets"][d.id],
            }
            for d in state.pool.datasets
            if d.id in used and d.trial is None
        },
        "steps": steps,
        "objective": state.profile["objective"],
        "weights": weights_of(state.profile),
        "tasks": {name: {"think": "strip", **task} for name, task in state.profile["tasks"].items()},
        "older": state.scheme < ASKED,
        "base": state.pool.base,
        "scores": baseline["scores"] if baseline else state.scores.get(model_id, {}),
        "gain": {"sealed": baseline["gain"]} if baseline else state.gain if model_id == state.winner else None,
    }


def step_rows(told: Mapping[str, Any]) -> list[list[str]]:
    """The steps of a recipe for people: what each makes, its action, its inputs, its hyperparameters, its seed."""
    return [
        [
            step["makes"],
            step["type"],
            ", ".join(name for ids in step["inputs"].values() for name in ids),
            ", ".join(f"{key} {value}" for key, value in step["params"].items()),
            str(step["seed"]),
        ]
        for step in told["steps"]
    ]


STEP_HEAD = ["makes", "action", "of", "hyperparameters", "seed"]


def baseline_of(state: RunState, name: str) -> BaselineRecord | None:
    """The baseline whose model is called so, where it is not one of the pool."""
    return next((each for each in state.baselines.values() if each["model"] == name and each.get("object")), None)


def model_of(state: RunState, name: str) -> ModelObject:
    """A model of the run, or one that was made for a baseline. Raises LamdatuiError."""
    known = {model.id: model for model in state.pool.models}
    for each in state.baselines.values():
        made = object_from_json(told) if (told := each.get("object")) else None
        if isinstance(made, ModelObject):
            known[made.id] = made
    if name not in known:
        raise LamdatuiError(f"no model {name!r} in this run", fix=f"models: {', '.join(known)}")
    return known[name]
