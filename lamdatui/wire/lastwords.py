"""Why an engine ended: what it leaves for whoever watched it, also on a disk that is full."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import read_json, write_json
from lamdatui.base.paths import socket_path

FILE = "engine-error.json"
LOW_BYTES = 1024 * 1024
"""With less than this free, the disk is what an engine without last words most likely ended of."""


def _places(run_dir: Path) -> Iterator[Path]:
    yield run_dir / FILE
    # The runtime folder is often another file system, in memory.
    with contextlib.suppress(LamdatuiError, OSError):
        yield socket_path(run_dir).with_suffix(".error.json")


def leave(run_dir: Path, error: LamdatuiError) -> None:
    """Leave the reason where one of the places can be written."""
    words = {"what": error.what, "where": error.where, "fix": error.fix, "code": error.exit_code}
    for place in _places(run_dir):
        with contextlib.suppress(OSError):
            write_json(place, words)
            return


def forget(run_dir: Path) -> None:
    """An engine starts: what the one before it left is over."""
    for place in _places(run_dir):
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def last_words(run_dir: Path) -> LamdatuiError | None:
    """The reason that the last engine left, or None."""
    for place in _places(run_dir):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            words: dict[str, Any] = read_json(place)
            return LamdatuiError(
                str(words["what"]), where=str(words["where"]), fix=str(words["fix"]), exit_code=int(words["code"])
            )
    return None


def cause(run_dir: Path) -> LamdatuiError:
    """Why the engine is gone, as far as it can be told: its last words, a full disk, the end of its log."""
    if words := last_words(run_dir):
        return words
    log, fix = run_dir / "engine.log", f"the same command with --name {run_dir.name} goes on where it stopped"
    what = "the engine went away without a word: it was killed, by somebody or for want of memory"
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(run_dir).free
        if free < LOW_BYTES:
            what, fix = f"the engine went away: the disk is full ({free / 2**20:.1f} MiB free)", f"free some space; {fix}"
        elif line := last_line(log):
            what = f"{what}; its log ends with: {line}"
    return LamdatuiError(what, where=str(log), fix=fix, exit_code=EXIT_FAILED)


def last_line(log: Path) -> str:
    """The last line of a log that says something, as printable text of at most 300 characters; "" where there is none."""
    with contextlib.suppress(OSError), log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in handle.read(4096).decode("utf-8", "replace").split("\n")]
        said = next((line for line in reversed(lines) if line), "")
        return "".join(char if char.isprintable() else "?" for char in said)[:300]
    return ""
