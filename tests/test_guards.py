"""Guards that a run seldom meets: what must be refused is refused, in one sentence, before anything is made of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import apsw
import pytest

from lamdatui.base import fingerprint, paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed, DamagedObject, hashes
from lamdatui.base.jsonio import Damaged, file_digest, read_json, write_json, write_record
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.workspace import open_workspace
from lamdatui.step.files import read_outcome
from lamdatui.store.artifacts import MANIFEST, Store
from lamdatui.store.journal import Journal, read_state
from lamdatui.wire.rundir import prepare_run


@pytest.fixture
def model(lab: Path, tmp_path: Path) -> Path:
    shutil.copytree(lab / "llama", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the object `d1`."""
    found = Store(tmp_path / "store")
    with found.staging() as staged:
        (staged / "weights").write_bytes(b"x" * 100)
        found.publish(staged, "d1", {"kind": "full"})
    return found


# --- code of others --------------------------------------------------------------------------------------------------


def test_a_model_that_brings_its_own_code_is_refused(model: Path) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
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


def test_a_run_goes_on_with_its_own_profile_only(lab_profile, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_dir = prepare_run(load_profile(lab_profile()), "r", runs)
    before = (run_dir / "profile.yaml").read_bytes()
    assert prepare_run(load_profile(lab_profile()), "r", runs) == run_dir
    with pytest.raises(LamdatuiError, match="was made from another profile"):
        prepare_run(load_profile(lab_profile(("seed: 1", "seed: 2"))), "r", runs)
    assert (run_dir / "profile.yaml").read_bytes() == before


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


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "d2"},
        {"kind": "folder"},
        {"files": []},
        {"files": {}},
        {"files": {"weights": {"size": 100}}},
        {"files": {"weights": "100"}},
    ],
)
def test_a_manifest_that_says_something_else_is_none(store: Store, change: dict[str, Any]) -> None:
    write_record(store.root / "objects" / "d1" / MANIFEST, {**store.manifest("d1"), **change})
    with pytest.raises(Damaged, match="the manifest of d1 is not one"):
        store.manifest("d1")
    assert store.find("d1") is None and store.problem("d1") == [MANIFEST]
    with pytest.raises(DamagedObject, match=r"is damaged: manifest\.json"):
        store.resolve("store:d1")


def test_an_object_that_is_not_there_can_not_be_used(store: Store) -> None:
    assert store.problem("d2") == [] and store.find("d2") is None and store.put_aside("d2") is None
    with pytest.raises(DamagedObject, match="is not there"):
        store.resolve("store:d2")
    assert store.resolve("store:d1") == store.root / "objects" / "d1"
    assert store.resolve("/somewhere") == Path("/somewhere")


def test_an_evaluation_of_another_key_or_without_rows_is_put_aside(store: Store) -> None:
    for value in ({"key": "other", "rows": [1]}, {"key": "k", "rows": []}, {"key": "k", "rows": "1"}, {"key": "k"}):
        store.record_evaluation("k", value)
        assert store.evaluation("k") is None
        assert not (store.root / "evaluations" / "k.json").exists()
    store.record_evaluation("k", {"key": "k", "rows": [1]})
    assert store.evaluation("k", lambda _: False) == {"key": "k", "rows": [1]}
    assert len(list((store.root / "damaged").iterdir())) == 4


def test_an_evaluation_of_the_first_version_is_taken_when_it_is_sound_and_gets_its_seal(store: Store) -> None:
    place, value = store.root / "evaluations" / "k.json", {"key": "k", "rows": [1]}
    write_json(place, value)
    assert store.evaluation("k", lambda found: found["rows"] == [1]) == value
    assert set(read_json(place)) == {"key", "rows", "seal"}
    write_json(place, value)
    assert store.evaluation("k", lambda _: False) is None and not place.exists()


def test_an_object_that_is_damaged_is_published_again_and_kept_aside(store: Store) -> None:
    (store.root / "objects" / "d1" / "weights").write_bytes(b"short")
    with store.staging() as staged:
        (staged / "weights").write_bytes(b"x" * 100)
        store.publish(staged, "d1", {"kind": "full"})
    assert store.verify("d1") == []
    (aside,) = (store.root / "damaged").iterdir()
    assert (aside / "weights").read_bytes() == b"short" and aside.name.startswith("d1-")


# --- the journal -----------------------------------------------------------------------------------------------------


def test_a_sqlite_that_can_corrupt_a_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlitelibversion", lambda: "3.51.2")
    with pytest.raises(LamdatuiError, match=r"SQLite 3\.51\.2 can corrupt") as refused:
        Journal(tmp_path / "run.db")
    assert refused.value.exit_code == 1 and list(tmp_path.glob("run.db*")) == []
    monkeypatch.setattr(apsw, "sqlitelibversion", lambda: "3.51.3")
    Journal(tmp_path / "run.db").close()


def test_a_run_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LamdatuiError, match="must be UTF-8"):
        read_state(tmp_path / os.fsdecode(b"\xff") / "run.db")


# --- steps -----------------------------------------------------------------------------------------------------------


def test_an_outcome_without_a_status_is_damage(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) is None
    write_record(tmp_path / "outcome.json", {"status": "perhaps"})
    with pytest.raises(Damaged, match="has no status"):
        read_outcome(tmp_path)
    (tmp_path / "outcome.json").unlink()
    (tmp_path / "outcome.json").mkdir()
    with pytest.raises(Damaged, match="regular file"):
        read_outcome(tmp_path)
