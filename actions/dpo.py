"""Direct preference optimisation: the model learns to prefer the chosen answer to the rejected one (TRL's DPOTrainer).

`sft_weight` adds the usual loss on the chosen answer, without which the chosen answer can become less likely too.
The reference model is the parent itself: with LoRA, the same weights with the adapter switched off; with `full`, the
log-probabilities of the parent are computed by a frozen copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamdatui.actions import PROCESS_BYTES, ActionType, Call, Estimate, Param, Slot

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext


class Dpo(ActionType):
    name = "dpo"
    summary = "preference learning on pairs of a better and a worse answer"
    family = "preference"
    source = "TRL DPOTrainer; DPO: Rafailov et al. 2023, arXiv 2305.18290; SFT term: Pang et al. 2024, arXiv 2404.19733"
    slots = (
        Slot("model", "model", "the model to train; best one that can already do the task"),
        Slot("dataset", "dataset", "prompts with a chosen and a rejected answer", formats=("preference",)),
    )
    params = (
        Param("learning_rate", "float", 5e-5, "peak learning rate", (2e-5, 5e-5, 1e-4), low=1e-9, high=1.0),
        Param("max_steps", "int", 30, "optimiser steps", (15, 30), low=1, high=1_000_000, unit="steps"),
        Param("batch_size", "int", 4, "pairs in one optimiser step", low=1, high=4096, unit="pairs"),
        Param("beta", "float", 0.1, "how strongly the model is held near its parent", (0.05, 0.1, 0.3), low=1e-4, high=10.0),
        Param("sft_weight", "float", 1.0, "weight of the loss on the chosen answer beside DPO's own", low=0.0, high=100.0),
        Param("method", "str", "lora", "lora: a small adapter; full: every weight", allowed=("lora", "full")),
        Param("lora_rank", "int", 16, "rank of the adapter; its alpha is twice that", low=1, high=1024),
        Param("max_length", "int", 1024, "longer rows are cut", low=8, high=1_048_576, unit="tokens"),
    )

    def estimate(self, call: Call) -> Estimate:
        size = call.model("model").parameters
        full = call.params["method"] == "full"
        # As for SFT, plus the frozen reference when every weight is trained.
        return Estimate(memory_bytes=PROCESS_BYTES + size * (20 if full else 6), disk_bytes=size * 4 if full else size // 6)

    def run(self, step: StepContext) -> None:
        from peft import LoraConfig
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        p = step.params
        full = p["method"] == "full"
        tokenizer = step.load_tokenizer("model")
        config = DPOConfig(
            **step.trainer_arguments(full=full),
            learning_rate=p["learning_rate"],
            max_steps=p["max_steps"],
            per_device_train_batch_size=p["batch_size"],
            max_length=p["max_length"],
            beta=p["beta"],
            loss_type=["sigmoid", "sft"] if p["sft_weight"] else ["sigmoid"],
            loss_weights=[1.0, p["sft_weight"]] if p["sft_weight"] else None,
            lr_scheduler_type="cosine",
            gradient_checkpointing=False,
        )
        lora = LoraConfig(r=p["lora_rank"], lora_alpha=2 * p["lora_rank"], target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = DPOTrainer(
            model=step.load_model("model", full=full),
            ref_model=step.load_model("model", full=True) if full else None,
            args=config,
            train_dataset=step.load_dataset("dataset"),
            processing_class=tokenizer,
            peft_config=None if full else lora,
        )
        step.train(trainer)
        step.finish_training(trainer.model, tokenizer)


ACTION = Dpo()
