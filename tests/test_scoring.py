"""From row scores in the store to the objective and the gain: the right rows, paired, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamdatui.base.jsonio import read_json, write_json
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.schemes import SCHEME
from lamdatui.domain.scores import counted, remarks
from lamdatui.domain.state import RunState
from lamdatui.engine.scoring import Scoring
from lamdatui.inputs.taskfiles import Task, load_task
from lamdatui.store.artifacts import Store
from lamdatui.tasks.stats import paired_gain, summary

WEIGHTS = {"easy": 1.0, "hard": 0.5}


def task(folder: Path, name: str) -> Task:
    """Three rows a split; the reference of each is its id."""
    rows = [
        {
            "id": f"{split}{n}",
            "split": split,
            "messages": [{"role": "user", "content": f"{split}{n}"}],
            "reference": f"{split}{n}",
        }
        for split in ("search", "sealed")
        for n in range(3)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(name, path, "exact", 8, {})


@pytest.fixture
def scoring(tmp_path: Path) -> Scoring:
    tasks = {name: task(tmp_path, name) for name in WEIGHTS}
    tasks["hard"] = load_task("hard", tmp_path / "hard.jsonl", "exact", 16, {})
    return Scoring(tasks, WEIGHTS, Store(tmp_path / "store"), "float32")


def record(
    scoring: Scoring, model: str, right: dict[str, list[bool]], split: str = "search", scheme: int = SCHEME
) -> list[str]:
    """Evaluations of a model as a step writes them; their keys."""
    keys = []
    for name, answers in right.items():
        asked = scoring.tasks[name]
        rows = [
            {"id": row["id"], "completion": row["reference"] if good else "x", "score": float(good)}
            for row, good in zip(asked.rows[split], answers, strict=True)
        ]
        keys.append(asked.key(model, split, "float32", scheme))
        value = {"model": model, "key": keys[-1], "task": name, "split": split, "rows": rows, "seconds": 1.0}
        if scheme > 1:
            scoring.store.record_evaluation(keys[-1], value)
        else:
            write_json(scoring.store.root / "evaluations" / f"{keys[-1]}.json", value)
    return keys


BASE = {"easy": [True, False, False], "hard": [False, False, False]}
BETTER = {"easy": [True, True, False], "hard": [False, True, True]}


def test_evaluations_become_facts_with_their_keys(scoring: Scoring) -> None:
    keys = record(scoring, "d", BETTER)
    facts = scoring.facts(ModelObject("m1", "d", "llama", "l", "/w"), "search")
    scores = [summary([float(good) for good in answers]) for answers in BETTER.values()]
    assert facts == [
        ("evaluation.recorded", {"model": "m1", "task": name, "split": "search", "key": key, "score": score})
        for name, key, score in zip(WEIGHTS, keys, scores, strict=True)
    ]
    assert [fact["score"]["mean"] for _, fact in facts] == [0.666667, 0.666667]


def test_answers_that_did_not_end_or_are_empty_are_counted_beside_the_score() -> None:
    rows = [{"completion": text, "ended": ended} for text, ended in (("a", True), ("b", False), (" \n", True), ("", False))]
    assert counted(rows) == {"unfinished": 2, "empty": 2}
    assert counted([{"completion": "a", "ended": True}, {"completion": ""}]) == {}, (
        "evaluations of older versions counted nothing"
    )
    assert remarks(4, counted(rows)) == "2 of 4 answers did not end, 2 are empty"
    assert remarks(4, {"empty": 1}) == "1 is empty" and remarks(4, {}) == ""


def test_what_is_missing_is_asked_for_and_never_guessed(scoring: Scoring) -> None:
    record(scoring, "base", BASE)
    record(scoring, "d", {"easy": BETTER["easy"]})
    assert scoring.complete("base", "search")
    assert not scoring.complete("d", "search") and not scoring.complete("base", "sealed")
    with pytest.raises(LookupError, match=r"no evaluation of d on hard \(search\)"):
        scoring.facts(ModelObject("m1", "d", "llama", "l", "/w"), "search")
    with pytest.raises(LookupError, match=r"no evaluation of d on hard \(search\)"):
        scoring.gain("d", "base", "search")
    assert [request["key"] for request in scoring.requests("d", "search")] == [
        each.key("d", "search", "float32") for each in scoring.tasks.values()
    ]


def test_the_gain_is_paired_over_the_rows_and_weighted_over_the_tasks(scoring: Scoring) -> None:
    record(scoring, "base", BASE)
    record(scoring, "d", BETTER)
    ids = [row["id"] for row in scoring.tasks["easy"].rows["search"]]
    ours, theirs = (
        {name: dict(zip(ids, map(float, row), strict=True)) for name, row in each.items()} for each in (BETTER, BASE)
    )
    gain = scoring.gain("d", "base", "search")
    assert gain == paired_gain(ours, theirs, WEIGHTS) and gain["mean"] == pytest.approx(1 / 3 + 0.5 * 2 / 3, abs=1e-6)
    report = scoring.report("d", "base", "search")
    assert report["objective"] == gain
    assert {name: each["mean"] for name, each in report["tasks"].items()} == {"easy": 0.333333, "hard": 0.666667}
    assert scoring.gain("base", "d", "search")["mean"] == -gain["mean"]
    assert scoring.gain("d", "d", "search") == {"mean": 0.0, "interval": [0.0, 0.0]}


def test_the_objective_is_the_weighted_sum_or_nothing(scoring: Scoring) -> None:
    state = RunState()
    assert scoring.objective(state, "m1") is None
    state.scores["m1"] = {"easy": {"search": {"mean": 0.2}}, "hard": {"sealed": {"mean": 1.0}}}
    assert scoring.objective(state, "m1") is None
    state.scores["m1"]["hard"]["search"] = {"mean": 0.6}
    assert scoring.objective(state, "m1") == 0.5
    assert scoring.objective(state, "m1", "sealed") is None
    state.scores["m1"] = {task: {"search": {"mean": 0.1234564}} for task in ("easy", "hard")}
    assert scoring.objective(state, "m1") == 0.185185, "six digits"


def test_an_evaluation_of_other_rows_is_put_aside(scoring: Scoring) -> None:
    (key, _) = record(scoring, "d", BETTER)
    place = scoring.store.root / "evaluations" / f"{key}.json"
    value = {name: item for name, item in read_json(place).items() if name != "seal"}
    for rows in (value["rows"][:2], value["rows"][::-1], [{**row, "id": "other"} for row in value["rows"]]):
        scoring.store.record_evaluation(key, {**value, "rows": rows})
        assert not scoring.complete("d", "search") and not place.exists()


def test_an_evaluation_of_an_older_scheme_is_used_under_its_key_when_it_is_sound(scoring: Scoring) -> None:
    keys = record(scoring, "d", BETTER, scheme=1)
    assert [request["key"] for request in scoring.requests("d", "search")] == keys
    assert scoring.complete("d", "search")
    assert [fact["key"] for _, fact in scoring.facts(ModelObject("m1", "d", "llama", "l", "/w"), "search")] == keys
    # One whose scores are not those of its completions is made again, under the newest key.
    place = scoring.store.root / "evaluations" / f"{keys[0]}.json"
    value = {name: item for name, item in read_json(place).items() if name != "seal"}
    value["rows"][0]["score"] = 0.0
    write_json(place, value)
    assert scoring.requests("d", "search")[0]["key"] == scoring.tasks["easy"].key("d", "search", "float32")
    assert not place.exists()


def test_scores_of_older_schemes_count_where_answers_would_be_read_the_same(scoring: Scoring) -> None:
    keys = record(scoring, "d", BETTER, scheme=2)
    assert [request["key"] for request in scoring.requests("d", "search")] == keys
    place = scoring.store.root / "evaluations" / f"{keys[0]}.json"
    value = {name: item for name, item in read_json(place).items() if name != "seal"}
    value["rows"][0]["completion"] = "<think>\n\n</think>\n\n" + value["rows"][0]["completion"]
    value["rows"][0]["score"] = 0.0
    scoring.store.record_evaluation(keys[0], value)
    assert scoring.requests("d", "search")[0]["key"] == scoring.tasks["easy"].key("d", "search", "float32")
    # A run that began under an older scheme goes on reading answers as it did.
    older = Scoring(scoring.tasks, WEIGHTS, scoring.store, "float32", 2)
    assert [request["key"] for request in older.requests("d", "search")] == keys
    assert {older.requests("e", "search")[0][name] for name in ("think", "generation")} == {"keep", "own"}
    assert older.requests("e", "search")[0]["key"] == older.tasks["easy"].key("e", "search", "float32", 2)
