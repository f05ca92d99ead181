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
from lamdatui.domain.lineage import lineage
from lamdatui.domain.state import RunState
from lamdatui.step.request import reference
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state


def recipe(state: RunState, model_id: str) -> dict[str, Any]:
    """The pipeline of a model, in full: bases, data, actions in order, seeds, and what was measured."""
    trials = lineage(state, model_id)
    used = {name for trial in trials for ids in (trial.action or {})["inputs"].values() for name in ids}
    used |= {model_id} if not trials else set()
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
        "steps": [{"makes": t.model or t.dataset, "trial": t.number, **(t.action or {})} for t in trials],
        "objective": state.profile["objective"],
        "scores": state.scores.get(model_id, {}),
        "gain": state.gain if model_id == state.winner else None,
    }


def export_model(run_dir: Path, target: Path, model_id: str | None, say: Callable[[str], None]) -> None:
    """Write `target` whole or not at all. Raises LamdatuiError when there is no such model or the target exists."""
    state = read_state(run_dir / "run.db")
    chosen = model_id or state.winner
    if chosen is None:
        raise LamdatuiError(
            "the run has no winner yet", where=str(run_dir), fix="name a model with --model, see `lamdatui show`"
        )
    known = [model.id for model in state.pool.models]
    if chosen not in known:
        raise LamdatuiError(f"no model {chosen!r} in this run", fix=f"models: {', '.join(known)}")
    if target.exists():
        raise LamdatuiError("the target exists already", where=str(target), fix="choose a directory that does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    staged.mkdir()
    try:
        store = Store(run_dir.parent / "store", always=state.profile.get("verify") == "always")
        rebuild(run_dir, state, state.pool.model(chosen), store, say)
        _write(state, chosen, store, staged, say)
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


def _write(state: RunState, model_id: str, store: Store, staged: Path, say: Callable[[str], None]) -> None:
    say(f"loading {model_id} and merging its adapters")
    import torch

    from lamdatui.step.models import load_model, load_tokenizer

    plain = reference(state.pool.model(model_id), state.pool)
    dtype = getattr(torch, state.device.get("dtype", "float32"))
    load_model(store, plain, dtype, torch.device("cpu")).save_pretrained(staged)
    load_tokenizer(store, plain).save_pretrained(staged)
    (staged / "recipe.yaml").write_text(
        yaml.safe_dump(recipe(state, model_id), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    _hand_on(staged)
    say(f"wrote {sum(f.stat().st_size for f in staged.iterdir()) / 2**20:.0f} MiB")
