"""Recorded GPU readings: one JSON object a line, `{"at": seconds, "gpus": [...], "reason": ""}`, replayed in a loop.

A recording goes into the hardware frames and nowhere else: it never says where a step runs. For demonstrations, and to look
at a console for eight GPUs on a machine that has none.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import finite, parse_json, regular

MAX_BYTES = 64 * 1024 * 1024
MOST_LINE = 1024 * 1024
"""Characters of one reading: it goes to the console in one frame."""
NUMBERS = (
    "util",
    "memory_used",
    "memory_total",
    "power_w",
    "power_limit_w",
    "temperature_c",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "fan_percent",
    "mig",
)
_FIX = "record one on a machine with a GPU: python -m lamdatui.hardware.record FILE"
Json = dict[str, Any]


class Recording:
    """Readings by their time since the first one."""

    def __init__(self, title: str, readings: list[Json], clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self._readings = readings
        self._times = [reading["at"] - readings[0]["at"] for reading in readings]
        # The last reading is shown as long as the one before it was.
        self._length = self._times[-1] + (self._times[-1] - self._times[-2] if len(readings) > 1 else 1.0)
        self._clock = clock
        self._began = clock()

    def __len__(self) -> int:
        return len(self._readings)

    def __call__(self) -> tuple[list[Json], str]:
        """The GPUs of this moment and the reason why there is none, as `read_gpus` gives them."""
        at = (self._clock() - self._began) % self._length
        reading = self._readings[bisect.bisect_right(self._times, at) - 1]
        return reading["gpus"], reading.get("reason", "")


def load_recording(path: Path) -> Recording:
    """Read and check a recording. Raises LamdatuiError (exit code 2) that names the line and what is wrong with it."""
    try:
        if regular(path).stat().st_size > MAX_BYTES:
            raise LamdatuiError("the recording is larger than 64 MB", where=str(path), fix=_FIX)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LamdatuiError(f"can't read the recording: {error.strerror}", where=str(path), fix=_FIX) from error
    except UnicodeDecodeError as error:
        raise LamdatuiError("the recording is not text", where=str(path), fix=_FIX) from error
    readings: list[Json] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            readings.append(_reading(line, f"{path}, line {number}", readings[-1]["at"] if readings else None))
    if not readings:
        raise LamdatuiError("the recording is empty", where=str(path), fix=_FIX)
    return Recording(path.name, readings)


def _is_number(value: Any) -> bool:
    return finite(value) is not None


def _reading(line: str, where: str, before: float | None) -> Json:
    if len(line) > MOST_LINE:
        raise LamdatuiError(f"a reading is at most {MOST_LINE} characters", where=where, fix=_FIX)
    try:
        reading = parse_json(line)
    except ValueError as error:
        raise LamdatuiError(f"not JSON: {error}", where=where, fix=_FIX) from error
    if problem := _problem(reading, before):
        raise LamdatuiError(problem, where=where, fix=_FIX)
    return reading


def _problem(reading: Any, before: float | None) -> str:
    """What is wrong with one reading, or nothing."""
    if not isinstance(reading, dict) or not isinstance(reading.get("gpus"), list):
        return 'a reading is an object with "at" (seconds) and "gpus" (a list)'
    if not _is_number(reading.get("at")):
        return '"at" is a number of seconds'
    if before is not None and reading["at"] <= before:
        return f'"at" grows from line to line; {reading["at"]} comes after {before}'
    if not isinstance(reading.get("reason", ""), str):
        return '"reason" is text'
    return next((problem for gpu in reading["gpus"] if (problem := _gpu_problem(gpu))), "")


def _gpu_problem(gpu: Any) -> str:
    if not isinstance(gpu, dict) or not isinstance(gpu.get("index"), int):
        return 'a GPU is an object with an "index"'
    for name in NUMBERS:
        if gpu.get(name) is not None and not _is_number(gpu[name]):
            return f'"{name}" of GPU {gpu["index"]} is a number or null'
    processes = gpu.get("processes", [])
    if not isinstance(processes, list) or not all(isinstance(p, dict) and isinstance(p.get("pid"), int) for p in processes):
        return f'"processes" of GPU {gpu["index"]} is a list of objects with a "pid"'
    return ""
