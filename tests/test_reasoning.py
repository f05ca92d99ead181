"""Rows made by reasoning-gym: their form, their splits, and what its scorer does with a model's text."""

from __future__ import annotations

import builtins
import importlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue.reasoning import FORM, build, split_of
from lamdatui.inputs.datafiles import inspect_dataset
from lamdatui.inputs.taskfiles import load_task
from lamdatui.tasks import reasoning
from lamdatui.tasks.reasoning import EXCLUDED, generator, generator_names, reasoning_gym
from lamdatui.tasks.scorers import problem, score

SUM = "reasoning-gym:chain_sum"


@pytest.fixture(autouse=True)
def package() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_dataset_is_made_once_and_is_the_same_every_time(home: Path) -> None:
    path = build(f"{SUM}?size=20&seed=3&max_terms=3")
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    assert path.parent == home / "cache" / "reasoning-gym"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert build(f"{SUM}?size=20&seed=3&max_terms=3").stat().st_mtime_ns == written
    path.unlink()
    assert build(f"{SUM}?size=20&seed=3&max_terms=3").read_bytes() == first
    info = inspect_dataset(path)
    assert (info.format, info.rows) == ("verifiable", 20)
    (one,) = {row["reference"]["options"]["max_terms"] for row in rows(path)}
    assert one == 3
    for row in rows(path):
        assert row["prompt"].endswith(FORM)
        assert score("reasoning_gym", row["reference"], f"So: <answer>{row['reference']['entry']['answer']}</answer>") == 1.0
        assert score("reasoning_gym", row["reference"], "banana") == 0.0


@pytest.mark.parametrize("options", ["", "&min_terms=2&max_terms=2&max_digits=2"])
def test_no_question_is_in_two_splits_whatever_the_seed(options: str) -> None:
    data = [rows(build(f"{SUM}?size=60&seed={seed}{options}")) for seed in (1, 2, 9)]
    task = [rows(build(f"{SUM}?search=20&sealed=30&seed={seed}{options}")) for seed in (1, 2)]
    train = {row["prompt"] for each in data for row in each}
    search, sealed = (
        {row["messages"][0]["content"] for each in task for row in each if row["split"] == split}
        for split in ("search", "sealed")
    )
    assert all(len({row["prompt"] for row in each}) == 60 for each in data)
    assert len(search) >= 20
    assert len(sealed) >= 30
    assert not train & search
    assert not train & sealed
    assert not search & sealed
    assert data[0] != data[1]


def test_a_question_keeps_its_split_when_only_case_or_spacing_differ() -> None:
    rng = random.Random(1)
    for _ in range(50):
        text = " ".join(str(rng.randrange(1000)) for _ in range(5)) + " What now"
        assert split_of(text) == split_of(f"  {text.upper()}\n") == split_of(text.replace(" ", "  "))


def test_task_rows_are_a_task() -> None:
    task = load_task("sums", build(f"{SUM}?search=10&sealed=12"), "reasoning_gym", 32, {"search": 10, "sealed": 12})
    assert [len(task.rows[split]) for split in ("search", "sealed")] == [10, 12]
    assert all(problem("reasoning_gym", row["reference"]) is None for split in task.rows for row in task.rows[split])


@pytest.mark.parametrize(
    ("spec", "what", "fix"),
    [
        ("reasoning-gym:chain_sums?size=5", "did you mean 'chain_sum'", "GENERATOR"),
        ("reasoning-gym:countdown?size=5", "evaluates the answer as Python", "GENERATOR"),
        (f"{SUM}?max_term=5", "no option 'max_term'", "did you mean 'max_terms'?"),
        (f"{SUM}?size=many", "whole number from 1", ""),
        (f"{SUM}?search=5&size=5", "no size", "leave out"),
        (f"{SUM}?max_terms=1", "chain_sum with", "option"),
        (f"{SUM}?size", "bad query field", "GENERATOR"),
        (f"{SUM}?size=200&min_terms=2&max_terms=2&max_digits=1", "too few", "fewer rows"),
        ("reasoning-gym:rubiks_cube?size=5", "can't be used", ""),
    ],
)
def test_a_bad_reference_says_what_is_wrong_and_writes_nothing(home: Path, spec: str, what: str, fix: str) -> None:
    with pytest.raises(LamdatuiError) as caught:
        build(spec)
    assert what in caught.value.what
    assert fix in caught.value.fix
    folder = home / "cache" / "reasoning-gym"
    assert not folder.exists() or not list(folder.iterdir())


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    reference = {"dataset": "chain_sum", "entry": {"question": "1 + 1 =", "answer": "2", "metadata": {}}}
    reasoning._judge.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: build(f"{SUM}?size=5"), lambda: score("reasoning_gym", reference, "2")):
        with pytest.raises(LamdatuiError) as caught:
            call()
        assert "pip install 'lamdatui[reasoning-gym]'" in caught.value.fix


def test_a_reference_of_the_wrong_shape_is_a_problem_and_no_answer_is() -> None:
    good = rows(build(f"{SUM}?size=5"))[0]["reference"]
    assert problem("reasoning_gym", good) is None
    for bad in ({}, "text", {**good, "dataset": "countdown"}, {**good, "dataset": "nothing"}, {**good, "entry": {}}):
        assert problem("reasoning_gym", bad) is not None
    for answer in ("", " ", "\x00", "nan", "1e999999999", "9" * 50_000, "[" * 10_000, "<answer></answer>"):
        assert 0.0 <= reasoning_gym(good, answer) <= 1.0


def test_no_offered_generator_evaluates_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every generator's scorer gets text that would betray its evaluation."""
    ran: list[str] = []
    monkeypatch.setattr(builtins, "_betray", ran.append, raising=False)
    texts = ("_betray('x')", "[_betray('x')]", "1 + _betray('x')", "__builtins__['_betray']('x')", "(_betray('x'),)")
    slow = {"futoshiki", "sokoban", "knight_swap", "zebra_puzzles"}
    spiral = importlib.import_module("reasoning_gym").create_dataset("spiral_matrix", seed=7, size=1)
    spiral.score_answer(texts[0], spiral[0])
    assert ran, "the texts betray an evaluation"
    ran.clear()
    names = set(generator_names())
    assert len(names) > 80
    assert not names & set(EXCLUDED)
    for name in sorted(names - slow):
        entry = generator(name, {}, seed=7)[0]
        reference = {"dataset": name, "entry": {**entry, "answer": str(entry["answer"])}}
        before = json.dumps(entry, default=str)
        assert all(0.0 <= reasoning_gym(reference, text) <= 1.0 for text in texts)
        assert json.dumps(entry, default=str) == before
    assert ran == []
