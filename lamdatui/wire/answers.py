"""What models of a run answered, row by row: from the store and the task files, which have it beside the scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.domain.state import RunState
from lamdatui.inputs.datafiles import asked, read_task_rows
from lamdatui.inputs.workspace import locate
from lamdatui.store.artifacts import Store
from lamdatui.tasks.stats import sign_test

SPLITS = ("search", "sealed")
NAMED = ("winner", "base")
"""Names that stand for a model of the run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to a row of a task. `ended`: whether it came to its end within its tokens, where that was noted."""

    id: str | int
    question: list[dict[str, Any]]
    reference: Any
    text: str
    score: float
    ended: bool | None

    @property
    def kinds(self) -> frozenset[str]:
        """Which of `KINDS` it is of, by itself."""
        found = {"right" if self.score >= 1 else "wrong"}
        found |= {"unfinished"} if self.ended is False else set()
        return frozenset(found | ({"empty"} if not self.text.strip() else set()))


KINDS = ("right", "wrong", "unfinished", "empty", "won", "lost")
"""What rows can be asked for: by one answer, or (won, lost) against another model's."""


@dataclass(frozen=True, slots=True)
class Flips:
    """How a model's rows differ from another's: rows with a higher score, with a lower one, alike; exact two-sided p of the first two."""

    won: int
    lost: int
    alike: int

    @property
    def p(self) -> float:
        """Of a sign test; McNemar's, where a row is right or wrong."""
        return sign_test(self.won, self.lost)


def evaluations(state: RunState, name: str) -> tuple[str, dict[str, dict[str, str]]]:
    """A model's id and its evaluations: task → split → key. `name`: its id, `base`, `winner`, or a baseline's. Raises LamdatuiError."""
    if name in state.baselines:
        told = state.baselines[name]
        return name, told["keys"]
    found = {"winner": state.winner, "base": state.pool.base}.get(name, name)
    known = [model.id for model in state.pool.models]
    if found not in known:
        raise LamdatuiError(f"no model {name!r} in this run", fix=f"models: {', '.join([*known, *state.baselines])}")
    return found, state.keys.get(found, {})


def answers(run_dir: Path, state: RunState, name: str, task: str, split: str) -> list[Answer]:
    """A model's answers to a task's rows. Raises LamdatuiError where there are none, or the task's file is another one now."""
    model, keys = evaluations(state, name)
    key = keys.get(task, {}).get(split)
    if key is None:
        scored = ", ".join(f"{one} ({each})" for one, splits in keys.items() for each in splits)
        raise LamdatuiError(f"{model} has no answers to {task} ({split})", fix=f"it has: {scored or 'none'}")
    value = Store(run_dir.parent / "store").evaluation(key)
    if value is None:
        raise LamdatuiError(
            f"the store has lost the answers of {model} to {task} ({split})", where=str(run_dir.parent / "store")
        )
    questions = {row["id"]: {**row, **asked(row)} for row in _asked(state, task) if row["split"] == split}
    try:
        return [
            Answer(
                row["id"],
                questions[row["id"]]["prompt"],
                questions[row["id"]]["reference"],
                row["completion"],
                row["score"],
                row.get("ended"),
            )
            for row in value["rows"]
        ]
    except KeyError as error:
        raise LamdatuiError(f"the task {task} has other rows now than those that were answered", where=str(run_dir)) from error


def _asked(state: RunState, task: str) -> list[dict[str, Any]]:
    path = locate(state.profile["tasks"][task]["path"])
    try:
        return read_task_rows(path, state.tasks[task]["digest"] if task in state.tasks else "")
    except Changed as error:
        raise LamdatuiError(
            f"the questions of {task} can't be shown: {error.what}", where=str(path), fix="restore the file"
        ) from error


def flips(ours: Sequence[Answer], theirs: Sequence[Answer]) -> Flips:
    """Of two models' answers to the same rows."""
    pairs = list(paired(ours, theirs))
    won = sum(one.score > other.score for one, other in pairs)
    lost = sum(one.score < other.score for one, other in pairs)
    return Flips(won, lost, len(pairs) - won - lost)


def paired(ours: Sequence[Answer], theirs: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Two models' answers to the same row each. Raises LamdatuiError where the rows are not the same."""
    others = {answer.id: answer for answer in theirs}
    if {answer.id for answer in ours} != others.keys():
        raise LamdatuiError("the two models were not asked the same rows")
    for answer in ours:
        yield answer, others[answer.id]


def kinds(answer: Answer, other: Answer | None) -> frozenset[str]:
    """All of `KINDS` that an answer is of."""
    if other is None or answer.score == other.score:
        return answer.kinds
    return answer.kinds | {"won" if answer.score > other.score else "lost"}


def question_text(answer: Answer) -> str:
    """What was asked, as lines `role: text`."""
    return "\n".join(f"{message['role']}: {_content(message)}" for message in answer.question)


def _content(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls")
    text = message.get("content") or ""
    return text if isinstance(text, str) and not calls else json.dumps(calls or text, ensure_ascii=False)


def reference_text(answer: Answer) -> str:
    """What a right answer is, on one line."""
    told = answer.reference
    # A benchmark's row says it for people, too.
    told = told["target"] if isinstance(told, dict) and "doc" in told and "target" in told else told
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
