"""The models of a run by lineage: a forest that takes changes one by one, and its rows. Pure: state in, rows out, no textual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lamdatui.base.text import one_line
from lamdatui.domain.lineage import _inputs, model_inputs
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.ui.view.format import Mark, cost_of, mark
from lamdatui.ui.view.state import ViewState

if TYPE_CHECKING:
    from lamdatui.domain.records import Gain

Json = dict[str, Any]
Order = Literal["number", "objective", "gain", "cost"]
ORDERS: tuple[Order, ...] = ("number", "objective", "gain", "cost")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row shows of its node. `scores` is task → mean of the search split; `cost` is seconds of work."""

    sign: Mark
    name: str
    """As it is shown below its parent; `full` names the parent too."""
    full: str
    note: str = ""
    scores: Json = field(default_factory=dict)
    gain: Gain | None = None
    cost: float | None = None
    text: str = ""
    """What the filter looks at, in small letters."""


@dataclass(slots=True, eq=False)
class Node:
    """A base model or a trial. Its facts are made when they are first looked at: most rows of a large run never are."""

    key: str
    run: RunState
    number: int = -1
    model: str | None = None
    trial: Trial | None = None
    parents: tuple[str, ...] = ()
    """Its models, in slot order."""
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    also: list[Node] = field(default_factory=list)
    """Merges that have this one among their further parents."""
    known: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What its row shows."""
        if self.known is None:
            self.known = _trial_facts(self, self.trial) if self.trial else _base_facts(self)
        return self.known


class TreeRow(NamedTuple):
    """One line: a node, or a reference to a merge that stands below its first parent; `above` is then the further parent."""

    node: Node
    depth: int = 0
    above: Node | None = None

    @property
    def key(self) -> str:
        """Its name through updates."""
        return f"{self.node.key}@{self.above.key}" if self.above else self.node.key


@dataclass(frozen=True, slots=True)
class Change:
    """What an update did: other rows, marks of all rows, or the content of some nodes."""

    rows: bool = False
    paint: bool = False
    keys: frozenset[str] = frozenset()


class Forest:
    """The forest with its folds, filter and order. `take` costs what changed, not what there is."""

    def __init__(self) -> None:
        self.rows: list[TreeRow] = []
        self.nodes: dict[str, Node] = {}
        self.folded: set[str] = set()
        self.order: Order = "number"
        self.query = ""
        self.marked = ""
        self.best: Node | None = None
        self.path: frozenset[str] = frozenset()
        self.tasks: dict[str, None] = {}
        self.depth = 0
        """Of the deepest row."""
        self.matching: frozenset[str] | None = None
        """Keys that the filter finds; None without a filter."""
        self._shown: set[str] = set()
        self._roots: list[Node] = []
        self._by_model: dict[str, Node] = {}
        self._run: RunState | None = None

    def take(self, view: ViewState) -> Change:
        """Take in what the state's last changes touched; a state that was replaced is read as a whole."""
        run, touched = view.run, view.touched
        view.touched = set()
        before = self.rows
        if run is not self._run:
            self._take_all(run)
            return Change(True, self._find_best(view))
        keys: set[str] = set()
        for table, name in touched:
            item = run.pool.items.get(name) if table == "object" else None
            if isinstance(item, ModelObject) and item.trial is None:
                self._take_base(item)
        for number in sorted(int(name) for table, name in touched if table == "trial"):
            if number in run.trials:
                keys.add(self._take_trial(run.trials[number]))
        for table, name in touched:
            if table == "score" and (node := self._by_model.get(name)):
                node.known = None
                self.tasks.update(dict.fromkeys(run.scores.get(name, ())))
                keys.add(node.key)
        return Change(self.rows is not before, self._find_best(view), frozenset(keys))

    def node_of(self, model: str) -> Node | None:
        """The node that made a model, or is it."""
        return self._by_model.get(model)

    def place(self, key: str) -> int | None:
        """Index of a row; None where it is folded away, filtered out or gone."""
        name, _, above = key.partition("@")
        return self._place(self.nodes.get(name), self.nodes.get(above))

    def nearest(self, key: str) -> int | None:
        """Index of a row, or of the nearest one above it in its lineage that is shown."""
        place = self.place(key)
        node = self.nodes.get(key.partition("@")[0])
        while place is None and node is not None:
            place, node = self._place(node), node.parent
        return place

    def foldable(self, row: TreeRow) -> bool:
        """Whether something stands below a row, shown or folded away."""
        if row.above is not None or self.order != "number":
            return False
        if self.matching is not None:
            return any(child.key in self._shown for child in row.node.children)
        return bool(row.node.children or row.node.also)

    def hidden(self, row: TreeRow) -> int:
        """How many rows are folded away below a row."""
        folded = row.above is None and self.order == "number" and self.matching is None and row.node.key in self.folded
        return _count(row.node) if folded else 0

    def lasts(self, row: TreeRow) -> list[bool]:
        """For each level from the first below a root to the row's own: whether it is the last one of its parent."""
        found: list[bool] = []
        node, above = row.node, row.above
        while (parent := above or node.parent) is not None:
            found.append(self._is_last(node, parent, above is not None))
            node, above = parent, None
        found.reverse()
        return found

    def toggle(self, key: str, fold: bool | None = None) -> bool:
        """Fold or unfold a node, or turn it; whether anything changed."""
        node = self.nodes.get(key)
        if node is None or not (node.children or node.also) or self.matching is not None or self.order != "number":
            return False
        fold = key not in self.folded if fold is None else fold
        if fold == (key in self.folded):
            return False
        (self.folded.add if fold else self.folded.discard)(key)
        self.lay_out()
        return True

    def fold_all(self, fold: bool) -> None:
        """Fold every node, or none."""
        self.folded = {node.key for node in self.nodes.values() if node.children or node.also} if fold else set()
        self.lay_out()

    def arrange(self, *, query: str | None = None, order: Order | None = None) -> None:
        """Another filter or order. In every order but `number` the rows are a list, the best first."""
        self.query = self.query if query is None else query.strip().lower()
        self.order = order or self.order
        self.lay_out()

    def lay_out(self) -> None:
        """Make all rows anew."""
        words = self.query.split()
        nodes: Iterable[Node] = self.nodes.values()
        self.matching = None
        if words:
            nodes = [node for node in nodes if all(word in node.facts.text for word in words)]
            self.matching, self._shown = frozenset(node.key for node in nodes), _with_ancestors(nodes)
        self.rows = self._tree() if self.order == "number" else self._ranked(nodes)
        self.depth = max((row.depth for row in self.rows), default=0)

    def _take_all(self, run: RunState) -> None:
        self._run, self.nodes, self._by_model, self._roots = run, {}, {}, []
        self.best, self.path, self.tasks, self.rows = None, frozenset(), {}, []
        for item in run.pool.models:
            if item.trial is None:
                self._add(Node(f"model:{item.id}", run, model=item.id))
                self.tasks.update(dict.fromkeys(run.scores.get(item.id, ())))
        for trial in run.trials.values():
            self._add(Node(f"trial:{trial.number}", run, trial.number, trial=trial))
        self.lay_out()

    def _add(self, node: Node) -> None:
        self.nodes[node.key] = node
        self._read(node)
        self._attach(node)

    def _read(self, node: Node) -> None:
        """What the forest's shape needs of a node; its facts are made when they are looked at."""
        trial, node.known = node.trial, None
        if trial is not None:
            node.model, node.parents = trial.model, tuple(dict.fromkeys(model_inputs(node.run, trial.action)))
            self.tasks.update(dict.fromkeys(trial.scores or ()))
        if node.model:
            self._by_model.setdefault(node.model, node)

    def _take_base(self, item: ModelObject) -> None:
        if (key := f"model:{item.id}") not in self.nodes and self._run is not None:
            self._add(Node(key, self._run, model=item.id))
            self.lay_out()

    def _take_trial(self, trial: Trial) -> str:
        key, run = f"trial:{trial.number}", self._run
        node = self.nodes.get(key)
        if node is None and run is not None:
            node = Node(key, run, trial.number, trial=trial)
            self._add(node)
            self._insert(node)
        elif node is not None:
            before, parents = node.known, node.parents
            self._read(node)
            if node.parents != parents:
                self._move(node, parents)
            elif (self.query or self.order != "number") and before != node.facts:
                self.lay_out()
        return key

    def _attach(self, node: Node) -> None:
        above = [self._by_model[name] for name in node.parents if name in self._by_model and name != node.model]
        node.parent = above[0] if above else None
        beside = node.parent.children if node.parent else self._roots
        beside.append(node)
        if len(beside) > 1 and beside[-2].number > node.number:
            beside.sort(key=lambda item: item.number)
        for other in above[1:]:
            other.also.append(node)

    def _insert(self, node: Node) -> None:
        """Put a newly attached node's row, and its references, where they belong; lay all out where that is not simple."""
        beside = node.parent.children if node.parent else self._roots
        if self.query or self.order != "number" or node.children or beside[-1] is not node:
            self.lay_out()
            return
        rows = self.rows.copy()
        if node.parent is None:
            rows.append(TreeRow(node))
        else:
            self._put(rows, node, node.parent, len(node.parent.also))
        for other in (self._by_model.get(name) for name in node.parents[1:]):
            if other is not None and node in other.also:
                self._put(rows, node, other, 0, other)
        self.rows = rows

    def _put(self, rows: list[TreeRow], node: Node, parent: Node, after: int, above: Node | None = None) -> None:
        place = next((place for place, row in enumerate(rows) if row.node is parent and row.above is None), None)
        if place is None or parent.key in self.folded:
            return
        depth = rows[place].depth
        end = next((later for later in range(place + 1, len(rows)) if rows[later].depth <= depth), len(rows))
        rows.insert(end - after, TreeRow(node, depth + 1, above))
        self.depth = max(self.depth, depth + 1)

    def _move(self, node: Node, before: tuple[str, ...]) -> None:
        """A trial has other inputs now: it was proposed, or a person changed its action."""
        (node.parent.children if node.parent else self._roots).remove(node)
        simple = node.parent is None and not node.children and not node.also and bool(self.rows) and self.rows[-1].node is node
        for other in (self._by_model.get(name) for name in before):
            if other is not None and node in other.also:
                other.also.remove(node)
                simple = False
        self._attach(node)
        if simple:
            self.rows = self.rows[:-1]
            self._insert(node)
        else:
            self.lay_out()

    def _find_best(self, view: ViewState) -> bool:
        trial = view.best_trial()
        best = self.nodes.get(f"trial:{trial.number}") if trial else None
        if best is self.best:
            return False
        self.best, path, left = best, set[str](), [best] if best else []
        while left:
            node = left.pop()
            if node and node.key not in path:
                path.add(node.key)
                left += [self._by_model.get(name) for name in node.parents]
        self.path = frozenset(path)
        return True

    def _place(self, node: Node | None, above: Node | None = None) -> int | None:
        if node is None:
            return None
        return next((place for place, row in enumerate(self.rows) if row.node is node and row.above is above), None)

    def _is_last(self, node: Node, parent: Node, reference: bool) -> bool:
        if self.matching is not None:
            return next(child for child in reversed(parent.children) if child.key in self._shown) is node
        if parent.also:
            return reference and parent.also[-1] is node
        return parent.children[-1] is node

    def _ranked(self, nodes: Iterable[Node]) -> list[TreeRow]:
        def rank(node: Node) -> tuple[bool, float, int]:
            trial = node.trial
            value = None if trial is None else trial.objective
            if self.order == "cost":
                value = cost_of(trial) if trial else None
            elif self.order == "gain":
                value = _number(((trial and trial.gain) or {}).get("mean"))
            return (value is None, -(value or 0.0), node.number)

        return [TreeRow(node) for node in sorted(nodes, key=rank)]

    def _tree(self) -> list[TreeRow]:
        rows: list[TreeRow] = []
        shown, folded = None if self.matching is None else self._shown, self.folded
        # Deep trees are common (each trial goes on from the best), so that this does not recurse.
        stack = [TreeRow(node) for node in reversed(self._roots)]
        while stack:
            row = stack.pop()
            node, depth, above = row
            if above is not None:
                rows.append(row)
                continue
            if shown is not None and node.key not in shown:
                continue
            rows.append(row)
            if shown is not None:
                stack += [TreeRow(child, depth + 1) for child in reversed(node.children)]
            elif node.key not in folded:
                if node.also:
                    stack += [TreeRow(merge, depth + 1, node) for merge in reversed(node.also)]
                if node.children:
                    stack += [TreeRow(child, depth + 1) for child in reversed(node.children)]
        return rows


def _base_facts(node: Node) -> Facts:
    name = one_line(node.model or "")
    means = _means(node.run.scores.get(name, {}))
    sign = Mark("●", "base model", "plain")
    return Facts(sign, name, name, "" if means else "base model", means, text=f"{name} base model".lower())


def _trial_facts(node: Node, trial: Trial) -> Facts:
    kind, models = (trial.action or {}).get("type", "…"), node.parents
    data = "+".join(name for name in _inputs(trial.action) if name not in models)
    who = trial.model or trial.dataset or str(trial.number)
    merged = "+".join(models)
    sign = mark("cached" if trial.cached and trial.status == "done" else trial.status)
    note = one_line(_note(trial, sign))
    full = one_line(" ".join(part for part in (who, kind, merged, data) if part))
    return Facts(
        sign,
        one_line(" ".join(part for part in (who, kind, merged if len(models) > 1 else "", data) if part)),
        full,
        note,
        _means(trial.scores or {}) or _means(node.run.scores.get(trial.model or "", {})),
        trial.gain,
        cost_of(trial),
        f"{trial.number} {full} {sign.word} {note}".lower(),
    )


def _note(trial: Trial, sign: Mark) -> str:
    if trial.status == "failed" and trial.error:
        return f"failed: {trial.error.get('class', 'unknown')}"
    reason = (trial.decision or {}).get("reason")
    if trial.status in ("vetoed", "rejected") and reason:
        return f"{sign.word}: {reason}"
    return sign.word


def _means(found: Json) -> Json:
    return {task: splits["search"]["mean"] for task, splits in found.items() if "search" in splits}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _with_ancestors(nodes: Iterable[Node]) -> set[str]:
    keys: set[str] = set()
    for node in nodes:
        above: Node | None = node
        while above is not None and above.key not in keys:
            keys.add(above.key)
            above = above.parent
    return keys


def _count(node: Node) -> int:
    left, count = list(node.children), len(node.also)
    while left:
        child = left.pop()
        count += 1
        left += child.children
    return count
