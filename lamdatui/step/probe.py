"""Whether a training fits into memory where forecasts can't tell: its longest rows first, forwards and backwards, before anything is learned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from lamdatui.actionkit.memory import state_bytes
from lamdatui.domain.plans import plan_from_json

PASSES = 2
"""The second one finds memory as the first has left it: in pieces."""


def is_probed(request: Mapping[str, Any]) -> bool:
    """Whether a step's plan asks for it; what samples has no rows before it has sampled them."""
    plan = plan_from_json(request.get("plan"))
    return plan is not None and plan.probe and not plan.sampled


class Probe(TrainerCallback):
    """Of one training, at its beginning. It fails as the training would; else nothing is left of it, also no random number is used up."""

    def __init__(self, trainer: Any, optimizer: str, say: Callable[[str], None]) -> None:
        self.trainer = trainer
        self.optimizer = optimizer
        self.say = say

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
    ) -> None:
        """Raises what an allocation raises that fails."""
        trainer, device = self.trainer, next(model.parameters()).device
        places = longest_rows(trainer.train_dataset, args.per_device_train_batch_size)
        batch = train_dataloader.collate_fn([trainer.train_dataset[place] for place in places])
        counted = {name: copy.deepcopy(getattr(trainer, name)) for name in COUNTERS if hasattr(trainer, name)}
        # What the optimiser will hold is not there before its first step.
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        held = torch.empty(int(trained * state_bytes(self.optimizer, device.type == "cuda")), dtype=torch.uint8, device=device)
        model.train()
        trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for _pass in range(PASSES):
                trainer.training_step(model, dict(batch))
        del held
        model.zero_grad(set_to_none=True)
        for name, value in counted.items():
            setattr(trainer, name, value)
        self.say(f"its longest rows fit into memory: {len(places)} at once")


COUNTERS = ("_metrics", "_total_train_tokens", "_stored_metrics")
"""Where TRL's trainers add up what a pass reports."""


def longest_rows(data: Any, count: int) -> list[int]:
    """Places of the rows of a dataset that have most tokens, over all columns that are lists of numbers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = data.with_format("arrow")[:]
    lengths = np.zeros(len(data), dtype=np.int64)
    for column in table.columns:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths += np.asarray(pc.call_function("list_value_length", [column]).fill_null(0))
    return [int(place) for place in np.argsort(-lengths, kind="stable")[:count]]
