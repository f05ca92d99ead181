"""Lineage: what a produced model consists of, which actions led to it, and what a step is asked to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from lamdatui.domain.actions import ActionType
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool, PoolObject
from lamdatui.domain.state import RunState, Trial

if TYPE_CHECKING:
    pass


class ModelReference(TypedDict):
    """Full weights (an absolute directory or `store:DIGEST`) plus adapters to merge into them, in order.

    `digest` is that of the directory, where the weights are one; "" where they are the store's, which has its own manifest.
    """

    id: str
    weights: str
    adapters: list[str]
    digest: str


class TaskFile(TypedDict):
    """A task file and the sha256 of its bytes."""

    path: str
    digest: str


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
    datasets: dict[str, list[dict[str, Any]]]
    subject: ModelReference | None
    evaluations: list[dict[str, Any]]
    store: str
    device: str
    dtype: str
    threads: int
    tasks: list[TaskFile]
    """Files of the run's tasks: for data actions that keep their rows out of training data."""
    small: bool
    """After an attempt that ran out of memory: smaller micro-batches, the same effective batch."""
    always: bool
    """Hash every input at each look, however large: the profile's `verify: always`."""


def reference(model: ModelObject, pool: ObjectPool) -> ModelReference:
    """How a step finds a model of the pool, and what it has to find there."""
    digests = (base.digest for base in pool.models if base.trial is None and base.weights == model.weights)
    return {"id": model.id, "weights": model.weights, "adapters": list(model.adapters), "digest": next(digests, "")}


def first_parent(request: StepRequest) -> ModelReference | None:
    """The model that the action starts from: the first one of its first model slot."""
    return next((models[0] for models in request["models"].values() if models), None)


def produced(digest: str, manifest: Mapping[str, Any], parent: ModelReference | None) -> ModelReference:
    """The model that an action made: its own full weights, or its adapter on top of its parent.

    An adapter that merges others stands on the parent without the last `replaces` of its adapters.
    """
    if manifest["kind"] == "adapter" and parent is not None:
        kept = parent["adapters"][: len(parent["adapters"]) - manifest.get("replaces", 0)]
        return {**parent, "id": digest[:12], "adapters": [*kept, f"store:{digest}"]}
    return {"id": digest[:12], "weights": f"store:{digest}", "adapters": [], "digest": ""}


def result_object(state: RunState, number: int, kind: ActionType, manifest: Mapping[str, Any]) -> PoolObject:
    """What trial `number` put into the pool: the model `m<number>` or the dataset `d<number>`."""
    action = state.trials[number].action
    assert action is not None
    digest = action["digest"]
    size = sum(entry["size"] for entry in manifest["files"].values())
    if kind.output == "dataset":
        return DatasetObject(
            id=f"d{number}",
            digest=digest,
            format=manifest["format"],
            rows=manifest["rows"],
            path=f"store:{digest}",
            trial=number,
            chars=manifest["chars"],
            bytes=size,
        )
    first = next(slot.name for slot in kind.slots if slot.takes_models and not slot.base_only)
    parent = state.pool.model(action["inputs"][first][0])
    made = produced(digest, manifest, reference(parent, state.pool))
    return ModelObject(
        id=f"m{number}",
        digest=digest,
        architecture=parent.architecture,
        layout=parent.layout,
        weights=made["weights"],
        adapters=tuple(made["adapters"]),
        parameters=parent.parameters,
        trial=number,
        tokenizer=parent.tokenizer,
        bytes=size,
    )


def parents(state: RunState, object_id: str) -> list[str]:
    """Ids of the models and datasets that an object was made from; empty for what the profile names."""
    trial = state.pool.items[object_id].trial
    if trial is None:
        return []
    action = state.trials[trial].action or {"inputs": {}}
    found = [name for ids in action["inputs"].values() for name in ids if name in state.pool.items]
    return list(dict.fromkeys(found))


def lineage(state: RunState, object_id: str) -> list[Trial]:
    """The trials that lead from what the profile names to this model or dataset, each after those it needs."""
    seen: set[str] = set()
    waiting = [object_id]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += parents(state, name)
    # A trial can only have used what trials before it had made.
    numbers = {trial for name in seen if (trial := state.pool.items[name].trial) is not None}
    return [state.trials[number] for number in sorted(numbers)]


def ancestry(state: RunState, name: str, depth: int = 4) -> str:
    """How an object came to be: `base → sft(mix) → dpo(prefs)`; empty for what the profile names."""
    item = state.pool.items.get(name)
    if item is None or item.trial is None or item.trial not in state.trials:
        return ""
    action = state.trials[item.trial].action or {}
    names = [other for ids in action.get("inputs", {}).values() for other in ids]
    models = [other for other in names if isinstance(state.pool.items.get(other), ModelObject)]
    data = "+".join(other for other in names if other not in models)
    step = f"{action.get('type', '?')}({data})" if data else str(action.get("type", "?"))
    if len(models) > 1 or depth == 0:
        return f"{step} of {'+'.join(models)}"
    if not models:
        return step
    before = ancestry(state, models[0], depth - 1)
    return f"{before or models[0]} → {step}"


def model_inputs(state: RunState, action: Mapping[str, Any] | None) -> list[str]:
    """The models among an action's inputs, in slot order."""
    return [name for name in _inputs(action) if isinstance(state.pool.items.get(name), ModelObject)]


def _inputs(action: Mapping[str, Any] | None) -> list[str]:
    return [name for ids in action["inputs"].values() for name in ids] if action else []
