"""Guards that a run seldom meets: what must be refused is refused, in one sentence, before anything is made of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base import fingerprint, paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed, hashes
from lamdatui.base.jsonio import file_digest, read_json, write_json
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.workspace import open_workspace
from lamdatui.step.promises import check_inputs
from lamdatui.store.artifacts import Store
from lamdatui.wire.rundir import prepare_run


@pytest.fixture
def model(lab: Path, tmp_path: Path) -> Path:
    shutil.copytree(lab / "llama", tmp_path / "model")
    return tmp_path / "model"


# --- code of others --------------------------------------------------------------------------------------------------


def test_a_model_that_brings_its_own_code_is_refused(model: Path) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "model_type": "own", "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    with pytest.raises(LamdatuiError, match="runs its own code") as refused:
        inspect_model(model)
    assert refused.value.where == str(model)


def test_pickled_weights_are_neither_taken_nor_loaded(model: Path) -> None:
    weights = (model / "model.safetensors").rename(model / "aside")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(LamdatuiError, match="no safetensors in the model directory"):
        inspect_model(model)
    weights.rename(model / "model.safetensors")
    (model / "tokenizer.json").unlink()
    with pytest.raises(LamdatuiError, match="no tokenizer in the model directory"):
        inspect_model(model)


def test_a_model_without_all_its_weights_is_refused(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    write_json(model / "model.safetensors.index.json", index)
    with pytest.raises(LamdatuiError, match="1 files of weights are missing") as refused:
        inspect_model(model)
    assert refused.value.fix == "add model-00002.safetensors"


# --- other users -----------------------------------------------------------------------------------------------------


def test_a_folder_for_sockets_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="lamdatui-", dir="/tmp") as home:
        # A short one: for a long path the folder is one that is shared with this user's runs.
        monkeypatch.setenv("LAMDATUI_HOME", home)
        folder = paths.socket_path(tmp_path).parent
        assert folder.is_relative_to(home) and folder.stat().st_mode & 0o077 == 0
        if os.getuid() == 0:
            os.chown(folder, 65534, 65534)
        else:
            other = os.getuid() + 1
            monkeypatch.setattr(os, "getuid", lambda: other)
        with pytest.raises(LamdatuiError, match="belongs to another user"):
            paths.socket_path(tmp_path)


# --- identity --------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 11)

    def reading(path: Path) -> str:
        found = file_digest(path)
        with path.open("ab") as handle:
            handle.write(b"y")
        return found

    with pytest.raises(Changed, match="changes while it is read"):
        hashes([file], reading)
    assert hashes([file]) == {file: file_digest(file)}


@pytest.mark.parametrize(("size", "looks"), [(2 * 2**30, 2), (2 * 2**30 + 1, 1)])
def test_what_is_above_two_gib_is_hashed_once_until_it_changes(tmp_path: Path, size: int, looks: int) -> None:
    file, said, read = tmp_path / "weights", [], []
    with file.open("wb") as handle:
        handle.truncate(size)

    def hasher(path: Path) -> str:
        read.append(path)
        return f"hash {len(read)}"

    for _ in range(2):
        found = hashes([file], hasher, say=said.append)
    assert (len(read), found) == (looks, {file: f"hash {looks}"})
    reading = f"reading {tmp_path.name}/weights (2.0 GiB): once, until it changes"
    assert said == ([reading] if looks == 1 else [])
    assert hashes([file], hasher, always=True) == {file: f"hash {looks + 1}"}
    # The time of the last change can't be put back.
    stat = file.stat()
    with file.open("r+b") as handle:
        handle.write(b"x")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hashes([file], hasher) == {file: f"hash {looks + 2}"}


def test_every_large_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    files, read = [tmp_path / name for name in ("one", "two")], []
    for file in files:
        file.write_bytes(b"x" * 11)
    for _ in range(2):
        hashes(files, lambda path: str(read.append(path)))
    assert read == files


def test_a_large_file_is_hashed_each_time_where_nothing_can_be_remembered(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    (home / "state").write_text("in the way")
    file = tmp_path / "weights"
    for content in (b"x" * 11, b"y" * 11):
        file.write_bytes(content)
        assert hashes([file]) == {file: file_digest(file)}


def test_a_change_is_told_with_a_way_on() -> None:
    assert Changed("it has changed", where="here").fix == "restore it as it was, or give the new one another name"
    assert Changed("it has changed", fix="wait").fix == "wait"


def test_a_run_goes_on_with_its_own_profile_only(lab_profile, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_dir = prepare_run(load_profile(lab_profile()), "r", runs)
    before = (run_dir / "profile.yaml").read_bytes()
    assert prepare_run(load_profile(lab_profile()), "r", runs) == run_dir
    with pytest.raises(LamdatuiError, match="was made from another profile"):
        prepare_run(load_profile(lab_profile(("seed: 1", "seed: 2"))), "r", runs)
    assert (run_dir / "profile.yaml").read_bytes() == before


def test_a_run_goes_on_with_conversations_as_it_read_them(lab_profile, tmp_path: Path) -> None:
    """Runs of the first version trained the last answer of a conversation, under the file's own digest."""
    data = tmp_path / "chat.jsonl"
    turns = [
        {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    ]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    sha256 = file_digest(data)
    profile = load_profile(lab_profile(), [f"datasets.copy.path={data}"])
    last = load_profile(lab_profile(), [f"datasets.copy={{path: {data}, answers: last}}"])
    assert profile.search_digest() == last.search_digest()
    told = {
        name: (space.datasets["copy"].rows, space.datasets["copy"].digest == sha256)
        for name, space in (
            ("new", open_workspace(profile)),
            ("last", open_workspace(last)),
            ("of the first version", open_workspace(profile, promised={"copy": sha256})),
        )
    }
    assert told == {"new": (2, False), "last": (1, True), "of the first version": (1, True)}
    found = open_workspace(profile).datasets["copy"]
    request = {"models": {}, "datasets": {"dataset": [{"id": "copy", "path": str(data), "digest": found.digest}]}}
    check_inputs(Store(tmp_path / "store"), request)
    data.write_text(data.read_text() + "\n")
    with pytest.raises(Changed):
        check_inputs(Store(tmp_path / "store"), request)


# --- leakage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["search", "sealed"])
def test_rewards_on_a_prompt_of_a_task_are_refused(lab: Path, lab_profile, tmp_path: Path, split: str) -> None:
    asked = [json.loads(line) for line in (lab / "tasks" / "copy.jsonl").read_text().splitlines()]
    used = next(row for row in asked if row["split"] == split)
    rows = [{"prompt": text, "scorer": "exact", "reference": "a"} for text in ("cpy: something of its own", used["messages"])]
    data = tmp_path / "judged.jsonl"

    def opened(*taken: dict[str, Any]) -> list[str]:
        data.write_text("".join(json.dumps(row) + "\n" for row in taken))
        profile = load_profile(lab_profile(("datasets:\n", f"datasets:\n  judged: {{ path: {data} }}\n")))
        return list(open_workspace(profile).datasets)

    assert "judged" in opened(rows[0])
    with pytest.raises(LamdatuiError, match="1 of its prompts are rows of the task copy") as refused:
        opened(*rows)
    assert refused.value.where == f"dataset judged ({data})"


@pytest.mark.parametrize(
    ("how", "asked", "text"),
    [
        ("exact", "{}", "1 of 2 rows ask what a sealed row"),
        ("ngram", "Now tell me, please, if you can, and in a few words of your own: {}", "1 of 2 rows share 13 words in a row"),
        ("ngram", "Well: {}", "1 of 2 rows ask nearly what a sealed row"),
    ],
)
def test_training_rows_that_a_task_holds_are_told_or_refused(
    lab_profile, tmp_path: Path, how: str, asked: str, text: str
) -> None:
    question = "Which of the seven harbours on the northern coast has the highest tide in March, and why so?"
    task, data = tmp_path / "task.jsonl", tmp_path / "data.jsonl"
    rows = [
        {"id": split, "split": split, "messages": [{"role": "user", "content": words}], "reference": "a"}
        for split, words in (("search", "x"), ("sealed", question))
    ]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.write_text(
        "".join(json.dumps({"prompt": words, "completion": "b"}) + "\n" for words in (asked.format(question), "another"))
    )
    sets = [f"datasets.copy.path={data}", f"tasks.copy={{path: {task}, scorer: exact, max_new_tokens: 8}}"]
    space = open_workspace(load_profile(lab_profile(), sets))
    assert [note for note in space.datasets["copy"].notes if text in note]
    blocked = load_profile(lab_profile(), [*sets, f"contamination.{how}=block"])
    with pytest.raises(LamdatuiError, match=r"\(contamination: block\)") as refused:
        open_workspace(blocked)
    assert text in refused.value.what
    assert open_workspace(blocked, promised={"copy": "x"}).datasets["copy"], "a run that has begun goes on"


def test_a_run_tells_that_a_template_leaves_out_what_a_task_offers(lab_profile, tmp_path: Path) -> None:
    """Its answers would be of questions without the functions to call."""
    task = tmp_path / "task.jsonl"
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    rows = [
        {
            "id": split,
            "split": split,
            "messages": [{"role": "user", "content": split}],
            "reference": {"want": "some"},
            "tools": [tool],
        }
        for split in ("search", "sealed")
    ]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = load_profile(lab_profile(), [f"tasks.copy={{path: {task}, scorer: bfcl, max_new_tokens: 8}}"])
    told = open_workspace(profile).unasked
    assert {text.partition(":")[0] for text in told} == {f"task copy × {name}" for name in profile.models}
    assert all("leaves out the functions that they offer (tools): 2 of 2 rows" in text for text in told)
    knows = {"copy": "x"}
    assert open_workspace(profile, promised=knows).unasked == [], "of a run that has begun it is on record"
    assert open_workspace(load_profile(lab_profile())).unasked == []
