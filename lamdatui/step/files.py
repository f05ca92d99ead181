"""The files of one attempt at a step, and who may do its work. No torch here: the engine reads these too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import psutil

from lamdatui.base.clock import boot_id
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import Damaged, canonical, fsync_dir, naming, read_record, sealed, write_record
from lamdatui.domain.checked import hold
from lamdatui.domain.records import Failure, Seconds

REQUEST = "action.json"
CLAIM = "claim.json"
LOG = "log.txt"
GENERATOR_LOG = "generator.log"
BUSY = "busy"
"""There while a step that trains writes a checkpoint or looks at held-out rows: it is not killed then."""
METRICS = "metrics.jsonl"
ROWS = "rows.jsonl"
FOLDERS = "folders.json"
"""Of a dry run: the rows that its trainer would get; which model's full weights lie in which folder of its configuration."""
OUTCOME = "outcome.json"
CONFIG = "config.json"
"""The exact configuration of the library that did the work."""
DATA = "data.jsonl"
PROVENANCE = "provenance.json"
"""In the directory of a dataset that an action made: from what, by which model, how much was kept."""
TRAINED = "trained.json"
"""Written when the work of the action itself begins: one per execution, the evidence that nothing ran twice."""
ROOM = ".room-for-the-outcome"
ROOM_BYTES = 64 * 1024
"""Space that the engine takes before a step begins, so that the step can say what happened on a disk that is full by then."""
OLDER_REQUEST = frozenset(
    [
        "step",
        "purpose",
        "trial",
        "digest",
        "action",
        "models",
        "datasets",
        "subject",
        "evaluations",
        "store",
        "device",
        "dtype",
        "threads",
        "tasks",
        "small",
    ]
)
OLDER_CLAIM = frozenset(("by", "pid", "start_time", "boot_id"))
OLDER_OUTCOME = frozenset(("status", "cached", "seconds", "error", "peak_rss", "peak_gpu"))
"""Fields of the records that the first version wrote without a seal."""


class _Claim(TypedDict):
    by: str
    pid: int
    start_time: float
    boot_id: str


class _Outcome(TypedDict):
    status: Literal["ok", "failed", "dry-run"]
    cached: NotRequired[bool]
    seconds: NotRequired[Seconds]
    error: NotRequired[Failure | None]
    peak_rss: NotRequired[int]
    peak_gpu: NotRequired[int]


def attempt_directory(run_dir: Path, key: str) -> Path:
    """Where the files of an attempt are. Raises LamdatuiError for a key that would lead elsewhere: a record may be anybody's."""
    path = Path(key)
    if path.is_absolute() or ".." in path.parts or "\0" in key:
        raise LamdatuiError(
            f"the step {key[:200]!r} is none of this run", where=str(run_dir), fix="take a run that was made here"
        )
    return run_dir / "steps" / path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that can't be mistaken for another one: pid, its start time (s since boot) and the boot.

    Not psutil's start time: it is computed from the wall clock, and a clock that steps would make a live step look dead.
    """

    pid: int
    start_time: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a live process. Raises psutil.NoSuchProcess."""
        try:
            return cls(pid, _started(pid), boot_id())
        except OSError as error:
            raise psutil.NoSuchProcess(pid) from error

    def process(self) -> psutil.Process | None:
        """The process if it still is this one and lives; a zombie counts as dead."""
        if self.boot_id != boot_id():
            return None
        try:
            same = abs(_started(self.pid) - self.start_time) < 0.02
            process = psutil.Process(self.pid)
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, psutil.NoSuchProcess):
            return None


def _started(pid: int) -> float:
    """Start of a process in seconds since boot, from the kernel's own ticks. Raises OSError when there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def claim(directory: Path, by: str, identity: Identity | None = None) -> bool:
    """Take the right to do (or to abandon) this attempt, for this process if no other is named; exactly one caller in the world gets True.

    A link of a whole file is atomic: the claim is there with its content or not at all.
    """
    identity = identity or Identity.of(os.getpid())
    fd, name = tempfile.mkstemp(dir=directory, prefix=".claim.")
    try:
        with naming(directory / CLAIM), os.fdopen(fd, "w") as handle:
            handle.write(canonical(sealed({"by": by, **asdict(identity)})))
            handle.flush()
            os.fsync(handle.fileno())
        os.link(name, directory / CLAIM)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    fsync_dir(directory)
    return True


def read_claim(directory: Path) -> tuple[str, Identity] | None:
    """Who claimed the attempt ("step" or "engine") and its identity; None when nobody did. Raises Damaged."""
    try:
        data = read_record(directory / CLAIM, OLDER_CLAIM)
        hold(data, _Claim, "it")
        return data["by"], Identity(data["pid"], data["start_time"], data["boot_id"])
    except FileNotFoundError:
        return None
    except (OSError, TypeError) as error:
        raise Damaged(f"{CLAIM}: {error}") from error


def read_outcome(directory: Path) -> dict[str, Any] | None:
    """The outcome of a finished attempt, or None. Raises Damaged."""
    try:
        found = read_record(directory / OUTCOME, OLDER_OUTCOME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{OUTCOME}: {error}") from error
    try:
        hold(found, _Outcome, OUTCOME)
    except TypeError as error:
        raise Damaged(str(error)) from error
    return found


def write_request(directory: Path, request: Mapping[str, Any]) -> None:
    """The attempt's request, and the space for its outcome. Raises OSError, also where the disk is full."""
    with naming(directory / ROOM), (directory / ROOM).open("wb") as handle:
        handle.write(os.urandom(ROOM_BYTES))
        handle.flush()
        os.fsync(handle.fileno())
    write_record(directory / REQUEST, request)


def write_outcome(directory: Path, outcome: Mapping[str, Any]) -> None:
    """How the attempt ended, durably, in the space that was kept for it."""
    (directory / ROOM).unlink(missing_ok=True)
    write_record(directory / OUTCOME, outcome)
