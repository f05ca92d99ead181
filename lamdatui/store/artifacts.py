"""Content-addressed store of produced models and evaluations, shared by the runs of one directory.

A model lives in `objects/DIGEST/`, where DIGEST is the digest of the action that made it. It is published by
stage → fsync → rename, with a manifest written last: a directory without a whole manifest does not exist for readers.
Whoever reads an object has its bytes compared with the manifest first (`resolve`); what is damaged is put aside in `damaged/`,
so that it can be looked at, and made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TextIO, TypedDict

from msgspec import Meta

from lamdatui.base.faults import fault
from lamdatui.base.fingerprint import DamagedObject, hashes
from lamdatui.base.jsonio import (
    SEAL,
    Damaged,
    discard,
    fsync_dir,
    fsync_tree,
    make_folder,
    naming,
    read_json,
    read_record,
    regular,
    unsealed,
    write_record,
)
from lamdatui.base.surrogates import has_lone
from lamdatui.domain.checked import hold
from lamdatui.domain.objects import STORED, DatasetFormat

MANIFEST = "manifest.json"
REFERENCE = STORED
OLDER_MANIFEST = frozenset(("digest", "files", "kind", "action", "replaces", "format", "rows", "chars"))
OLDER_EVALUATION = frozenset(("model", "key", "task", "split", "rows", "seconds"))
"""Fields of the records that the first version wrote without a seal."""


class _File(TypedDict):
    size: Annotated[int, Meta(ge=0)]
    blake2b: str


class _Manifest(TypedDict):
    digest: str
    kind: Literal["full", "adapter", "dataset"]
    files: Annotated[dict[str, _File], Meta(min_length=1)]
    action: NotRequired[dict[str, Any]]
    replaces: NotRequired[Annotated[int, Meta(ge=0)]]
    format: NotRequired[DatasetFormat]
    rows: NotRequired[int]
    chars: NotRequired[int]
    longest: NotRequired[int]
    parameters: NotRequired[int]
    tokenizer: NotRequired[str]
    traits: NotRequired[str]
    sizes: NotRequired[list[int]]


class _Row(TypedDict, total=False):
    """Of an evaluation."""

    id: str | int
    score: float
    completion: str
    ended: bool | None


class Store:
    """The store below `root`; any number of processes may use it at once. `always`: hash what is large at each look too."""

    def __init__(self, root: Path, *, always: bool = False) -> None:
        self.root = root
        self.always = always
        for name in ("objects", "staging", "evaluations", "locks"):
            make_folder(root / name)

    def find(self, digest: str) -> Path | None:
        """The directory of a published object, or None. Sizes are compared; hashes by `verify` and `resolve`."""
        path = self.root / "objects" / digest
        try:
            manifest = self.manifest(digest)
            whole = all((path / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
        except (OSError, Damaged):
            return None
        return path if whole else None

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest of a published object. Raises OSError when there is none, Damaged when it is not what was published."""
        return read_manifest(self.root, digest)

    def verify(self, digest: str, hasher: Callable[[Path], str] | None = None) -> list[str]:
        """Files whose bytes are not what the manifest says, that are missing, or that nobody published. `hasher`: reads a file, in place of `file_hash`.

        Raises OSError or Damaged as `manifest` does.
        """
        path = self.root / "objects" / digest
        files = self.manifest(digest)["files"]
        there = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()} - {MANIFEST}
        wrong = there ^ set(files)
        found = hashes([path / name for name in files if name in there], hasher or file_hash, always=self.always)
        wrong |= {name for name in files if name in there and found[path / name] != files[name]["blake2b"]}
        return sorted(wrong)

    def problem(self, digest: str) -> list[str]:
        """What is wrong with an object: its damaged files; the manifest, where that is damaged; nothing where it is sound or absent."""
        if not (self.root / "objects" / digest).exists():
            return []
        try:
            return self.verify(digest)
        except (OSError, Damaged):
            return [MANIFEST]

    def resolve(self, reference: str) -> Path:
        """A directory from `store:DIGEST` or an absolute path. An object's bytes are compared with its manifest.

        Raises DamagedObject when it is not there, or not what was published.
        """
        if not reference.startswith(REFERENCE):
            return Path(reference)
        digest = reference.removeprefix(REFERENCE)
        path = self.root / "objects" / digest
        if (wrong := self.problem(digest)) or not path.exists():
            raise DamagedObject(digest, wrong, str(path))
        return path

    @contextlib.contextmanager
    def using(self, digests: Iterable[str]) -> Iterator[None]:
        """Held by whoever reads objects for long, so that nobody drops them meanwhile."""
        with contextlib.ExitStack() as held:
            for digest in sorted(set(digests)):
                handle = held.enter_context((self.root / "locks" / f"{digest}.used").open("w"))
                _flock(handle, fcntl.LOCK_SH)
            yield

    def drop(self, digest: str) -> int | None:
        """Remove an object that can be made again; bytes that are free now, None where somebody uses it. What it consisted of stays on
        record (`dropped`). Raises Damaged where that is not known."""
        path = self.root / "objects" / digest
        try:
            manifest = self.manifest(digest)
        except OSError:
            return 0
        with (self.root / "locks" / f"{digest}.used").open("w") as handle, self.staging() as going:
            try:
                _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            record = self.root / "dropped" / f"{digest}.json"
            make_folder(record.parent)
            write_record(record, {name: value for name, value in manifest.items() if name != SEAL})
            fault("store.before-drop")
            os.rename(path, going / digest)
            fault("store.after-drop")
        return sum(entry["size"] for entry in manifest["files"].values())

    def dropped(self, digest: str) -> dict[str, Any]:
        """The manifest of an object that was dropped. Raises OSError or Damaged."""
        return _as_manifest(read_record(self.root / "dropped" / f"{digest}.json", OLDER_MANIFEST), digest)

    def put_aside(self, digest: str) -> Path | None:
        """Move what is at an object's place to `damaged/`; where it is now, or None when there was nothing."""
        return self._aside(self.root / "objects" / digest)

    def _aside(self, path: Path) -> Path | None:
        target = self.root / "damaged" / f"{path.name}-{uuid.uuid4().hex[:8]}"
        target.parent.mkdir(exist_ok=True)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
        return target

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh directory on the store's filesystem; it and its siblings `NAME-…` are removed afterwards."""
        path = self.root / "staging" / uuid.uuid4().hex
        lock = path.with_suffix(".lock")
        with lock.open("w") as handle:
            _flock(handle, fcntl.LOCK_EX)
            path.mkdir()
            try:
                yield path
            finally:
                self._discard(path)

    def _discard(self, path: Path) -> None:
        for leftover in [path, *path.parent.glob(f"{path.name}-*")]:
            discard(leftover)
        discard(path.with_suffix(".lock"))

    def sweep(self, *, look: bool = False) -> int:
        """Remove what killed processes left in staging (the kernel has freed their locks); how many there were. `look`: only count them."""
        count = 0
        for lock in (self.root / "staging").glob("*.lock"):
            with lock.open("a") as handle:
                try:
                    _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if not look:
                    self._discard(lock.with_suffix(""))
                count += 1
        # A lock is made before its folder, but after a power cut the folder may be all that is there.
        for path in (self.root / "staging").iterdir():
            if path.is_dir() and not (path.parent / f"{path.name.partition('-')[0]}.lock").exists():
                discard(path)
                count += 1
        return count

    def publish(self, staged: Path, digest: str, about: dict[str, Any]) -> Path:
        """Make a staged directory the model `digest`; if it is there already, the first one stays."""
        files = {}
        for file in sorted(p for p in staged.rglob("*") if p.is_file()):
            files[str(file.relative_to(staged))] = {"size": file.stat().st_size, "blake2b": file_hash(file)}
        fsync_tree(staged)
        fault("store.before-manifest")
        write_record(staged / MANIFEST, {"digest": digest, "files": files, **about})
        target = self.root / "objects" / digest
        if self.find(digest) is None:
            self.put_aside(digest)
            fault("store.before-rename")
            os.rename(staged, target)
            fault("store.after-rename")
            fsync_dir(target.parent)
        return target

    @contextlib.contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Held by whoever does the work of `digest`, in this run or another; the kernel frees it when they die."""
        with (self.root / "locks" / digest).open("w") as handle:
            _flock(handle, fcntl.LOCK_EX)
            yield

    def evaluation(self, key: str, is_sound: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any] | None:
        """A recorded evaluation, or None: one that is damaged is put aside, so that it is made again.

        `is_sound` judges one that the first version wrote without a seal; it gets its seal then.
        """
        path = self.root / "evaluations" / f"{key}.json"
        try:
            record = read_json(path)
            found = unsealed(record, OLDER_EVALUATION)
            if found.get("key") != key or not found.get("rows"):
                raise Damaged("it is not of this key, or has no rows")
            hold(found["rows"], list[_Row], "its rows")
            if SEAL not in record:
                if not is_sound(found):
                    raise Damaged("its rows and scores do not fit the task")
                self.record_evaluation(key, found)
            return found
        except OSError:
            return None
        except (ValueError, TypeError):
            self.refuse_evaluation(key)
            return None

    def refuse_evaluation(self, key: str) -> None:
        """Put an evaluation aside that is not what was measured."""
        with contextlib.suppress(OSError):  # Where nothing can be written, it is not used all the same.
            self._aside(self.root / "evaluations" / f"{key}.json")

    def record_evaluation(self, key: str, value: dict[str, Any]) -> None:
        """Write an evaluation durably."""
        write_record(self.root / "evaluations" / f"{key}.json", value)


def _flock(handle: TextIO, how: int) -> None:
    """Raises OSError, which names the file: BlockingIOError where others have it and `how` says not to wait."""
    with naming(Path(handle.name)):
        fcntl.flock(handle, how)


def read_manifest(root: Path, digest: str) -> dict[str, Any]:
    """`Store.manifest` of the store below `root`, for whoever only looks into it."""
    return _as_manifest(read_record(root / "objects" / digest / MANIFEST, OLDER_MANIFEST), digest)


def _as_manifest(found: dict[str, Any], digest: str) -> dict[str, Any]:
    """The same, once it is the manifest of an object. Raises Damaged."""
    try:
        hold(found, _Manifest, f"the manifest of {digest[:12]}")
    except TypeError as error:
        raise Damaged(str(error)) from error
    outside = [
        name
        for name in found["files"]
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name or has_lone(name)
    ]
    lacking = {"format", "rows", "chars"} - found.keys() if found["kind"] == "dataset" else ()
    if found["digest"] != digest or outside or lacking:
        raise Damaged(f"the manifest of {digest[:12]} is not one")
    return found


def file_hash(path: Path) -> str:
    """blake2b (hex, 32 bytes) of a file."""
    digest = blake2b(digest_size=32)
    with naming(path), regular(path).open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
