"""Processes of a campaign, and a run seen through its files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from lamdatui.base.jsonio import Damaged
from lamdatui.step.files import read_claim

WAL_WRITE_LOCK = "120 120"
"""The byte of `run.db-shm` that a writer has locked from its first page to the end of its commit (SQLite's wal.c)."""


class Processes:
    """Those of a campaign: all inherit its LAMDATUI_HOME."""

    def __init__(self, home: Path) -> None:
        self._mark = f"LAMDATUI_HOME={home}\0".encode()

    def all(self) -> dict[int, str]:
        """pid → engine, step, host, launcher or other."""
        found: dict[int, str] = {}
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and self._mark in Path(f"/proc/{entry}/environ").read_bytes():
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
                    role = _role(words)
                    # A step that the host has forked looks as the host does, but for its log.
                    is_step = role == "host" and os.readlink(f"/proc/{entry}/fd/1").endswith("log.txt")
                    found[int(entry)] = "step" if is_step else role
        return found


def _role(words: list[str]) -> str:
    for name, role in (("lamdatui.engine", "engine"), ("lamdatui.step.bare", "step"), ("lamdatui.step.warm", "host")):
        if name in words:
            return role
    return "launcher" if "lamdatui" in words and "run" in words else "other"


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on. Raises OSError when there is none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def until(condition: Callable[[], bool], seconds: float, every: float = 0.01) -> bool:
    """Whether it comes true within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def freeze(pids: list[int]) -> None:
    """Stop processes, and wait until they are."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

    def stopped(pid: int) -> bool:
        try:
            return stat_of(pid)[0] in "TtZX"
        except OSError:
            return True

    for pid in pids:
        until(lambda pid=pid: stopped(pid), 10, 0.0005)


class Run:
    """One run of a campaign, seen through its files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / "lamdatui-runs" / name
        self.store = folder / "lamdatui-runs" / "store"

    def attempts(self) -> list[Path]:
        """Directories of all attempts, the newest last."""
        found = []
        for path in self.path.glob("steps/*/*"):
            with contextlib.suppress(OSError):
                found.append(((path / "action.json").stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def step(self) -> tuple[str, str]:
        """What the newest attempt is at, and its key: spawn, work, publish, evaluation, outcome (published, and not yet said); "" where none is open."""
        attempts = self.attempts()
        if not attempts:
            return "", ""
        folder = attempts[-1]
        key = f"{folder.parent.name}/{folder.name}"
        if (folder / "outcome.json").exists():
            return "", key
        with contextlib.suppress(OSError, Damaged):
            claimed = read_claim(folder)
            if claimed is None:
                return "spawn", key
            by, identity = claimed
            if by != "step" or identity.process() is None:
                return "", key
            return self._work(folder), key
        return "", key

    def _work(self, folder: Path) -> str:
        request = json.loads((folder / "action.json").read_text())
        begun = folder / "trained.json"
        if not begun.exists():
            return "evaluation" if request["action"] is None or self.object(request["digest"]) else "spawn"
        if self.object(request["digest"]):
            return "evaluation" if request["evaluations"] else "outcome"
        since = begun.stat().st_mtime_ns
        for staged in self.store.glob("staging/*"):
            for name in ("manifest.json", "provenance.json", "model.safetensors", "adapter_model.safetensors"):
                with contextlib.suppress(OSError):
                    if (staged / name).stat().st_mtime_ns >= since:
                        return "publish"
        return "work"

    def object(self, digest: str) -> bool:
        """Whether an object is published."""
        return (self.store / "objects" / digest / "manifest.json").exists()

    def writers(self) -> list[int]:
        """Processes that are in a transaction of this run's database."""
        try:
            inode = (self.path / "run.db-shm").stat().st_ino
        except OSError:
            return []
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return [
            int(row[4])
            for row in rows
            if row[3] == "WRITE" and row[5].endswith(f":{inode}") and " ".join(row[6:]) == WAL_WRITE_LOCK
        ]

    def is_recovering(self, engine: int) -> bool:
        """Whether an engine has not yet said where it listens, which it does once it has read the journal and recorded its start."""
        try:
            started = float(stat_of(engine)[19]) / os.sysconf("SC_CLK_TCK")
            told = (self.path / "socket").stat().st_mtime
        except OSError:
            return True
        return told < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started

    def chain(self) -> dict[int, str]:
        """seq → hash of the events on record. Only while an engine has the database open: the last one to close it would tidy it up."""
        with contextlib.suppress(apsw.Error):
            db = apsw.Connection(f"file:{self.path / 'run.db'}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            try:
                return dict(db.execute("SELECT * FROM chain"))
            finally:
                db.close()
        return {}
