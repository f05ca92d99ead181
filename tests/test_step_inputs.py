"""What a step stands on, looked at in the step: results that are damaged, inputs that have changed, and rows that change between two looks."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.fingerprint import Changed, DamagedObject
from lamdatui.domain.objects import object_to_json
from lamdatui.step import child
from lamdatui.step.promises import check_inputs
from lamdatui.step.request import reference
from tests.steps import Lab
from tests.test_integrity import flip

BOTH = {"datasets": ["mine", "few"]}


@pytest.fixture
def steps(lab: Path, tmp_path: Path) -> Lab:
    found = Lab(lab, tmp_path)
    lines = (lab / "data" / "copy.jsonl").read_text().splitlines()
    for name, some in (("mine", lines[:6]), ("few", lines[6:10])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(some) + "\n")
        found.add_dataset(name, tmp_path / f"{name}.jsonl")
    return found


def cut(steps: Lab) -> None:
    """The dataset `mine` loses its last row."""
    path = steps.folder / "mine.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def test_a_result_that_is_damaged_is_put_aside_and_made_again_by_its_step(steps: Lab) -> None:
    outcome, _, action = steps.attempt("concat", BOTH)
    assert (outcome["status"], outcome["cached"]) == ("ok", False)
    assert steps.attempt("concat", BOTH)[0]["cached"]
    flip(steps.store.root / "objects" / action["digest"] / "data.jsonl", random.Random(1))
    again, folder, _ = steps.attempt("concat", BOTH)
    assert (again["status"], again["cached"]) == ("ok", False) and steps.store.verify(action["digest"]) == []
    (aside,) = (steps.store.root / "damaged").iterdir()
    assert aside.name.startswith(action["digest"]) and folder.exists()


def test_nothing_is_begun_on_an_input_that_has_changed(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step trained on the new rows, and published under the digest of the old ones."""
    begun: list[Any] = []
    monkeypatch.setattr(child, "_execute", lambda *told: begun.append(told))
    cut(steps)
    outcome, _, action = steps.attempt("concat", BOTH)
    assert outcome["error"]["class"] == "changed" and "the dataset mine has changed" in outcome["error"]["message"]
    assert begun == [] and steps.store.find(action["digest"]) is None


def test_rows_that_change_after_the_look_are_not_used(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    check = child.check_inputs

    def then_cut(*told: Any) -> None:
        check(*told)
        cut(steps)

    monkeypatch.setattr(child, "check_inputs", then_cut)
    outcome, _, action = steps.attempt("concat", BOTH)
    assert outcome["error"]["class"] == "changed" and "the dataset mine has changed" in outcome["error"]["message"]
    assert steps.store.find(action["digest"]) is None


@pytest.mark.parametrize("what", ["weights", "adapter", "made dataset"])
def test_a_model_or_a_made_dataset_is_what_was_promised_or_refused(steps: Lab, lab: Path, what: str) -> None:
    shutil.copytree(lab / "phi", steps.folder / "base")
    steps.add_model("base", steps.folder / "base")
    with steps.store.staging() as staged:
        (staged / "adapter_model.safetensors").write_bytes(random.Random(2).randbytes(500))
        adapter = steps.store.publish(staged, "lora", {"kind": "adapter"})
    made = steps.dataset("concat", BOTH)
    asked = {**reference(steps.pool.model("base"), steps.pool), "adapters": ["store:lora"]}
    request = {"models": {"model": [asked]}, "datasets": {"dataset": [object_to_json(made)]}}
    check_inputs(steps.store, json.loads(json.dumps(request)))
    place = {"weights": steps.folder / "base" / "model.safetensors", "adapter": adapter / "adapter_model.safetensors"}
    flip(place.get(what, steps.store.resolve(made.path) / "data.jsonl"), random.Random(3))
    with pytest.raises(Changed if what == "weights" else DamagedObject):
        check_inputs(steps.store, request)
