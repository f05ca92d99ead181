"""Checkpoints of a training step: what an attempt that was cut off leaves, and another one goes on from.

They lie in the store by the digest of the work, `checkpoints/DIGEST/STEP`: weights, optimiser, schedule, random states and place in the data, as
transformers' Trainer writes and reads them. A folder without its sealed manifest, or with other bytes than that says, is none. They go when
the result is published.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from lamdatui.base.faults import fault
from lamdatui.base.fingerprint import hashes
from lamdatui.base.jsonio import Damaged, fsync_dir, fsync_tree, read_record, write_record
from lamdatui.step import stop
from lamdatui.store.artifacts import MANIFEST
from lamdatui.store.checkpoints import folder_of, kept_steps

KEPT = "kept.json"
LEFT = 2**30
"""Bytes that a checkpoint leaves free."""
NEWEST = 2
"""As many stay: should the newest be damaged, the one before it is taken."""


class Keeps(Protocol):
    """What a method remembers from one optimiser step to the next, beside what the trainer does."""

    def keep(self) -> Any:
        """As JSON."""
        ...

    def restore(self, kept: Any) -> None:
        """Go on from what `keep` gave."""
        ...


class Checkpoints:
    """Those of one work. `say` hears of what is wrong with one; every `seconds` one is written, and when `stop_asked` says so."""

    def __init__(
        self, root: Path, digest: str, seconds: float, say: Callable[[str], None], stop_asked: Callable[[], bool]
    ) -> None:
        self.root = root
        self.folder = folder_of(root, digest)
        self.digest = digest
        self.seconds = seconds
        self.say = say
        self.stop_asked = stop_asked
        self.held: Mapping[str, Keeps] = {}
        self.plan: Any = None
        """How the work is laid out in memory: it goes on as it began."""

    def newest(self) -> Path | None:
        """The newest that is whole; damaged ones are removed and named in the log."""
        for step in reversed(kept_steps(self.folder)):
            path = self.folder / str(step)
            try:
                told = read_record(path / MANIFEST)
                files = {name: path / name for name in told["files"]}
                found = hashes(list(files.values()), always=True)
                wrong = [name for name, file in files.items() if found.get(file) != told["files"][name]]
                if told["digest"] == self.digest and not wrong:
                    return path
            except (OSError, Damaged, KeyError, TypeError) as error:
                wrong = [str(error)]
            self.say(f"the checkpoint of step {step} is damaged ({', '.join(wrong)[:200]}): it is not used")
            shutil.rmtree(path, ignore_errors=True)
        return None

    def restore(self, path: Path) -> None:
        """Give what is held beside the trainer its state back."""
        kept = json.loads((path / KEPT).read_text(encoding="utf-8"))
        for name, item in self.held.items():
            if name in kept:
                item.restore(kept[name])

    def take(self, written: Path, step: int) -> None:
        """Make what the trainer wrote the checkpoint of an optimiser step: whole and durable before it has its name."""
        (written / KEPT).write_text(json.dumps({name: item.keep() for name, item in self.held.items()}), encoding="utf-8")
        files = [file for file in sorted(written.rglob("*")) if file.is_file()]
        found = hashes(files, always=True)
        fsync_tree(written)
        fault("checkpoint.before-manifest")
        about = {
            "digest": self.digest,
            "step": step,
            "plan": self.plan,
            "files": {str(file.relative_to(written)): found[file] for file in files},
        }
        write_record(written / MANIFEST, about)
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / str(step)
        shutil.rmtree(target, ignore_errors=True)
        fault("checkpoint.before-rename")
        os.rename(written, target)
        fsync_dir(self.folder)
        for older in kept_steps(self.folder)[:-NEWEST]:
            shutil.rmtree(self.folder / str(older), ignore_errors=True)
        fault("checkpoint.after-rename")


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
        """Whether the disk has room for one more; told once where it has not."""
        free = shutil.disk_usage(self.checkpoints.root).free
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
