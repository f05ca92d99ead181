"""Stopping where rows that are held out from training are not learned any better, and going back to where they were learned best.

Prechelt 1998, "Early stopping - but when?": the loss on held-out rows is looked at every so often; after `patience` looks without a better one
it is over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from lamdatui.base.jsonio import Damaged, file_digest, fsync_dir, make_folder
from lamdatui.store.checkpoints import put_aside


class EarlyStop(TrainerCallback):
    """Of one training. The best weights so far lie in `folder`, beside the checkpoints, until the result is published."""

    def __init__(self, folder: Path, patience: int, say: Callable[[str], None], report: Callable[..., None]) -> None:
        self.folder = folder
        self.patience = patience
        self.say = say
        self.report = report
        self.best, self.best_step, self.without = math.inf, 0, 0
        self.sum = ""
        """sha256 of the best weights' file."""

    def keep(self) -> Any:
        """For a checkpoint."""
        return [self.best if math.isfinite(self.best) else None, self.best_step, self.without, self.sum]

    def restore(self, kept: Any) -> None:
        """From one; without its weights, or with damaged ones, which are put aside, the best is looked for again."""
        # Those of older versions have no sum.
        best, step, without, told = [*kept, ""][:4]
        path = self._weights(step)
        if best is None or not path.is_file():
            return
        found = file_digest(path)
        if told and found != told:
            kept_as = put_aside(self.folder.parent.parent, path, path.name)
            self.say(f"the best weights so far, of step {step}, are damaged: the best is looked for again; kept as {kept_as}")
            return
        self.best, self.best_step, self.without, self.sum = best, step, without, found

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, model: Any = None, **_: Any
    ) -> None:
        loss, step = float((metrics or {})["eval_loss"]), int(state.global_step)
        self.report(phase="held-out", at=step, loss=loss)
        if loss < self.best:
            before, self.best, self.best_step, self.without = self.best_step, loss, step, 0
            self._save(model)
            self._weights(before).unlink(missing_ok=True)
        else:
            self.without += 1
        self.say(f"held-out rows: loss {loss:.4f} at step {step}" + ("" if self.without else ", the best so far"))
        if self.without >= self.patience and step < state.max_steps:
            self.say(f"no better for {self.patience} looks: training ends at step {step} of {state.max_steps}")
            control.should_training_stop = True

    def finish(self, model: Any) -> None:
        """Give the model the weights that did best on the held-out rows."""
        path = self._weights(self.best_step)
        if not path.is_file():
            return
        if file_digest(path) != self.sum:
            raise Damaged(f"{path} is not what was written")
        kept = load_file(path)
        for name, weight in _trained(model):
            weight.data.copy_(kept[name].to(weight.device))
        self.say(f"the result is that of step {self.best_step}: held-out loss {self.best:.4f}")

    def _save(self, model: Any) -> None:
        make_folder(self.folder)
        path = self._weights(self.best_step)
        part = path.with_suffix(".part")
        save_file({name: weight.detach().cpu().contiguous() for name, weight in _trained(model)}, part)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        self.sum = file_digest(part)
        os.replace(part, path)
        fsync_dir(self.folder)

    def _weights(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


def _trained(model: Any) -> list[tuple[str, Any]]:
    """What is trained of a model; of tied weights one."""
    seen: set[int] = set()
    found = []
    for name, weight in model.named_parameters():
        if weight.requires_grad and id(weight) not in seen:
            seen.add(id(weight))
            found.append((name, weight))
    return found
