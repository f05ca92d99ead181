"""Reinforcement learning from verifiable rewards: the model answers, a scorer judges, better answers become likelier.

Both methods sample several answers to a prompt and compare them with each other, so that no value model is needed. GRPO
divides an answer's advantage over its group by the group's spread and clips each token's ratio; RLOO takes the mean of
the other answers as the baseline and treats the answer as one action. The reward is the score in [0, 1] of the row's own
scorer. `beta` is the weight of the KL divergence from the parent (0: no reference model): with an adapter, the parent is
the same weights with the adapter switched off; with `full`, a frozen copy.

TRL's `GRPOTrainer` and `RLOOTrainer`, generating with the model itself.
"""

from __future__ import annotations

import importlib.util
import json
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamdatui import costs
from lamdatui.actions import LENGTH_PARAMS, TRAINING_PARAMS, ActionType, Call, Estimate, Param, Plan, Slot, adapter_problems

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

SLOTS = (
    Slot("model", "model", "the model to train; one that sometimes gets a right answer"),
    Slot("dataset", "dataset", "prompts, and what a right answer is", formats=("verifiable",)),
)
MOST_ROWS = 65_536
"""Of a larger dataset, this many prompts are written out, or as many as the step will see."""
LEARNING_RATE = Param("learning_rate", "float", 2e-5, "peak learning rate", (5e-6, 2e-5, 5e-5), low=1e-9, high=1.0)
MAX_STEPS = Param("max_steps", "int", 50, "optimiser steps", (25, 50, 100), low=1, high=1_000_000, unit="steps")
SAMPLING = (
    Param("batch_size", "int", 32, "answers in one optimiser step: prompts × samples", low=2, high=65536, unit="answers"),
    Param("samples", "int", 8, "answers to each prompt, compared with each other", low=2, high=1024, unit="answers"),
    Param("max_new_tokens", "int", 256, "longer answers are cut, and judged as they are", low=1, high=65536, unit="tokens"),
    Param("temperature", "float", 1.0, "sampling temperature; must be above 0, or all answers are alike", low=0.0, high=2.0),
    Param(
        "rollouts",
        "str",
        "transformers",
        "what answers while it trains; vllm: on the same GPU, in lamdatui's own environment (docs/generation.md)",
        allowed=("transformers", "vllm"),
        since=3,
    ),
)
VLLM_SHARE = 0.3
"""Of the GPU's memory, while answers are sampled: then the weights that are trained stay, too."""


def _check(call: Call) -> list[str]:
    p, rows = call.params, call.dataset("dataset").rows
    batch, samples = int(p["batch_size"]), int(p["samples"])
    found = adapter_problems(call)
    if batch % samples:
        found.append(f"batch_size {batch} is not a multiple of samples {samples}: each prompt gets {samples} answers")
    elif batch // samples > rows:
        found.append(f"a step takes {batch // samples} prompts (batch_size / samples); the dataset has {rows}")
    if not p["temperature"]:
        found.append("temperature 0 gives the same answer every time, and nothing to compare; 1 is usual")
    if p["rollouts"] == "vllm":
        if not call.on_gpu:
            found.append("rollouts by vllm need a GPU")
        elif importlib.util.find_spec("vllm") is None:
            found.append("rollouts by vllm need it in this environment: pip install -c constraints-vllm.txt 'lamdatui[vllm]'")
    return found


def _estimate(call: Call, forward: float) -> Estimate:
    """`forward`: passes over each answer in all, of which one is trained."""
    p = call.params
    return costs.training(
        call,
        rows=int(p["max_steps"]) * int(p["batch_size"]),
        forward=forward + bool(p["beta"]),
        copies=int(p["method"] == "full" and bool(p["beta"])) + int(p["rollouts"] == "vllm"),
        generated=int(p["max_new_tokens"]),
    )


def _plans(call: Call) -> list[Plan]:
    p = call.params
    tokens = costs.row_tokens(call) + int(p["max_new_tokens"])
    sampled = dict.fromkeys((int(p["batch_size"]), int(p["samples"])))
    return costs.plans(call, int(p["batch_size"]), tokens=tokens, sampled=list(sampled))


class Judge:
    """The reward function that TRL calls, which remembers whether it ever told two answers to one prompt apart."""

    __name__ = "reward"

    def __init__(self, step: StepContext, samples: int) -> None:
        self.step = step
        self.samples = samples
        self.total = 0.0
        self.count = 0
        self.told_apart = False

    def keep(self) -> list[Any]:
        """For a checkpoint."""
        return [self.total, self.count, self.told_apart]

    def restore(self, kept: list[Any]) -> None:
        """From one."""
        self.total, self.count, self.told_apart = kept

    def __call__(
        self, prompts: list[str], completions: list[str], scorer: list[str], reference: list[str], **_: Any
    ) -> list[float]:
        """Scores (n,) of `completions`: n texts, the answers to a prompt next to each other."""
        rewards = [
            self.step.verify(name, json.loads(wanted), answer, asked)
            for name, wanted, answer, asked in zip(scorer, reference, completions, prompts, strict=True)
        ]
        groups = [rewards[at : at + self.samples] for at in range(0, len(rewards), self.samples)]
        self.told_apart |= any(max(group) - min(group) > 1e-6 for group in groups)
        self.total += sum(rewards)
        self.count += len(rewards)
        return rewards


def _arguments(step: StepContext) -> dict[str, Any]:
    """What both trainers' configurations share.

    TRL generates for a whole number of prompts at a time. That is the whole optimiser step, or after an attempt that ran
    out of memory, or where the plan says so, the fewest answers that are both a multiple of `samples` and of the micro-batch.
    """
    p = step.params
    batch = step.layout(p["batch_size"])
    least = math.lcm(batch["per_device_train_batch_size"], p["samples"])
    generated = step.sampled(p["batch_size"], least)
    shared = step.trainer_arguments(full=p["method"] == "full")
    # Scorer and reference are no inputs of the model, but the reward needs them.
    shared["remove_unused_columns"] = False
    return {
        **shared,
        **batch,
        "generation_batch_size": generated,
        "num_generations": p["samples"],
        "max_completion_length": p["max_new_tokens"],
        "temperature": p["temperature"],
        "beta": p["beta"],
        "learning_rate": p["learning_rate"],
        "max_steps": p["max_steps"],
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": p["max_steps"] // 20,
        "use_vllm": p["rollouts"] == "vllm",
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": VLLM_SHARE,
        "vllm_enable_sleep_mode": True,
    }


def _drawn(step: StepContext) -> Sequence[dict[str, Any]]:
    """The dataset's rows; of very many, random ones, at least as many as the step will see."""
    rows, p = step.rows("dataset"), step.params
    wanted = max(MOST_ROWS, p["max_steps"] * p["batch_size"] // p["samples"])
    if len(rows) <= wanted or step.is_older:
        return rows
    return [rows[at] for at in random.Random(step.seed).sample(range(len(rows)), wanted)]


def _run(step: StepContext, trainer_class: Any, config: Any) -> None:
    from lamdatui.step import trainers
    from lamdatui.step.context import StepError

    p = step.params
    tokenizer = step.load_tokenizer("model")
    model = step.load_for_training("model", p["method"])
    if p["method"] == "full" and p["beta"]:
        # TRL loads the reference from the path in the model's config, which knows nothing of merged adapters.
        model.config._name_or_path = str(step.model_directories("model")[0])
    judge = Judge(step, p["samples"])
    trainer = trainers.asking(trainer_class)(
        model=model,
        reward_funcs=judge,
        args=config,
        train_dataset=step.encoded(tokenizer, _drawn(step)),
        processing_class=tokenizer,
        peft_config=step.adapter(p["method"], p["lora_rank"]),
    )
    step.train(trainer, judge)
    if not judge.told_apart:
        raise StepError(
            "data",
            f"nothing was learned: in all {judge.count} answers, those to one prompt always got the same reward "
            f"(mean {judge.total / max(1, judge.count):.2f}); raise samples or temperature, take easier or harder prompts, "
            "or train the model on right answers first",
        )
    step.finish_training(trainer.model, tokenizer)


class Grpo(ActionType):
    name = "grpo"
    summary = "reinforcement learning: sampled answers to a prompt are compared by their score"
    family = "reinforcement"
    source = "TRL GRPOTrainer; GRPO: Shao et al. 2024, arXiv 2402.03300; DAPO loss: Yu et al. 2025, arXiv 2503.14476"
    slots = SLOTS
    params = (
        LEARNING_RATE,
        MAX_STEPS,
        *SAMPLING,
        Param("beta", "float", 0.0, "weight of the KL divergence from the parent; 0: none", low=0.0, high=10.0),
        Param(
            "loss",
            "str",
            "dapo",
            "dapo: mean over all tokens of a step; grpo: mean over each answer's tokens, then over answers; "
            "dr_grpo: sum over tokens, rewards not divided by their spread (Liu et al. 2025, arXiv 2503.20783)",
            allowed=("dapo", "grpo", "dr_grpo"),
        ),
        *TRAINING_PARAMS,
        *LENGTH_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        return _check(call)

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call, 1.0)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call)

    def epoch_rows(self, call: Call) -> float:
        return call.dataset("dataset").rows * int(call.params["samples"])

    def run(self, step: StepContext) -> None:
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer

        loss = step.params["loss"]
        scale = "none" if loss == "dr_grpo" else "group"
        _run(step, GRPOTrainer, GRPOConfig(**_arguments(step), loss_type=loss, scale_rewards=scale))


class Rloo(ActionType):
    name = "rloo"
    summary = "reinforcement learning: an answer's score against the mean of its siblings"
    family = "reinforcement"
    source = "TRL RLOOTrainer; RLOO: Ahmadian et al. 2024, arXiv 2402.14740"
    slots = SLOTS
    params = (
        LEARNING_RATE,
        MAX_STEPS,
        *SAMPLING,
        Param("beta", "float", 0.0, "KL divergence from the parent, taken off the reward; 0: none", low=0.0, high=10.0),
        *TRAINING_PARAMS,
        *LENGTH_PARAMS,
    )

    def check(self, call: Call) -> list[str]:
        return _check(call)

    def estimate(self, call: Call) -> Estimate:
        # One more pass: the probabilities of each answer when it was sampled.
        return _estimate(call, 2.0)

    def plans(self, call: Call) -> list[Plan]:
        return _plans(call)

    def epoch_rows(self, call: Call) -> float:
        return call.dataset("dataset").rows * int(call.params["samples"])

    def run(self, step: StepContext) -> None:
        from trl.trainer.rloo_config import RLOOConfig
        from trl.trainer.rloo_trainer import RLOOTrainer

        _run(step, RLOOTrainer, RLOOConfig(**_arguments(step)))


ACTIONS = (Grpo(), Rloo())
