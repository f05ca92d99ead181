"""Reading a log file that grows: whole, cleaned lines, from near the end on. No textual."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lamdatui.ui.sanitize import clean, clean_json

TAIL_BYTES = 256 * 1024
LINE_CHARACTERS = 4000


class Tail:
    """New lines of one file since the last `read`. A file that is absent, shorter or replaced is not an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset: int | None = None
        self._inode = 0
        self._rest = b""

    def read(self) -> list[str]:
        """The complete lines that are new, at most `TAIL_BYTES` of them."""
        try:
            with self.path.open("rb") as handle:
                return self._read(handle)
        except OSError:
            return []

    def _read(self, handle: Any) -> list[str]:
        stat = os.fstat(handle.fileno())
        skipped = 0
        if self._offset is None or stat.st_ino != self._inode or stat.st_size < self._offset:
            self._offset, self._inode, self._rest = 0, stat.st_ino, b""
        if stat.st_size - self._offset > TAIL_BYTES:
            skipped = stat.st_size - TAIL_BYTES - self._offset
            self._offset, self._rest = stat.st_size - TAIL_BYTES, b""
        if stat.st_size == self._offset:
            return []
        handle.seek(self._offset)
        data = self._rest + handle.read(TAIL_BYTES)
        self._offset = handle.tell()
        *whole, self._rest = data.split(b"\n")
        if skipped and whole:
            whole[0] = f"… {skipped} bytes before this are in {self.path.name}".encode()
        return [log_line(line) for line in whole]


def step_folder(run_dir: Path, key: str) -> Path | None:
    """The directory of a step; None for a key that would lead out of the run directory."""
    path = Path(key)
    return None if path.is_absolute() or ".." in path.parts else run_dir / "steps" / path


def log_line(raw: bytes) -> str:
    """One line as it would stand on a terminal after its carriage returns, cleaned and capped."""
    text = raw.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1]
    cut = len(text) - LINE_CHARACTERS
    return clean(text if cut <= 0 else f"{text[:LINE_CHARACTERS]} … {cut} more characters")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; broken lines are left out."""
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(clean_json(value))
    return found
