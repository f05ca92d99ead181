"""`disk_gib`: weights of merges go when there is no room, and are made again, the same to the bit, when they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lamdatui.domain.budget import droppable, written
from lamdatui.domain.events import Event, event_from_json
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.store.artifacts import Store
from tests.conftest import Commands

MERGE = {"type": "merge_linear", "inputs": {}, "params": {}, "seed": 1, "digest": "d"}


def held() -> RunState:
    """Three merges, of which m2 is the best, an adapter, and full weights that were trained."""
    state = RunState(types={"merge_linear": {"family": "merge"}, "sft": {"family": "supervised"}})
    state.pool.add(ModelObject("base", "b", "l", "l", "/w"))
    for number, objective in ((1, 0.3), (2, 0.9), (3, 0.1)):
        state.pool.add(ModelObject(f"m{number}", f"d{number}", "l", "l", f"store:d{number}", trial=number, bytes=100))
        state.trials[number] = Trial(number, "done", model=f"m{number}", objective=objective, action=dict(MERGE))  # type: ignore[arg-type]
    for number, adapters in ((4, ("store:d4",)), (5, ())):
        weights = "/w" if adapters else "store:d5"
        state.pool.add(ModelObject(f"m{number}", f"d{number}", "l", "l", weights, adapters, trial=number, bytes=10))
        action = {**MERGE, "type": "sft"}
        state.trials[number] = Trial(number, "done", model=f"m{number}", objective=0.0, action=action)  # type: ignore[arg-type]
    state.best = 2
    return state


def test_the_worst_merges_go_first_and_the_best_model_never() -> None:
    state = held()
    assert droppable(state) == ["m3", "m1"]
    assert droppable(state, ["m3"]) == ["m1"]
    assert written(state) == 320
    state.dropped = {"m3": 100}
    assert (droppable(state), written(state)) == (["m1"], 220)
    state.trials[1].cached = True
    state.types = {}
    assert droppable(state) == []


def test_what_a_kept_model_stands_on_is_kept_too() -> None:
    state = held()
    state.pool.add(ModelObject("m6", "d6", "l", "l", "store:d3", ("store:d6",), trial=6, bytes=10))
    assert droppable(state, ["m6"]) == ["m1"]
    state.trials[6] = Trial(6, "done", model="m6", objective=2.0, action={**MERGE, "type": "sft"})  # type: ignore[arg-type]
    state.best = 6
    assert droppable(state) == ["m1", "m2"]


def test_nothing_goes_that_a_step_reads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.staging() as staged:
        (staged / "model.safetensors").write_bytes(b"x" * 5000)
        store.publish(staged, "d" * 64, {"kind": "full"})
    with store.using(["d" * 64, "e" * 64]), store.using(["d" * 64]):
        assert store.drop("d" * 64) is None and store.find("d" * 64)
    assert store.drop("d" * 64) == 5000 and store.find("d" * 64) is None
    assert store.dropped("d" * 64)["files"]["model.safetensors"]["size"] == 5000
    assert store.drop("d" * 64) == 0


def told(printed: str) -> tuple[list[Event], list[int], RunState]:
    """The events that a run printed, the bytes that it held after each, and what they add up to."""
    state, held = RunState(), []
    events = [event_from_json(json.loads(line)) for line in printed.splitlines()]
    for event in events:
        state.apply(event)
        held.append(written(state))
    return events, held, state


def hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: entry["blake2b"] for name, entry in manifest["files"].items()}


@pytest.mark.parametrize("merges", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_many_merges_fit_into_little_room(lab_profile, cli: Commands, merges: int) -> None:
    steps = [
        {"type": "sft", "inputs": {"model": "llama", "dataset": name}, "params": {"max_steps": 20}}
        for name in ("call_replay", "copy")
    ]
    weights = [round(0.05 + 0.9 * n / merges, 3) for n in range(merges)]
    steps += [{"type": "merge_linear", "inputs": {"models": ["m1", "m2"]}, "params": {"weight": each}} for each in weights]
    # All of the first six merges are needed again; there is room for six models.
    again = [("m3", "m4"), ("m5", "m6"), ("m7", "m8")]
    steps += [{"type": "merge_linear", "inputs": {"models": pair}, "params": {"weight": 0.5}} for pair in again]
    policy = f"policy: {{ name: scripted, opening: false, script: {json.dumps(steps)} }}"
    limit = 0.0052
    changes = (("budget: { trials: 12, wall_minutes: 10 }", f"budget: {{ trials: {len(steps)}, disk_gib: {limit} }}"),)
    profile = lab_profile(("policy: { name: hybrid }", policy), *changes)
    done = cli("run", str(profile), "--name", "r", "--headless", "--mode", "auto", "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    found, store = cli.show("r"), Store(cli.runs / "store")
    assert [trial["status"] for trial in found["trials"]] == ["done"] * len(steps), found["reason"]
    events, held, state = told(done.stdout)
    assert max(held) <= limit * 2**30
    dropped = [event.data["id"] for event in events if event.kind == "object.dropped"]
    restored = {event.data["id"] for event in events if event.kind == "object.restored"}
    assert len(dropped) >= merges - 3 and restored and restored <= {f"m{n}" for n in range(3, 9)}
    assert not [each for each in found["problems"] if "bit" in each["message"]]
    digests = {model.id: model.digest for model in state.pool.models}
    for name in restored - set(found["dropped"]):
        assert hashes(store.dropped(digests[name])) == hashes(store.manifest(digests[name]))
    # What has gone can be exported all the same.
    gone = found["dropped"][0]
    assert store.find(digests[gone]) is None
    assert "made" not in cli("prune", "--json").stdout
    exported = cli("export", "r", "--model", gone, "--to", "out")
    assert exported.returncode == 0 and f"making {gone}" in exported.stderr
    assert hashes(store.dropped(digests[gone])) == hashes(store.manifest(digests[gone]))
