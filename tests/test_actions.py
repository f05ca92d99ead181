"""One conformance test over every action type, and each of ours doing real work in a real step process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamdatui.actions import ActionType, BoundType, make_action
from lamdatui.modelfiles import inspect_model
from lamdatui.objects import DatasetObject, ModelObject, ObjectPool, object_to_json
from lamdatui.pipeline import produced, reference
from lamdatui.resources import load_registry
from lamdatui.store.artifacts import Store
from tests.conftest import CHECKOUT

REGISTRY = load_registry()
EVERY = sorted(REGISTRY.types.values(), key=lambda bound: bound.name)
TINY = {
    "sft": {"method": "full", "max_steps": 3, "max_length": 64},
    "dpo": {"method": "full", "max_steps": 3, "max_length": 64},
}


def test_no_action_file_is_broken() -> None:
    assert REGISTRY.problems == []


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.name)
def test_a_declaration_is_complete_and_its_defaults_are_legal(bound: BoundType) -> None:
    kind = bound.type
    assert isinstance(kind, ActionType)
    assert kind.name.isidentifier()
    assert 10 < len(kind.summary) < 100
    assert kind.source
    assert kind.version >= 1
    assert kind.output == "model"
    assert any(slot.kind in ("model", "models") for slot in kind.slots)
    names = [slot.name for slot in kind.slots] + [param.name for param in kind.params]
    assert len(set(names)) == len(names)
    for slot in kind.slots:
        assert slot.help
        assert bool(slot.formats) is (slot.kind == "dataset")
    for param in kind.params:
        assert param.help
        assert param.parse(param.default) == param.default
        assert all(param.parse(choice) == choice for choice in param.choices)
        assert not param.choices or param.default in param.choices
        if param.type in ("int", "float"):
            assert param.low is not None
            assert param.high is not None
            with pytest.raises(ValueError, match=param.name):
                param.parse(param.low - 1)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.name)
def test_listing_an_action_type_imports_nothing_heavy(bound: BoundType) -> None:
    file = CHECKOUT / "actions" / bound.origin.rpartition(": ")[2]
    code = (
        "import sys; from lamdatui.resources import load_registry; load_registry()\n"
        "bad = {'torch', 'transformers', 'trl', 'peft', 'mergekit', 'datasets', 'textual'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    assert file.is_file()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def lab_pool(lab: Path) -> ObjectPool:
    pool = ObjectPool()
    for name in ("llama", "phi"):
        info = inspect_model(lab / name)
        pool.add(ModelObject(name, info.digest, info.architecture, info.layout, str(lab / name), (), info.parameters))
    for name, form in (("call_replay", "sft"), ("prefer", "preference")):
        pool.add(DatasetObject(name, name, form, 1, str(lab / "data" / f"{name}.jsonl")))  # type: ignore[arg-type]
    return pool


def run_step(pool: ObjectPool, store: Store, folder: Path, name: str, inputs: dict, params: dict) -> ModelObject:
    """Run one action in a process of its own; the model it published."""
    bound = REGISTRY.get(name)
    assert bound.problems(inputs, bound.fill(params), pool) == []
    action = make_action(bound, inputs, params, pool, seed=1, dtype="float32")
    folder.mkdir()
    models, datasets = {}, {}
    for slot in bound.type.slots:
        if slot.kind == "dataset":
            datasets[slot.name] = object_to_json(pool.dataset(inputs[slot.name][0]))
        else:
            models[slot.name] = [reference(pool.model(each)) for each in inputs[slot.name]]
    request = {"step": "1/1", "purpose": "trial", "trial": 1, "digest": action.digest, "action": action.to_json()}
    request |= {"models": models, "datasets": datasets, "subject": None, "evaluations": []}
    request |= {"store": str(store.root), "device": "cpu", "dtype": "float32", "threads": 1}
    (folder / "action.json").write_text(json.dumps(request))
    code = (
        "import sys; from pathlib import Path; from lamdatui.resources import load_registry\n"
        "from lamdatui.step.child import run_step; sys.exit(run_step(Path(sys.argv[1]), load_registry()))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True)
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["status"] == "ok", done.stdout + done.stderr
    first = next(slot.name for slot in bound.type.slots if slot.kind in ("model", "models") and not slot.base_only)
    parent = pool.model(inputs[first][0])
    made = produced(action.digest, store.manifest(action.digest), reference(parent))
    model = ModelObject(
        folder.name, action.digest, parent.architecture, parent.layout, made["weights"], tuple(made["adapters"]), 1, trial=1
    )
    pool.add(model)
    return model


def weights(store: Store, model: ModelObject) -> dict:
    import torch

    from lamdatui.step.context import load_model

    loaded = load_model(store, reference(model), torch.float32, torch.device("cpu"))
    return {name: tensor.detach() for name, tensor in loaded.named_parameters()}


def difference(store: Store, a: ModelObject, b: ModelObject) -> float:
    ours, theirs = weights(store, a), weights(store, b)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_every_action_changes_weights_and_merges_lie_between(lab: Path, tmp_path: Path) -> None:
    pool, store = lab_pool(lab), Store(tmp_path / "store")
    base = pool.model("llama")
    tuned = run_step(pool, store, tmp_path / "tuned", "sft", {"model": ("llama",), "dataset": ("call_replay",)}, TINY["sft"])
    lora = {**TINY["sft"], "method": "lora", "lora_rank": 4}
    adapted = run_step(pool, store, tmp_path / "adapted", "sft", {"model": ("tuned",), "dataset": ("call_replay",)}, lora)
    preferred = run_step(pool, store, tmp_path / "preferred", "dpo", {"model": ("tuned",), "dataset": ("prefer",)}, TINY["dpo"])
    assert adapted.adapters and adapted.weights == tuned.weights
    assert not preferred.adapters
    for child, parent in ((tuned, base), (adapted, tuned), (preferred, tuned)):
        assert difference(store, child, parent) > 1e-6

    linear = run_step(pool, store, tmp_path / "linear", "merge_linear", {"models": ("adapted", "llama")}, {"weight": 0.5})
    merged, left, right = weights(store, linear), weights(store, adapted), weights(store, base)
    assert all(float((merged[n] - (left[n] + right[n]) / 2).abs().max()) < 1e-5 for n in merged)
    inputs = {"base": ("llama",), "models": ("tuned", "preferred")}
    ties = run_step(pool, store, tmp_path / "ties", "merge_ties", inputs, {"density": 0.5, "weight": 0.5})
    assert difference(store, ties, base) > 1e-6
    assert store.verify(ties.digest) == []


def test_a_users_action_file_is_offered_and_a_broken_one_is_a_visible_problem(home: Path) -> None:
    folder = home / "config" / "actions"
    folder.mkdir(parents=True)
    (folder / "shuffle.py").write_text(
        "from lamdatui.actions import ActionType, Slot\n"
        "class Copy(ActionType):\n"
        "    name = 'copy_model'\n    summary = 'a copy of a model'\n    family = 'supervised'\n    source = 'nobody'\n"
        "    slots = (Slot('model', 'model', 'what to copy'),)\n    params = ()\n"
        "    def run(self, step): step.finish_training(step.load_model(), step.load_tokenizer())\n"
        "ACTION = Copy()\n"
    )
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    registry = load_registry()
    assert registry.get("copy_model").origin == "user: shuffle.py"
    assert len(registry.problems) == 1
    assert "broken.py" in registry.problems[0]
    assert "nothing_of_that_name" in registry.problems[0]
    assert "sft" in registry.types
