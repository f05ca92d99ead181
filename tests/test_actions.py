"""One conformance test over every action type, and the ends that an action can have, in real steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lamdatui.actionkit.check import declaration_problems
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import FAMILIES, BoundType
from tests.conftest import CHECKOUT
from tests.steps import Lab

REGISTRY = load_registry()
EVERY = sorted(REGISTRY.types.values(), key=lambda bound: bound.name)
EXPECTED = [
    "sft",
    "dpo",
    "kto",
    "orpo",
    "simpo",
    "grpo",
    "rloo",
    "distill",
    "merge_adapters",
    "mix",
    "filter",
    "rejection_sample",
    "make_preferences",
    "self_instruct",
    "merge_linear",
    "merge_slerp",
    "merge_nuslerp",
    "merge_multislerp",
    "merge_karcher",
    "merge_task_arithmetic",
    "merge_ties",
    "merge_dare_linear",
    "merge_dare_ties",
    "merge_della",
    "merge_della_linear",
    "merge_breadcrumbs",
    "merge_breadcrumbs_ties",
    "merge_model_stock",
    "merge_sce",
    "merge_nearswap",
    "merge_arcee_fusion",
    "merge_ram",
    "merge_ramplus_tl",
]


def test_no_action_file_is_broken_and_every_method_is_there() -> None:
    assert REGISTRY.problems == []
    assert set(EXPECTED) <= set(REGISTRY.types)
    assert {bound.type.family for bound in EVERY} == set(FAMILIES)


@pytest.mark.parametrize("bound", EVERY, ids=lambda bound: bound.name)
def test_a_declaration_is_complete_and_consistent(bound: BoundType) -> None:
    assert declaration_problems(bound) == []


def test_listing_the_action_types_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lamdatui.config.resources import load_registry; load_registry()\n"
        "bad = {'torch', 'transformers', 'trl', 'peft', 'mergekit', 'datasets', 'textual', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    assert all((CHECKOUT / "actions" / bound.origin.rpartition(": ")[2]).is_file() for bound in EVERY)
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def steps(lab: Path, tmp_path: Path) -> Lab:
    return Lab(lab, tmp_path)


def test_a_chain_of_training_adapter_and_merge_changes_weights(steps: Lab) -> None:
    tuned = steps.model(
        "sft", {"model": ["llama"], "dataset": ["call_replay"]}, method="full", max_steps=3, batch_size=16, learning_rate=1e-3
    )
    adapted = steps.model(
        "sft", {"model": [tuned.id], "dataset": ["call_replay"]}, max_steps=3, batch_size=16, lora_rank=4, learning_rate=1e-2
    )
    assert adapted.adapters and adapted.weights == tuned.weights
    assert not tuned.adapters
    assert steps.difference(tuned.id, "llama") > 1e-6
    assert steps.difference(adapted.id, tuned.id) > 1e-6
    linear = steps.model("merge_linear", {"models": [adapted.id, "llama"]}, weight=0.5)
    merged, left, right = steps.weights(linear.id), steps.weights(adapted.id), steps.weights("llama")
    assert all(float((merged[n] - (left[n] + right[n]) / 2).abs().max()) < 1e-5 for n in merged)
    assert steps.store.verify(linear.digest) == []


def test_after_an_out_of_memory_the_effective_batch_stays(steps: Lab) -> None:
    inputs = {"model": ["llama"], "dataset": ["call_replay"]}
    settings = {"method": "full", "max_steps": 2, "batch_size": 6, "learning_rate": 1e-3}
    whole = steps.model("sft", inputs, **settings)
    config = (steps.last / "config.json").read_text()
    assert '"per_device_train_batch_size": 6' in config.replace(" ", " ")
    small = Lab(steps.lab, steps.folder / "small")
    again = small.model("sft", inputs, small=True, **settings)
    config = (small.last / "config.json").read_text()
    assert '"per_device_train_batch_size": 1' in config
    assert '"gradient_accumulation_steps": 6' in config
    assert again.digest == whole.digest
    ours, theirs = small.weights(again.id), steps.weights(whole.id)
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-3


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
