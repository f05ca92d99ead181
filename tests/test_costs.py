"""Estimates: formulas, what this machine's own steps make of them, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

from lamdatui.actionkit import costs
from lamdatui.actionkit.timings import FORMULA, Measurement, Timings, scale
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import Call, Estimate
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.engine.candidates import enumerate_type
from lamdatui.engine.judging import Known
from lamdatui.engine.machine import Machine

SFT = load_registry().get("sft")


def model(parameters: int) -> ModelObject:
    return ModelObject("base", "d", "llama", "l", "/base", (), parameters)


def call(parameters: int, device: str = "cpu", **params) -> Call:
    data = DatasetObject("calls", "c", "sft", 100, "/c", chars=350)
    return Call({**SFT.defaults(), **params}, {"model": (model(parameters),), "replay": ()}, {"dataset": (data,)}, device)


def taken(seconds: float, memory: int, kind: str = "sft", parameters: int = 10**8, device: str = "cpu") -> Measurement:
    predicted = costs.PROCESS_BYTES + 10**9
    return Measurement(kind, "supervised", device, "float32", scale(parameters), 10.0, seconds, predicted, memory, FORMULA)


def test_training_costs_more_with_more_weights_rows_and_copies() -> None:
    small = costs.training(call(10**8), rows=100)
    assert small.seconds and small.memory_bytes and small.disk_bytes
    larger = costs.training(call(10**9), rows=100)
    assert 9 < (larger.seconds or 0) / small.seconds < 11
    full = costs.training(call(10**8, method="full"), rows=100)
    assert full.memory_bytes and full.memory_bytes > small.memory_bytes + 9 * 10**8
    assert full.disk_bytes == 4 * 10**8
    assert (costs.training(call(10**8, "cuda:0", method="full"), rows=100).disk_bytes or 0) == 2 * 10**8
    assert (costs.training(call(10**8), rows=100, copies=1).memory_bytes or 0) > small.memory_bytes
    assert (costs.training(call(10**8), rows=100, generated=64).seconds or 0) > 2 * small.seconds
    assert (costs.training(call(10**8, "cuda:0"), rows=100).seconds or 0) < small.seconds / 10


def test_an_estimate_is_corrected_by_steps_of_the_same_kind_and_size(tmp_path: Path) -> None:
    timings = Timings.open(tmp_path / "state" / "measurements.jsonl")
    plain = Estimate(10.0, costs.PROCESS_BYTES + 10**9, 5)
    assert timings.correction("sft", "supervised", "cpu", "float32", 10**8).of(plain) == plain
    for seconds, memory in ((20.0, 2 * 10**9), (30.0, 3 * 10**9), (40.0, 10**9)):
        timings.add(taken(seconds, memory + costs.PROCESS_BYTES))
    corrected = timings.correction("sft", "supervised", "cpu:0", "float32", 10**8).of(plain)
    assert corrected.seconds == 30.0
    assert corrected.memory_bytes == costs.PROCESS_BYTES + 3 * 10**9
    assert corrected.disk_bytes == 5
    for other in (
        timings.correction("sft", "supervised", "cpu", "float32", 10**10).of(plain),
        timings.correction("sft", "supervised", "cuda:0", "float32", 10**8).of(plain),
        timings.correction("sft", "supervised", "cpu", "bfloat16", 10**8).of(plain),
        timings.correction("dpo", "preference", "cpu", "float32", 10**8).of(plain),
    ):
        assert other == plain
    sibling = timings.correction("other", "supervised", "cpu", "float32", 10**8).of(plain)
    assert (sibling.seconds, sibling.memory_bytes) == (30.0, plain.memory_bytes)


def test_the_ledger_is_read_again_and_a_broken_line_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    timings = Timings.open(path)
    timings.add(taken(20.0, 10**9))
    with path.open("a") as handle:
        handle.write('{"type": "sft"}\nnot json\n')
    timings.add(taken(30.0, 10**9))
    again = Timings.open(path)
    assert [item.seconds for item in again.items] == [20.0, 30.0]
    assert json.loads(path.read_text().splitlines()[0])["type"] == "sft"
    assert again.count("sft", "cpu", "float32", 10**8) == 2


def test_what_does_not_fit_is_not_offered_and_the_reason_is_told() -> None:
    state = RunState(seed=1, pool=ObjectPool())
    state.pool.add(model(10**9))
    state.pool.add(DatasetObject("calls", "c", "sft", 100, "/c", chars=350))
    large = enumerate_type(SFT, state, Machine("cpu", "float32", 2**40), Known(), 1)
    assert large.candidates
    small = enumerate_type(SFT, state, Machine("cpu", "float32", 2**30), Known(), 1)
    assert small.candidates == []
    reasons = small.to_json()["refused"]
    assert any("memory; there are 1.0 GiB" in reason for reason in reasons)
    measured = Timings(items=[taken(10.0, 2**50, parameters=10**9)])
    learned = enumerate_type(SFT, state, Machine("cpu", "float32", 2**34, None, measured), Known(), 1)
    assert learned.candidates == []
    assert enumerate_type(SFT, state, Machine("cpu", "float32", 2**34), Known(), 1).candidates


def test_a_full_disk_refuses_what_would_be_written(tmp_path: Path) -> None:
    machine = Machine("cpu", "float32", 2**40, tmp_path)
    assert machine.lacks(Estimate(1.0, 1, 2**20)) is None
    assert "are free on the disk" in (machine.lacks(Estimate(1.0, 1, 2**60)) or "")
