"""What steps really took on this machine, and estimates corrected by it. One JSON line a step, in the user's state folder.

A formula's estimate is multiplied by measured/predicted of earlier steps of the same kind: the median for seconds, the
largest for memory, because an estimate that is too low there costs a failed step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from lamdatui.base.jsonio import finite, parse_json, regular, write_atomic
from lamdatui.domain.actions import PROCESS_BYTES, Estimate

FORMULA = 3
"""Number of the formulas in `costs` and `memory`: raised when they say something else than before."""
KEPT = 20
"""The latest measurements of a kind that count."""
MOST_LINES = 5000
MOST_CORRECTION = {"seconds": 100.0, "memory": 4.0}
"""A ratio counts as this at most (and its inverse at least). Memory's is small: an action that one odd measurement made look
too large would never be tried again, and so never be measured again."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One executed step: what the formula said and what it took (seconds; bytes of RAM, or of GPU memory on a GPU).

    One that ran out of memory has no predicted seconds, and as memory what there was.
    """

    type: str
    family: str
    device: str
    dtype: str
    scale: int
    predicted_seconds: float | None
    seconds: float
    predicted_memory: int | None
    memory: int | None
    formula: int = 1
    """Which formulas predicted it: a ratio to others says nothing of these."""


def scale(parameters: int) -> int:
    """Order of magnitude of a model's size: measurements of a 0.2 M model say nothing of an 8 B one."""
    return round(math.log10(parameters)) if parameters > 0 else 0


@dataclass(frozen=True, slots=True)
class Correction:
    """Factors of estimates; None where nothing was measured."""

    seconds: float | None
    memory: float | None

    def of(self, estimate: Estimate) -> Estimate:
        """The estimate, corrected."""
        found = estimate
        if estimate.seconds is not None and self.seconds is not None:
            found = replace(found, seconds=round(estimate.seconds * self.seconds, 2), measured=True)
        if estimate.memory_bytes is not None and self.memory is not None:
            beyond = max(0, estimate.memory_bytes - PROCESS_BYTES) * self.memory
            found = replace(found, memory_bytes=int(PROCESS_BYTES + beyond))
        return found


@dataclass(slots=True)
class Timings:
    """This machine's measurements. `path` None keeps them in memory only."""

    path: Path | None = None
    items: list[Measurement] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Timings:
        """Read what is there; a broken line is passed over, an old excess is dropped."""
        items = list(_read(path))
        timings = cls(path, items[-MOST_LINES:])
        if len(items) > 2 * MOST_LINES:
            try:
                write_atomic(path, "".join(_line(item) for item in timings.items))
            except OSError:
                pass  # a state folder that can't be written to
        return timings

    def add(self, item: Measurement) -> None:
        """Remember a step. A state folder that can't be written to costs only the memory of it."""
        self.items.append(item)
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                regular(self.path)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(_line(item))
        except OSError:
            self.path = None

    def correction(self, kind: str, family: str, device: str, dtype: str, parameters: int) -> Correction:
        """What this machine's own steps say of estimates: those of the type, else of its family, else nothing."""
        place = (device.partition(":")[0], dtype, scale(parameters))
        near = [m for m in self.items if (m.device, m.dtype, m.scale) == place and m.formula == FORMULA]
        seconds = _ratios([m for m in near if m.type == kind] or [m for m in near if m.family == family], "seconds")
        memory = _ratios([m for m in near if m.type == kind], "memory")
        return Correction(median(seconds) if seconds else None, max(memory, default=None))

    def count(self, kind: str, device: str, dtype: str, parameters: int) -> int:
        """How many steps of a type were measured at this size."""
        place = (kind, device.partition(":")[0], dtype, scale(parameters))
        return sum((m.type, m.device, m.dtype, m.scale) == place and m.formula == FORMULA for m in self.items)


def _ratios(items: list[Measurement], what: str) -> list[float]:
    found = []
    for item in items[-KEPT:]:
        if what == "seconds":
            predicted, measured = item.predicted_seconds, item.seconds
        else:
            predicted = None if item.predicted_memory is None else item.predicted_memory - PROCESS_BYTES
            measured = None if item.memory is None else max(0, item.memory - PROCESS_BYTES)
        if predicted and measured and predicted > 0:
            found.append(min(MOST_CORRECTION[what], max(1 / MOST_CORRECTION[what], measured / predicted)))
    return found


def _line(item: Measurement) -> str:
    return json.dumps({name: getattr(item, name) for name in Measurement.__slots__}) + "\n"


def _read(path: Path) -> Iterable[Measurement]:
    try:
        lines = regular(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            item = Measurement(**parse_json(line))
        except (ValueError, TypeError):
            continue
        numbers = (item.scale, item.seconds, item.predicted_seconds, item.predicted_memory, item.memory)
        if all(number is None or finite(number) is not None for number in numbers) and item.seconds is not None:
            yield item
