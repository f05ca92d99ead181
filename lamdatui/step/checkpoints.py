"""When a training step writes checkpoints, as transformers' Trainer writes and reads them: weights, optimiser, schedule, random states
and place in the data. Where they lie, and which one is taken: `store/checkpoints.py`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lamdatui.step import stop
from lamdatui.store.checkpoints import Checkpoints, Keeps, make_room

LEFT = 2**30
"""Bytes that a checkpoint leaves free."""


class CheckpointCallback(TrainerCallback):
    """Has the trainer write one when it is time, and ends the training after it when a stop was asked for."""

    def __init__(self, checkpoints: Checkpoints, stopped: type[BaseException], busy: Path) -> None:
        self.checkpoints = checkpoints
        self.stopped = stopped
        self.busy = busy
        """A file that is there meanwhile."""
        self.written = time.monotonic()
        self.needed, self.told = 0, False
        self.kinds: dict[str, Any] = {}

    def remember(self, model: Any) -> None:
        """What is trained of a model, and in which dtype: PEFT reads adapters in another one than TRL trains them in."""
        self.kinds = {name: weight.dtype for name, weight in model.named_parameters() if weight.requires_grad}
        # Weights and AdamW's two states in float32.
        self.needed = 12 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any) -> None:
        self.written = time.monotonic()
        for name, weight in model.named_parameters():
            kind = self.kinds.get(name, weight.dtype)
            if weight.requires_grad and weight.dtype != kind:
                weight.data = weight.data.to(kind)
                held = optimizer.state.get(weight, {})
                held |= {key: value.to(kind) for key, value in held.items() if getattr(value, "shape", None) == weight.shape}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        stop.step_ended()
        if state.global_step >= state.max_steps:
            # Training is over, and the result is about to be published.
            return
        if control.should_evaluate:
            self.busy.touch()
        due = time.monotonic() - self.written >= self.checkpoints.seconds
        if self.checkpoints.stop_asked():
            if not self._has_room():
                raise self.stopped
            control.should_save = True
        elif due and self._has_room():
            control.should_save = True
        if control.should_save:
            self.busy.touch()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.busy.exists():
            self.busy.unlink()
            # What lay between the steps says nothing of how long one takes.
            stop.step_began()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.busy.unlink(missing_ok=True)

    def _has_room(self) -> bool:
        """Whether the disk has room for one more, without damaged ones that were put aside; told once where it has not."""
        root = self.checkpoints.root
        free = shutil.disk_usage(root).free
        if free < self.needed + LEFT and (gone := make_room(root)):
            self.checkpoints.say(f"{gone} damaged checkpoints that were put aside are removed: their room is needed")
            free = shutil.disk_usage(root).free
        if free >= self.needed + LEFT:
            return True
        if not self.told:
            self.told = True
            self.checkpoints.say(
                f"no checkpoint: it takes about {self.needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
            )
        return False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        began = time.monotonic()
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.checkpoints.take(written, state.global_step)
        self.written = time.monotonic()
        self.checkpoints.say(f"checkpoint at step {state.global_step}, in {self.written - began:.1f} s")
        if self.checkpoints.stop_asked():
            self.busy.unlink(missing_ok=True)
            raise self.stopped


class KeptRandom:
    """The state of a `random.Random` that a method draws from."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def keep(self) -> Any:
        version, numbers, rest = self.draw.getstate()
        return [version, list(numbers), rest]

    def restore(self, kept: Any) -> None:
        self.draw.setstate((kept[0], tuple(kept[1]), kept[2]))


def names(items: Sequence[Any]) -> dict[str, Keeps]:
    """Items by the names of their classes."""
    return {type(item).__name__: item for item in items}
