"""Runs that the version before recorded: they open, show and go on; what they made is found again under its digests."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import BoundType, Param, action_digest, make_action
from lamdatui.domain.objects import ObjectPool, object_from_json
from lamdatui.domain.schemes import SCHEME
from lamdatui.store.journal import read_state
from tests.landed import Landed, expected, missing

RUNS = ("finished", "awaiting", "vetoed", "killed", "reuse")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_version_before_shows_what_it_showed(landed: Landed, name: str) -> None:
    told = expected(landed.folder, name)
    if not (told["gain"] or {}).get("sealed"):
        # It said so of the rows that picked the winner.
        told["beats_base"] = None
    assert missing(told, landed.show(name)) == []


@pytest.mark.parametrize("name", ["awaiting", "vetoed", "killed", "reuse"])
def test_a_run_of_the_version_before_goes_on_as_it_would_have(landed: Landed, name: str) -> None:
    told = expected(landed.folder, f"resumed/{name}")
    done = landed.go_on(name, 4)
    assert done.returncode == 0, done.stderr
    found = landed.show(name)
    assert found["status"] == told["status"] == "done"
    for fields in (("number", "status", "cached", "model", "objective", "proposed_by"), ("action",)):
        for old, new in zip(told["trials"], found["trials"], strict=True):
            assert missing({f: old[f] for f in fields}, {f: new[f] for f in fields}) == []
    if name == "reuse":
        assert [trial["cached"] for trial in found["trials"]] == [True, True, True, False]
    assert found["problems"] == []


def test_a_new_run_gets_the_newest_scheme_and_makes_the_same_choices(landed: Landed) -> None:
    """Its bases have generation settings, which older digests did not cover: their work is not taken for its own."""
    done = landed.cli("run", "small.yaml", "--name", "new", "--headless", "--mode", "auto", "--max-trials", "3")
    assert done.returncode == 0, done.stderr
    found, old = landed.show("new"), expected(landed.folder, "finished")
    chosen = ("type", "inputs", "params", "seed")
    for new, before in zip(found["trials"], old["trials"], strict=True):
        # Hyperparameters that came later stand at what they were introduced with.
        assert missing({name: before["action"][name] for name in chosen}, new["action"]) == []
        kind = load_registry().types[new["action"]["type"]]
        later = {name: value for name, value in new["action"]["params"].items() if name not in before["action"]["params"]}
        assert all(kind.param(name).is_introduced(value) for name, value in later.items())
    assert [(trial["cached"], trial["action"]["scheme"]) for trial in found["trials"]] == [(False, SCHEME)] * 3
    assert read_state(landed.runs / "new" / "run.db").scheme == SCHEME
    again = landed.cli("run", "small.yaml", "--name", "again", "--headless", "--mode", "auto", "--max-trials", "3")
    assert again.returncode == 0, again.stderr
    assert [trial["cached"] for trial in landed.show("again")["trials"]] == [True] * 3


def test_actions_have_the_digests_that_they_had(landed: Landed) -> None:
    told = json.loads((landed.folder / "expected" / "digests.json").read_text())
    pool = ObjectPool({item["id"]: object_from_json(item) for item in told["pool"]})
    registry = load_registry()
    assert len({row["type"] for row in told["actions"]}) == 33
    for row in told["actions"]:
        bound = registry.types[row["type"]]
        parents = {slot.name: pool.digests(row["inputs"].get(slot.name, ())) for slot in bound.type.slots}
        params = bound.fill(row["params"])
        assert action_digest(bound, parents, params, told["seed"], told["dtype"], 1) == row["digest"], row["type"]
        assert {name: value for name, value in params.items() if name in row["params"]} == row["params"]


def test_a_hyperparameter_that_comes_later_changes_no_digest(landed: Landed) -> None:
    told = json.loads((landed.folder / "expected" / "digests.json").read_text())
    pool = ObjectPool({item["id"]: object_from_json(item) for item in told["pool"]})
    row = next(row for row in told["actions"] if row["type"] == "sft")
    bound, inputs = load_registry().types["sft"], {slot: tuple(ids) for slot, ids in row["inputs"].items()}

    def with_params(*added: Param, **defaults: Any) -> BoundType:
        kept = tuple(replace(p, default=defaults.get(p.name, p.default)) for p in bound.type.params)

        class Later(type(bound.type)):  # type: ignore[misc]
            params = (*kept, *added)

        return BoundType(Later(), (*kept, *added))

    def digest(kind: BoundType, scheme: int = SCHEME, records: Any = lambda _: None, **params: Any) -> str:
        return make_action(kind, inputs, params, pool, seed=1, dtype="float32", scheme=scheme, records=records).digest

    later = with_params(Param("added", "float", 0.5, "came later", since=SCHEME + 1))
    for scheme in (1, SCHEME):
        assert digest(later, scheme) == digest(bound, scheme)
        assert digest(later, scheme, added=0.7) != digest(bound, scheme)
    assert digest(later, 1, added=0.7) == digest(later, SCHEME, added=0.7)  # an older scheme can't name it
    # A default that changes says what it was on the day it came; where it does not, the record tells the works apart.
    moved = with_params(Param("added", "float", 0.9, "came later", introduced=0.5, since=SCHEME + 1))
    assert digest(moved, added=0.5) == digest(bound) != digest(moved)
    careless = with_params(learning_rate=0.123)
    on_record = {digest(bound): bound.defaults()}
    assert digest(careless) == digest(bound)
    assert digest(careless, records=on_record.get) != digest(bound)


def test_a_step_of_the_version_before_can_be_run_again(landed: Landed) -> None:
    done: subprocess.CompletedProcess[str] = landed.cli("step", "finished", "1", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "SFTTrainer" in done.stdout


def test_what_the_version_before_wrote_gets_its_seals_when_it_goes_on(landed: Landed) -> None:
    from lamdatui.base.jsonio import SEAL, read_json

    files = sorted((landed.runs / "store" / "evaluations").glob("*.json"))
    assert not any(SEAL in read_json(file) for file in files)
    done = landed.go_on("finished", 4)
    assert done.returncode == 0, done.stderr
    used = [file for file in files if file.exists() and SEAL in read_json(file)]
    assert len(used) >= 8


def test_a_run_of_the_version_before_is_compared_on_demand(landed: Landed) -> None:
    name = "finished"
    before = landed.show(name)
    assert before["sealed_looks"] == 1 and not any(before["baselines"].values())
    made = landed.cli("baselines", name, "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)["baselines"]
    assert told["sft_all"] and told["few_shot"] and told["best_single_step"]
    after = landed.show(name)
    names = ("status", "reason", "winner", "beats_base", "gain", "trials", "sealed_looks")
    assert {key: after[key] for key in names} == {key: before[key] for key in names}
