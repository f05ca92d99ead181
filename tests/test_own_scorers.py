"""Scorers that a person drops in: trusted as actions are, part of an evaluation's identity, and nothing that they do wrong goes unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import trusted_file
from lamdatui.inputs.ownscorers import own_scorer
from lamdatui.inputs.taskfiles import load_task
from lamdatui.step.errors import StepError
from lamdatui.step.evaluate import _own, _points
from tests.conftest import Commands

LETTERS = '''"""The share of the reference's letters that an answer has."""


def score(reference, completion):
    return sum(letter in completion for letter in reference) / len(reference)


def problem(reference):
    return None if isinstance(reference, str) and reference else "it is a text"
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    made = paths.config_dir() / "scorers"
    made.mkdir(parents=True)
    return made


def task_file(to: Path, reference: Any = "abc") -> Path:
    lines = [
        {"id": place, "split": split, "messages": [{"role": "user", "content": f"{split} {place}"}], "reference": reference}
        for place, split in enumerate(("search", "sealed"))
    ]
    path = to / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_file_is_a_scorer_and_its_text_is_part_of_the_key(folder: Path, tmp_path: Path) -> None:
    (folder / "letters.py").write_text(LETTERS)
    task = load_task("t", task_file(tmp_path), "letters", 8, {})
    request = task.request("k", "search")
    assert request["scorer_source"] and _points(_own(request), request, task.rows["search"][0], "a b") == pytest.approx(2 / 3)
    key = task.key("m", "search", "float32")
    (folder / "letters.py").write_text(LETTERS + "# another\n")
    assert load_task("t", task_file(tmp_path), "letters", 8, {}).key("m", "search", "float32") != key
    with pytest.raises(LamdatuiError, match="not the one that the run began with"):
        _own(request)
    (folder / "exact.py").write_text(LETTERS)
    assert load_task("t", task_file(tmp_path), "exact", 8, {}).own is None, "the names of ours are ours"
    with pytest.raises(LamdatuiError, match="it is a text"):
        load_task("t", task_file(tmp_path, 5), "letters", 8, {})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x = 1\n", "no function score"),
        ("def score(reference, completion):\n    return 1.0\nproblem = 3\n", "no function score"),
        ("import sys\nsys.exit(3)\n", "ended Python"),
        ("def score(:\n", "SyntaxError"),
        ("def score(reference, completion):\n    return 7\n", "no number from 0 to 1"),
        ("def score(reference, completion):\n    return float('nan')\n", "no number from 0 to 1"),
        ("def score(reference, completion):\n    raise RuntimeError('oh')\n", "failed: RuntimeError: oh"),
        ("def score(reference, completion):\n    return None\n", "failed: TypeError"),
    ],
)
def test_what_is_wrong_with_one_is_told_before_a_run(folder: Path, tmp_path: Path, text: str, what: str) -> None:
    (folder / "own.py").write_text(text)
    with pytest.raises(LamdatuiError, match=what):
        load_task("t", task_file(tmp_path), "own", 8, {})


def test_an_answer_that_breaks_a_scorer_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "own.py").write_text("def score(reference, completion):\n    return 1 / (len(completion) - 3)\n")
    (folder / "fine.py").write_text("def score(reference, completion):\n    return 1 / max(1, 4 - len(completion))\n")
    with pytest.raises(LamdatuiError, match="no number from 0 to 1"):
        load_task("t", task_file(tmp_path), "own", 8, {})
    task = load_task("t", task_file(tmp_path), "fine", 8, {})
    (folder / "fine.py").write_text("def score(reference, completion):\n    return len(completion)\n")
    request = {**task.request("k", "search"), "scorer_source": own_scorer("fine").source}
    with pytest.raises(StepError, match=r"t, row 0: the scorer fine gave 5"):
        _points(_own(request), request, task.rows["search"][0], "12345")


def test_a_project_s_scorer_is_read_only_where_the_person_trusts_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "cloned"
    (project / ".lamdatui" / "scorers").mkdir(parents=True)
    canary = tmp_path / "touched"
    (project / ".lamdatui" / "scorers" / "theirs.py").write_text(f"open({str(canary)!r}, 'w').close()\n{LETTERS}")
    monkeypatch.chdir(project)
    with pytest.raises(LamdatuiError, match="no scorer named 'theirs'") as error:
        load_task("t", task_file(tmp_path), "theirs", 8, {})
    assert "is not trusted" in error.value.fix and not canary.exists()
    trusted_file().write_text(f"{project}\n")
    assert load_task("t", task_file(tmp_path), "theirs", 8, {}).own is not None


def test_a_run_scores_with_it_and_its_export_says_that_it_can_t_be_checked(
    lab_profile: Any, cli: Commands, folder: Path
) -> None:
    profile = lab_profile(("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 1 }"))
    told = yaml.safe_load(profile.read_text())
    name = next(iter(told["tasks"]))
    told["tasks"][name]["scorer"] = "letters"
    profile.write_text(yaml.safe_dump(told))
    refused = cli("check", str(profile))
    assert refused.returncode == 2 and "no scorer named 'letters'" in refused.stdout + refused.stderr
    (folder / "letters.py").write_text(LETTERS)
    done = cli("run", str(profile), "--name", "o", "--headless", "--mode", "auto")
    assert done.returncode == 0, done.stderr
    rows = next(one for one in json.loads(cli("rows", "o", "winner", "--json").stdout) if one["task"] == name)["rows"]
    for row in rows:
        wanted = row["wanted"]
        assert row["score"] == pytest.approx(sum(letter in row["answer"] for letter in wanted) / len(wanted))
    assert cli("export", "o", "--to", "out").returncode == 0
    (folder / "letters.py").unlink()
    verified = cli("verify", "out")
    assert "letters" in verified.stdout + verified.stderr and "Traceback" not in verified.stderr
