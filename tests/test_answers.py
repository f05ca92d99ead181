"""Rows behind scores: which won, which lost, and what of a task's file has changed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.answers import Answers
from lamdatui.store.artifacts import Store
from lamdatui.wire.answers import Answer, Flips, answers, flips, kinds, question_text, reference_text


def answer(name: str, score: float, text: str = "x", ended: bool | None = True) -> Answer:
    return Answer(name, [{"role": "user", "content": f"do {name}"}], {"name": "f"}, text, score, ended)


def test_flips_are_paired_by_row_and_tested_exactly() -> None:
    ours = [answer("a", 1.0), answer("b", 0.5), answer("c", 0.0), answer("d", 1.0)]
    theirs = [answer("d", 0.0), answer("c", 0.0), answer("b", 1.0), answer("a", 0.0)]
    assert flips(ours, theirs) == Flips(2, 1, 1) and Flips(2, 1, 1).p == 1.0
    with pytest.raises(LamdatuiError, match="not asked the same rows"):
        flips(ours, theirs[:3])


def test_what_a_row_is_of() -> None:
    assert kinds(answer("a", 1.0), None) == {"right"}
    assert kinds(answer("a", 0.5, " ", ended=False), answer("a", 0.7)) == {"wrong", "unfinished", "empty", "lost"}
    assert kinds(answer("a", 0.5, ended=None), answer("a", 0.2)) == {"wrong", "won"}
    assert question_text(answer("a", 1.0)) == "user: do a" and reference_text(answer("a", 1.0)) == '{"name": "f"}'


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, RunState]:
    """A run directory beside a store with a base's answers to two rows."""
    rows = [
        {"id": n, "split": s, "messages": [{"role": "user", "content": f"{s} {n}"}], "reference": "y"}
        for s, n in (("search", 1), ("search", 2), ("sealed", 3))
    ]
    task = tmp_path / "task.jsonl"
    task.write_text("\n".join(map(json.dumps, rows)))
    store = Store(tmp_path / "runs" / "store")
    given: list[dict[str, Any]] = [{"id": n, "score": n - 1.0, "completion": f"said {n}", "ended": True} for n in (1, 2)]
    store.record_evaluation("k" * 64, {"key": "k" * 64, "rows": given})
    state = RunState(profile={"tasks": {"t": {"path": str(task)}}}, keys={"base": {"t": {"search": "k" * 64}}})
    state.pool.add(ModelObject("base", "d", "llama", "l", "/w"))
    return tmp_path / "runs" / "r", state


def test_answers_stand_beside_their_questions(run: tuple[Path, RunState]) -> None:
    found = answers(*run, "base", "t", "search")
    assert [(one.id, one.text, one.score, question_text(one)) for one in found] == [
        (1, "said 1", 0.0, "user: search 1"),
        (2, "said 2", 1.0, "user: search 2"),
    ]


def test_what_can_not_be_shown_is_told(run: tuple[Path, RunState], tmp_path: Path) -> None:
    folder, state = run
    with pytest.raises(LamdatuiError, match="base has no answers to t \\(sealed\\)"):
        answers(folder, state, "base", "t", "sealed")
    with pytest.raises(LamdatuiError, match="no model 'm1'"):
        answers(folder, state, "m1", "t", "search")
    state.tasks = {"t": {"name": "t", "path": "", "digest": "0" * 64}}
    with pytest.raises(LamdatuiError, match="questions of t can't be shown"):
        answers(folder, state, "base", "t", "search")
    state.tasks = {}
    (tmp_path / "task.jsonl").write_text(
        '{"id": 1, "split": "search", "messages": [{"role": "user", "content": "a"}], "reference": "y"}'
    )
    with pytest.raises(LamdatuiError, match="has other rows now"):
        answers(folder, state, "base", "t", "search")
    (folder.parent / "store" / "evaluations" / f"{'k' * 64}.json").unlink()
    with pytest.raises(LamdatuiError, match="the store has lost the answers"):
        answers(folder, state, "base", "t", "search")


def test_the_engine_tells_answers_task_by_task_row_by_row_and_whole(run: tuple[Path, RunState]) -> None:
    folder, state = run
    store = Store(folder.parent / "store")
    given: list[dict[str, Any]] = [{"id": n, "score": 1.0, "completion": "y" * 30_000, "ended": False} for n in (1, 2)]
    store.record_evaluation("m" * 64, {"key": "m" * 64, "rows": given})
    state.keys = {**state.keys, "m1": {"t": {"search": "m" * 64, "sealed": "gone"}}}
    state.pool.add(ModelObject("m1", "e", "llama", "l", "/w", trial=1))
    state.trials[1] = Trial(1, "done", {"type": "sft", "inputs": {"model": ["base"]}, "params": {}, "seed": 1, "digest": "e"})
    told = Answers(folder).told
    first, second = told(state, {"model": "m1", "against": "base"})["tasks"]
    assert (first["won"], first["lost"], first["alike"], first["p"]) == (1, 0, 1, 1.0)
    assert first["gain"]["mean"] == 0.5 and first["gain"]["interval"][0] <= 0
    assert second["split"] == "sealed" and "lost the answers" in second["error"]
    rows = told(state, {"model": "m1", "against": "base", "task": "t", "split": "search"})["rows"]
    assert [(row["id"], row["score"], row["other"]) for row in rows] == [("1", 1.0, 0.0), ("2", 1.0, 1.0)]
    assert rows[0]["kinds"] == ["right", "unfinished", "won"]
    row = told(state, {"model": "m1", "task": "t", "split": "search", "row": 0})
    assert row["asked"] == "user: search 1" and row["wanted"] == "y"
    assert [one["model"] for one in row["answers"]] == ["base", "m1"]
    assert len(row["answers"][1]["text"]) < 21_000 and "more characters" in row["answers"][1]["text"]
    for wrong in ({"model": "m9"}, {"model": "m1", "task": "x"}, {"model": "m1", "task": "t", "split": "search", "row": 7}):
        with pytest.raises(LamdatuiError):
            told(state, wrong)
