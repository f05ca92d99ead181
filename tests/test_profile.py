"""A profile's mistakes: one clear error that names file, line and fix, exit code 2, nothing started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.inputs.profile import load_profile
from tests.conftest import Commands

GOOD = """
name: mine
models: {base: {path: base}}
datasets: {data: {path: data.jsonl}}
tasks: {task: {path: task.jsonl, scorer: exact}}
objective: {weights: {task: 1.0}}
actions:
  sft:
    learning_rate: {default: 1.0e-3}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_paths_are_taken_from_the_profiles_folder(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, GOOD))
    assert profile.models["base"].path == str(tmp_path / "base")


@pytest.mark.parametrize(
    ("old", "new", "what", "where", "fix"),
    [
        ("name: mine", "nmae: mine", "nmae", "line 2", "did you mean 'name'?"),
        ("scorer: exact", "scorre: exact", "tasks.task.scorre", "line 5", "did you mean 'scorer'?"),
        ("weights: {task: 1.0}", "weights: {tsak: 1.0}", "no task named 'tsak'", "line 6", "did you mean 'task'?"),
        ("name: mine", "name: mine\nname: other", "there twice", "line 3", ""),
        ("name: mine", "name: [", "not YAML", "line", ""),
        ("name: mine", "name: &a mine\nmode: *a", "aliases", "mine.yaml", "write the value out"),
        ("name: mine", "name: mine\nseed: -1", "seed", "line 3", ""),
        ("{data: {path", "{m1: {path", "'m1' is what the result of a trial is called", "line 4", "another name"),
        ("name: mine", "name: !!python/object:os.system x", "not YAML", "line 2", ""),
        ("{base: {path", "{../../x: {path", "models: '../../x' is no name", "line 3", "no .."),
        ("{data: {path", '{"a\\nb": {path', "is no name", "line 4", "printable"),
        ("{data: {path", "{'': {path", "is no name", "line 4", "printable"),
        (
            "{task: {path: task.jsonl",
            '{task: {path: t, scorer: exact}, "\\u202e": {path: task.jsonl',
            "tasks: '\\u202e' is no name",
            "line 5",
            "",
        ),
    ],
)
def test_a_mistake_names_the_line_and_the_nearest_word(
    tmp_path: Path, old: str, new: str, what: str, where: str, fix: str
) -> None:
    with pytest.raises(LamdatuiError) as caught:
        load_profile(write(tmp_path, GOOD.replace(old, new)))
    assert what in caught.value.what
    assert where in caught.value.where
    assert fix in caught.value.fix
    assert caught.value.exit_code == 2


def test_all_faults_of_a_profile_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = "name: x\nseed: [1]\nmodels: {a: {pth: x}, b: 5}\ndatasets: {}\ntasks: {t: {path: y, scorer: exact, max_new_tokens: 0, think: maybe}}\n"
    text += "objective: {weights: {t: a}}\nactions: {sft: {learning_rate: {choices: []}}}\nmode: fast\n"
    with pytest.raises(LamdatuiError) as caught:
        load_profile(write(tmp_path, text))
    assert caught.value.what == (
        "unknown key 'models.a.pth'; line 2: seed is a whole number, not a list; line 3: models.a.path is missing; "
        "line 3: models.b is a section: names with their values, not 5; line 4: datasets has at least one entry, not a section; "
        "line 5: tasks.t.max_new_tokens is at least 1, not 0; line 5: tasks.t.think is 'strip' or 'keep', not 'maybe'; "
        "line 6: objective.weights.t is a number, not 'a'; and 2 more"
    )
    assert caught.value.where.endswith("line 3") and caught.value.fix == "did you mean 'path'?"


def test_set_changes_a_field_and_refuses_nonsense(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    profile = load_profile(path, ["seed=7", "actions.sft.learning_rate.default=0.5", "budget.trials=3"])
    assert profile.seed == 7
    assert profile.budget.trials == 3
    assert (profile.actions["sft"] or {})["learning_rate"].default == 0.5
    with pytest.raises(LamdatuiError, match="key=value"):
        load_profile(path, ["seed"])


def test_budget_and_mode_are_not_part_of_what_makes_a_search(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_profile(path).search_digest() == load_profile(path, ["budget.trials=3", "mode=auto"]).search_digest()
    assert load_profile(path).search_digest() != load_profile(path, ["seed=3"]).search_digest()


def broken_rows(count: int, broken: int, row: str) -> str:
    good = json.dumps({"prompt": "a", "completion": "b"})
    return "\n".join(row if number == broken else good for number in range(1, count + 1)) + "\n"


@pytest.mark.parametrize(
    ("change", "data", "words"),
    [
        (("seed: 1", "sede: 1"), None, ["unknown key 'sede'", "did you mean 'seed'?", "lab.yaml, line"]),
        (("catalogue:lab-bases/data/reverse.jsonl", "no-such.jsonl"), None, ["no such file", "no-such.jsonl"]),
        (
            ("catalogue:lab-bases/data/reverse.jsonl", "data.jsonl"),
            '{"title": "a", "body": "b"}\n',
            ["columns body, title", "data.jsonl, row 1"],
        ),
        (("default: 2.0e-3", "default: -2.0e-3"), None, ["learning_rate is at least", "actions.sft.learning_rate"]),
        (
            ("catalogue:lab-bases/data/reverse.jsonl", "data.jsonl"),
            broken_rows(40, 17, '{"prompt": "a", "completion": '),
            ["not JSON", "data.jsonl, row 17"],
        ),
        (
            ("catalogue:lab-bases/data/reverse.jsonl", "data.jsonl"),
            broken_rows(40, 17, '{"prompt": "a", "completion": 3}'),
            ["completion is text or a list of messages", "data.jsonl, row 17"],
        ),
    ],
)
def test_a_broken_profile_is_one_error_and_nothing_is_started(
    lab_profile, cli: Commands, tmp_path: Path, change, data, words
) -> None:
    path = lab_profile(change)
    if data:
        (tmp_path / "data.jsonl").write_text(data)
    done = cli("run", str(path), "--headless", "--mode", "auto")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 3
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not cli.runs.exists()
    checked = cli("check", str(path))
    assert checked.returncode == 2
    assert words[0] in checked.stdout + checked.stderr
