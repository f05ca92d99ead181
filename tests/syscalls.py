"""Operations in processes of their own below strace: which system calls touch their files, and what happens when one of them is the last, or fails.

strace counts the calls of one name from the start of the process, so a point is a name and a number; the path that is touched there is
compared with the one that was recorded, so that a point that has moved is noticed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import operations
from tests.operations import ACKNOWLEDGED, OPERATIONS, READY, REFUSED

operations.OUT = os.open(os.devnull, os.O_WRONLY)

DRIVER = Path(__file__).parent / "operations.py"
WRITES = (
    *(
        "openat",
        "write",
        "pwrite64",
        "ftruncate",
        "fsync",
        "fdatasync",
        "rename",
        "link",
        "unlink",
        "unlinkat",
        "mkdir",
        "rmdir",
    ),
    *("fchown", "fchmod"),
)
"""Calls that change what is on the disk: between two of them a kill finds what it finds at the next."""
READS = ("read", "pread64", "newfstatat", "stat", "lstat", "fstat", "getdents64", "flock")
ERRORS = {
    "ENOSPC": ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "link", "mkdir"),
    "EIO": (*WRITES, *READS),
    "EMFILE": ("openat",),
}
"""What each error is injected into."""
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_UNSTABLE = re.compile(r"[0-9a-f]{32}|(?<=[.-])[a-z0-9_]{8}(?=[/\"> ]|$)")
"""What is new each time in the names of temporary files."""


def has_strace() -> bool:
    """Whether processes can be traced here."""
    return (
        bool(shutil.which("strace"))
        and not subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode
    )


@dataclass(frozen=True)
class Point:
    """The `number`-th call of a name since the process began, at a path within the operation's folder; `fault` is as strace says it."""

    operation: str
    name: str
    number: int
    path: str
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.fault} at {self.name} {self.number} of {self.path}"


@dataclass
class Ended:
    """How a traced process ended."""

    status: int
    acknowledged: int
    refused: list[dict[str, Any]]
    errors: str
    points: list[Point]
    """The calls that touched its folder once it was ready."""
    injected: int
    """How many calls failed because of us."""


class Lab:
    """Prepared folders below `place`, and operations on copies of them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LAMDATUI_FAULTS": ""}
        self._count = 0

    def prepared(self, operation: str) -> Path:
        """A fresh folder in which the operation can be done."""
        template = self.place / f"{operation}.template"
        if not template.exists():
            template.mkdir(parents=True)
            subprocess.run(self.words(operation, template, "prepare"), env=self.environment, check=True)
        self._count += 1
        # Always as long, so that the calls are the same.
        folder = self.place / f"{operation}.{self._count:05}"
        shutil.copytree(template, folder)
        return folder

    def words(self, operation: str, folder: Path, what: str = "do") -> list[str]:
        """The command line of an operation's process."""
        return [sys.executable, "-P", str(DRIVER), what, operation, str(folder)]

    def run(self, operation: str, folder: Path, inject: str = "") -> Ended:
        """Do an operation in a folder below strace."""
        trace = folder.with_suffix(f"{folder.suffix}.trace")
        names = ",".join((*WRITES, *READS))
        words = ["strace", "-f", "-y", "-qq", "-e", f"trace={names}", "-e", "signal=none", "-o", str(trace)]
        words += ["-e", f"inject={inject}"] if inject else []
        # Much faster, but with it strace 6.1 injects no signal.
        words += [] if "signal=" in inject else ["--seccomp-bpf"]
        done = subprocess.run(
            [*words, *self.words(operation, folder)], env=self.environment, capture_output=True, text=True, timeout=120
        )
        said = done.stdout.splitlines()
        refused = [json.loads(line.removeprefix(REFUSED)) for line in said if line.startswith(REFUSED)]
        traced = trace.read_text(errors="replace")
        trace.unlink()
        points = points_of(operation, folder, traced)
        return Ended(done.returncode, said.count(ACKNOWLEDGED), refused, done.stderr, points, traced.count("(INJECTED)"))


def points_of(operation: str, folder: Path, trace: str) -> list[Point]:
    """The calls of a trace that touch a folder after the process said that it was ready."""
    counts: dict[str, int] = {}
    found, ready = [], False
    for line in trace.splitlines():
        if not (call := _CALL.match(line)):
            continue
        name, rest = call.groups()
        counts[name] = counts.get(name, 0) + 1
        ready = ready or (name == "write" and f'"{READY}\\n"' in rest)
        touched = [text for text in re.findall(r'["<](/[^">]*)', rest) if text.startswith(f"{folder}")]
        if ready and touched and not touched[0].endswith("-shm"):
            path = _UNSTABLE.sub("*", str(Path(touched[0]).relative_to(folder)))
            found.append(Point(operation, name, counts[name], path))
    return found


def record(lab: Lab, operation: str) -> list[Point]:
    """The points of an operation, from a run that nothing befalls."""
    folder = lab.prepared(operation)
    done = lab.run(operation, folder)
    assert (done.status, done.acknowledged) == (0, OPERATIONS[operation].parts), done.errors
    shutil.rmtree(folder)
    return done.points


def kills(points: list[Point]) -> list[Point]:
    """A kill before each call that changes something."""
    return [Point(p.operation, p.name, p.number, p.path, "signal=KILL") for p in points if p.name in WRITES]


def errors(points: list[Point]) -> list[Point]:
    """Each error at each call that can meet it."""
    return [
        Point(p.operation, p.name, p.number, p.path, f"error={error}")
        for error, names in ERRORS.items()
        for p in points
        if p.name in names
    ]


def complaints(lab: Lab, point: Point) -> list[str]:
    """What is wrong after a fault at a point: nothing, or as many sentences."""
    operation = OPERATIONS[point.operation]
    folder = lab.prepared(point.operation)
    done = lab.run(point.operation, folder, f"{point.name}:{point.fault}:when={point.number}")
    wrong = []
    here = [p for p in done.points if (p.name, p.number) == (point.name, point.number)]
    if [p.path for p in here] != [point.path]:
        wrong.append(f"the point has moved: {here}")
    if point.fault == "signal=KILL":
        if done.status not in (-9, 137):
            wrong.append(f"the process was not killed: {done.status}")
    elif done.injected != 1:
        wrong.append(f"{done.injected} calls failed")
    elif done.status == 0:
        if done.refused or done.acknowledged != operation.parts:
            wrong.append(f"it ended well, with {done.acknowledged} parts and {done.refused}")
    elif done.status != 1 or len(done.refused) != 1 or "Traceback" in done.errors:
        wrong.append(f"no one clear error: status {done.status}, {done.refused}, {done.errors[-1500:]}")
    elif not (done.refused[0]["what"] and str(done.refused[0]["where"]).startswith(str(folder))):
        wrong.append(f"an error without its cause or place: {done.refused}")
    wrong += after(point.operation, folder, done.acknowledged)
    if not wrong:
        shutil.rmtree(folder)
    return [f"{point}: {one}" for one in wrong]


def after(name: str, folder: Path, acknowledged: int) -> list[str]:
    """What is wrong in a folder in which an operation was broken off: first as it lies there, then once it is done again."""
    operation = OPERATIONS[name]
    try:
        operation.check(folder, acknowledged)
    except Exception:  # noqa: BLE001 (whatever a reader raises is what is looked for)
        return [f"after {acknowledged} acknowledged parts: {traceback.format_exc(limit=-2)}"]
    try:
        operation.do(folder)
        operation.check(folder, operation.parts)
    except Exception:  # noqa: BLE001
        return [f"done again: {traceback.format_exc(limit=-3)}"]
    return []
