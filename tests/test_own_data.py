"""What steps make of people's rows: pairs that teach nothing, plain text, prompts alone, rows of a task, very many rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.jsonio import digest, read_json
from lamdatui.cli.checks import check_profile
from lamdatui.inputs.datafiles import read_task_rows
from lamdatui.step import child, generators
from lamdatui.step.evaluate import evaluate
from lamdatui.step.models import load_tokenizer
from lamdatui.step.request import reference
from tests.steps import Lab


class Captured(Exception):
    """The trainer is ready: nothing has to be trained."""


FULL = {"method": "full", "max_steps": 2, "batch_size": 2, "learning_rate": 1e-3}
Row = dict[str, Any]


@pytest.fixture
def steps(lab: Path, tmp_path: Path) -> Lab:
    return Lab(lab, tmp_path / "steps")


def data(steps: Lab, tmp_path: Path, name: str, rows: list[Row]) -> list[str]:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps.add_dataset(name, path)
    return [name]


@pytest.mark.parametrize("kind", ["dpo", "orpo", "simpo"])
def test_pairs_that_are_one_answer_within_the_length_are_left_out_and_counted(
    steps: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    pairs = [{"prompt": "cpy:ab=", "chosen": "ab", "rejected": "ba"}] * 3
    alike = [
        {"prompt": "cpy:ab=", "chosen": "aaaaaaaaaaaaaaaa" + end, "rejected": "aaaaaaaaaaaaaaaa" + other}
        for end, other in ("bc", "cd")
    ]
    inputs = {"model": ["llama"], "dataset": data(steps, tmp_path, "some", [*pairs, *alike])}
    steps.model(kind, inputs, **{**FULL, "max_steps": 3, "max_length": 16})
    assert "2 of 5 pairs have the same answer twice within 16 tokens: they are left out" in capsys.readouterr().out
    outcome, _, _ = steps.attempt(
        kind, {**inputs, "dataset": data(steps, tmp_path, "none", alike)}, **{**FULL, "max_length": 16}
    )
    assert outcome["error"]["class"] == "data" and "in every pair both answers are the same" in outcome["error"]["message"]


def test_plain_text_is_trained_and_prompts_alone_are_distilled(steps: Lab, tmp_path: Path) -> None:
    texts = data(steps, tmp_path, "texts", [{"text": f"cpy:{text}={text}"} for text in ("ab", "cd", "efg")])
    assert steps.pool.dataset("texts").format == "text"
    steps.model("sft", {"model": ["llama"], "dataset": texts}, **FULL)
    prompts = data(steps, tmp_path, "prompts", [{"prompt": f"cpy:{text}="} for text in ("ab", "cd", "efg")])
    made = steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **FULL)
    steps.model("distill", {"model": ["llama"], "teacher": [made.id], "dataset": prompts}, **FULL, max_new_tokens=4)
    assert "has no answers" in " ".join(
        steps.problems("distill", {"model": ["llama"], "teacher": [made.id], "dataset": prompts}, on_policy=0.5)
    )


def test_a_new_dataset_says_how_many_of_its_rows_a_task_holds(
    steps: Lab, lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [row["messages"][-1]["content"] for row in read_task_rows(lab / "tasks" / "copy.jsonl")][:4]
    rows = [{"prompt": text, "completion": "x"} for text in asked]
    names = data(steps, tmp_path, "one", rows) + data(
        steps, tmp_path, "two", [{"prompt": f"own {at}", "completion": "x"} for at in range(4)]
    )
    made = steps.dataset("mix", {"datasets": names}, share=0.5)
    assert "4 of 8 rows ask what a row of a task asks" in capsys.readouterr().out
    assert read_json(steps.store.resolve(made.path) / "provenance.json")["in tasks"] == {"exact": 4}


@pytest.mark.parametrize("kind", ["grpo", "distill", "kto"])
def test_of_very_many_rows_random_ones_are_written_out_but_not_by_older_work(
    steps: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import sys

    from lamdatui.step.context import StepContext

    rows = {
        "grpo": [{"prompt": f"cpy:{at}=", "scorer": "exact", "reference": "a"} for at in range(40)],
        "distill": [{"prompt": f"cpy:{at}=", "completion": "a"} for at in range(40)],
        "kto": [{"prompt": f"cpy:{at}=", "completion": "a", "label": at % 2 == 0} for at in range(40)],
    }[kind]
    inputs = {"model": ["llama"], "dataset": data(steps, tmp_path, "many", rows)}
    if kind == "distill":
        inputs["teacher"] = [steps.model("sft", {"model": ["llama"], "dataset": ["copy"]}, **FULL).id]
    seen: list[set[str]] = []

    def train(step: StepContext, trainer: Any, *held: Any) -> None:
        found = trainer.train_dataset
        seen.append({str(row.get("prompt") or row.get("prompt_ids")) for row in found})
        raise Captured

    monkeypatch.setattr(StepContext, "train", train)
    action = sys.modules[type(steps.registry.get(kind).type).__module__]
    monkeypatch.setattr(action, "MOST_ROWS", 12)
    more = {"grpo": {"samples": 2}, "kto": {"max_steps": 30}}.get(kind, {})
    for older in (False, True):
        monkeypatch.setattr(StepContext, "is_older", older)
        outcome, _, _ = steps.attempt(kind, inputs, **{**FULL, "seed": 3 + older, **more})
        assert "Captured" in outcome["error"]["message"], outcome["error"]
    assert len(seen[0]) <= 12 < len(seen[1])


def test_a_model_that_thinks_is_asked_and_read_as_its_task_says(
    steps: Lab, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab's llama with a template that knows of thinking; what it answers is put into its mouth."""
    from lamdatui.step.generate import Answer

    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{{ '' if enable_thinking is defined and not enable_thinking else '<think>' }}{% endif %}"
    steps.pool.add(replace(steps.pool.model("llama"), id="thinks", template=template, digest=""))
    tokenizer = load_tokenizer(steps.store, {**reference(steps.pool.model("thinks"), steps.pool), "digest": ""})
    path = tmp_path / "task.jsonl"
    rows = [
        {"id": split, "split": split, "messages": [{"role": "user", "content": "q"}], "reference": "4"}
        for split in ("search", "sealed")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked: list[Any] = []

    def score_of(said: str, **how: Any) -> float:
        def given(model: Any, tokenizer: Any, questions: Any, how: Any, **_: Any) -> list[list[Answer]]:
            asked.append(questions[0])
            return [[Answer(said, True)]]

        monkeypatch.setattr(generators, "answers", given)
        request = {
            "task": "t",
            "split": "search",
            "key": "k",
            "path": str(path),
            "rows": 1,
            "rows_digest": digest(rows[:1]),
            "scorer": "exact",
            "max_new_tokens": 8,
        }
        return evaluate(generators.TransformersGenerator(None, tokenizer, 1), tokenizer, {**request, **how}, lambda **_: None)[
            "rows"
        ][0]["score"]

    assert score_of("since</think>4") == 1.0 and score_of("since</think>4", think="keep") == 0.0
    assert score_of("4") == 0.0, "the prompt opened a thought that was never closed"
    assert score_of("4", thinking=False) == 1.0 and asked[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert score_of("4", think="keep", generation="own", older=True) == 1.0 and asked[-1] == {"prompt": rows[0]["messages"]}


def test_what_is_scored_is_what_was_stored(steps: Lab, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    kept = generators.load_model

    def load(store: Any, told: Any, *rest: Any) -> Any:
        loaded.append(told["id"])
        return kept(store, told, *rest)

    monkeypatch.setattr(generators, "load_model", load)
    rows = [row for row in read_task_rows(lab / "tasks" / "copy.jsonl") if row["split"] == "search"][:5]
    wanted = {"task": "copy", "split": "search", "key": "k", "path": str(lab / "tasks" / "copy.jsonl"), "rows": 5}
    wanted |= {"rows_digest": digest(rows), "scorer": "exact", "max_new_tokens": 8}
    for method in ("full", "lora"):
        outcome, _, action = steps.attempt(
            "sft",
            {"model": ["llama"], "dataset": ["copy"]},
            evaluations=[{**wanted, "key": method}],
            **{**FULL, "method": method},
        )
        assert outcome["status"] == "ok" and loaded.pop() == action["digest"][:12]


@pytest.mark.parametrize(("error", "kind"), [
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), "data"),
    (IndexError("index out of range in self"), "data"),
    (IndexError("list index out of range"), "bug"),
])  # fmt: skip
def test_faults_of_data_have_their_class(error: Exception, kind: str) -> None:
    from jinja2 import TemplateError

    assert child.classify(error)["class"] == kind
    assert child.classify(TemplateError("no"))["class"] == "template"


def test_what_is_not_used_overlaps_or_is_empty_is_told_by_check(lab_profile, tmp_path: Path) -> None:
    task, data = tmp_path / "task.jsonl", tmp_path / "data.jsonl"
    rows = [
        {
            "id": str(number),
            "split": split,
            "messages": [{"role": "user", "content": f"What is {split} {number}?"}],
            "reference": reference,
        }
        for split in ("search", "sealed")
        for number, reference in enumerate(("a", "", "c"))
    ]
    task.write_text("".join(json.dumps({**row, "id": row["id"] + row["split"]}) + "\n" for row in rows))
    asked = ["what is  SEALED 1?", "What is sealed 2?", "another one"]
    data.write_text("".join(json.dumps({"prompt": text, "completion": "a", "source": "x"}) + "\n" for text in asked))
    sets = [f"datasets.copy.path={data}", f"tasks.copy={{path: {task}, scorer: exact, max_new_tokens: 8}}"]
    found = {
        (each.subject, each.detail.partition(",")[0]): each
        for each in check_profile(str(lab_profile()), sets, tmp_path)
        if each.status != "ok" and each.subject in ("dataset copy", "task copy")
    }
    assert set(found) == {
        ("dataset copy", "not used: source"),
        ("dataset copy", "2 of 3 rows ask what a sealed row of the task copy asks"),
        ("task copy", "2 of 6 references are empty: a model that says nothing may be right there"),
    }
    assert all(each.fix for (subject, detail), each in found.items() if "not used" not in detail)
