"""The profile tool-use: what it offers on its GPU, with files of the shapes that its datasets have; what it says where nothing was fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT, Commands
from tests.test_plans import GIB, sparse

PROFILE = CHECKOUT / "profiles" / "tool-use.yaml"
FUNCTION = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
LONG = "It rains in the morning and the sun comes out later. " * 150


def toolace(number: int) -> dict[str, Any]:
    call = [
        {"from": "user", "value": f"How is the weather in city {number}?"},
        {"from": "assistant", "value": f'[weather(city="city {number}")]'},
        {"from": "tool", "value": '[{"name": "weather", "results": {"sky": "clear"}}]'},
        {"from": "assistant", "value": f"It is clear. {LONG}"},
    ]
    return {"system": f"Here is a list of functions in JSON format: {json.dumps([FUNCTION])}", "conversations": call}


def hermes(number: int) -> dict[str, Any]:
    said = f'<tool_call>\n{{"arguments": {{"city": "town {number}"}}, "name": "weather"}}\n</tool_call>'
    turns = [("system", "You call functions."), ("human", f"And in town {number}?"), ("gpt", said)]
    tools = json.dumps([{"type": "function", "function": FUNCTION}])
    return {"id": f"h{number}", "conversations": [{"from": who, "value": text} for who, text in turns], "tools": tools}


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def chat(number: int) -> dict[str, Any]:
    return {"messages": [turn("user", f"Tell story {number}."), turn("assistant", LONG)], "source": "made"}


def preferences(number: int) -> dict[str, Any]:
    question = f"Explain thing {number}."
    chosen, rejected = ([turn("user", question), turn("assistant", text)] for text in (LONG, f"No. {LONG}"))
    about = {"prompt_id": f"p{number}", "messages": chosen, "score_chosen": 8.0, "score_rejected": 3.0}
    return {"prompt": question, "chosen": chosen, "rejected": rejected, **about}


def task_rows(scorer: str) -> list[dict[str, Any]]:
    rows = []
    for number, split in enumerate(("search", "search", "sealed", "sealed")):
        row = {"id": number, "split": split, "messages": [turn("user", f"Question {scorer} {number}?")]}
        if scorer == "bfcl":
            row["tools"] = [{"type": "function", "function": FUNCTION}]
            row["reference"] = {"want": "calls", "function": [FUNCTION], "answer": [{"weather": {"city": ["Rome"]}}]}
        else:
            doc = {"key": number, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
            about = {"metric": "prompt_level_strict_acc", "filter": "none", "shape": [0, 0]}
            row["reference"] = {"task": "ifeval/ifeval.yaml", "doc": doc, **about}
        rows.append(row)
    return rows


@pytest.fixture
def words(lab: Path, tmp_path: Path) -> list[str]:
    """`--set KEY=VALUE` for everything that the profile names."""
    paths = {"models.base.path": sparse(tmp_path / "8b", lab, "Qwen3-8B")}
    for make in (toolace, hermes, chat, preferences):
        paths[f"datasets.{make.__name__}.path"] = file = tmp_path / f"{make.__name__}.jsonl"
        file.write_text("".join(json.dumps(make(number)) + "\n" for number in range(12)))
    for task in ("multiple", "parallel", "irrelevance", "instructions"):
        paths[f"tasks.{task}.path"] = file = tmp_path / f"{task}.jsonl"
        rows = task_rows("lm_eval" if task == "instructions" else "bfcl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [f"{key}={path}" for key, path in paths.items()]
    changes += [f"tasks.{task}.rows={{search: 2, sealed: 2}}" for task in ("multiple", "parallel", "irrelevance")]
    changes.append("models.base.chat_template=qwen3")
    return [word for change in changes for word in ("--set", change)]


def test_a_gpu_of_24_gib_gets_all_of_it(words: list[str], cli: Commands) -> None:
    done = cli("check", str(PROFILE), *words, "--machine", "cuda 24GiB", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, [one for one in found["checks"] if one["status"] == "bad"]
    actions = found["machine"]["actions"]
    assert set(actions) == {"sft", "dpo", "orpo", "merge_ties", "merge_linear", "merge_adapters", "evaluation"}
    assert all(one["offered"] for one in actions.values()), actions
    assert all(one["gpu_bytes"] < 24 * GIB for one in actions.values())
    for kind in ("sft", "dpo", "orpo"):
        assert actions[kind]["gpu_bytes"] > 16 * GIB and "method lora, micro-batch" in actions[kind]["plan"]
        assert "tried" not in actions[kind]["plan"], "it fits by forecast, and needs no trial"


def test_a_new_user_is_told_what_to_fetch(cli: Commands, tmp_path: Path) -> None:
    done = cli(
        "check", str(PROFILE), "--machine", "cuda 24GiB", LAMDATUI_HOME=str(tmp_path / "empty"), HF_HOME=str(tmp_path / "hub")
    )
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    text = PROFILE.read_text()
    told = [line.partition("fix: ")[2].strip() for line in done.stdout.splitlines() if "fix: " in line]
    assert len(told) == 9 and all(f"#   {fix}" in text for fix in told), told
    assert "the data of ifeval is not on this machine" in done.stdout
    assert "on cuda 24 GiB: not known before what is bad above is there" in done.stdout
