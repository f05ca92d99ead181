"""`lamdatui init`: from a model's folder and files of rows to a profile that passes its check and runs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from lamdatui.base.jsonio import read_json, write_json
from lamdatui.inputs.datafiles import read_dataset, read_task_rows
from lamdatui.inputs.holdout import hold_out
from lamdatui.inputs.overlap import question_of
from tests.conftest import Commands

Row = dict[str, Any]
TOOL = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "d",
        "parameters": {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]},
    },
}


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chats(count: int) -> list[Row]:
    return [
        {
            "conversations": [{"from": "human", "value": f"cpy:{number:04d}="}, {"from": "gpt", "value": f"{number:04d}"}],
            "source": "x",
        }
        for number in range(count)
    ]


def calls(count: int) -> list[Row]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"tide at {number}?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "tide", "arguments": json.dumps({"port": str(number)})}}],
                },
            ],
            "tools": [TOOL],
        }
        for number in range(count)
    ]


def test_from_a_folder_and_a_file_to_a_first_scored_trial(lab: Path, tmp_path: Path, cli: Commands) -> None:
    data = write(tmp_path / "my chats.jsonl", chats(120))
    made = cli("init", "--model", str(lab / "llama"), "--data", str(data), "--to", "mine.yaml", "--yes")
    assert made.returncode == 0, made.stderr
    for words in (
        "llama, 0.2 M parameters",
        "my_chats: 120 rows, sft",
        "not used: source",
        "[my_chats, row 3]",
        "completion, trained",
        "24 rows held out",
        "next: lamdatui run mine.yaml",
    ):
        assert words in made.stdout, words
    folder = Path(cli.folder)
    profile = yaml.safe_load((folder / "mine.yaml").read_text())
    assert profile["tasks"]["task"]["scorer"] == "exact" and list(profile["actions"]) == ["sft", "merge_linear", "merge_ties"]
    held, rest = read_task_rows(folder / "mine-task.jsonl"), read_dataset(folder / "mine-my_chats.jsonl")
    assert len(rest) == 96 and sorted({row["split"] for row in held}) == ["sealed", "search"]
    assert not {question_of(row["messages"]) for row in held} & {question_of(row["prompt"]) for row in rest}
    checked = cli("check", "mine.yaml")
    assert checked.returncode == 0 and "\nbad" not in checked.stdout
    done = cli(
        "run",
        "mine.yaml",
        "--name",
        "r",
        "--headless",
        "--mode",
        "auto",
        "--max-trials",
        "1",
        "--set",
        "actions.sft.max_steps.default=10",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads(cli("show", "r", "--json").stdout)["trials"]
    assert trial["status"] == "done" and trial["objective"] is not None
    again = cli("init", "--model", str(lab / "llama"), "--data", str(data), "--to", "mine.yaml", "--yes")
    assert again.returncode == 2 and "there is a file already" in again.stderr


def test_rows_with_calls_get_a_template_that_knows_tools_and_a_task_of_calls(lab: Path, tmp_path: Path, cli: Commands) -> None:
    shared = [{"prompt": f"tide at {number}?", "chosen": "a", "rejected": "b"} for number in range(0, 120, 2)]
    made = cli(
        "init", "--model", str(lab / "llama"), "--data", str(write(tmp_path / "calls.jsonl", calls(120))),
        "--data", str(write(tmp_path / "pairs.jsonl", shared)), "--to", "mine.yaml", "--yes",
    )  # fmt: skip
    folder = Path(cli.folder)
    profile = yaml.safe_load((folder / "mine.yaml").read_text())
    assert profile["models"]["base"]["chat_template"] == "qwen3_instruct_2507", made.stdout + made.stderr
    assert profile["tasks"]["task"]["scorer"] == "function_call" and list(profile["actions"]) == [
        "sft",
        "dpo",
        "merge_linear",
        "merge_ties",
    ]
    held = read_task_rows(folder / "mine-task.jsonl")
    assert held[0]["reference"]["answer"] == {"tide": {"port": [held[0]["messages"][-1]["content"].split()[2].rstrip("?")]}}
    questions = {question_of(row["messages"]) for row in held}
    for name in ("calls", "pairs"):
        assert not questions & {question_of(row["prompt"]) for row in read_dataset(folder / f"mine-{name}.jsonl")}
    assert '"tide", "arguments": {"port": "0"}' in made.stdout


def test_of_two_datasets_of_one_kind_the_longer_one_says_how_long_trials_are(lab: Path, tmp_path: Path) -> None:
    from lamdatui.cli.newprofile import make

    long, short = write(tmp_path / "long.jsonl", chats(240)), tmp_path / "short.jsonl"
    plain = [{"prompt": f"short {at}", "completion": "a"} for at in range(20)]
    made = [make(str(lab / "llama"), [str(each) for each in data], "", tmp_path / f"{at}.yaml", "", lambda _: None)
            for at, data in enumerate(([long], [long, write(short, plain)]))]  # fmt: skip
    first, both = (yaml.safe_load(path.read_text())["actions"]["sft"]["max_steps"]["default"] for path in made)
    assert first == both == 30


@pytest.mark.parametrize("name", ["2024-01", "on", "null", "base", "task", "m1", "D7", "~", "été", "true"])
def test_any_name_of_a_file_gives_a_profile_that_can_be_loaded(name: str, lab: Path, tmp_path: Path) -> None:
    from lamdatui.cli.newprofile import make
    from lamdatui.inputs.profile import load_profile

    data = write(tmp_path / f"{name}.jsonl", chats(40))
    path = make(str(lab / "llama"), [str(data)], "", tmp_path / "mine.yaml", "", lambda _: None)
    assert len(load_profile(path).datasets) == 1


def test_a_conversation_is_on_one_side_only(tmp_path: Path) -> None:
    from lamdatui.inputs.datafiles import read_noted
    from lamdatui.inputs.holdout import shared_records

    rows = [
        {
            "messages": [
                turn
                for at in range(3)
                for turn in ({"role": "user", "content": f"q{number}.{at}"}, {"role": "assistant", "content": "a"})
            ]
        }
        for number in range(40)
    ]
    rows += [
        {
            "messages": [
                {"role": "user", "content": "q7.2"},
                {"role": "assistant", "content": "again"},
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "b"},
            ]
        }
    ]
    data = read_noted(write(tmp_path / "d.jsonl", rows))
    for seed in range(9):
        held = hold_out(data, seed)
        assert held is not None and len(held.rows) == 8
        left_out = shared_records(data, held, held.records)
        kept = [row for row, number in zip(data.rows, data.numbers, strict=True) if number not in left_out]
        asked = {question_of(row["prompt"][: at + 1]) for row in kept for at in range(len(row["prompt"]))}
        assert not held.questions & asked
    assert hold_out(read_noted(write(tmp_path / "e.jsonl", rows[:5]))) is None


def test_long_answers_are_scored_by_their_words(tmp_path: Path) -> None:
    from lamdatui.inputs.datafiles import read_noted

    rows = [
        {"prompt": f"q{number}", "completion": "a long answer of very many words that nobody would say in just this way"}
        for number in range(40)
    ]
    held = hold_out(read_noted(write(tmp_path / "d.jsonl", rows)))
    assert held is not None and held.scorer == "word_f1"


def test_a_task_of_ones_own_is_taken_and_a_missing_template_is_proposed(lab: Path, tmp_path: Path, cli: Commands) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(lab / "llama", bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    config = read_json(bare / "tokenizer_config.json")
    write_json(bare / "tokenizer_config.json", {name: value for name, value in config.items() if name != "chat_template"})
    made = cli(
        "init", "--model", str(bare), "--data", str(write(tmp_path / "d.jsonl", chats(30))), "--task", str(lab / "tasks" / "copy.jsonl"),
        "--to", "mine.yaml", "--yes",
    )  # fmt: skip
    assert "its chat template is missing: chatml is proposed in its place" in made.stdout
    profile = yaml.safe_load((Path(cli.folder) / "mine.yaml").read_text())
    assert profile["models"]["base"]["chat_template"] == "chatml" and profile["tasks"]["task"]["scorer"] == "exact"
    assert not list(Path(cli.folder).glob("mine-*"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "--model, --data, --to is not given and nobody can be asked"),
        (["--model", "nothing", "--data", "d.jsonl", "--to", "m.yaml"], "no such file"),
        (["--model", "LLAMA", "--data", "none.jsonl", "--to", "m.yaml"], "no such file"),
        (["--model", "LLAMA", "--data", "d.jsonl", "--to", "m.txt"], "ends in .yaml"),
        (["--model", "LLAMA", "--data", "d.jsonl", "--to", "m.yaml"], "no task can be cut"),
        (["--model", "LLAMA", "--data", "d.jsonl", "--data", "sub/d.jsonl", "--to", "m.yaml"], "one name"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(lab: Path, cli: Commands, arguments: list[str], why: str) -> None:
    folder = Path(cli.folder)
    (folder / "sub").mkdir()
    for path in (folder / "d.jsonl", folder / "sub" / "d.jsonl"):
        write(path, chats(5))
    done = cli("init", *(str(lab / "llama") if word == "LLAMA" else word for word in arguments), "--yes")
    assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr
    assert not list(folder.glob("m*"))


def test_it_asks_for_what_is_not_given(lab: Path, tmp_path: Path, cli: Commands) -> None:
    data = write(tmp_path / "d.jsonl", chats(60))
    child = pexpect.spawn(
        sys.executable, ["-P", "-m", "lamdatui", "init"], cwd=cli.folder, encoding="utf-8", timeout=60, dimensions=(40, 120)
    )
    for asked, answer in (
        ("model's folder", str(lab / "llama")),
        ("training rows", str(data)),
        ("Another one", ""),
        ("task's file", ""),
        ("Where to write", ""),
    ):
        child.expect(asked)
        child.sendline(answer)
    child.expect("next: lamdatui run my.yaml")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and (Path(cli.folder) / "my.yaml").exists()
