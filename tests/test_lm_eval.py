"""Benchmarks of lm-evaluation-harness as tasks: its own scores row by row, in its own words, and no code of a task file runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.lm_eval_scores import TASKS, by_lamdatui, compare, document, write_tasks
from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue.lm_eval import build, parse
from lamdatui.inputs.asking import read_asking
from lamdatui.inputs.taskfiles import load_task
from lamdatui.step.generate import cut
from lamdatui.step.likelihood import rate
from lamdatui.tasks.choice import choice, rating_text
from lamdatui.tasks.extracted import number, regex
from lamdatui.tasks.lm_eval import config_of, judge_of, lm_eval, package
from lamdatui.tasks.scorers import problem
from tests.conftest import Commands

ROWS = 40


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_tasks(folder, ROWS, shots=2)
    return folder


@pytest.fixture(scope="module")
def model(lab: Path) -> tuple[Any, Any]:
    folder = lab / "llama"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def test_a_folder_called_as_a_dataset_of_the_hub_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets looks into the current folder first: a cloned one could bring easier questions along."""
    folder = tmp_path / "cloned" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = ({"question": f"{split} {n}?", "answer": f"so #### {n}"} for n in range(60))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder.parent / "README.md").write_text("---\nconfigs:\n- config_name: main\n  data_dir: main\n---\n")
    monkeypatch.chdir(tmp_path / "cloned")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(LamdatuiError, match="is not on this machine"):
        build("lm_eval:gsm8k?search=1&sealed=1")


@pytest.mark.parametrize("name", TASKS)
def test_the_same_model_has_the_harness_s_own_scores(name: str, tasks: Path, model: tuple[Any, Any]) -> None:
    model[0].config.max_position_embeddings = 512
    found = compare(*model, tasks / f"{name}.yaml")
    assert found["n"] == ROWS and found["differ"] == 0
    assert found["ours"] == pytest.approx(found["theirs"], abs=1e-6)


def test_a_model_without_a_chat_template_is_asked_in_plain_text(tasks: Path, model: tuple[Any, Any]) -> None:
    plain = copy.deepcopy(model[1])
    plain.chat_template = None
    for name in ("generate_until", "multiple_choice_letters"):
        rows, _ = by_lamdatui(model[0], plain, tasks / f"{name}.yaml")
        assert [scored for _, scored in rows] == [scored for _, scored in by_lamdatui(*model, tasks / f"{name}.yaml")[0]]


def test_splits_share_no_question_and_each_row_says_how_it_is_asked(tasks: Path) -> None:
    path = build(f"lm_eval:{tasks / 'generate_until.yaml'}?search=5&sealed=20&shots=1&filter=flexible-extract")
    task = load_task("t", path, "lm_eval", 32, {})
    assert [len(task.rows[split]) for split in ("search", "sealed")] == [5, 20]
    asked = {split: {row["messages"][0]["content"] for row in task.rows[split]} for split in task.rows}
    assert not asked["search"] & asked["sealed"] and len(asked["sealed"]) == 20
    row = task.rows["search"][0]
    asking = row["asking"]
    assert asking["plain"].count("Question:") == 2 and asking["plain"].endswith("Answer:")
    assert asking["until"] == ["Question:", "\n\n"]
    assert row["reference"]["filter"] == "flexible-extract" and "####" in row["reference"]["target"]
    right = row["reference"]["target"].rpartition(" ")[2]
    assert [lm_eval(row["reference"], said) for said in (f"it is {right}", "it is -1", "")] == [1.0, 0.0, 0.0]
    assert build(f"lm_eval:{tasks / 'generate_until.yaml'}?search=5&sealed=20&shots=1&filter=flexible-extract") == path
    chat = load_task("t", build(f"lm_eval:{tasks / 'generate_until.yaml'}?search=5&sealed=20&chat=true"), "lm_eval", 32, {})
    turns = chat.rows["search"][0]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"] and "plain" not in chat.rows["search"][0][
        "asking"
    ]


def changed(tasks: Path, to: Path, **change: Any) -> Path:
    config = yaml.safe_load((tasks / "multiple_choice_texts.yaml").read_text()) | change
    for name in ("train", "test"):
        (to / f"{name}.jsonl").write_text((tasks / f"{name}.jsonl").read_text())
    path = to / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"process_docs": "utils.x"}, "process_docs"),
        ({"unsafe_code": True}, "code"),
        ({"metric_list": [{"metric": "./evil.py"}]}, "no metric"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "no metric"),
        ({"doc_to_text": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}, "unsafe"),
        ({"doc_to_text": "{{ 7 ** (10 ** 9) }}"}, r"can't compute \*\*"),
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, "no such file"),
        ({"test_split": "nothing"}, "nothing"),
        ({"output_type": "other"}, "other"),
    ],
)
def test_a_task_file_runs_no_code_and_what_is_wrong_with_it_is_told(
    tasks: Path, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    with pytest.raises(LamdatuiError, match=what):
        build(f"lm_eval:{changed(tasks, tmp_path, **change)}")


def test_functions_of_a_task_file_are_refused(tasks: Path, tmp_path: Path) -> None:
    canary = tmp_path / "touched"
    (tmp_path / "utils.py").write_text(f"open({str(canary)!r}, 'w').close()\ndef f(doc): return ''\n")
    path = changed(tasks, tmp_path)
    path.write_text(path.read_text() + "doc_to_decontamination_query: !function utils.f\n")
    with pytest.raises(LamdatuiError, match="functions"):
        build(f"lm_eval:{path}")
    assert not canary.exists()


def test_a_row_is_data_also_where_its_reference_holds_templates() -> None:
    wicked = "{{ cycler.__init__.__globals__.os.system('true') }}"
    task = {"task": "t", "output_type": "generate_until", "doc_to_text": "a", "doc_to_target": wicked}
    task["metric_list"] = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    reference = {"task": task, "doc": {"a": 1}, "metric": "exact_match", "filter": "none", "shape": [0, 0]}
    assert problem("lm_eval", reference) is None
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        lm_eval(reference, "x")
    with pytest.raises(ValueError, match=r"can't judge this answer: KeyError"):
        lm_eval({**reference, "task": {**task, "doc_to_target": "a"}, "metric": "other"}, "x")
    with pytest.raises(LamdatuiError, match="no task file"):
        lm_eval({**reference, "task": "../../../etc/passwd"}, "x")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("lm_eval:", "names no task"),
        ("lm_eval:x?rows=3", "no option 'rows'"),
        ("lm_eval:x?search=0", "search is a whole number"),
        ("lm_eval:x?shots=-1", "shots is a whole number"),
        ("lm_eval:x?chat=yes", "true or false"),
        ("lm_eval:x?search", "bad query"),
    ],
)
def test_a_reference_that_can_t_be_read(text: str, what: str) -> None:
    with pytest.raises(LamdatuiError, match=what):
        parse(text)


def test_what_a_task_file_includes_counts_too(tasks: Path, tmp_path: Path) -> None:
    base = changed(tasks, tmp_path).rename(tmp_path / "base.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("include: base.yaml\ntask: own\n")
    before = build(f"lm_eval:{own}")
    base.write_text(base.read_text().replace("Question:", "Q:"))
    assert build(f"lm_eval:{own}") != before
    base.write_text(base.read_text() + "doc_to_decontamination_query: !function utils.f\n")
    with pytest.raises(LamdatuiError, match="functions"):
        build(f"lm_eval:{own}")


def test_a_folder_s_modules_are_not_those_of_the_harness(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "touched"
    (tmp_path / "yaml.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    (tmp_path / "bleu").mkdir()
    (tmp_path / "bleu" / "bleu.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    path = changed(tasks, tmp_path)
    monkeypatch.chdir(tmp_path)
    build(f"lm_eval:{path}?search=3&sealed=3")
    reference = {"task": "meqsum/meqsum.yaml", "doc": {"a": "b"}, "metric": "bleu", "filter": "none", "shape": [0, 0]}
    with pytest.raises(LamdatuiError, match="not offered"):
        lm_eval(reference, "x")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["squadv2/squadv2.yaml", "humaneval/humaneval.yaml", "score/math/prompt_robustness_math.yaml"])
def test_tasks_that_are_programs_or_evaluate_text_are_not_offered(name: str) -> None:
    found = list(package().rglob(name.rpartition("/")[2]))
    for path in found or [package() / name]:
        with pytest.raises(LamdatuiError, match=r"not offered|code|no task file"):
            config_of(str(path.relative_to(package())))


def test_usual_benchmarks_are_offered() -> None:
    for name in (
        "gsm8k/gsm8k.yaml",
        "mmlu/default/mmlu_anatomy.yaml",
        "hendrycks_math/hendrycks_math_algebra.yaml",
        "arc/arc_easy.yaml",
    ):
        assert config_of(name)["task"]


def test_a_metric_that_is_no_score_of_a_row_is_refused_before_anything_is_generated(tasks: Path, tmp_path: Path) -> None:
    for metric in ("mcc", "f1", "brier_score"):
        with pytest.raises(LamdatuiError, match=r"no score of one row|lower"):
            build(f"lm_eval:{changed(tasks, tmp_path, metric_list=[{'metric': metric}])}")


def test_too_few_documents_and_unknown_metrics_are_told(tasks: Path) -> None:
    path = tasks / "multiple_choice_texts.yaml"
    for options, what in (
        ("search=900", "search rows, not 900"),
        ("metric=f7", "no metric 'f7'"),
        ("filter=f", "no filter 'f'"),
    ):
        with pytest.raises(LamdatuiError, match=what):
            build(f"lm_eval:{path}?{options}")


# --- rows of one's own


def test_choices_share_what_stands_before_them_and_rate_as_alone(model: tuple[Any, Any]) -> None:
    made = [document(number) for number in range(6)]
    rows = [{"plain": f"{one['question']} So", "choices": [f" {text}" for text in one["sentences"]]} for one in made]
    rows.append({"plain": "", "choices": ["a", "bc"]})
    rows.append({"plain": "x ", "choices": ["a", "bc", "a"]})
    together = rate(*model, rows, batch_tokens=4096, positions=512)
    alone = [
        [rate(*model, [{**row, "choices": [text]}], batch_tokens=64, positions=512)[0][0] for text in row["choices"]]
        for row in rows
    ]
    assert len(together) == len(rows)
    for one, other in zip(together, alone, strict=True):
        assert [greedy for _, greedy in one] == [greedy for _, greedy in other]
        assert [value for value, _ in one] == pytest.approx([value for value, _ in other], abs=1e-4)
    many = [{"plain": "one two three", "choices": [f" {number}" for number in range(40)]}]
    parts = rate(*model, many, batch_tokens=64, positions=512)[0]
    assert [value for value, _ in parts] == pytest.approx(
        [value for value, _ in rate(*model, many, batch_tokens=8192, positions=512)[0]], abs=1e-4
    )
    long = [{"plain": "abc " * 300, "rolling": True}]
    whole = rate(*model, long, batch_tokens=4096, positions=512)[0][0][0]
    parts = rate(*model, long, batch_tokens=4096, positions=64)[0][0][0]
    assert whole < 0 and parts < 0 and whole == pytest.approx(parts, rel=0.5) and whole != parts


def test_the_likeliest_choice_counts() -> None:
    said = rating_text([" a", " a longer one", " c"], [(-3.0, False), (-4.0, False), (-3.5, False)])
    assert [choice(reference, said) for reference in (0, 1, 2, [0, 2], " a", {"answer": 1, "by": "characters"})] == [
        1,
        0,
        0,
        1,
        1,
        1,
    ]
    assert choice(0, "no ratings") == 0 == choice(0, "[]")
    assert problem("choice", 1) is None and problem("choice", {"answer": 0, "by": "bytes"}) is None
    for wrong in (-1, 1.5, None, [], {"answer": 0, "by": "x"}, {"right": 1}):
        assert problem("choice", wrong), wrong


@pytest.mark.parametrize(
    ("reference", "said", "score"),
    [
        (18, "5 + 13 = 18, so #### 18", 1),
        ("1,234", "The answer is $1,234.", 1),
        (1234, "it costs 1 234 dollars", 1),
        (123, "1 2 3", 0),
        (3, "1 2 3", 1),
        (0.5, "answer: 1/2", 1),
        (-3, "x = −3", 1),
        (72, r"\boxed{72} (not 5)", 1),
        (5, "5 of 7", 0),
        ({"value": 3.14, "tolerance": 0.01}, "about 3.1415", 1),
        (12, "12.", 1),
        (1e3, "1e3", 1),
        (1, "no number at all", 0),
        (1, "1" * 500_000, 0),
        (5, "Answer:" + "\n" * 100_000, 0),
        (1, "Answer: 1/" + "3" * 5000, 0),
    ],
)
def test_the_number_of_an_answer(reference: Any, said: str, score: int) -> None:
    assert number(reference, said) == score


def test_a_pattern_finds_the_answer_and_can_t_keep_anybody_busy() -> None:
    assert regex({"pattern": r"<answer>(.*?)</answer>", "answer": "B"}, "<answer>A</answer> no: <answer> B </answer>") == 1
    assert regex({"pattern": "yes|no", "answer": ["YES"], "ignore_case": True}, "Yes") == 1
    assert regex({"pattern": "done"}, "it is done") == 1 and regex({"pattern": "done"}, "it is not") == 0
    assert regex({"pattern": r"(a|a|aa)+$"}, "a" * 4000 + "b") == 0
    for wrong in ({"pattern": "("}, {"pattern": 1}, {}, {"pattern": "a", "answer": []}, {"pattern": "a", "flags": 1}, "a"):
        assert problem("regex", wrong), wrong
    for wrong in ({"value": True}, "many", {"value": 1, "tolerance": -1}, {"tolerance": 1}, {"value": 1, "by": 2}, "nan"):
        assert problem("number", wrong), wrong


def test_stops_end_an_answer_and_are_no_part_of_it() -> None:
    assert cut("a Q: b\n\n", ("\n\n", "Q:"), ended=False) == ("a ", True)
    assert cut("a", ("\n\n",), ended=False) == ("a", False) and cut("a", (), ended=True) == ("a", True)


@pytest.mark.parametrize(
    "row",
    [
        {"plain": 1},
        {"until": "x"},
        {"until": [""]},
        {"choices": []},
        {"choices": ["a"] * 1001},
        {"contexts": ["a"]},
        {"choices": ["a"], "contexts": ["a", "b"]},
        {"rolling": True},
        {"rolling": 1, "plain": "a"},
        {"rolling": True, "plain": "a", "choices": ["a"]},
        {"other": 1},
    ],
)
def test_a_row_that_can_t_be_asked_so_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        read_asking({"asking": row})


# --- in a run


def test_a_run_over_a_benchmark_and_choices_of_one_s_own(lab_profile: Any, cli: Commands, tasks: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    lines = []
    for place in range(40):
        made = document(100 + place)
        row = {
            "id": place,
            "split": "search" if place < 16 else "sealed",
            "asking": {"choices": made["sentences"]},
            "reference": made["gold"],
        }
        lines.append({**row, "messages": [{"role": "user", "content": made["question"]}]})
    own.write_text("\n".join(map(json.dumps, lines)) + "\n")
    profile = lab_profile(("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 1 }"))
    told = yaml.safe_load(profile.read_text())
    benchmark = {"path": f"lm_eval:{tasks / 'multiple_choice_texts.yaml'}?search=8&sealed=20&shots=0", "scorer": "lm_eval"}
    told["tasks"] = {"bench": benchmark, "own": {"path": str(own), "scorer": "choice"}}
    told["objective"] = {"weights": {"bench": 1.0, "own": 1.0}}
    profile.write_text(yaml.safe_dump(told))
    checked = cli("check", str(profile))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = cli("run", str(profile), "--name", "b", "--headless", "--mode", "auto")
    assert done.returncode == 0, done.stderr
    shown = cli.show("b")
    scores = shown["winner"]["scores"]
    assert (scores["bench"]["sealed"]["n"], scores["own"]["sealed"]["n"]) == (20, 24)
    rows = json.loads(cli("rows", "b", "winner", "--split", "sealed", "--json").stdout)
    for one in rows:
        assert all(len(json.loads(row["answer"])) == 4 for row in one["rows"])
        assert sum(row["score"] for row in one["rows"]) / one["n"] == pytest.approx(scores[one["task"]]["sealed"]["mean"])
    out = cli("export", "b", "--to", "out")
    assert out.returncode == 0, out.stderr
    verified = cli("verify", "out")
    assert verified.returncode == 0, verified.stdout + verified.stderr

    told["tasks"]["own"]["scorer"] = "number"
    profile.write_text(yaml.safe_dump(told))
    refused = cli("check", str(profile))
    assert refused.returncode == 2 and "choices" in refused.stdout + refused.stderr


def test_a_text_has_one_language_each_time(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import langdetect

    monkeypatch.setattr(langdetect.DetectorFactory, "seed", None)
    text = "NOBODY HURRIES IN WINTER"
    assert len({str(langdetect.detect_langs(text)) for _ in range(10)}) > 1
    config = yaml.safe_load((tasks / "generate_until.yaml").read_text())
    judge_of({key: value for key, value in config.items() if not key.startswith("dataset")})
    assert len({str(langdetect.detect_langs(text)) for _ in range(10)}) == 1


def test_an_answer_that_is_nested_too_deeply_is_no_right_one() -> None:
    doc = {"key": 1, "prompt": "As JSON.", "instruction_id_list": ["detectable_format:json_format"], "kwargs": [{}]}
    reference = {
        "task": "ifeval/ifeval.yaml",
        "doc": doc,
        "metric": "prompt_level_strict_acc",
        "filter": "none",
        "shape": [0, 0],
    }
    assert [lm_eval(reference, said) for said in ("[1]", "[" * 100_000, "")] == [1.0, 0.0, 0.0]
