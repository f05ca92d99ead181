"""Whether action files of users, projects and packages can be read: each is tried in a process of its own, with a time limit.

What a file does when it is read can end Python, hang or fork. Only a file that got through is imported here. A pass is remembered by the
file's contents in the user's state folder, so that it costs nothing the next time; a failure too, but only steps believe it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from lamdatui import __version__
from lamdatui.base import paths
from lamdatui.base.jsonio import digest, read_json, write_json

SECONDS = float(os.environ.get("LAMDATUI_READ_SECONDS", "10"))
"""How long reading one file may take."""
INSIDE = "LAMDATUI_READING"
"""Is set in a process that reads an action file for another one."""
AT_ONCE = 8
MOST_BYTES = 1 << 20
POLL_SECONDS = 0.02
_failed: dict[str, str] = {}
"""What this process has seen fail: a second look would take as long as the first."""


@dataclass(frozen=True, slots=True)
class ActionSource:
    """Somebody's action types: a file, or an entry point (`place` is what it points to). `key` is empty where it has no contents."""

    mode: str
    origin: str
    place: str
    key: str
    problem: str = ""


def file_source(origin: str, file: Path, mode: str = "read") -> ActionSource:
    """A file with the digest of its contents; only a regular file of a sensible size is ever opened. `mode`: `read`, or `score` for a scorer's."""
    try:
        if not file.is_file():
            return ActionSource(mode, origin, str(file), "", "is not a regular file")
        with file.open("rb") as handle:
            text = handle.read(MOST_BYTES + 1)
    except OSError as error:
        return ActionSource(mode, origin, str(file), "", f"can't be read: {error.strerror}")
    if len(text) > MOST_BYTES:
        return ActionSource(mode, origin, str(file), "", f"is larger than {MOST_BYTES >> 20} MiB")
    return ActionSource(mode, origin, str(file), _key(f"{mode if mode != 'read' else ''}{text.hex()}"))


def point_source(point: EntryPoint) -> ActionSource:
    """An entry point, known by its package's version."""
    version = point.dist.version if point.dist else ""
    return ActionSource("point", "package", point.value, _key(f"{point.name} {point.value} {version}"))


def _key(text: str) -> str:
    return digest([text, __version__, sys.version, sys.prefix])


def problems(sources: list[ActionSource], *, step: bool = False) -> dict[str, str]:
    """Place → why it can't be imported here, for those that can't. Several are tried at once.

    In a step (`step`) a failure that is on record counts, so that a file that hangs does not cost every step its time.
    """
    if INSIDE in os.environ:
        # One that reads action files while it is read would have itself read, and so on.
        return {source.place: "an action file can't have action files read" for source in sources}
    found = {source.place: source.problem for source in sources if source.problem}
    unknown = []
    for source in sources:
        if source.problem:
            continue
        record = _failed.get(source.key, _recorded(source.key, step))
        if record is None:
            unknown.append(source)
        elif record:
            found[source.place] = record
    for source, report in zip(unknown, examine([(s.mode, s.origin, s.place) for s in unknown], SECONDS), strict=True):
        problem = report.get("problem", "")
        if problem:
            found[source.place] = _failed[source.key] = problem
        _record(source.key, problem)
    return found


def _folder() -> Path:
    return paths.state_dir() / "read-actions"


def _recorded(key: str, step: bool) -> str | None:
    """What is on record: "" for a pass, a problem (only in a step), None for nothing."""
    try:
        problem = read_json(_folder() / f"{key}.json")["problem"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return problem if isinstance(problem, str) and (step or not problem) else None


def _record(key: str, problem: str) -> None:
    # Where it can't be written, the next start looks again.
    with contextlib.suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        write_json(_folder() / f"{key}.json", {"problem": problem})


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Probe:
    """One process that reads one file, and what it has reported."""

    process: subprocess.Popen[bytes]
    report: int
    deadline: float
    said: bytes = b""
    open: bool = field(default=True)


def examine(wanted: list[tuple[str, str, str]], seconds: float) -> list[dict[str, Any]]:
    """The report of `lamdatui.actionkit.probe` on each (mode, origin, place): always one, with a `problem` where there is no other.

    Each process leads a session of its own; what it leaves behind in that session is killed.
    """
    waiting, running = list(enumerate(wanted)), dict[int, _Probe]()
    reports: list[dict[str, Any]] = [{} for _ in wanted]
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < AT_ONCE:
                    place, words = waiting.pop(0)
                    running[place] = probe = _start(words, seconds)
                    selector.register(probe.report, selectors.EVENT_READ, probe)
                for event, _ in selector.select(POLL_SECONDS):
                    _hear(event.data, selector)
                for place, probe in list(running.items()):
                    ended = _has_ended(probe.process.pid)
                    if ended or time.monotonic() > probe.deadline:
                        _hear(probe, selector)
                        del running[place]
                        reports[place] = _end(probe, selector, ended, seconds)
        finally:
            for probe in running.values():
                _end(probe, selector, False, seconds)
    return reports


def _start(words: tuple[str, str, str], seconds: float) -> _Probe:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        line = [sys.executable, "-P", "-m", "lamdatui.actionkit.probe", *words, str(writer), f"{seconds:g}"]
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            env={**os.environ, INSIDE: "1"},
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return _Probe(process, reader, time.monotonic() + seconds)


def _has_ended(pid: int) -> bool:
    """Whether it has, without reaping it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        # Where SIGCHLD is ignored, nobody is left to be waited for.
        return True


def _hear(probe: _Probe, selector: selectors.BaseSelector) -> None:
    """Take in what is there; nobody has to close the other end for that."""
    while probe.open and len(probe.said) <= MOST_BYTES:
        try:
            data = os.read(probe.report, 65536)
        except BlockingIOError:
            return
        probe.said += data
        if not data:
            break
    if probe.open:
        probe.open = False
        selector.unregister(probe.report)


def _end(probe: _Probe, selector: selectors.BaseSelector, ended: bool, seconds: float) -> dict[str, Any]:
    """Leave nothing of it; the report."""
    # Before it is reaped: until then its number, which is also that of its session, is not given away.
    left = _session(probe.process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(probe.process.pid, signal.SIGKILL)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    status = probe.process.wait()
    if probe.open:
        selector.unregister(probe.report)
    os.close(probe.report)
    if not ended:
        return {"problem": f"it took longer than {seconds:g} s to be read"}
    found = _parsed(probe.said)
    if problem := next((item["problem"] for item in found if "problem" in item), ""):
        return {"problem": str(problem)}
    if left:
        return {"problem": "it leaves a process behind when it is read"}
    if status < 0:
        return {"problem": f"it was ended by {signal.Signals(-status).name} while it was read"}
    if status or not found:
        return {"problem": f"it ended Python with status {status} while it was read"}
    return found[0]


def _parsed(said: bytes) -> list[dict[str, Any]]:
    found = []
    for line in said[:MOST_BYTES].splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [item for item in found if isinstance(item, dict)]


def _session(leader: int) -> list[int]:
    """Processes of a session that still run, but for its leader."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name in brackets may hold anything, brackets and spaces included.
            state, _, _, session = entry.read_bytes().rpartition(b")")[2].split()[:4]
            if int(session) == leader and int(entry.parent.name) != leader and state not in (b"Z", b"X"):
                found.append(int(entry.parent.name))
    return found
