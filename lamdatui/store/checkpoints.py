"""Where checkpoints of unfinished work lie in a store, and which there are. No torch here: the engine looks, too."""

from __future__ import annotations

import shutil
from pathlib import Path

from lamdatui.store.artifacts import MANIFEST


def folder_of(root: Path, digest: str) -> Path:
    """The folder of a work's checkpoints in the store below `root`."""
    return root / "checkpoints" / digest


def kept_steps(folder: Path) -> list[int]:
    """The optimiser steps that have a checkpoint, ascending; whether it is whole is not looked at."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and (path / MANIFEST).is_file())


def newest_step(root: Path, digest: str) -> int:
    """The optimiser step of the newest checkpoint of a work; 0 where there is none."""
    return max(kept_steps(folder_of(root, digest)), default=0)


def drop(root: Path, digest: str) -> None:
    """Remove a work's checkpoints: it is done."""
    shutil.rmtree(folder_of(root, digest), ignore_errors=True)
