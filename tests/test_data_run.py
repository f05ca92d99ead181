"""A run whose actions also make data: the dataset enters the pool, has no score, and its origin is in the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from lamdatui.domain.lineage import lineage
from lamdatui.export.recipe import recipe
from lamdatui.store.journal import read_state
from tests.conftest import Commands

ACTIONS = """actions:
  sft:
    method: { default: full }
    learning_rate: { default: 2.0e-3, choices: [2.0e-3] }
    max_steps: { default: 5, choices: [5] }
    batch_size: { default: 16 }
  rejection_sample:
    samples: { default: 2, choices: [2] }

"""


def test_a_generated_dataset_is_trained_on_and_told_in_the_recipe(cli: Commands, lab_profile) -> None:
    path: Path = lab_profile(
        ("  call_replay: {", '  verify: { path: "catalogue:lab-bases/data/verify.jsonl" }\n  call_replay: {')
    )
    head, _, rest = path.read_text().partition("actions:\n")
    path.write_text(head + ACTIONS + rest[rest.index("# Who chooses") :])
    kept = yaml.safe_load(path.read_text())
    kept["datasets"] = {name: kept["datasets"][name] for name in ("verify", "call_replay")}
    path.write_text(yaml.safe_dump(kept, sort_keys=False))

    done = cli("run", str(path), "--name", "r", "--headless", "--mode", "auto", "--max-trials", "6")
    assert done.returncode == 0, done.stderr
    shown = cli.show("r")
    makers = [trial for trial in shown["trials"] if trial["action"]["type"] == "rejection_sample"]
    assert makers
    first = makers[0]
    assert (first["status"], first["model"], first["objective"], first["scores"]) == ("done", None, None, {})
    assert first["dataset"] == f"d{first['number']}"
    state = read_state(cli.runs / "r" / "run.db")
    data = state.pool.dataset(first["dataset"])
    assert (data.format, data.trial) == ("sft", first["number"])
    folder = cli.runs / "store" / "objects" / data.digest
    assert len((folder / "data.jsonl").read_text().splitlines()) == data.rows
    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["action"]["digest"] == data.digest
    assert shown["winner"]["model"].startswith("m")

    children = [t for t in shown["trials"] if t["model"] and any(i.startswith("d") for i in t["action"]["inputs"]["dataset"])]
    assert children, "no trial trained on the generated data; choose another seed for the profile"
    child = children[0]
    made = [trial.number for trial in lineage(state, child["model"])]
    assert int(child["action"]["inputs"]["dataset"][0][1:]) in made
    told = recipe(state, child["model"])
    assert [step["makes"] for step in told["steps"]][-1] == child["model"]
    assert set(told["datasets"]) <= {"verify", "call_replay"}

    again = cli("run", str(path), "--name", "again", "--headless", "--mode", "auto", "--max-trials", "6")
    assert again.returncode == 0, again.stderr
    assert all(trial["cached"] for trial in cli.show("again")["trials"])
