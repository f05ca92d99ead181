"""Export: a model of a run as a plain Hugging Face directory, with the recipe that made it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lamdatui import __version__
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import fsync_dir, fsync_tree
from lamdatui.cli.rebuild import rebuild
from lamdatui.domain.baselines import ALL_ROWS
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject, object_from_json
from lamdatui.domain.records import BaselineRecord
from lamdatui.domain.state import RunState
from lamdatui.step.request import reference
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state


def recipe(state: RunState, model_id: str) -> dict[str, Any]:
    """The pipeline of a model, in full: bases, data, actions in order, seeds, and what was measured."""
    baseline = _baseline(state, model_id)
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
        "bases": {m.id: {"path": state.profile["models"][m.id]["path"], "digest": m.digest} for m in bases},
        "datasets": {
            d.id: {"path": state.profile["datasets"][d.id]["path"], "sha256": d.digest, "rows": d.rows}
            for d in state.pool.datasets
            if d.id in used and d.trial is None
        },
        "steps": steps,
        "objective": state.profile["objective"],
        "scores": baseline["scores"] if baseline else state.scores.get(model_id, {}),
        "gain": {"sealed": baseline["gain"]} if baseline else state.gain if model_id == state.winner else None,
    }


def _baseline(state: RunState, name: str) -> BaselineRecord | None:
    """The baseline whose model is called so, where it is not one of the pool."""
    return next((each for each in state.baselines.values() if each["model"] == name and each.get("object")), None)


def _model(state: RunState, name: str) -> ModelObject:
    """A model of the run, or one that was made for a baseline. Raises LamdatuiError."""
    known = {model.id: model for model in state.pool.models}
    for each in state.baselines.values():
        made = object_from_json(told) if (told := each.get("object")) else None
        if isinstance(made, ModelObject):
            known[made.id] = made
    if name not in known:
        raise LamdatuiError(f"no model {name!r} in this run", fix=f"models: {', '.join(known)}")
    return known[name]


def export_model(run_dir: Path, target: Path, model_id: str | None, say: Callable[[str], None]) -> None:
    """Write `target` whole or not at all. Raises LamdatuiError when there is no such model or the target exists."""
    state = read_state(run_dir / "run.db")
    chosen = model_id or state.winner
    if chosen is None:
        raise LamdatuiError(
            "the run has no winner yet", where=str(run_dir), fix="name a model with --model, see `lamdatui show`"
        )
    model = _model(state, chosen)
    if target.exists():
        raise LamdatuiError("the target exists already", where=str(target), fix="choose a directory that does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    staged.mkdir()
    try:
        store = Store(run_dir.parent / "store", always=state.profile.get("verify") == "always")
        rebuild(run_dir, state, model, store, say)
        _write(state, model, store, staged, say)
        fsync_tree(staged)
        os.rename(staged, target)
        fsync_dir(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _hand_on(folder: Path) -> None:
    """Modes as the user's umask has them: libraries make weights private, and a model is exported to be handed on."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def _write(state: RunState, model: ModelObject, store: Store, staged: Path, say: Callable[[str], None]) -> None:
    say(f"loading {model.id} and merging its adapters")
    import torch

    from lamdatui.step.models import load_model, load_tokenizer

    plain = reference(model, state.pool)
    dtype = getattr(torch, state.device.get("dtype", "float32"))
    load_model(store, plain, dtype, torch.device("cpu")).save_pretrained(staged)
    load_tokenizer(store, plain).save_pretrained(staged)
    (staged / "recipe.yaml").write_text(
        yaml.safe_dump(recipe(state, model.id), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    _hand_on(staged)
    say(f"wrote {sum(f.stat().st_size for f in staged.iterdir()) / 2**20:.0f} MiB")
