"""TRL's trainers for rows that are token ids already (`lamdatui.step.encoding`): each function returns a trainer class.

Their own preparation renders conversations once more, without a row's tools, and would not know what of an answer is trained.
"""

from __future__ import annotations

from typing import Any


def dpo() -> Any:
    """DPOTrainer for rows of `prompt_ids`, `chosen_ids`, `rejected_ids`."""
    from trl.trainer.dpo_trainer import DPOTrainer

    class EncodedDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            return _within(dataset, args.max_length)

    return EncodedDPOTrainer


def kto() -> Any:
    """KTOTrainer for rows of `prompt_ids`, `completion_ids`, `label`."""
    from trl.trainer.kto_trainer import KTOTrainer

    class EncodedKTOTrainer(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            dataset = _within(dataset, args.max_length)
            if not self.calculate_KL:
                return dataset
            # The KL divergence is estimated from each prompt with the answer of the row before it in its micro-batch.
            return dataset.map(
                lambda rows: {"KL_completion_ids": [rows["completion_ids"][-1], *rows["completion_ids"][:-1]]},
                batched=True,
                batch_size=args.per_device_train_batch_size,
            )

    return EncodedKTOTrainer


def asking(trainer_class: type) -> Any:
    """A trainer that samples (GRPO, RLOO, distillation), for rows whose `prompt` is the text of `lamdatui.step.encoding.Encoder.ask`."""

    class AskingTrainer(trainer_class):
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            # The text brings its special tokens with it.
            return self.processing_class(text=prompts, add_special_tokens=False)["input_ids"], None, {}

    return AskingTrainer


def _within(dataset: Any, limit: int | None) -> Any:
    """Rows whose prompts leave room for an answer."""
    return dataset if limit is None else dataset.filter(lambda row: len(row["prompt_ids"]) < limit)
