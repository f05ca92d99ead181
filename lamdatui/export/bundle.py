"""Export: a model of a run as a Hugging Face directory, with what made it, what it scored, and the means to check both."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import yaml

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import fsync_dir, fsync_tree, read_json, write_json
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.export import card, gguf_files, proof, reproduction
from lamdatui.export.handing import hand_on
from lamdatui.export.model_gguf import family
from lamdatui.export.rebuild import rebuild
from lamdatui.export.recipe import RECIPE, model_of, recipe
from lamdatui.inputs.modelfiles import ADAPTER
from lamdatui.step.request import reference
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import read_state, told_newer


def export_model(
    run_dir: Path,
    target: Path,
    model_id: str | None,
    say: Callable[[str], None],
    *,
    form: str = "full",
    bare: bool = False,
    gguf: str = "",
) -> None:
    """Write `target` whole or not at all. `form`: `full` weights, or the model's last `adapter` alone; `bare`: without rows of data; `gguf`: forms
    of `lamdatui.export.model_gguf`, with commas between them.

    Raises LamdatuiError when there is no such model, it has no such form, or the target exists.
    """
    state = read_state(run_dir / "run.db")
    if state.newer:
        say(told_newer(state))
    chosen = model_id or state.winner
    if chosen is None:
        raise LamdatuiError(
            "the run has no winner yet", where=str(run_dir), fix="name a model with --model, see `lamdatui show`"
        )
    model = model_of(state, chosen)
    if form == "adapter" and len(model.adapters) != 1:
        raise LamdatuiError(
            f"{chosen} is not one adapter on a base: it has {len(model.adapters)}", fix="export it without --adapter, in full"
        )
    forms = gguf_files.parse_forms(gguf) if gguf else []
    if forms and form == "adapter":
        raise LamdatuiError("an adapter alone has no GGUF form", fix="leave --adapter out")
    if target.exists():
        raise LamdatuiError("the target exists already", where=str(target), fix="choose a directory that does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    staged.mkdir()
    try:
        store = Store(run_dir.parent / "store", always=state.profile.get("verify") == "always")
        rebuild(run_dir, state, model, store, say)
        if forms:
            family(store.resolve(model.weights))
        _write(run_dir, state, model, store, staged, say, form=form, bare=bare, forms=forms)
        fsync_tree(staged)
        os.rename(staged, target)
        fsync_dir(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write(
    run_dir: Path,
    state: RunState,
    model: ModelObject,
    store: Store,
    staged: Path,
    say: Callable[[str], None],
    *,
    form: str,
    bare: bool,
    forms: list[str],
) -> None:
    _write_weights(state, model, store, staged, form, say)
    if forms:
        gguf_files.write_files(run_dir, state, model.id, staged, forms, say)
    told, unknown = recipe(state, model.id), list[str]()
    if not bare:
        unknown = reproduction.write(run_dir, state, model, store, staged, say, form=form)
        told["answers_missing"] = missing = proof.write_answers(run_dir, state, model.id, staged)
        for each in missing:
            say(f"the answers to {each} are not in the store any more, or its file is another one now")
    (staged / RECIPE).write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (staged / card.FILE).write_text(card.text(state, model, told, unknown, bare=bare), encoding="utf-8")
    mark = proof.write(staged, state.name, model.id)
    hand_on(*staged.rglob("*"))
    say(f"wrote {sum(f.stat().st_size for f in staged.rglob('*') if f.is_file()) / 2**20:.0f} MiB; fingerprint {mark}")
    for each in unknown:
        say(f"reproduce.py can't make {each}")
    if not bare:
        say("reproduce/ and answers.jsonl hold rows of your data; --bare leaves them out")


def _write_weights(
    state: RunState, model: ModelObject, store: Store, staged: Path, form: str, say: Callable[[str], None]
) -> None:
    if form == "adapter":
        for file in store.resolve(model.adapters[-1]).glob("adapter_*"):
            shutil.copyfile(file, staged / file.name)
        settings = read_json(staged / ADAPTER)
        write_json(staged / ADAPTER, {**settings, "base_model_name_or_path": _base_path(state, model)})
        return
    say(f"loading {model.id} and merging its adapters")
    import torch
    from transformers.utils.logging import disable_progress_bar

    from lamdatui.step.models import load_model, load_tokenizer, save_tokenizer

    disable_progress_bar()
    plain = reference(model, state.pool)
    dtype = getattr(torch, state.device.get("dtype", "float32"))
    load_model(store, plain, dtype, torch.device("cpu")).save_pretrained(staged)
    save_tokenizer(load_tokenizer(store, plain), staged)


def _base_path(state: RunState, model: ModelObject) -> str:
    """Where the profile has the model that an adapter stands on."""
    for other in state.pool.models:
        if other.trial is None and other.weights == model.weights:
            return str(state.profile["models"][other.id]["path"])
    return model.weights
