"""Reinforcement learning and distillation on the lab: what they refuse, what they change, and what they report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lamdatui.actions import adapter_problems
from lamdatui.domain.objects import ModelObject
from tests.steps import Lab

INPUTS = {"model": ["tuned"], "dataset": ["verify"]}
TINY = {"method": "full", "max_steps": 3, "batch_size": 64, "samples": 4, "max_new_tokens": 12, "learning_rate": 2e-4}
LESSON = {"model": ["llama"], "teacher": ["phi"], "dataset": ["call_replay"]}
TAUGHT = {"method": "full", "max_steps": 4, "batch_size": 16, "max_new_tokens": 12, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def steps(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The lab with a llama in the middle of learning (`tuned`): the base answers a prompt always rightly or never."""
    steps = Lab(lab, tmp_path_factory.mktemp("lab"))
    settings = {"method": "full", "max_steps": 20, "batch_size": 16, "learning_rate": 2e-3}
    made = steps.model("sft", {"model": ["llama"], "dataset": ["call_replay"]}, **settings)
    steps.pool.add(dataclasses.replace(made, id="tuned"))
    path = steps.folder / "never.jsonl"
    row = {"prompt": "rev:abc=", "scorer": "exact", "reference": "no answer at all"}
    path.write_text((json.dumps(row) + "\n") * 16)
    steps.add_dataset("never", path)
    return steps


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What the trainer logged, step by step."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record.get("loss") is not None]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_rewards_change_the_model_and_are_reported(steps: Lab, kind: str) -> None:
    made = steps.model(kind, INPUTS, **TINY)
    assert steps.difference(made.id, "tuned") > 1e-6
    rewards = [record["reward"] for record in metrics(steps.last)]
    assert len(rewards) == 3
    assert all(0 < reward < 1 for reward in rewards)


def test_an_adapter_learns_from_rewards_under_a_kl_penalty(steps: Lab) -> None:
    made = steps.model("grpo", INPUTS, **{**TINY, "method": "lora", "lora_rank": 4, "learning_rate": 1e-2, "beta": 0.05})
    assert made.adapters
    assert steps.difference(made.id, "tuned") > 1e-6


@pytest.mark.parametrize(("kind", "batch", "samples"), [("grpo", 64, 4), ("rloo", 60, 6)])
def test_after_an_out_of_memory_each_prompt_still_gets_all_its_samples(steps: Lab, kind: str, batch: int, samples: int) -> None:
    changed = {"max_steps": 2, "batch_size": batch, "samples": samples, "temperature": 1.3}
    steps.model(kind, INPUTS, small=True, **{**TINY, **changed})
    config = json.loads((steps.last / "config.json").read_text())["arguments"]
    assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] == batch
    assert config["per_device_train_batch_size"] < batch
    assert config["generation_batch_size"] < batch
    assert config["generation_batch_size"] % samples == 0
    assert config["gradient_accumulation_steps"] % config["steps_per_generation"] == 0


def test_a_run_that_never_told_answers_apart_publishes_nothing(steps: Lab) -> None:
    outcome, _, action = steps.attempt("rloo", {**INPUTS, "dataset": ["never"]}, **{**TINY, "max_steps": 2})
    assert outcome["status"] == "failed"
    assert outcome["error"]["class"] == "data"
    assert "nothing was learned" in outcome["error"]["message"]
    assert "mean 0.00" in outcome["error"]["message"]
    assert steps.store.find(action["digest"]) is None


def test_the_reference_of_full_training_is_the_parent_with_its_adapters(steps: Lab) -> None:
    lora = {"method": "lora", "max_steps": 4, "batch_size": 16, "lora_rank": 4, "learning_rate": 5e-2}
    parent = steps.model("sft", {"model": ["llama"], "dataset": ["call_replay"]}, **lora)
    # Without a reward the loss is the KL divergence alone: zero where the reference is the parent.
    inputs = {"model": [parent.id], "dataset": ["never"]}
    _, folder, _ = steps.attempt("grpo", inputs, **{**TINY, "max_steps": 1, "beta": 1.0})
    (first,) = metrics(folder)
    assert abs(first["loss"]) < 1e-6


def test_what_can_not_be_compared_is_refused_with_a_reason(steps: Lab) -> None:
    def reasons(**changed: Any) -> str:
        return " ".join(steps.problems("grpo", {**INPUTS, "dataset": ["never"]}, **{**TINY, **changed}))

    assert reasons() == ""
    assert "not a multiple of samples" in reasons(batch_size=62)
    assert "the dataset has 16" in reasons(batch_size=128, samples=2)
    assert "temperature 0" in reasons(temperature=0.0)
    assert "qlora" in reasons(method="qlora")
    assert "format sft" in " ".join(steps.problems("rloo", {**INPUTS, "dataset": ["call_replay"]}, **TINY))


def test_a_student_comes_nearer_to_its_teacher(steps: Lab) -> None:
    made = steps.model("distill", LESSON, **{**TAUGHT, "on_policy": 0.0, "divergence": 0.0, "max_steps": 12})
    losses = [record["loss"] for record in metrics(steps.last)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert made.architecture == steps.pool.model("llama").architecture
    adapted = steps.model("distill", {**LESSON, "dataset": ["verify"]}, **{**TAUGHT, "method": "lora", "lora_rank": 4})
    assert adapted.adapters
    assert steps.difference(adapted.id, "llama") > 1e-6


def test_off_policy_steps_take_the_answers_of_the_dataset(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer.distillation_trainer import DistillationTrainer

    sampled = []
    sample = DistillationTrainer._generate_single_turn

    def counted(self: Any, *rest: Any, **named: Any) -> Any:
        sampled.append(1)
        return sample(self, *rest, **named)

    monkeypatch.setattr(DistillationTrainer, "_generate_single_turn", counted)
    for share, least, most in ((0.0, 0, 0), (0.5, 1, 4), (1.0, 5, 5)):
        sampled.clear()
        steps.model("distill", LESSON, **{**TAUGHT, "max_steps": 5, "batch_size": 4, "on_policy": share})
        assert least <= len(sampled) <= most


def test_a_teacher_has_to_fit_its_student(steps: Lab) -> None:
    phi = steps.pool.model("phi")
    steps.pool.add(ModelObject("other", "0" * 64, phi.architecture, phi.layout, phi.weights, (), phi.parameters, tokenizer="x"))

    def reasons(inputs: dict[str, list[str]] | None = None, **changed: Any) -> str:
        return " ".join(steps.problems("distill", {**LESSON, **(inputs or {})}, **{**TAUGHT, **changed}))

    assert reasons() == ""
    assert "the student itself" in reasons({"teacher": ["llama"]})
    assert "is smaller than" in reasons({"model": ["phi"], "teacher": ["llama"]})
    assert "different vocabularies" in reasons({"teacher": ["other"]})
    assert "on_policy must be 1" in reasons({"dataset": ["verify"]}, on_policy=0.5)
    assert "more than the" in reasons(batch_size=60000)


@pytest.mark.parametrize("kind", ["grpo", "rloo", "distill"])
def test_what_is_sampled_and_every_further_pass_has_its_price(steps: Lab, kind: str) -> None:
    bound = steps.registry.get(kind)
    inputs = {k: tuple(v) for k, v in (LESSON if kind == "distill" else INPUTS).items()}

    def seconds(**changed: Any) -> float:
        call = bound.call(inputs, bound.fill({"method": "full", **changed}), steps.pool)
        assert adapter_problems(call) == []
        return bound.type.estimate(call).seconds or 0.0

    assert seconds(max_new_tokens=512) > 1.5 * seconds(max_new_tokens=128)
    assert seconds(max_steps=200) > 3 * seconds(max_steps=50)
    if kind != "distill":
        assert seconds(beta=0.1) > seconds()
