"""A step's inputs, their content compared with what was promised. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamdatui.base.fingerprint import Changed
from lamdatui.inputs.datafiles import is_promised
from lamdatui.inputs.modelfiles import is_model
from lamdatui.inputs.rowfiles import source_digest
from lamdatui.step.request import ModelReference
from lamdatui.store.artifacts import REFERENCE, Store


def check_inputs(store: Store, request: Mapping[str, Any]) -> None:
    """Compare every model, dataset and adapter of a request with what was promised, before anything is made of them.

    Actions may read them by their paths. Raises Changed for what the profile names, DamagedObject for what the
    store should have.
    """
    for references in request["models"].values():
        for reference in references:
            weights_directory(store, reference)
            for adapter in reference["adapters"]:
                store.resolve(adapter)
    for datasets in request["datasets"].values():
        for data in datasets:
            path = store.resolve(data["path"])
            if data["path"].startswith(REFERENCE):
                continue
            if not is_promised(source_digest(path, always=store.always), data["digest"], dict(data.get("columns", ()))):
                raise Changed(f"the dataset {data['id']} has changed", where=str(path))


def weights_directory(store: Store, reference: ModelReference) -> Path:
    """The directory of a model's full weights, its content compared with what was promised. Raises as `check_inputs` does."""
    path = store.resolve(reference["weights"])
    adapter = Path(reference["adapters"][0]) if reference.get("own") else None
    template = reference.get("template", "")
    if reference["digest"] and not is_model(path, reference["digest"], adapter=adapter, template=template, always=store.always):
        raise Changed(f"the weights of {reference['id']} have changed", where=str(path))
    return path


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let Changed say what it was that has changed."""
    try:
        yield
    except Changed as error:
        raise Changed(f"{what} has changed: {error.what}", where=error.where, fix=error.fix) from error
