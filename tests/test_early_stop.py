"""Rows that are held out from training end it early, and the result is the model that did best on them; optimisers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from lamdatui.base.jsonio import Damaged
from lamdatui.config.resources import load_registry
from lamdatui.domain import training
from lamdatui.domain.actions import Call
from lamdatui.step.context import StepContext
from lamdatui.step.earlystop import EarlyStop
from tests.steps import Lab
from tests.test_durability import Disk

SFT = {"model": ["llama"], "dataset": ["few"]}
PAIRS = {"model": ["llama"], "dataset": ["pairs"]}
HARSH = {"method": "full", "max_steps": 80, "batch_size": 8, "learning_rate": 4e-3, "holdout": 0.4, "patience": 2}
"""Few rows, many steps, a high rate: it soon learns them by heart."""


@pytest.fixture(scope="module")
def steps(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    found = Lab(lab, tmp_path_factory.mktemp("early"))
    for name, source, count in (("few", "call", 24), ("pairs", "prefer", 24)):
        path = found.folder / f"{name}.jsonl"
        path.write_text("\n".join((lab / "data" / f"{source}.jsonl").read_text().splitlines()[:count]) + "\n")
        found.add_dataset(name, path)
    return found


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The trainers of the steps that the test runs."""
    seen: list[Any] = []
    train = StepContext.train

    def watched(step: StepContext, trainer: Any, *held: Any) -> None:
        seen.append(trainer)
        train(step, trainer, *held)

    monkeypatch.setattr(StepContext, "train", watched)
    yield seen


def looks(folder: Path) -> dict[int, float]:
    """Optimiser step → loss on the held-out rows."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {record["at"]: record["loss"] for record in records if record["phase"] == "held-out"}


def test_training_ends_where_held_out_rows_are_learned_best(
    steps: Lab, trainers: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    steps.model("sft", SFT, **HARSH)
    (trainer,), seen = trainers, looks(steps.last)
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (14, 10)
    best = min(seen, key=lambda step: seen[step])
    last = max(seen)
    assert last < 80 and last == best + 2 * 4
    # The result is that of the best step, not of the last: the same loss on the same rows.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(seen[best], rel=1e-4)
    assert seen[last] > seen[best]
    log = capsys.readouterr().out
    assert "10 of 24 rows are held out" in log and f"the result is that of step {best}" in log
    assert not list((steps.store.root / "checkpoints").glob("*/best-*"))
    assert json.loads((steps.last / "outcome.json").read_text())["ended_early"] is True


def test_the_best_weights_stay_until_the_result_is_published(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that ends in between is followed by one that still knows them."""
    there: list[int] = []
    finish = StepContext.finish_training

    def watched(step: StepContext, model: Any, tokenizer: Any) -> None:
        there.append(len(list(step.checkpoints.folder.glob("best-*"))))
        finish(step, model, tokenizer)

    monkeypatch.setattr(StepContext, "finish_training", watched)
    steps.model("sft", SFT, seed=5, **HARSH)
    assert there == [1]


def test_held_out_rows_leave_the_others_in_their_order(steps: Lab, trainers: list[Any]) -> None:
    steps.model("sft", SFT, **{**HARSH, "max_steps": 3, "order": "short_first", "seed": 6})
    lengths = [len(row["input_ids"]) for row in trainers[0].train_dataset]
    assert lengths == sorted(lengths) and len(set(lengths)) > 1


def test_without_holdout_nothing_is_held_out(steps: Lab, trainers: list[Any]) -> None:
    steps.model("sft", SFT, **{**HARSH, "holdout": 0.0, "max_steps": 3})
    (trainer,) = trainers
    assert trainer.eval_dataset is None and len(trainer.train_dataset) == 24 and not looks(steps.last)


def test_an_action_may_look_at_rows_of_its_own(steps: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer with an `eval_dataset` whose action has no `holdout`: it is left alone."""
    train = StepContext.train

    def own(step: StepContext, trainer: Any, *held: Any) -> None:
        trainer.eval_dataset = trainer.train_dataset
        del step.params["holdout"], step.params["patience"]
        train(step, trainer, *held)

    monkeypatch.setattr(StepContext, "train", own)
    steps.model("sft", SFT, **{**HARSH, "holdout": 0.0, "max_steps": 2, "seed": 8})
    assert not looks(steps.last)


def test_no_sign_of_being_busy_is_left(steps: Lab) -> None:
    steps.model("sft", SFT, **{**HARSH, "max_steps": 2, "seed": 9})
    assert looks(steps.last) and not (steps.last / "busy").exists()


@pytest.mark.parametrize("kind", ["dpo", "orpo", "simpo"])
def test_preference_learning_holds_pairs_out(steps: Lab, trainers: list[Any], kind: str) -> None:
    steps.model(kind, PAIRS, method="lora", lora_rank=4, max_steps=4, batch_size=4, holdout=0.25, patience=1)
    seen = looks(steps.last)
    assert seen and all(map(math.isfinite, seen.values()))
    assert len(trainers[0].eval_dataset) in (4, 6)


def test_packed_rows_and_short_ones_are_held_out_too(steps: Lab, trainers: list[Any]) -> None:
    steps.model("sft", SFT, method="full", max_steps=3, batch_size=2, packing=True, holdout=0.2, learning_rate=1e-4)
    assert len(looks(steps.last)) == 3
    outcome, _, _ = steps.attempt("sft", {"model": ["llama"], "dataset": ["few"]}, **{**HARSH, "data_fraction": 0.01})
    assert outcome["error"]["class"] == "data" and "none can be held out" in outcome["error"]["message"]


def test_what_a_resumed_training_knows(tmp_path: Path) -> None:
    def stop(patience: int = 1) -> EarlyStop:
        return EarlyStop(tmp_path, patience, lambda _: None, lambda **_: None)

    first = stop()
    assert first.keep() == [None, 0, 0, ""]
    first.best, first.best_step, first.without = 0.5, 7, 1
    again = stop()
    # Its weights are gone: what was best is not known any more.
    again.restore(first.keep())
    assert again.keep() == [None, 0, 0, ""]
    (tmp_path / "best-7.safetensors").touch()
    # As older versions kept it, without a sum.
    again.restore(first.keep()[:3])
    assert again.keep() == [0.5, 7, 1, sha256().hexdigest()]


def test_damaged_best_weights_are_put_aside_and_never_the_result(tmp_path: Path) -> None:
    said: list[str] = []

    def stop() -> EarlyStop:
        return EarlyStop(tmp_path / "checkpoints" / "d", 1, said.append, lambda **_: None)

    model = torch.nn.Linear(3, 2)
    first = stop()
    first.best, first.best_step = 0.5, 7
    first._save(model)
    kept, file = first.keep(), tmp_path / "checkpoints" / "d" / "best-7.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Damaged, match="is not what was written"):
        first.finish(model)
    again = stop()
    again.restore(kept)
    assert again.keep() == [None, 0, 0, ""] and not file.exists()
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.read_bytes() == data and len(said) == 1 and str(aside) in said[0]


def test_the_best_weights_are_on_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    stop = EarlyStop(tmp_path / "checkpoints" / "d", 1, lambda _: None, lambda **_: None)
    stop._save(torch.nn.Linear(3, 2))
    disk.assert_named(tmp_path / "checkpoints" / "d" / "best-0.safetensors")


def test_the_optimizer_is_the_one_that_was_asked_for(steps: Lab, trainers: list[Any]) -> None:
    for name in ("adamw", "adafactor"):
        steps.model("sft", SFT, method="lora", max_steps=1, batch_size=2, optimizer=name)
    assert [type(trainer.optimizer.optimizer).__name__ for trainer in trainers] == ["AdamW", "Adafactor"]


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = load_registry().get("sft")

    def problems(**changes: Any) -> list[str]:
        return training.adapter_problems(Call({**bound.defaults(), **changes}, {}, {}))

    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    assert problems() == problems(optimizer="adafactor") == []
    assert "bitsandbytes" in problems(optimizer="adamw_8bit")[0] and "bitsandbytes" in problems(optimizer="adamw_8bit_paged")[0]
    assert len(problems(optimizer="adamw_8bit", method="qlora")) == 2
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: object())
    assert problems(optimizer="adamw_8bit", method="qlora") == []
