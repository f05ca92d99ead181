"""JSON that can be digested, numbers in it, and files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lamdatui.base.surrogates import escaped

MOST_NESTED = 100
"""Levels of objects and lists in JSON that is read: what walks through a value later has room on the stack for them."""


def canonical(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN. Raises ValueError on NaN or infinity."""
    return escaped(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    import hashlib  # brings OpenSSL, which a console's first paint does without

    return hashlib.sha256(canonical(value).encode()).hexdigest()


def finite(value: Any) -> float | None:
    """A finite number of a JSON value; None for anything else, also for an integer that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def regular(path: Path) -> Path:
    """The path itself, once it is known to lead to a regular file: a FIFO would be waited for, a device may never end.

    Raises OSError.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a character that no path can have
        raise OSError(errno.EINVAL, "not a path", str(path)) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes. Raises OSError."""
    import hashlib

    with naming(path), regular(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file names this one: what is done with a descriptor does not say whose it is."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def fsync_dir(path: Path) -> None:
    """Make a rename inside `path` durable. Raises OSError, which names it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(folder: Path) -> None:
    """Make all that is in a folder durable, itself included: it can then be given its name. Raises OSError, which names the file."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            fsync_dir(path)
        else:
            with path.open("rb") as handle, naming(path):
                os.fsync(handle.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, durably: else what is synced inside is not found after a power cut.

    Raises OSError.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        fsync_dir(each.parent)


def discard(path: Path) -> None:
    """Remove what is at a path, as far as that can be done: what stays is nobody's."""
    # Whatever it is told to ignore, rmtree raises what it meets while it looks at a folder.
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Write, fsync and rename: a reader sees the old file or the whole new one, also after a power cut. Raises OSError, which names it."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with naming(path), os.fdopen(fd, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON."""
    write_atomic(path, escaped(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)) + "\n")


def parse_json(text: str) -> Any:
    """The JSON value of a text. Raises ValueError, also for a value of more than `MOST_NESTED` levels."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count("[") + text.count("{") > MOST_NESTED:
        level: list[dict[str, Any] | list[Any]] = [value] if isinstance(value, dict | list) else []
        for _ in range(MOST_NESTED):
            parts = (item.values() if isinstance(item, dict) else item for item in level)
            level = [part for each in parts for part in each if isinstance(part, dict | list)]
        if level:
            raise ValueError("it is nested too deeply")
    return value


def read_json(path: Path) -> Any:
    """The JSON value in a file. Raises OSError or ValueError."""
    with naming(path):
        return parse_json(regular(path).read_text(encoding="utf-8"))


SEAL = "seal"


class Damaged(ValueError):
    """A record is not what was written: its seal does not fit, or it is no record at all."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the digest of its content as its last field, `seal`."""
    return {**record, SEAL: digest(record)}


def unsealed(record: Any, older: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The record without its seal, once the seal fits.

    Records of the first version have no seal: one is taken as it is when all its fields are among `older`, so that a
    damaged name of the seal's field is not taken for a missing seal. Raises Damaged.
    """
    if not isinstance(record, dict):
        raise Damaged(f"a record is a JSON object, not {type(record).__name__}")
    content = {name: value for name, value in record.items() if name != SEAL}
    try:
        seal = digest(content)
    except ValueError as error:  # a number that JSON can't write, but Python reads
        raise Damaged(f"a record holds what none can: {error}") from error
    if SEAL not in record:
        if content and set(content) <= older:
            return content
        raise Damaged("a record without its seal")
    if record[SEAL] != seal:
        raise Damaged("its seal does not fit what it says")
    return content


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """`write_json` of a sealed record."""
    write_json(path, sealed(record))


def read_record(path: Path, older: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What `write_record` wrote; `older` as in `unsealed`. Raises OSError when there is no file, Damaged for any other content."""
    try:
        return unsealed(read_json(path), older)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, Damaged) else Damaged(f"{type(error).__name__}: {error}") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of each non-empty line. Raises OSError, or ValueError that names the line."""
    with regular(path).open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
