"""Supervised fine-tuning: the model learns to give the answers of a dataset (TRL's SFTTrainer, LoRA by PEFT).

Only the answer's tokens count for the loss. LoRA trains and stores a small adapter on the parent's merged weights;
`full` trains and stores every weight, which is what tiny models want.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamdatui.actions import PROCESS_BYTES, ActionType, Call, Estimate, Param, Slot

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext


class Sft(ActionType):
    name = "sft"
    summary = "fine-tune a model on a dataset of prompts and answers"
    family = "supervised"
    source = "TRL SFTTrainer; LoRA: Hu et al. 2021, arXiv 2106.09685"
    slots = (
        Slot("model", "model", "the model to train"),
        Slot("dataset", "dataset", "prompts and answers", formats=("sft",)),
    )
    params = (
        Param("learning_rate", "float", 5e-4, "peak learning rate", (1e-4, 5e-4, 1e-3), low=1e-8, high=1.0),
        Param("max_steps", "int", 60, "optimiser steps", (30, 60), low=1, high=1_000_000, unit="steps"),
        Param("batch_size", "int", 4, "rows in one optimiser step", low=1, high=4096, unit="rows"),
        Param("method", "str", "lora", "lora: a small adapter; full: every weight", allowed=("lora", "full")),
        Param("lora_rank", "int", 16, "rank of the adapter; its alpha is twice that", low=1, high=1024),
        Param("max_length", "int", 1024, "longer rows are cut", low=8, high=1_048_576, unit="tokens"),
        Param("warmup_ratio", "float", 0.05, "share of the steps in which the learning rate rises", low=0.0, high=1.0),
        Param("weight_decay", "float", 0.0, "AdamW's weight decay", low=0.0, high=1.0),
    )

    def estimate(self, call: Call) -> Estimate:
        size = call.model("model").parameters
        full = call.params["method"] == "full"
        # Weights in fp32; full training adds gradients and AdamW's two moments. Activations are not known here.
        return Estimate(memory_bytes=PROCESS_BYTES + size * (16 if full else 5), disk_bytes=size * 4 if full else size // 6)

    def run(self, step: StepContext) -> None:
        from peft import LoraConfig
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        p = step.params
        full = p["method"] == "full"
        tokenizer = step.load_tokenizer("model")
        config = SFTConfig(
            **step.trainer_arguments(full=full),
            learning_rate=p["learning_rate"],
            max_steps=p["max_steps"],
            per_device_train_batch_size=p["batch_size"],
            max_length=p["max_length"],
            warmup_steps=int(p["warmup_ratio"] * p["max_steps"]),
            weight_decay=p["weight_decay"],
            lr_scheduler_type="cosine",
            completion_only_loss=True,
            gradient_checkpointing=False,
        )
        lora = LoraConfig(r=p["lora_rank"], lora_alpha=2 * p["lora_rank"], target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=step.load_model("model", full=full),
            args=config,
            train_dataset=step.load_dataset("dataset"),
            processing_class=tokenizer,
            peft_config=None if full else lora,
        )
        step.train(trainer)
        step.finish_training(trainer.model, tokenizer)


ACTION = Sft()
