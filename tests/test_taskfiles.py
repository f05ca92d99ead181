"""A task: what its evaluations' keys cover, and splits that stay apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.inputs import taskfiles
from lamdatui.inputs.datafiles import read_task
from lamdatui.inputs.taskfiles import Asking, Task, load_task


def row(number: int, split: str, prompt: str = "", reference: str = "a") -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt or f"question {number}"}]
    return {"id": number, "split": split, "messages": messages, "reference": reference}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "task.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


FOUR = (row(1, "search"), row(2, "search"), row(3, "sealed"), row(4, "sealed"))


def loaded(folder: Path, *rows: dict[str, Any], scorer: str = "exact", **limits: int) -> Task:
    return load_task("t", write(folder, *rows), scorer, 16, limits)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_changes_with_each_thing_that_can_change_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = loaded(tmp_path, *FOUR)
    key = task.key("m", "search", "float32")
    other_rows = {**task.rows, "search": (row(1, "search", reference="b"), FOUR[1])}
    keys = {
        "model": task.key("other", "search", "float32"),
        "split": task.key("m", "sealed", "float32"),
        "rows": replace(task, rows=other_rows).key("m", "search", "float32"),
        "fewer rows": replace(task, rows={**task.rows, "search": FOUR[:1]}).key("m", "search", "float32"),
        "scorer": replace(task, scorer="constraints").key("m", "search", "float32"),
        "tokens": replace(task, max_new_tokens=17).key("m", "search", "float32"),
        "dtype": task.key("m", "search", "bfloat16"),
        "scheme": task.key("m", "search", "float32", scheme=1),
        "second scheme": task.key("m", "search", "float32", scheme=2),
        "thoughts": replace(task, asking=Asking(think="keep")).key("m", "search", "float32"),
        "thinking": replace(task, asking=Asking(thinking=False)).key("m", "search", "float32"),
        "settings": replace(task, asking=Asking(generation="own")).key("m", "search", "float32"),
    }
    monkeypatch.setattr(taskfiles, "PROMPT_FORMAT", "another")
    keys["prompt format"] = task.key("m", "search", "float32")
    assert len({key, *keys.values()}) == len(keys) + 1


def test_a_key_does_not_change_with_what_changes_no_score(tmp_path: Path) -> None:
    task = loaded(tmp_path, *FOUR)
    moved = replace(task, name="renamed", path=tmp_path / "moved.jsonl", digest="of other bytes")
    assert moved.key("m", "search", "float32") == task.key("m", "search", "float32")
    # A sealed row that was corrected leaves the search scores as they are.
    sealed = replace(task, rows={**task.rows, "sealed": (row(3, "sealed", reference="b"), FOUR[3])})
    assert sealed.key("m", "search", "float32") == task.key("m", "search", "float32")


def test_keys_are_those_that_earlier_runs_have_written(tmp_path: Path) -> None:
    task = loaded(tmp_path, *FOUR)
    assert {scheme: task.key("m", "search", "float32", scheme)[:16] for scheme in (1, 2)} == {
        1: "3fd449f1516aa7c6",
        2: "6455ffc534a008e9",
    }


def test_a_step_is_asked_for_exactly_the_rows_that_the_key_is_of(tmp_path: Path) -> None:
    task = loaded(tmp_path, *FOUR, search=1)
    asked = task.request("k", "search")
    assert asked == {
        "task": "t",
        "split": "search",
        "key": "k",
        "path": str(tmp_path / "task.jsonl"),
        "rows": 1,
        "rows_digest": loaded(tmp_path, FOUR[0], FOUR[2]).rows_digest("search"),
        "scorer": "exact",
        "max_new_tokens": 16,
        "think": "strip",
        "thinking": None,
        "generation": "neutral",
        "older": False,
    }
    assert asked["rows_digest"] != loaded(tmp_path, *FOUR).rows_digest("search")


def test_an_evaluation_agrees_with_its_rows_and_scores_or_is_none(tmp_path: Path) -> None:
    task = loaded(tmp_path, *FOUR)
    good = [{"id": 1, "completion": " a ", "score": 1.0}, {"id": 2, "completion": "b", "score": 0.0}]
    assert task.agrees(good, "search") and not task.agrees(good, "sealed")
    for bad in (
        good[:1],
        good[::-1],
        [{**good[0], "score": 0.0}, good[1]],
        [{**good[0], "id": 3}, good[1]],
        [{"id": 1, "score": 1.0}, good[1]],
        [None, good[1]],
    ):
        assert not task.agrees(bad, "search"), bad


# --- splits ----------------------------------------------------------------------------------------------------------


def test_splits_that_share_a_prompt_are_refused(tmp_path: Path) -> None:
    shared = [*FOUR[:3], row(4, "sealed", "question 2", reference="b")]
    with pytest.raises(LamdatuiError, match="1 prompts are in both splits") as refused:
        loaded(tmp_path, *shared)
    assert refused.value.where == f"{tmp_path / 'task.jsonl'} (task t)" and refused.value.fix == "make the splits disjoint"
    spelled = {**row(4, "sealed", reference="b"), "messages": [{"from": "human", "value": "question 2"}]}
    with pytest.raises(LamdatuiError, match="1 prompts are in both splits"):
        loaded(tmp_path, *FOUR[:3], spelled)
    # The rows that are not used are not looked at; the same prompt twice in one split leaks nothing.
    assert loaded(tmp_path, *shared, search=1).rows["search"] == (shared[0],)
    loaded(tmp_path, row(1, "search", "q"), row(2, "search", "q"), row(3, "sealed"))


@pytest.mark.parametrize(
    ("rows", "limits", "words"),
    [
        (FOUR[:2], {}, "0 sealed rows; the profile asks for some"),
        (FOUR[2:], {"search": 1}, "0 search rows; the profile asks for 1"),
        (FOUR, {"sealed": 3}, "2 sealed rows; the profile asks for 3"),
    ],
)
def test_a_split_with_too_few_rows_is_refused(tmp_path: Path, rows: tuple, limits: dict[str, int], words: str) -> None:
    with pytest.raises(LamdatuiError, match=words):
        loaded(tmp_path, *rows, **limits)
    assert [len(loaded(tmp_path, *FOUR, search=2, sealed=1).rows[split]) for split in ("search", "sealed")] == [2, 1]


def test_a_scorer_and_its_references_are_known_to_fit(tmp_path: Path) -> None:
    with pytest.raises(LamdatuiError, match="no scorer named 'exakt'"):
        loaded(tmp_path, *FOUR, scorer="exakt")
    with pytest.raises(LamdatuiError, match="does not suit the scorer function_call") as refused:
        loaded(tmp_path, *FOUR, scorer="function_call")
    assert "the row 1 (task t)" in refused.value.where


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "test"}, "split is search or sealed"),
        ({"id": 1}, "the id 1 is there twice"),
        ({"id": "2"}, "all text or all whole numbers"),
        ({"id": True}, "all text or all whole numbers"),
        ({"messages": "q"}, "messages is a list of messages, not str"),
        ({"reference": float("nan")}, "not JSON|Out of range"),
    ],
)
def test_a_malformed_row_is_told_with_its_place(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write(tmp_path, FOUR[0], {**FOUR[1], **change})
    with pytest.raises(LamdatuiError, match=words) as refused:
        read_task(path)
    assert refused.value.where == f"{path}, row 2"
    lacking = {name: value for name, value in FOUR[1].items() if name != "reference"}
    with pytest.raises(LamdatuiError, match="a task row lacks reference"):
        read_task(write(tmp_path, FOUR[0], lacking))


def test_rows_of_other_bytes_than_were_promised_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, *FOUR)
    digest = read_task(path)[1]
    assert len(read_task(path, digest)[0]) == 4
    write(tmp_path, *FOUR[:3])
    with pytest.raises(Changed, match="not the one that the run began with"):
        read_task(path, digest)
