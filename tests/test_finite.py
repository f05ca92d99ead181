"""What is not finite ends a step with its class, and nothing of it is published."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lamdatui.domain.actions import ActionType, BoundType, Slot
from tests.steps import Lab

SLOTS = (Slot("model", "model", "what it starts from"), Slot("dataset", "dataset", "on what", formats=("sft",)))
BOTH = {"model": ["llama"], "dataset": ["call"]}
SFT = {"method": "full", "max_steps": 2, "batch_size": 4}


def spoil(weights: Any, value: float) -> None:
    """One number of many."""
    import torch

    with torch.no_grad():
        weights.view(-1)[7] = value


class Spoiled(ActionType):
    """An action of somebody's whose weights are not finite; `how` says on which way they are handed over."""

    family = "supervised"
    source = "nobody"
    summary = "makes weights that are not finite"
    slots = SLOTS
    params = ()

    def __init__(self, how: str, value: float) -> None:
        self.name = f"spoiled_{how}_{str(value).strip('-')}"
        self.how, self.value = how, value

    def run(self, step: Any) -> None:
        model, tokenizer = step.load_model(), step.load_tokenizer()
        if self.how in ("adapter", "written"):
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
            spoil(next(weight for name, weight in model.named_parameters() if "lora_B" in name), self.value)
        else:
            spoil(model.get_input_embeddings().weight, self.value)
        if self.how == "written":
            model.save_pretrained(step.staged)
            step.finish_adapter(0)
        elif self.how == "directory":
            model.save_pretrained(step.staged)
            tokenizer.save_pretrained(step.staged)
            step.finish_directory()
        else:
            step.finish_training(model, tokenizer)


@pytest.fixture(scope="module")
def steps(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(lab, tmp_path_factory.mktemp("finite"))


def assert_nothing_is_published(steps: Lab, outcome: dict[str, Any], said: str) -> None:
    assert (outcome["status"], outcome["error"]["class"]) == ("failed", "nan"), outcome
    assert said in outcome["error"]["message"]
    assert list((steps.store.root / "objects").iterdir()) == [] == list((steps.store.root / "staging").iterdir())


@pytest.mark.parametrize("how", ["full", "adapter", "written", "directory"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_never_published(steps: Lab, how: str, value: float) -> None:
    kind = Spoiled(how, value)
    steps.registry.types[kind.name] = BoundType(kind, (), "test")
    outcome, _, action = steps.attempt(kind.name, BOTH)
    assert_nothing_is_published(steps, outcome, "is not finite")
    assert steps.store.find(action["digest"]) is None


def test_a_training_that_diverges_ends_at_its_first_step(steps: Lab, lab: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "spoiled"
    shutil.copytree(lab / "llama", folder)
    weights = load_file(folder / "model.safetensors")
    spoil(next(iter(weights.values())), math.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    steps.add_model("spoiled", folder)
    outcome, _, _ = steps.attempt("sft", {"model": ["spoiled"], "dataset": ["call"]}, **SFT)
    assert outcome["error"]["class"] == "model" and "is not finite" in outcome["error"]["message"], (
        "a base that is spoiled is told as such"
    )
    # Weights that are finite, of which nothing finite comes.
    spoil(next(iter(weights.values())), 3e38)
    huge = tmp_path / "huge"
    shutil.copytree(lab / "llama", huge)
    finite = {name: torch.nan_to_num(value, nan=3e38) for name, value in weights.items()}
    save_file(finite, huge / "model.safetensors", {"format": "pt"})
    steps.add_model("huge", huge)
    outcome, folder, _ = steps.attempt("sft", {"model": ["huge"], "dataset": ["call"]}, **SFT)
    assert_nothing_is_published(steps, outcome, "at step 1")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(each["step"], each.get("loss")) for each in records] == [(0, None), (1, None)]


@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("norm", [1.0, math.nan, -math.inf])
def test_a_loss_and_a_gradient_norm_are_finite_or_training_ends(tmp_path: Path, loss: float, norm: float) -> None:
    from transformers import TrainerState

    from lamdatui.step.context import StepContext, StepError
    from lamdatui.step.training import MetricsCallback

    request = {"action": None, "device": "cpu", "dtype": "float32", "store": str(tmp_path), "always": False}
    callback = MetricsCallback(StepContext(tmp_path, request, tmp_path))
    state = TrainerState(global_step=3, max_steps=9)
    if math.isfinite(loss) and math.isfinite(norm):
        callback.on_log(None, state, None, {"loss": loss, "grad_norm": norm})
    else:
        with pytest.raises(StepError, match=f"loss {loss}, gradient norm {norm} at step 3") as raised:
            callback.on_log(None, state, None, {"loss": loss, "grad_norm": norm})
        assert raised.value.kind == "nan"
    (record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert record["loss"] == (loss if math.isfinite(loss) else None)
    assert record["grad_norm"] == (norm if math.isfinite(norm) else None)
