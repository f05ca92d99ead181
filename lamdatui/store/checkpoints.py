"""Checkpoints of unfinished work in a store: what an attempt that was cut off leaves, and another one goes on from. No torch here.

They lie by the digest of the work, `checkpoints/DIGEST/STEP`. One has its name once it is whole and on disk, with a sealed manifest of
sha256 sums that was written last. One without that, or with other bytes than it says, is put aside in `damaged/`, and the one
before it is taken.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lamdatui.base.faults import fault
from lamdatui.base.fingerprint import hashes
from lamdatui.base.jsonio import discard, fsync_dir, fsync_tree, make_folder, naming, read_record, write_record
from lamdatui.store.artifacts import MANIFEST

KEPT = "kept.json"
NEWEST = 2
"""As many stay: should the newest be damaged, the one before it is taken."""
ASIDE = "checkpoint-"
"""How the names begin of those in `damaged/`."""


def folder_of(root: Path, digest: str) -> Path:
    """The folder of a work's checkpoints in the store below `root`."""
    return root / "checkpoints" / digest


def _steps(folder: Path) -> list[int]:
    """The optimiser steps that have a folder of their own, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def kept_steps(folder: Path) -> list[int]:
    """The optimiser steps that have a checkpoint, ascending; whether it is whole is not looked at."""
    return [step for step in _steps(folder) if (folder / str(step) / MANIFEST).is_file()]


def newest_step(root: Path, digest: str) -> int:
    """The optimiser step of the newest checkpoint of a work; 0 where there is none."""
    return max(kept_steps(folder_of(root, digest)), default=0)


def drop(root: Path, digest: str) -> None:
    """Remove a work's checkpoints: it is done."""
    discard(folder_of(root, digest))


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
        """The newest that is whole; damaged ones are put aside and named in the log."""
        for step in reversed(_steps(self.folder)):
            path = self.folder / str(step)
            try:
                told = read_record(path / MANIFEST)
                files = {name: path / name for name in told["files"]}
                found = hashes(list(files.values()), always=True)
                wrong = [name for name, file in files.items() if found.get(file) != told["files"][name]]
                there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} | {KEPT}
                wrong += [f"{name}: {MANIFEST} says nothing of it" for name in sorted(there - files.keys() - {MANIFEST})]
                if told["digest"] == self.digest and not wrong:
                    return path
                wrong = wrong or ["it is of other work"]
            except OSError as error:
                wrong = [f"{Path(error.filename or MANIFEST).name}: {error.strerror}"]
            except (ValueError, KeyError, TypeError) as error:
                wrong = [f"{MANIFEST}: {error}"]
            said = f"the checkpoint of step {step} is damaged ({', '.join(wrong)[:200]}): it is not used"
            try:
                self.say(f"{said}, but kept as {put_aside(self.root, path, f'{self.digest[:12]}-{step}')}")
            except OSError as error:  # Where nothing can be moved, it is not used all the same.
                self.say(f"{said}, and can't be put aside: {error}")
        return None

    def restore(self, path: Path) -> None:
        """Give what is held beside the trainer its state back."""
        kept = json.loads((path / KEPT).read_text(encoding="utf-8"))
        for name, item in self.held.items():
            if name in kept:
                item.restore(kept[name])

    def take(self, written: Path, step: int) -> None:
        """Make what the trainer wrote the checkpoint of an optimiser step: whole and durable before it has its name. Raises OSError."""
        with naming(written / KEPT):
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
        make_folder(self.folder)
        target = self.folder / str(step)
        discard(target)
        fault("checkpoint.before-rename")
        os.rename(written, target)
        fsync_dir(self.folder)
        for older in kept_steps(self.folder)[:-NEWEST]:
            discard(self.folder / str(older))
        fault("checkpoint.after-rename")


def put_aside(root: Path, path: Path, name: str) -> Path:
    """Move what is damaged of a checkpoint to the store's `damaged/`; where it is now. Raises OSError."""
    target = root / "damaged" / f"{ASIDE}{name}-{uuid.uuid4().hex[:8]}"
    make_folder(target.parent)
    os.rename(path, target)
    return target


def make_room(root: Path) -> int:
    """Remove the damaged checkpoints that were put aside: their room is needed. How many there were."""
    found = list((root / "damaged").glob(f"{ASIDE}*"))
    for path in found:
        discard(path)
    return len(found)
