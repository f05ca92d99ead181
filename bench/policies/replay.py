"""One search against a table: the policy sees what it would see in a run, and each action's result is looked up.

Legal is what the table has: a node whose parents this run has made and that it has not run. The opening, the seeds, the cap on
candidates of one type and the order of the trials are those of the engine. Nothing of the sealed rows reaches the policy.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.policies.table import Node, Table
from lamdatui.base.jsonio import digest
from lamdatui.domain.actions import Action, Estimate, Inputs, Value
from lamdatui.domain.choice import Candidate, Policy, PolicyError, Proposal, View
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.trials import Trial
from lamdatui.engine.candidates import LIMIT

EVALUATE_SECONDS = 0.3
"""What scoring one model took when the tables were made; part of the compute that a trial costs."""
KEEP = 0.85
"""Share of the actions that a variant of a table keeps."""
SUMMARIES = {
    "sft": "fine-tune a model on a dataset of prompts and answers",
    "dpo": "train a model to prefer chosen answers over rejected ones",
    "merge_linear": "average the weights of several models",
    "merge_ties": "merge several models' changes to a base, resolving conflicts of sign",
}


@dataclass
class Run:
    """What one search did: the nodes in order (the opening first), who chose each, and what choosing cost."""

    nodes: list[int] = field(default_factory=list)
    chosen_by: list[str] = field(default_factory=list)
    refused: int = 0
    """Proposals that were not legal or were tried already; the trial then goes to a random legal node."""
    misses: int = 0
    """Suggestions of TPE that no legal, untried action was; it looks again by itself."""
    tokens: int = 0
    planner_seconds: float = 0.0


class Search:
    """One table, one policy, one seed. With `anonymous`, datasets are called D1, D2, …"""

    def __init__(self, table: Table, policy: Policy, seed: int, *, anonymous: bool = False) -> None:
        self.table = table
        self.policy = policy
        self.seed = seed
        self.run = Run()
        self._names = _dataset_names(table, anonymous)
        self._pool = ObjectPool()
        self._trials: list[Trial] = []
        self._made: dict[int, str] = {}
        self._memory, self._memory_by = "", ""
        self._pool.add(ModelObject("base", "base", table.name, "l", "w"))
        self._made[0] = "base"
        for name, (shown, kind) in self._names.items():
            self._pool.add(DatasetObject(shown, f"d-{name}", kind, 1200, "p"))

    async def go(self, trials: int) -> Run:
        """Search for that many trials, the opening's included."""
        for number in range(1, trials + 1):
            view = self._view(number)
            if not view.candidates:
                break
            if number <= len(self.table.opening):
                node = self.table.opening[number - 1]
                self._take(number, node, Proposal(self._action(self.table.nodes[node]), "", "opening"))
                continue
            proposal = await self._propose(view)
            self._take(number, self._node(proposal.action), proposal)
            await self._observe(number)
        return self.run

    async def _propose(self, view: View) -> Proposal:
        legal = {item.action.digest for group in view.candidates.values() for item in group}
        try:
            proposal = await self.policy.propose(view)
        except PolicyError:
            proposal = None
        self._count_calls()
        if proposal is not None and proposal.action.digest in legal:
            self.run.misses += int(proposal.details.get("misses", 0))
            return proposal
        self.run.refused += 1
        kind = random.Random(f"{self.seed}/{view.number}").choice(sorted(view.candidates))
        return Proposal(view.candidates[kind][0].action, "", "replaced")

    async def _observe(self, number: int) -> None:
        trial = self._trials[-1]
        try:
            outcome = await self.policy.observe(self._view(number, listed=False), trial)
        except PolicyError:
            return
        if outcome.memory is not None:
            self._memory, self._memory_by = outcome.memory, outcome.by
        self._count_calls()

    def _count_calls(self) -> None:
        for call in self.policy.calls:
            self.run.tokens += call.tokens
            self.run.planner_seconds += call.seconds
        self.policy.calls.clear()

    def _take(self, number: int, node: int, proposal: Proposal) -> None:
        name = f"m{number}"
        action = self._action(self.table.nodes[node])
        self.run.nodes.append(node)
        self.run.chosen_by.append(proposal.details.get("chooser", proposal.proposed_by))
        self._made[node] = name
        self._pool.add(ModelObject(name, f"n{node}", self.table.name, "l", "w", trial=number))
        told: Any = {"details": proposal.details}
        objective = round(self.table.objective(node), 6)
        self._trials.append(
            Trial(number, "done", action.to_json(), proposal.proposed_by, model=name, objective=objective, proposal=told)
        )

    def _view(self, number: int, *, listed: bool = True) -> View:
        scores = {name: self.table.score(node) for node, name in self._made.items()}
        return View(
            number=number,
            seed=self.seed,
            pool=self._pool,
            trials=tuple(self._trials),
            candidates=self._candidates(number) if listed else {},
            summaries=SUMMARIES,
            objective="maximise "
            + " + ".join(f"{w:g} × {task}" for w, task in zip(self.table.weights, self.table.tasks, strict=True)),
            scores=scores,
            objectives={name: round(self.table.objective(node), 6) for node, name in self._made.items()},
            memory=self._memory,
            memory_by=self._memory_by,
            trials_left=0,
            weights=dict(zip(self.table.tasks, self.table.weights, strict=True)),
        )

    def _candidates(self, number: int) -> dict[str, tuple[Candidate, ...]]:
        found: dict[str, list[Candidate]] = {}
        for node in legal(self.table, self._made):
            found.setdefault(node.type, []).append(Candidate(self._action(node), Estimate(seconds=node.seconds)))
        draw = random.Random(f"{self.seed}/{number}")
        return {kind: tuple(draw.sample(group, min(LIMIT, len(group)))) for kind, group in sorted(found.items())}

    def _action(self, node: Node) -> Action:
        models = tuple(self._made[parent] for parent in node.models)
        inputs: Inputs = {"models": models} if node.type.startswith("merge") else {"model": models}
        if node.dataset is not None:
            inputs["dataset"] = (self._names[node.dataset][0],)
        params: dict[str, Value] = dict(node.params)
        if node.type == "sft":
            params["data_fraction"] = node.fraction
        return Action(node.type, inputs, params, 1, digest([self.table.name, node.id]))

    def _node(self, action: Action) -> int:
        return next(n.id for n in legal(self.table, self._made) if digest([self.table.name, n.id]) == action.digest)


def legal(table: Table, made: Mapping[int, str]) -> list[Node]:
    """The nodes that can be run now: parents are there, it is not; other seeds of a node are no actions of a search."""
    return [
        node
        for node in table.nodes.values()
        if node.type and node.seed == 1 and node.status == "ok" and node.id not in made and all(p in made for p in node.models)
    ]


def _dataset_names(table: Table, anonymous: bool) -> dict[str, tuple[str, Any]]:
    """Dataset → the name that the policy sees, and its format."""
    kinds: dict[str, Any] = {}
    for node in table.nodes.values():
        if node.dataset is not None:
            kinds[node.dataset] = "preference" if node.type == "dpo" else "sft"
    return {name: (f"D{place + 1}" if anonymous else name, kind) for place, (name, kind) in enumerate(kinds.items())}


@dataclass(frozen=True)
class Curve:
    """What one run attained, by trial: the sealed objective of the model that is best on the search rows so far."""

    sealed: tuple[float, ...]
    search: tuple[float, ...]
    seconds: tuple[float, ...]
    """Compute that was spent up to each trial."""


def curve(table: Table, run: Run) -> Curve:
    """The anytime curve of a run."""
    best, spent = 0, 0.0
    sealed, search, seconds = [], [], []
    for node in run.nodes:
        spent += table.nodes[node].seconds + EVALUATE_SECONDS
        if table.objective(node) > table.objective(best):
            best = node
        sealed.append(table.objective(best, "sealed"))
        search.append(table.objective(best))
        seconds.append(spent)
    return Curve(tuple(sealed), tuple(search), tuple(seconds))


def variant(table: Table, seed: int, keep: float = KEEP) -> Table:
    """Another space and another draw of the search rows, for one seed: policies that draw nothing differ from seed to seed, too.

    A random share of the actions is taken away (never the opening; what stands on them goes as well), and the search rows are
    resampled with replacement. The sealed rows stay. All policies get the same variant for the same seed.
    """
    rng = np.random.default_rng([seed, 20261])
    kept: dict[int, Node] = {}
    for node in table.nodes.values():
        stays = not node.type or node.id in table.opening or rng.random() < keep
        if stays and all(parent in kept for parent in node.models):
            kept[node.id] = node
    tasks, rows = len(table.tasks), table.rows["search"]
    drawn = np.concatenate([task * rows + rng.integers(0, rows, size=rows) for task in range(tasks)])
    rest = np.arange(tasks * rows, tasks * (rows + table.rows["sealed"]))
    order = np.concatenate([drawn, rest])
    return replace(table, nodes=kept, bits={node: table.bits[node][order] for node in kept if node in table.bits})


def shorten(curve: Curve, trials: int) -> Curve:
    """The first trials of a curve; a run that ended early stands still."""
    pad = trials - len(curve.sealed)
    return replace(
        curve,
        sealed=(*curve.sealed, *[curve.sealed[-1]] * pad)[:trials],
        search=(*curve.search, *[curve.search[-1]] * pad)[:trials],
        seconds=(*curve.seconds, *[curve.seconds[-1]] * pad)[:trials],
    )
