"""What an action has to fit into, and what earlier steps on this machine taught about its cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from lamdatui.actionkit.costs import answering
from lamdatui.actionkit.timings import FORMULA, Measurement, Timings, scale
from lamdatui.domain.actions import PROCESS_BYTES, BoundType, Call, Estimate, Value
from lamdatui.domain.objects import ModelObject, ObjectPool
from lamdatui.domain.plans import Plan
from lamdatui.domain.schemes import GENERATORS
from lamdatui.hardware.gpu import read_gpus
from lamdatui.store.artifacts import read_manifest

GPU_SHARE = 0.97
"""Of a GPU's memory; the driver keeps some."""
COMFORT = 0.92
"""A plan takes at most this share of what there is: forecasts are wrong by some per cent. Only the smallest may take all."""
MORE = 1.02
"""What ran out of memory wanted so much of what was there, at least."""
NEAR = 1.15
"""The smallest plan may be forecast to take so many times what there is: it is tried with its longest rows, and forecasts may be as wrong."""
SMALLER = 0.85
"""After an attempt that ran out of memory, the next plan takes at most this share of what it was expected to take."""


@dataclass(frozen=True)
class Machine:
    """What an action has to fit into, and what earlier steps on this machine taught about its cost."""

    device: str
    dtype: str
    memory_bytes: int
    disk: Path | None = None
    """The folder of the store: what is free there bounds what is written."""
    timings: Timings = field(default_factory=Timings)
    generator: str = GENERATORS[0]
    """What generates answers here."""
    judge_bytes: int = 0
    """What the largest judge of the run's tasks takes of the device: each model that is made is scored in its step."""

    @property
    def room_bytes(self) -> int:
        """What a step may take of the device's memory: near the last bytes, allocators fail."""
        return int(self.memory_bytes * (GPU_SHARE if self.device.startswith("cuda") else 1))

    def recorded(self, digest: str) -> Mapping[str, Value] | None:
        """The hyperparameters of the action that made the store's object `digest`; None when there is none that can be read."""
        if self.disk is None:
            return None
        try:
            return dict(read_manifest(self.disk / "store", digest)["action"]["params"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def now(self) -> Machine:
        """The same, with as much memory as is free at this moment, but for what this run's own planner gives back."""
        free = _free_bytes(self.device)
        return self if free is None else replace(self, memory_bytes=min(self.memory_bytes, free))

    def call(
        self, bound: BoundType, inputs: Mapping[str, Sequence[str]], params: Mapping[str, Value], pool: ObjectPool
    ) -> Call:
        """An action on this machine, with its objects looked up. Raises KeyError for one that is not in the pool."""
        return bound.call(inputs, params, pool, self.device, self.dtype)

    def estimate(self, bound: BoundType, call: Call) -> Estimate:
        """The type's own estimate of the best plan that fits (`plan`), corrected by what this machine measured."""
        return self.plan(bound, call)[1]

    def plan(self, bound: BoundType, call: Call, below: int | None = None) -> tuple[Plan | None, Estimate]:
        """How a step is laid out in memory, and what it costs then: the fastest plan that fits well, else the one that takes least.

        `below`: bytes that were too many; plans that come near them are passed over, but for the smallest.
        """
        measured = self.timings.correction(bound.name, bound.type.family, self.device, self.dtype, size_of(call))
        plans = bound.plans(call)
        if not plans:
            return None, self._judged(bound, measured.of(bound.estimate(call)))
        room = self.room_bytes if below is None else min(self.room_bytes, int(below * SMALLER))
        least: tuple[Plan, Estimate] | None = None
        for plan in plans:
            found = measured.of(bound.estimate(replace(call, plan=plan)))
            if found.memory_bytes is None or found.memory_bytes <= room * COMFORT:
                return plan, self._judged(bound, found)
            if least is None or found.memory_bytes < (least[1].memory_bytes or 0):
                least = plan, found
        assert least is not None
        # Only where a failure is an error, and rows are there before it begins.
        plan = replace(least[0], probe=self.device.startswith("cuda") and not least[0].sampled)
        return plan, self._judged(bound, least[1])

    def _judged(self, bound: BoundType, found: Estimate) -> Estimate:
        """An estimate with the judge, which is loaded when the model that was made is not in memory any more."""
        if bound.type.output != "model" or found.memory_bytes is None or found.memory_bytes >= self.judge_bytes:
            return found
        return replace(found, memory_bytes=self.judge_bytes)

    def ran_out(self, bound: BoundType, call: Call) -> None:
        """Let later forecasts know that the work, with its plan, did not fit into what was there."""
        plain = bound.estimate(call)
        if plain.memory_bytes is not None:
            took = max(int(self.now().room_bytes * MORE), int(plain.memory_bytes / SMALLER))
            self._add(bound, call, Estimate(None, plain.memory_bytes), 0.0, took)

    def measured(self, bound: BoundType, call: Call, outcome: Mapping[str, Any]) -> None:
        """Add a step that did its work to the timings; `call` with the plan that it had."""
        peak = outcome.get("peak_gpu" if call.on_gpu else "peak_rss")
        # What the libraries' context takes is not in what the allocator counts.
        peak = peak + PROCESS_BYTES if call.on_gpu and peak is not None else peak
        self._add(bound, call, bound.estimate(call), outcome["seconds"]["execute"], peak)

    def _add(self, bound: BoundType, call: Call, plain: Estimate, seconds: float, memory: int | None) -> None:
        self.timings.add(
            Measurement(
                type=bound.name,
                family=bound.type.family,
                device=self.device.partition(":")[0],
                dtype=self.dtype,
                scale=scale(size_of(call)),
                predicted_seconds=plain.seconds,
                seconds=seconds,
                predicted_memory=plain.memory_bytes,
                memory=memory,
                formula=FORMULA,
            )
        )

    def lacks(self, estimate: Estimate, plan: Plan | None = None) -> str | None:
        """Why the work does not fit, or None: memory of the device, free disk. `plan`: the one that was estimated."""
        near = NEAR if plan is not None and plan.probe else 1.0
        where = "GPU memory" if self.device.startswith("cuda") else "memory"
        if estimate.memory_bytes is not None and estimate.memory_bytes > self.room_bytes * near:
            return f"needs {_gib(estimate.memory_bytes)} of {where}; there are {_gib(self.room_bytes)}"
        if estimate.disk_bytes is not None and self.disk is not None:
            free = shutil.disk_usage(self.disk).free
            if estimate.disk_bytes > free:
                return f"writes {_gib(estimate.disk_bytes)}; {_gib(free)} are free on the disk"
        return None


def judge_bytes(judges: Iterable[ModelObject], dtype: str) -> int:
    """What the largest of some judges takes of a device while it reads answers; 0 without one."""
    width = Call({}, {}, {}, dtype=dtype).width
    return max((int(PROCESS_BYTES + answering(judge, width)) for judge in judges), default=0)


def _free_bytes(device: str) -> int | None:
    """Memory that is free now, of the GPU that has least of it or of the machine; None where nobody tells."""
    if not device.startswith("cuda"):
        return psutil.virtual_memory().available
    gpus, _ = read_gpus()
    return min((gpu["memory_total"] - gpu["memory_used"] for gpu in gpus if gpu["memory_total"]), default=None)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def size_of(call: Call) -> int:
    """Parameters of the largest model that an action works with; 0 when it works with none."""
    return max((model.parameters for models in call.models.values() for model in models), default=0)
