"""What a step is asked to do: the content of action.json, and how it names models. No torch here: the engine writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from lamdatui.domain.actions import ActionType
from lamdatui.domain.objects import STORED, DatasetObject, ModelObject, ObjectPool, PoolObject
from lamdatui.domain.records import ActionRecord
from lamdatui.domain.schemes import GENERATORS
from lamdatui.domain.state import RunState


class ModelReference(TypedDict):
    """Full weights (an absolute directory or `store:DIGEST`) plus adapters to merge into them, in order.

    `digest` is that of the directory, where the weights are one, with the first `own` adapters and the `template` that stands in place of its
    own; "" where they are the store's, which has its own manifest.
    """

    id: str
    weights: str
    adapters: list[str]
    digest: str
    template: NotRequired[str]
    own: NotRequired[int]


class TaskSource(TypedDict):
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
    action: ActionRecord | None
    models: dict[str, list[ModelReference]]
    datasets: dict[str, list[dict[str, Any]]]
    subject: ModelReference | None
    evaluations: list[dict[str, Any]]
    store: str
    device: str
    dtype: str
    threads: int
    tasks: list[TaskSource]
    """Files of the run's tasks: for data actions that keep their rows out of training data."""
    small: bool
    """After an attempt that ran out of memory: smaller micro-batches where there is no `plan`, fewer answers at once, smaller shards."""
    plan: NotRequired[dict[str, Any] | None]
    """How the work is laid out in memory (`lamdatui.domain.plans.Plan`)."""
    checkpoint_minutes: NotRequired[float]
    """Between two checkpoints of training."""
    generation: NotRequired[dict[str, Any] | None]
    """The profile's `generation`, with the backend that the run began with; transformers where there is none."""
    always: bool
    """Hash every input at each look, however large: the profile's `verify: always`."""


def reference(model: ModelObject, pool: ObjectPool) -> ModelReference:
    """How a step finds a model of the pool, and what it has to find there."""
    digests = (
        base.digest
        for base in pool.models
        if base.trial is None
        and base.weights == model.weights
        and base.template == model.template
        and base.adapters == model.adapters[: model.own]
    )
    found: ModelReference = {
        "id": model.id,
        "weights": model.weights,
        "adapters": list(model.adapters),
        "digest": next(digests, ""),
    }
    if model.template:
        found["template"] = model.template
    if model.own:
        found["own"] = model.own
    return found


def generator_of(request: Mapping[str, Any]) -> str:
    """What a step generates answers with: one of GENERATORS."""
    return (request.get("generation") or {}).get("backend", GENERATORS[0])


def is_bare(request: Mapping[str, Any]) -> bool:
    """Whether a step has no model to read or to score: it needs no torch, unless its action imports it."""
    return request["action"] is not None and not any(request["models"].values()) and not request["evaluations"]


def stored_inputs(request: Mapping[str, Any]) -> set[str]:
    """Digests of the store's objects that a step reads."""
    models = [reference for found in request["models"].values() for reference in found]
    models += [request["subject"]] if request["subject"] else []
    places = [place for model in models for place in (model["weights"], *model["adapters"])]
    places += [data["path"] for found in request["datasets"].values() for data in found]
    return {place.removeprefix(STORED) for place in places if place.startswith(STORED)}


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
    name = f"{'d' if kind.output == 'dataset' else 'm'}{number}"
    return made(name, number, action, kind, manifest, state.pool)


def made(
    name: str, number: int, action: ActionRecord, kind: ActionType, manifest: Mapping[str, Any], pool: ObjectPool
) -> PoolObject:
    """The object that an action on objects of the pool has made; `number` is its trial's."""
    digest = action["digest"]
    size = sum(entry["size"] for entry in manifest["files"].values())
    if kind.output == "dataset":
        return DatasetObject(
            id=name,
            digest=digest,
            format=manifest["format"],
            rows=manifest["rows"],
            path=f"store:{digest}",
            trial=number,
            chars=manifest["chars"],
            longest=manifest.get("longest", 0),
            bytes=size,
        )
    first = next(slot.name for slot in kind.slots if slot.takes_models and not slot.base_only)
    parent = pool.model(action["inputs"][first][0])
    place = produced(digest, manifest, reference(parent, pool))
    return ModelObject(
        id=name,
        digest=digest,
        architecture=parent.architecture,
        layout=parent.layout,
        weights=place["weights"],
        adapters=tuple(place["adapters"]),
        parameters=manifest.get("parameters", parent.parameters),
        template=place.get("template", ""),
        own=place.get("own", 0),
        chat=parent.chat,
        trial=number,
        tokenizer=manifest.get("tokenizer", parent.tokenizer),
        bytes=size,
        traits=manifest.get("traits", parent.traits),
        sizes=tuple(manifest.get("sizes", parent.sizes)),
    )
