"""What models answered, for whoever watches a run: how two models differ task by task, a task's rows, one row whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.lineage import parents
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.tasks.stats import paired_gain
from lamdatui.wire.answers import Answer, answers, evaluations, flips, kinds, paired, question_text, reference_text

Json = dict[str, Any]
KEPT = 8
"""Evaluations that are kept in memory: a person goes from row to row."""
LONGEST = 20_000
"""Characters of a question or an answer that are sent."""
MOST_ROWS, LONGEST_ID = 10_000, 200
"""Rows of a list, and characters of a row's name in it: a frame has its limit."""


class Answers:
    """Of one run. Reads files: call it in a thread."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._kept: OrderedDict[str, list[Answer]] = OrderedDict()
        self._lock = threading.Lock()

    def told(self, state: RunState, args: Mapping[str, Any]) -> Json:
        """The answer to the command `answers` (see `lamdatui.wire.protocol`). Raises LamdatuiError."""
        with self._lock:
            return self._told(state, args)

    def _told(self, state: RunState, args: Mapping[str, Any]) -> Json:
        model, against = str(args["model"]), str(args.get("against") or "")
        if "task" not in args:
            return {"tasks": self._overview(state, model, against)}
        task, split = str(args["task"]), str(args.get("split") or "search")
        ours = self._of(state, model, task, split)
        theirs = self._of(state, against, task, split) if against else None
        if "row" in args:
            return self._row(state, model, against, task, split, args["row"])
        pairs = list(paired(ours, theirs)) if theirs else [(one, None) for one in ours]
        return {
            "rows": [
                {
                    "row": place,
                    "id": str(one.id)[:LONGEST_ID],
                    "score": one.score,
                    "other": other.score if other else None,
                    "kinds": sorted(kinds(one, other)),
                }
                for place, (one, other) in enumerate(pairs[:MOST_ROWS])
            ]
        }

    def _of(self, state: RunState, model: str, task: str, split: str) -> list[Answer]:
        name, keys = evaluations(state, model)
        key = keys.get(task, {}).get(split) or f"{name} {task} {split}"
        if key not in self._kept:
            self._kept[key] = answers(self._run_dir, state, model, task, split)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _overview(self, state: RunState, model: str, against: str) -> list[Json]:
        """A line for each task and split that the model was scored on; with the other model, where that was, too."""
        found = []
        others = evaluations(state, against)[1] if against else {}
        for task, splits in evaluations(state, model)[1].items():
            for split in splits:
                line: Json = {"task": task, "split": split}
                try:
                    ours = self._of(state, model, task, split)
                    line |= {"n": len(ours), "mean": sum(one.score for one in ours) / len(ours)}
                    if split in others.get(task, {}):
                        line |= self._against(ours, self._of(state, against, task, split))
                except LamdatuiError as error:
                    line |= {"error": error.what}
                found.append(line)
        return found

    def _against(self, ours: list[Answer], theirs: list[Answer]) -> Json:
        told = flips(ours, theirs)
        points = [{"": {str(one.id): one.score for one in side}} for side in (ours, theirs)]
        gain = paired_gain(points[0], points[1], {"": 1.0})
        return {"won": told.won, "lost": told.lost, "alike": told.alike, "p": told.p, "gain": gain}

    def _row(self, state: RunState, model: str, against: str, task: str, split: str, place: Any) -> Json:
        """The row at a place of the list: what was asked and wanted, and what the base, the parent, the other model and this one answered."""
        ours = self._of(state, model, task, split)
        if not isinstance(place, int) or not 0 <= place < len(ours):
            raise LamdatuiError(f"{task} ({split}) has no row {place!r}")
        row, said = ours[place], []
        for name in dict.fromkeys([state.pool.base, *self._parents(state, model), against, model]):
            try:
                given = next((one for one in self._of(state, name or "", task, split) if one.id == row.id), None)
            except LamdatuiError:
                continue  # it was not scored on these rows
            if given is not None:
                said.append({"model": name, "text": _cut(given.text), "score": given.score, "ended": given.ended})
        return {"asked": _cut(question_text(row)), "wanted": _cut(reference_text(row)), "answers": said}

    @staticmethod
    def _parents(state: RunState, model: str) -> list[str]:
        name = evaluations(state, model)[0]
        if name not in state.pool.items:
            return []
        return [each for each in parents(state, name) if isinstance(state.pool.items[each], ModelObject)]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … {len(text) - LONGEST:,} more characters"
