"""Row scores from the store to task scores, the objective, and the paired gain over the base."""

from __future__ import annotations

from typing import Any

from lamdatui.objects import ModelObject
from lamdatui.state import RunState
from lamdatui.store.artifacts import Store
from lamdatui.tasks.base import Task
from lamdatui.tasks.stats import paired_gain, summary


class Scoring:
    """The run's tasks and objective over the evaluations in the store."""

    def __init__(self, tasks: dict[str, Task], weights: dict[str, float], store: Store, dtype: str) -> None:
        self.tasks = tasks
        self.weights = weights
        self.store = store
        self.dtype = dtype

    def requests(self, digest: str, split: str) -> list[dict[str, Any]]:
        """What a step must evaluate for one model on one split."""
        return [task.request(task.key(digest, split, self.dtype), split) for task in self.tasks.values()]

    def complete(self, digest: str, split: str) -> bool:
        """Whether the store has every task's evaluation of this model."""
        return all(self.store.evaluation(request["key"]) is not None for request in self.requests(digest, split))

    def facts(self, model: ModelObject, split: str) -> list[tuple[str, dict[str, Any]]]:
        """`evaluation.recorded` facts of a model. Raises LookupError when an evaluation is missing."""
        found = []
        for request in self.requests(model.digest, split):
            value = self.store.evaluation(request["key"])
            if value is None:
                raise LookupError(f"no evaluation of {model.id} on {request['task']} ({split})")
            score = summary([row["score"] for row in value["rows"]])
            data = {"model": model.id, "task": request["task"], "split": split, "key": request["key"], "score": score}
            found.append(("evaluation.recorded", data))
        return found

    def objective(self, state: RunState, model_id: str, split: str = "search") -> float | None:
        """Weighted sum of the task means, or None when one is missing."""
        scores = state.scores.get(model_id, {})
        if any(split not in scores.get(task, {}) for task in self.weights):
            return None
        return round(sum(weight * scores[task][split]["mean"] for task, weight in self.weights.items()), 6)

    def _rows(self, digest: str, task: str, split: str) -> dict[str, float]:
        value = self.store.evaluation(self.tasks[task].key(digest, split, self.dtype))
        if value is None:
            raise LookupError(f"no evaluation on {task} ({split})")
        return {row["id"]: row["score"] for row in value["rows"]}

    def gain(self, digest: str, base: str, split: str, weights: dict[str, float] | None = None) -> dict[str, Any]:
        """Paired difference to the base over the same rows: mean and 95% interval. Raises LookupError."""
        weights = weights or self.weights
        ours = {task: self._rows(digest, task, split) for task in weights}
        theirs = {task: self._rows(base, task, split) for task in weights}
        return paired_gain(ours, theirs, weights)

    def report(self, digest: str, base: str, split: str) -> dict[str, Any]:
        """The gain in the objective and in each task."""
        tasks = {task: self.gain(digest, base, split, {task: 1.0}) for task in self.weights}
        return {"objective": self.gain(digest, base, split), "tasks": tasks}
