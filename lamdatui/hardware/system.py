"""Readings of the host through psutil."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import psutil


@cache
def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in tiles (AMX): then training in it is faster than in
    float32 (bench/dtype.py measures it).
    """
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def read_host(folder: Path) -> dict[str, Any]:
    """CPU (percent a core since the last call), memory, swap and the disk of `folder` (bytes), load averages."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    disk = psutil.disk_usage(str(folder))
    return {
        "cpu_percent": psutil.cpu_percent(percpu=True),
        "memory_used": memory.total - memory.available,
        "memory_total": memory.total,
        "swap_used": swap.used,
        "swap_total": swap.total,
        "disk_free": disk.free,
        "disk_total": disk.total,
        "load": list(psutil.getloadavg()),
    }
