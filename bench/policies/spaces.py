"""Bounded spaces of pipelines over the lab's models: which models there are and how each is made, before any is.

A space is a list of nodes. Node 0 is the base; every other node is one action on earlier nodes. "All actions" on a model are
18: SFT on four datasets, two learning rates and two lengths, and DPO at two learning rates. The models that are expanded are
drawn by a seed, never by a score, so that nothing of the outcome is in the choice:

    depth 1   all actions on the base
    depth 2   all actions on 12 models of depth 1, and both merges of every pair of these
    depth 3   all actions on 12 models of depth 2, and both merges of 30 pairs with at least one of these
    opening   SFT → DPO on it → the linear merge of both, which a run begins with: all three are expanded (the merge's
              own 18 are the only nodes of depth 4)

Every SFT node of depth 1 and 2 is there again with a quarter of its data: a leaf, for policies that look before they pay. A
tenth as many as there are full nodes is repeated with other seeds on the same parents: that is the noise. Merges are never
repeated, as they have none. Pure: no torch, no files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lamdatui.tasks import strings

SEED = 7
"""Of the draws of what is expanded and repeated."""
QUARTER = 0.25
REPEAT_SEEDS = (2, 3)
MERGES = ("merge_linear", "merge_ties")
FIXED: dict[str, dict[str, Any]] = {
    "sft": {"method": "full", "batch_size": 32, "max_length": 64, "warmup_ratio": 0.1},
    "dpo": {"method": "full", "batch_size": 16, "max_length": 64, "max_steps": 25, "beta": 0.1},
    "merge_linear": {},
    "merge_ties": {},
}
"""Hyperparameters that every node of a type has; what is not named here or in a node is the action's default."""


@dataclass(frozen=True)
class Spec:
    """What a space is made over, and how wide it is."""

    name: str
    base: str
    tasks: tuple[str, ...]
    sft: tuple[str, ...]
    """Datasets of SFT; the opening takes the first one."""
    dpo: str
    sft_rates: tuple[float, ...] = (1e-3, 4e-3)
    sft_steps: tuple[int, ...] = (20, 60)
    dpo_rates: tuple[float, ...] = (1e-4, 3e-4)
    opening: tuple[float, int, float] = (1e-3, 60, 3e-4)
    """Learning rate and steps of the opening's SFT, learning rate of its DPO."""
    expanded: tuple[int, int] = (12, 12)
    """Models of depth 1 and 2 that get all actions."""
    merged: int = 4
    """How many of the expanded models of depth 2 are merges."""
    pairs: tuple[int, int] = (66, 30)
    """Merged pairs at depth 2 and 3."""
    quartered: int = 2
    """SFT nodes down to this depth are there with a quarter of their data too."""
    repeated: float = 0.1
    generated: Mapping[str, dict[str, int]] = field(default_factory=dict)
    """Datasets that the lab doesn't have: name → skill → rows; `dpo` among them becomes preferences."""


SPECS = {
    spec.name: spec
    for spec in (
        Spec("llama", "llama", ("reverse", "copy", "call"), ("call_replay", "reverse", "copy", "call"), "prefer"),
        Spec(
            "phi",
            "phi",
            ("swap", "upper", "double"),
            ("swap_replay", "swap", "upper", "double"),
            "swap_prefer",
            generated={
                "swap": {"swap": 1200},
                "swap_replay": {"swap": 900, "upper": 300, "double": 300},
                "swap_prefer": {"swap": 500, "upper": 400, "double": 300},
            },
        ),
    )
}


@dataclass(frozen=True)
class Planned:
    """A node before it is made. `models` are its parents' ids; `key` depends on what it is, not on what else is there."""

    id: int
    key: str
    type: str
    models: tuple[int, ...]
    dataset: str | None
    params: dict[str, Any]
    fraction: float
    seed: int
    depth: int
    expandable: bool = False


class _Space:
    """Nodes so far, each at most once."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.nodes = [Planned(0, _key("base", spec.base), "", (), None, {}, 1.0, 1, 0, expandable=True)]
        self.by_key: dict[str, int] = {}

    def add(
        self,
        kind: str,
        models: Iterable[int],
        dataset: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        fraction: float = 1.0,
        seed: int = 1,
    ) -> int:
        """The id of a node, which is new if it has to be."""
        parents, params = tuple(models), dict(params or {})
        keys = [self.nodes[parent].key for parent in parents]
        key = _key(kind, keys, dataset, FIXED[kind] | params, fraction, seed)
        if key not in self.by_key:
            depth = 1 + max(self.nodes[parent].depth for parent in parents)
            self.by_key[key] = len(self.nodes)
            self.nodes.append(Planned(len(self.nodes), key, kind, parents, dataset, params, fraction, seed, depth))
        return self.by_key[key]

    def expand(self, model: int) -> list[int]:
        """All actions on one model."""
        spec = self.spec
        self.allow(model)
        found = [
            self.add("sft", [model], data, {"learning_rate": rate, "max_steps": steps})
            for data, rate, steps in itertools.product(spec.sft, spec.sft_rates, spec.sft_steps)
        ]
        return found + [self.add("dpo", [model], spec.dpo, {"learning_rate": rate}) for rate in spec.dpo_rates]

    def merge(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        """Both merges of each pair."""
        found = []
        for pair, kind in itertools.product(pairs, MERGES):
            for model in pair:
                self.allow(model)
            found.append(self.add(kind, pair))
        return found

    def allow(self, model: int) -> None:
        """Let a node have children."""
        self.nodes[model] = replace(self.nodes[model], expandable=True)


def enumerate_space(spec: Spec) -> list[Planned]:
    """All nodes, in the order in which they are made; a node's id is its place.

    First those at full data by depth, then the quarters, then the repeats: what is made up to any point in time is a
    space of its own.
    """
    space, draw = _Space(spec), random.Random(f"{spec.name}/{SEED}")
    rate, steps, dpo_rate = spec.opening
    first = space.expand(0)
    opening = space.add("sft", [0], spec.sft[0], {"learning_rate": rate, "max_steps": steps})
    ones = sorted({opening, *_some(draw, [node for node in first if node != opening], spec.expanded[0] - 1)})
    second = [node for model in ones for node in space.expand(model)]
    tuned = space.add("dpo", [opening], spec.dpo, {"learning_rate": dpo_rate})
    joined = space.merge(sorted(_some(draw, list(itertools.combinations(ones, 2)), spec.pairs[0])))
    twos = {tuned, *_some(draw, joined, spec.merged)}
    twos |= {*_some(draw, [node for node in second if node != tuned], spec.expanded[1] - len(twos))}
    for model in sorted(twos):
        space.expand(model)
    pairs = [pair for pair in itertools.combinations(sorted({*ones, *twos}), 2) if twos & {*pair} and pair != (opening, tuned)]
    space.merge(sorted([(opening, tuned), *_some(draw, pairs, spec.pairs[1] - 1)]))
    space.expand(space.add("merge_linear", [opening, tuned]))
    full = space.nodes[1:]
    for node in full:
        if node.type == "sft" and node.depth <= spec.quartered:
            space.add("sft", node.models, node.dataset, node.params, fraction=QUARTER)
    trained = [node for node in full if node.type not in MERGES]
    for node in sorted(_some(draw, trained, round(spec.repeated * len(full))), key=lambda node: node.id):
        for seed in REPEAT_SEEDS:
            space.add(node.type, node.models, node.dataset, node.params, seed=seed)
    return space.nodes


def opening_ids(spec: Spec, nodes: list[Planned]) -> tuple[int, int, int]:
    """The opening's SFT, its DPO, and the merge of both."""
    rate, steps, dpo_rate = spec.opening
    found: list[int] = []
    wanted: list[tuple[str, tuple[int, ...], str | None, dict[str, Any]]] = [
        ("sft", (0,), spec.sft[0], {"learning_rate": rate, "max_steps": steps}),
        ("dpo", (), spec.dpo, {"learning_rate": dpo_rate}),
        ("merge_linear", (), None, {}),
    ]
    for kind, models, dataset, params in wanted:
        parents = models or (tuple(found) if kind == "merge_linear" else (found[0],))
        what = (kind, parents, dataset, params, 1.0, 1)
        found.append(next(n.id for n in nodes if (n.type, n.models, n.dataset, n.params, n.fraction, n.seed) == what))
    return found[0], found[1], found[2]


def generated_rows(spec: Spec, name: str, seed: int) -> list[dict[str, str]]:
    """The rows of a dataset of `spec.generated`, from the training split: no argument of a task is among them."""
    parts = spec.generated[name]
    if name == spec.dpo:
        pairs = strings.preferences(parts, "train", seed)
        return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    return [{"prompt": row.prompt, "completion": row.completion} for row in strings.mixture(parts, "train", seed)]


def _some(draw: random.Random, items: list[Any], count: int) -> list[Any]:
    """`count` of them, or all."""
    return draw.sample(items, max(0, min(count, len(items))))


def _key(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
