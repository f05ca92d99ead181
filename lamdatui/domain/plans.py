"""How the work of a training step is laid out in memory. Pure.

No digest covers it: it changes what is learned by rounding, and where a loss is a mean over a pass (preference losses) by how rows are weighed;
there, all rows at once come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """The effective batch is `micro_batch` × `accumulation`, and the user's."""

    micro_batch: int
    """Rows of one forward and backward pass."""
    accumulation: int
    """Passes before an optimiser step."""
    checkpointing: bool
    """Whether activations are computed again for the backward pass, instead of being kept: a third more work."""
    sampled: int = 0
    """Answers that are sampled at once, where a step samples."""
    probe: bool = False
    """Whether forecasts can't tell that it fits: then it is tried with its longest rows before it begins."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `plan_from_json` reads it back."""
        return asdict(self)

    def describe(self) -> str:
        """`micro-batch 2 × 4, checkpointing`."""
        more = (", checkpointing" if self.checkpointing else "") + (", tried with its longest rows first" if self.probe else "")
        return f"micro-batch {self.micro_batch} × {self.accumulation}{more}"


def plan_from_json(data: Mapping[str, Any] | None) -> Plan | None:
    """The plan that `Plan.to_json` wrote. Raises KeyError or TypeError for something else."""
    return None if data is None else Plan(**{name: data[name] for name in Plan.__slots__ if name in data})


def divisors(batch: int) -> list[int]:
    """Sizes of micro-batches that make up a batch, the largest first."""
    return [size for size in range(batch, 0, -1) if batch % size == 0]
