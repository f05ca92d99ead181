"""What files hold, compared with what was promised when they are read.

The content of what is small is hashed at every look. Above `WHOLE_BYTES` a hash is remembered with the file's size, times and
inode, and taken again while those are the same: an 8B model would otherwise cost minutes a step. `always` hashes whatever the size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lamdatui.base import paths
from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import Damaged, digest, file_digest, read_record, write_record

WHOLE_BYTES = 2 * 2**30
"""Files of at most this many bytes together are hashed at each look."""
Say = Callable[[str], None]


class Changed(LamdatuiError):
    """What was read is not what was promised."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix or "restore it as it was, or give the new one another name")


class DamagedObject(LamdatuiError):
    """An object of the store is not what was published (`files` are wrong), or not there (no `files`)."""

    def __init__(self, digest: str, files: list[str], where: str) -> None:
        super().__init__(
            f"the store's object {digest[:12]} is {'damaged: ' + ', '.join(files) if files else 'not there'}",
            where=where,
            fix="let the run go on: it puts damaged objects aside and makes them again",
            exit_code=EXIT_FAILED,
        )
        self.digest = digest
        self.files = files


def hashes(
    files: Iterable[Path], hasher: Callable[[Path], str] = file_digest, *, always: bool = False, say: Say | None = None
) -> dict[Path, str]:
    """File → hash. `say` hears of a file that takes long. Raises OSError."""
    files = list(files)
    is_small = sum(file.stat().st_size for file in files) <= WHOLE_BYTES
    return {file: hasher(file) if is_small or always else _remembered(file, hasher, say) for file in files}


def _remembered(file: Path, hasher: Callable[[Path], str], say: Say | None) -> str:
    place = paths.state_dir() / "fingerprints" / f"{digest([os.fsdecode(file.resolve()), hasher.__name__])[:40]}.json"
    seen = _signature(file)
    try:
        known = read_record(place)
        if known["seen"] == seen:
            return known["hash"]
    except (OSError, Damaged, KeyError):
        pass
    if say is not None:
        say(f"reading {file.parent.name}/{file.name} ({seen['size'] / 2**30:.1f} GiB): once, until it changes")
    found = hasher(file)
    if _signature(file) != seen:
        raise Changed("the file changes while it is read", where=str(file), fix="wait until it is written, then try again")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_record(place, {"path": os.fsdecode(file.resolve()), "seen": seen, "hash": found})
    except OSError:
        pass  # It is hashed again at the next look.
    return found


def _signature(file: Path) -> dict[str, Any]:
    # The change time too: whoever writes into a file and puts its modification time back can't put that back.
    stat = file.stat()
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns, "ctime": stat.st_ctime_ns, "inode": stat.st_ino}
