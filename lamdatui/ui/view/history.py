"""The hardware readings of the last minutes, for the history beside each meter. Pure, no textual."""

from __future__ import annotations

from collections import deque
from typing import Any

from lamdatui.base.jsonio import finite

Json = dict[str, Any]

READINGS = 600
"""How many readings are kept: about ten minutes, as one comes each second."""

Values = deque[float | None]


def _ring() -> Values:
    return deque(maxlen=READINGS)


def share(used: Any, total: Any) -> float | None:
    """`used` of `total` in percent; None where one of them is missing."""
    part, whole = finite(used), finite(total)
    return 100 * part / whole if part is not None and whole else None


class History:
    """Percentages, the newest last: utilisation and memory a GPU, CPU and RAM of the host. None: no value was given."""

    def __init__(self) -> None:
        self.util: dict[int, Values] = {}
        self.memory: dict[int, Values] = {}
        self.cpu: Values = _ring()
        self.ram: Values = _ring()

    def take(self, frame: Json) -> None:
        """One `hardware` frame. A GPU that is missing from it (its driver hangs) leaves a gap."""
        known = {gpu["index"]: gpu for gpu in frame.get("gpus") or [] if isinstance(gpu.get("index"), int)}
        for index in {*known, *self.util}:
            gpu = known.get(index, {})
            self.util.setdefault(index, _ring()).append(finite(gpu.get("util")))
            self.memory.setdefault(index, _ring()).append(share(gpu.get("memory_used"), gpu.get("memory_total")))
        host = frame.get("host") or {}
        cores = [value for core in host.get("cpu_percent") or [] if (value := finite(core)) is not None]
        self.cpu.append(sum(cores) / len(cores) if cores else None)
        self.ram.append(share(host.get("memory_used"), host.get("memory_total")))
