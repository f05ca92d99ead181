"""Lineage: what a produced model consists of, which actions led to it, and what a step is asked to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from lamdatui.objects import ModelObject
from lamdatui.state import RunState, Trial


class ModelReference(TypedDict):
    """Full weights (an absolute directory or `store:DIGEST`) plus adapters to merge into them, in order."""

    id: str
    weights: str
    adapters: list[str]


class StepRequest(TypedDict):
    """The content of action.json: all that a step needs.

    `subject` is the model to evaluate, or None for the action's own result; `digest` is the result's digest.
    """

    step: str
    purpose: str
    trial: int | None
    digest: str
    action: dict[str, Any] | None
    models: dict[str, list[ModelReference]]
    datasets: dict[str, dict[str, Any]]
    subject: ModelReference | None
    evaluations: list[dict[str, Any]]
    store: str
    device: str
    dtype: str
    threads: int


def reference(model: ModelObject) -> ModelReference:
    """How a step finds a model of the pool."""
    return {"id": model.id, "weights": model.weights, "adapters": list(model.adapters)}


def first_parent(request: StepRequest) -> ModelReference | None:
    """The model that the action starts from: the first one of its first model slot."""
    for models in request["models"].values():
        return models[0]
    return None


def produced(digest: str, manifest: Mapping[str, Any], parent: ModelReference | None) -> ModelReference:
    """The model that an action made: its own full weights, or its adapter on top of its parent."""
    if manifest["kind"] == "adapter" and parent is not None:
        return {"id": digest[:12], "weights": parent["weights"], "adapters": [*parent["adapters"], f"store:{digest}"]}
    return {"id": digest[:12], "weights": f"store:{digest}", "adapters": []}


def parents(state: RunState, model_id: str) -> list[str]:
    """Ids of the models that a model was made from; empty for a base."""
    model = state.pool.model(model_id)
    if model.trial is None:
        return []
    action = state.trials[model.trial].action or {"inputs": {}}
    found = [name for ids in action["inputs"].values() for name in ids if name in state.pool.items]
    return [name for name in dict.fromkeys(found) if state.pool.items[name].kind == "model"]


def lineage(state: RunState, model_id: str) -> list[Trial]:
    """The trials that lead from base models to this one, each after those it needs."""
    ordered: dict[int, Trial] = {}

    def visit(name: str) -> None:
        for parent in parents(state, name):
            visit(parent)
        trial = state.pool.model(name).trial
        if trial is not None:
            ordered.setdefault(trial, state.trials[trial])

    visit(model_id)
    return list(ordered.values())


def depth(state: RunState, model_id: str) -> int:
    """Longest chain of actions from a base to this model."""
    return max((1 + depth(state, parent) for parent in parents(state, model_id)), default=0)
