"""What a transformers trainer reports while a step trains, and its configuration."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

from transformers import TrainerCallback

from lamdatui.actionkit.memory import tile_tokens
from lamdatui.base.faults import fault
from lamdatui.step.errors import StepError

REWARDS = {
    "rewards/accuracies": "accuracies",
    "rewards/margins": "margins",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "groups_alike",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "answer_tokens",
    "completions/clipped_ratio": "answers_cut",
}
"""Key in a TRL trainer's log → name in metrics.jsonl."""


OPTIMIZERS = {
    "adamw_8bit": {"optim": "adamw_8bit"},
    "adamw_8bit_paged": {"optim": "paged_adamw_8bit"},
    "adafactor": {"optim": "adafactor"},
}
"""transformers' arguments for the hyperparameter `optimizer`; its own AdamW for any other."""


def trainer_configuration(config: Any) -> dict[str, Any]:
    """A trainer's arguments as they are; its own `to_dict` hides what ends in `_token`, as if it were a secret."""
    found = config.to_dict()
    words = {name: getattr(config, name) for name in found if name.endswith("_token") and not name.startswith(("hub", "push"))}
    return found | words


def bound_tiles(vocabulary: int) -> int:
    """Let TRL compute the output layer for fewer tokens at once where no kernel does it in place, for the rest of this process; how many."""
    from trl.kernels import chunked_logprob

    chunked_logprob.TOKEN_CHUNK_SIZE = found = tile_tokens(vocabulary)
    return found


class Reports(Protocol):
    """Where a trainer's numbers go: the step's context."""

    def say(self, text: str) -> None:
        """A line in the step's log."""
        ...

    def metric(self, **values: Any) -> None:
        """A record in metrics.jsonl."""
        ...


class MetricsCallback(TrainerCallback):
    """Writes metrics.jsonl from the trainer's log and refuses to go on from a value that is not finite."""

    def __init__(self, step: Reports, first: int = 0) -> None:
        self.step = step
        self.first = first
        """The optimiser step that the training goes on from."""
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = time.monotonic()
        self.step.metric(phase="train", step=self.first, max_steps=state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" not in logs:
            return
        elapsed = max(time.monotonic() - self.began, 1e-9)
        tokens = logs.get("num_tokens")
        values = {
            "phase": "train",
            "step": state.global_step,
            "max_steps": state.max_steps,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs.get("grad_norm", 0.0)),
            "learning_rate": float(logs.get("learning_rate", 0.0)),
            "tokens_per_second": round(tokens / elapsed, 1) if tokens else None,
        }
        if state.epoch is not None:
            values |= {"epoch": round(state.epoch, 4), "epochs": state.num_train_epochs}
        values |= {name: float(logs[key]) for key, name in REWARDS.items() if key in logs}
        self.step.metric(**values)
        self.step.say(
            f"step {state.global_step}/{state.max_steps}  loss {values['loss']:.4f}  "
            f"grad norm {values['grad_norm']:.3f}  {elapsed:.1f} s"
        )
        fault("step.train-step")
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise StepError("nan", f"loss {values['loss']}, gradient norm {values['grad_norm']} at step {state.global_step}")
