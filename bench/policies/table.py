"""The stored form of a space: every node, and for every model which rows of every task it has right.

A table is one file, JSON under xz. The bits of all models are one array, packed eight to a byte: a row for each node that has
a model, in it the search rows of each task, then the sealed rows of each task.
"""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VERSION = 1
Split = Literal["search", "sealed"]
Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Node:
    """One model of the space, or the action that should have made it. Node 0 is the base, which has no type."""

    id: int
    type: str
    models: tuple[int, ...]
    """Parents' ids, as they were given to the action; the base that merge_ties also takes is not among them."""
    dataset: str | None
    params: dict[str, Any]
    """Hyperparameters in which nodes of a type differ; `Table.settings` has all the others."""
    fraction: float
    """Share of the dataset, and of the steps with it."""
    seed: int
    depth: int
    status: Literal["ok", "failed"]
    error: str | None
    """Class of the failure; `parent`: there was no model to start from."""
    seconds: float
    """What the action took, without the evaluation; on one core that had a busy neighbour."""

    @property
    def work(self) -> tuple[Any, ...]:
        """What the node is, apart from its seed."""
        return (self.type, self.models, self.dataset, tuple(sorted(self.params.items())), self.fraction)


@dataclass
class Table:
    """A space with its results. Parents precede their children; ids are consecutive."""

    name: str
    tasks: tuple[str, ...]
    weights: tuple[float, ...]
    """Of the tasks in the objective."""
    rows: dict[Split, int]
    """Rows of each task in a split."""
    nodes: dict[int, Node]
    opening: tuple[int, ...]
    """What a run begins with: SFT of the base, DPO on that, the linear merge of both."""
    settings: dict[str, dict[str, Any]]
    """Type → hyperparameters that are the same in all of its nodes."""
    made: dict[str, Any]
    """How: versions of what was used, and how many rows were also decoded."""
    bits: dict[int, Bits] = field(repr=False)
    """Node → which rows are right, in the file's order."""

    def __post_init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        self._same: dict[tuple[Any, ...], dict[int, int]] = {}
        for node in self.nodes.values():
            self._same.setdefault(node.work, {})[node.seed] = node.id
            if node.seed == 1 and node.fraction == 1.0:
                for model in node.models:
                    self._children.setdefault(model, []).append(node.id)

    def search(self, node: int) -> Bits:
        """Which search rows are right [tasks, rows]. Raises KeyError for a node without a model."""
        return self._split(node)[0]

    def sealed(self, node: int) -> Bits:
        """Which sealed rows are right [tasks, rows]. Raises KeyError for a node without a model."""
        return self._split(node)[1]

    def _split(self, node: int) -> tuple[Bits, Bits]:
        """The search and the sealed rows of a node."""
        count, cut = len(self.tasks), len(self.tasks) * self.rows["search"]
        found = self.bits[node]
        return found[:cut].reshape(count, -1), found[cut:].reshape(count, -1)

    def score(self, node: int, split: Split = "search") -> dict[str, float]:
        """Task → share of rows that are right."""
        found = self.search(node) if split == "search" else self.sealed(node)
        return {task: float(row.mean()) for task, row in zip(self.tasks, found, strict=True)}

    def objective(self, node: int, split: Split = "search") -> float:
        """The weighted sum of the tasks' scores."""
        return sum(weight * value for weight, value in zip(self.weights, self.score(node, split).values(), strict=True))

    def children(self, node: int) -> list[int]:
        """Nodes at full data, seed 1, that have it among their parents; empty for what was not expanded."""
        return list(self._children.get(node, ()))

    def find(
        self,
        type: str,
        models: Sequence[int],
        dataset: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        fraction: float = 1.0,
        seed: int = 1,
    ) -> int | None:
        """The node that is this action, or None."""
        work = (type, tuple(models), dataset, tuple(sorted((params or {}).items())), fraction)
        return self._same.get(work, {}).get(seed)

    def quarter(self, node: int) -> int | None:
        """The node that does the same on a smaller share of the data, or None."""
        one = self.nodes[node]
        shares = {other.fraction for other in self.nodes.values() if other.fraction < one.fraction}
        found = (self.find(one.type, one.models, one.dataset, one.params, fraction=share) for share in sorted(shares))
        return next((each for each in found if each is not None), None)

    def repeats(self, node: int) -> list[int]:
        """Nodes that do the same with other seeds, on the same parents."""
        return [other for seed, other in sorted(self._same[self.nodes[node].work].items()) if other != node]

    def save(self, path: Path) -> None:
        """Write the file; the same table is the same bytes."""
        order = sorted(self.bits)
        packed = np.packbits(np.array([self.bits[node] for node in order], dtype=bool), axis=1)
        body = {
            "version": VERSION,
            "name": self.name,
            "tasks": self.tasks,
            "weights": self.weights,
            "rows": self.rows,
            "opening": self.opening,
            "settings": self.settings,
            "made": self.made,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "with_bits": order,
            "bits": base64.b64encode(packed.tobytes()).decode(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(json.dumps(body, sort_keys=True).encode(), preset=9))

    @classmethod
    def load(cls, path: Path | str) -> Table:
        """Read the file. Raises ValueError for one of another version."""
        body = json.loads(lzma.decompress(Path(path).read_bytes()))
        if body["version"] != VERSION:
            raise ValueError(f"{path} is of version {body['version']}, not {VERSION}; build it again")
        width = len(body["tasks"]) * sum(body["rows"].values())
        packed = np.frombuffer(base64.b64decode(body["bits"]), dtype=np.uint8).reshape(len(body["with_bits"]), -1)
        bits = np.unpackbits(packed, axis=1, count=width).astype(bool)
        nodes = [Node(**{**one, "models": tuple(one["models"])}) for one in body["nodes"]]
        return cls(
            name=body["name"],
            tasks=tuple(body["tasks"]),
            weights=tuple(body["weights"]),
            rows=body["rows"],
            nodes={node.id: node for node in nodes},
            opening=tuple(body["opening"]),
            settings=body["settings"],
            made=body["made"],
            bits=dict(zip(body["with_bits"], bits, strict=True)),
        )
