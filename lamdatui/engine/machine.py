"""What an action has to fit into, and what earlier steps on this machine taught about its cost."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.actionkit.timings import Measurement, Timings, scale
from lamdatui.domain.actions import BoundType, Call, Estimate, Value
from lamdatui.store.artifacts import read_manifest


@dataclass(frozen=True)
class Machine:
    """What an action has to fit into, and what earlier steps on this machine taught about its cost."""

    device: str
    dtype: str
    memory_bytes: int
    disk: Path | None = None
    """The folder of the store: what is free there bounds what is written."""
    timings: Timings = field(default_factory=Timings)

    def recorded(self, digest: str) -> Mapping[str, Value] | None:
        """The hyperparameters of the action that made the store's object `digest`; None when there is none that can be read."""
        if self.disk is None:
            return None
        try:
            return dict(read_manifest(self.disk / "store", digest)["action"]["params"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def estimate(self, bound: BoundType, call: Call) -> Estimate:
        """The type's own estimate, corrected by what this machine measured."""
        plain = bound.estimate(call)
        return self.timings.correct(bound.name, bound.type.family, self.device, self.dtype, size_of(call), plain)

    def measured(self, bound: BoundType, call: Call, outcome: Mapping[str, Any]) -> None:
        """Add a step that did its work to the timings."""
        plain = bound.estimate(call)
        gpu = self.device.startswith("cuda")
        self.timings.add(
            Measurement(
                type=bound.name,
                family=bound.type.family,
                device=self.device.partition(":")[0],
                dtype=self.dtype,
                scale=scale(size_of(call)),
                predicted_seconds=plain.seconds,
                seconds=outcome["seconds"]["execute"],
                predicted_memory=plain.memory_bytes,
                memory=outcome.get("peak_gpu" if gpu else "peak_rss"),
            )
        )

    def lacks(self, estimate: Estimate) -> str | None:
        """Why the work does not fit, or None: memory of the device, free disk."""
        where = "GPU memory" if self.device.startswith("cuda") else "memory"
        if estimate.memory_bytes is not None and estimate.memory_bytes > self.memory_bytes:
            return f"needs {_gib(estimate.memory_bytes)} of {where}; there are {_gib(self.memory_bytes)}"
        if estimate.disk_bytes is not None and self.disk is not None:
            free = shutil.disk_usage(self.disk).free
            if estimate.disk_bytes > free:
                return f"writes {_gib(estimate.disk_bytes)}; {_gib(free)} are free on the disk"
        return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def size_of(call: Call) -> int:
    """Parameters of the largest model that an action works with; 0 when it works with none."""
    return max((model.parameters for models in call.models.values() for model in models), default=0)
