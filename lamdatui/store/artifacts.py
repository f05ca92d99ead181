"""Content-addressed store of produced models and evaluations, shared by the runs of one directory.

A model lives in `objects/DIGEST/`, where DIGEST is the digest of the action that made it. It is published by
stage → fsync → rename, with a manifest written last: a directory without a whole manifest does not exist for readers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lamdatui.faults import fault
from lamdatui.jsonio import fsync_dir, read_json, regular, write_json

MANIFEST = "manifest.json"


class Store:
    """The store below `root`; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("objects", "staging", "evaluations", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def find(self, digest: str) -> Path | None:
        """The directory of a published model, or None. Sizes are compared; hashes by `verify`."""
        path = self.root / "objects" / digest
        try:
            manifest = read_json(path / MANIFEST)
            whole = all((path / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if whole else None

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest of a published model. Raises OSError when there is none."""
        return read_json(self.root / "objects" / digest / MANIFEST)

    def verify(self, digest: str) -> list[str]:
        """Files whose bytes are not what the manifest says."""
        path = self.root / "objects" / digest
        files = self.manifest(digest)["files"]
        return [name for name, entry in files.items() if file_hash(path / name) != entry["blake2b"]]

    def resolve(self, reference: str) -> Path:
        """A directory from `store:DIGEST` or an absolute path. Raises FileNotFoundError."""
        if not reference.startswith("store:"):
            return Path(reference)
        path = self.find(reference.removeprefix("store:"))
        if path is None:
            raise FileNotFoundError(f"{reference} is not in the store {self.root}")
        return path

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh directory on the store's filesystem; it and its siblings `NAME-…` are removed afterwards."""
        path = self.root / "staging" / uuid.uuid4().hex
        lock = path.with_suffix(".lock")
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            path.mkdir()
            try:
                yield path
            finally:
                self._discard(path)

    def _discard(self, path: Path) -> None:
        for leftover in [path, *path.parent.glob(f"{path.name}-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        path.with_suffix(".lock").unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what killed processes left in staging (the kernel has freed their locks); how many there were."""
        count = 0
        for lock in (self.root / "staging").glob("*.lock"):
            with lock.open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                self._discard(lock.with_suffix(""))
                count += 1
        return count

    def publish(self, staged: Path, digest: str, about: dict[str, Any]) -> Path:
        """Make a staged directory the model `digest`; if it is there already, the first one stays."""
        files = {}
        for file in sorted(p for p in staged.rglob("*") if p.is_file()):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            files[str(file.relative_to(staged))] = {"size": file.stat().st_size, "blake2b": file_hash(file)}
        fault("store.before-manifest")
        write_json(staged / MANIFEST, {"digest": digest, "files": files, **about})
        for folder in [staged, *(p for p in staged.rglob("*") if p.is_dir())]:
            fsync_dir(folder)
        target = self.root / "objects" / digest
        if self.find(digest) is None:
            # What is not whole was never published: nothing refers to it.
            shutil.rmtree(target, ignore_errors=True)
            fault("store.before-rename")
            os.rename(staged, target)
            fault("store.after-rename")
            fsync_dir(target.parent)
        return target

    @contextlib.contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Held by whoever does the work of `digest`, in this run or another; the kernel frees it when they die."""
        with (self.root / "locks" / digest).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def evaluation(self, key: str) -> dict[str, Any] | None:
        """A recorded evaluation, or None."""
        try:
            return read_json(self.root / "evaluations" / f"{key}.json")
        except (OSError, ValueError):
            return None

    def record_evaluation(self, key: str, value: dict[str, Any]) -> None:
        """Write an evaluation durably."""
        write_json(self.root / "evaluations" / f"{key}.json", value)


def file_hash(path: Path) -> str:
    """blake2b (hex, 32 bytes) of a file."""
    digest = blake2b(digest_size=32)
    with regular(path).open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
