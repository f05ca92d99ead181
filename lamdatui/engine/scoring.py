"""Row scores from the store to task scores, the objective, and the paired gain over the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamdatui.domain.objects import ModelObject
from lamdatui.domain.records import SeedReport
from lamdatui.domain.schemes import ASKED, GENERATORS, SCHEME, SCHEMES
from lamdatui.domain.scores import counted, objective, objectives
from lamdatui.domain.state import RunState
from lamdatui.inputs.taskfiles import Task
from lamdatui.store.artifacts import Store
from lamdatui.tasks.judging import doubt
from lamdatui.tasks.stats import gain_over_seeds, paired_gain, summary


class Scoring:
    """The run's tasks and objective over the evaluations in the store."""

    def __init__(
        self,
        tasks: dict[str, Task],
        weights: dict[str, float],
        store: Store,
        dtype: str,
        scheme: int = SCHEME,
        generator: str = GENERATORS[0],
        keep: Mapping[str, float] | None = None,
    ) -> None:
        self.tasks = tasks
        self.keep = dict(keep or {})
        self.weights = weights | {task: 0.0 for task in self.keep if task not in weights}
        self.store = store
        self.dtype = dtype
        # A run goes on asking and reading as it began, so that its scores can be compared; the first two schemes do that alike.
        self.scheme = max(scheme, 2)
        self.generator = generator

    def requests(self, digest: str, split: str) -> list[dict[str, Any]]:
        """What a step must evaluate for one model on one split."""
        return [task.request(self._key(task, digest, split), split, self.scheme) for task in self.tasks.values()]

    def _key(self, task: Task, digest: str, split: str) -> str:
        """The key of an evaluation: the run's scheme's, or an older one's that the store has a sound evaluation of."""
        for scheme in (each for each in SCHEMES if each < self.scheme and self.generator == GENERATORS[0]):
            key = task.key(digest, split, self.dtype, scheme)
            value = self._sound(task, key, split)
            if value and (self.scheme < ASKED or task.reads_alike(value["rows"], split)):
                return key
        return task.key(digest, split, self.dtype, self.scheme, self.generator)

    def _sound(self, task: Task, key: str, split: str) -> dict[str, Any] | None:
        """An evaluation of the store, once it is known to be one of this split's rows. What is none is put aside and made again."""
        value = self.store.evaluation(key, lambda found: task.agrees(found["rows"], split))
        if value is None or [row["id"] for row in value["rows"]] == [row["id"] for row in task.rows[split]]:
            return value
        self.store.refuse_evaluation(key)
        return None

    def complete(self, digest: str, split: str) -> bool:
        """Whether the store has every task's evaluation of this model, undamaged."""
        tasks = self.tasks.values()
        return all(self._sound(task, self._key(task, digest, split), split) is not None for task in tasks)

    def facts(self, model: ModelObject, split: str, base: str = "") -> list[tuple[str, dict[str, Any]]]:
        """`evaluation.recorded` facts of a model, with its differences to the base on tasks that are kept. Raises LookupError when an evaluation is missing."""
        found = []
        for task, score in self.scores(model.digest, split).items():
            key = self._key(self.tasks[task], model.digest, split)
            if task in self.keep and base and base != model.digest and self.complete(base, split):
                score["change"] = self.gain(model.digest, base, split, {task: 1.0})
            data = {"model": model.id, "task": task, "split": split, "key": key, "score": score}
            found.append(("evaluation.recorded", data))
        return found

    def scores(self, digest: str, split: str) -> dict[str, dict[str, Any]]:
        """Task → score of a model on a split. Raises LookupError when an evaluation is missing."""
        return {
            task: summary([row["score"] for row in value["rows"]])
            | counted(value["rows"])
            | ({"judge": value["judge"]} if "judge" in value else {})
            for task, value in ((task, self._value(digest, task, split)) for task in self.tasks)
        }

    def doubts(self, digest: str, split: str) -> list[str]:
        """What speaks against the judges of a model's scores, a sentence each. Raises LookupError when an evaluation is missing."""
        judged = [task for task in self.tasks.values() if task.judge]
        found = [(task, self._value(digest, task.name, split)["judge"]["tried"]) for task in judged]
        return [text for task, tried in found if task.judge and (text := doubt(task.name, task.judge.model.id, tried))]

    def by_task(self, digest: str, splits: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
        """Task → split → score, and → key, of a model's evaluations. Raises LookupError when one is missing."""
        scores: dict[str, dict[str, Any]] = {task: {} for task in self.tasks}
        keys: dict[str, dict[str, str]] = {task: {} for task in self.tasks}
        for split in splits:
            named = self.keys(digest, split)
            for task, score in self.scores(digest, split).items():
                scores[task][split], keys[task][split] = score, named[task]
        return scores, keys

    def keys(self, digest: str, split: str) -> dict[str, str]:
        """Task → key of a model's evaluation on a split."""
        return {task: self._key(self.tasks[task], digest, split) for task in self.tasks}

    def with_examples(self, examples: Mapping[str, tuple[dict[str, Any], ...]]) -> Scoring:
        """The same where tasks are asked after examples (task → messages)."""
        tasks = {name: task.with_examples(examples.get(name, ())) for name, task in self.tasks.items()}
        return Scoring(tasks, self.weights, self.store, self.dtype, self.scheme, self.generator, self.keep)

    def objective(self, state: RunState, model_id: str, split: str = "search") -> float | None:
        """Of a model; None when a task has no score."""
        return objective(state.scores.get(model_id, {}), self.weights, split, self.keep)

    def objectives(self, state: RunState) -> dict[str, float]:
        """On the search split, of each model that has all its scores."""
        return objectives(state, self.weights)

    def _rows(self, digest: str, task: str, split: str) -> list[dict[str, Any]]:
        return self._value(digest, task, split)["rows"]

    def _value(self, digest: str, task: str, split: str) -> dict[str, Any]:
        asked = self.tasks[task]
        value = self._sound(asked, self._key(asked, digest, split), split)
        if value is None:
            raise LookupError(f"no evaluation of {digest[:12]} on {task} ({split})")
        return value

    def _points(self, digest: str, task: str, split: str) -> dict[str, float]:
        return {row["id"]: row["score"] for row in self._rows(digest, task, split)}

    def gain(
        self, digest: str, base: str, split: str, weights: dict[str, float] | None = None, of_base: Scoring | None = None
    ) -> dict[str, Any]:
        """Paired difference to the base over the same rows: mean and 95% interval; `of_base` has the base's scores. Raises LookupError."""
        weights, other = weights or self.weights, of_base or self
        ours = {task: self._points(digest, task, split) for task in weights}
        theirs = {task: other._points(base, task, split) for task in weights}
        return paired_gain(ours, theirs, weights)

    def over_seeds(self, digests: Sequence[str], base: str, split: str) -> SeedReport:
        """The gain of one pipeline that was done with several seeds, in the objective and in each task. Raises LookupError."""
        ours = [{task: self._points(digest, task, split) for task in self.weights} for digest in digests]
        theirs = {task: self._points(base, task, split) for task in self.weights}
        each = [float(self.gain(digest, base, split)["mean"]) for digest in digests]
        return {
            "objective": gain_over_seeds(ours, theirs, self.weights),
            "tasks": {task: gain_over_seeds(ours, theirs, {task: 1.0}) for task in self.weights},
            "each": each,
        }

    def report(self, digest: str, base: str, split: str, of_base: Scoring | None = None) -> dict[str, Any]:
        """The gain in the objective and in each task."""
        tasks = {task: self.gain(digest, base, split, {task: 1.0}, of_base) for task in self.weights}
        return {"objective": self.gain(digest, base, split, None, of_base), "tasks": tasks}
