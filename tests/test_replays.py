"""Pipelines done again: with more data, on another base, from a recipe; and how their order holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lamdatui.base.errors import LamdatuiError
from lamdatui.cli.replays import scales
from lamdatui.config.resources import load_registry
from lamdatui.domain.choice import PolicyError
from lamdatui.domain.scripts import FULL, best, distinct, script
from lamdatui.domain.state import RunState
from lamdatui.policy.scripted import ScriptedPolicy
from lamdatui.store.journal import read_state
from lamdatui.tasks.stats import kendall
from tests.conftest import Commands

SCRIPT = """policy:
  name: scripted
  opening: false
  script:
    - { type: sft, inputs: { model: llama, dataset: call_replay }, params: { max_steps: 20 } }
    - { type: sft, inputs: { model: llama, dataset: reverse }, params: { max_steps: 10 } }
    - { type: merge_linear, inputs: { models: [m1, m2] } }
    - { type: dpo, inputs: { model: m3, dataset: prefer }, params: { max_steps: 10 } }
"""


def test_the_order_of_pipelines_is_told_with_an_interval() -> None:
    assert kendall([1, 2], [1, 2]) is None and kendall([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    assert kendall([1, 2, 3], [1, 3, 2]) == (pytest.approx(1 / 3), None)
    value, ends = kendall(list(range(20)), [*range(1, 20), 0]) or (0, None)
    assert ends is not None and ends[0] < value < ends[1] <= 1 and value == pytest.approx(0.8)


def test_factors_of_data() -> None:
    assert scales("2x, 0.5,full") == {"2x": 2.0, "0.5": 0.5, "full": FULL}
    for wrong in ("", "2y", "0x", "-1x", "2000x", "nanx"):
        with pytest.raises(LamdatuiError, match="--data"):
            scales(wrong)


@pytest.mark.asyncio
async def test_what_needs_a_step_that_was_not_possible_is_passed_over() -> None:
    from tests.views import view

    made = view()
    steps = [
        {"type": "sft", "inputs": {"model": "nobody"}, "makes": "a"},
        {"type": "sft", "inputs": {"model": "a"}, "makes": "b"},
        {"type": "sft", "inputs": {"model": "base"}, "makes": "c"},
    ]
    asked: list[Any] = []

    def candidate(kind: str, inputs: Any, params: Any) -> Any:
        asked.append(inputs)
        return "no such model" if inputs["model"] == ("nobody",) else next(iter(made.candidates.values()))[0]

    from dataclasses import replace

    proposal = await ScriptedPolicy(steps).propose(replace(made, trials=(), candidate=candidate))
    assert proposal.details == {"step": 2} and [one["model"] for one in asked] == [("nobody",), ("base",)]
    with pytest.raises(PolicyError, match="over") as error:
        await ScriptedPolicy(steps[:2]).propose(replace(made, trials=(), candidate=candidate))
    assert error.value.over


def found(lab_profile: Any, cli: Commands) -> tuple[RunState, dict[str, float]]:
    """A run of four trials, and its models' objectives."""
    profile = lab_profile(
        ("policy: { name: hybrid }", SCRIPT),
        ("budget: { trials: 12, wall_minutes: 10 }", "budget: { trials: 4 }"),
        ("rows: { search: 100, sealed: 200 }", "rows: { search: 30, sealed: 40 }"),
    )
    done = cli("run", str(profile), "--name", "r", "--headless", "--mode", "auto")
    assert done.returncode == 0, done.stderr
    source = read_state(cli.runs / "r" / "run.db")
    return source, {str(trial.model): trial.objective or 0.0 for trial in source.trials.values()}


def test_pipelines_are_done_again_with_more_data_and_on_another_base(lab_profile: Any, cli: Commands, lab: Path) -> None:
    source, reached = found(lab_profile, cli)
    models = best(source, reached, 2)
    steps = script(source, ["m4"], load_registry().types, 2.0)
    assert [step["params"].get("max_steps") for step in steps] == [40, 20, None, 20]
    assert steps[2]["inputs"]["models"] == ["r/m1", "r/m2"] and steps[3]["makes"] == "r/m4"
    once, called = distinct([*steps, {**steps[0], "makes": "x"}, {**steps[3], "inputs": steps[3]["inputs"], "makes": "y"}])
    assert len(once) == 4 and called["x"] == "r/m1" and called["y"] == "r/m4", "what is done twice is done once"
    full = script(source, ["m1"], load_registry().types, FULL)
    assert full[0]["params"]["max_steps"] == -(-source.pool.dataset("call_replay").rows // 32)

    promoted = cli("promote", "r", "--top", "4", "--data", "1x,2x", "--json")
    assert promoted.returncode == 0, promoted.stderr
    told = json.loads(promoted.stdout)
    assert [one["model"] for one in told["pipelines"]][:2] == models and len(told["pipelines"]) == 4
    for one in told["pipelines"]:
        assert one["data 1x"] == one["objective"] == reached[one["model"]], "the same steps, from the store"
        assert one["data 2x"] is not None
    assert told["order"]["data 1x"].startswith("Kendall's tau +1.00")
    assert all(trial["cached"] for trial in cli.show("r-1x")["trials"])
    again = cli("promote", "r", "--top", "4", "--data", "1x,2x")
    assert again.returncode == 0 and "Kendall's tau" in again.stdout and "trial 1" not in again.stderr, "nothing is done twice"

    other = cli.folder / "other"
    shutil.copytree(lab / "llama", other)
    config = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(config | {"temperature": 0.5, "do_sample": True}))
    moved = cli("transfer", "r", "--base", str(other), "--top", "3")
    assert moved.returncode == 0, moved.stderr
    assert "Kendall's tau" in moved.stdout
    shown = cli.show("r-other")
    assert shown["profile"]["models"] == {"llama": {**shown["profile"]["models"]["llama"], "path": str(other)}}
    assert cli("promote", "r", "--data", "x").returncode == 2


def test_what_each_step_brings_and_a_recipe_done_again(lab_profile: Any, cli: Commands) -> None:
    source, reached = found(lab_profile, cli)
    brought = cli("contributions", "r", "--model", "m4", "--json")
    assert brought.returncode == 0, brought.stderr
    steps = {one["trial"]: one for one in json.loads(brought.stdout)["steps"]}
    assert list(steps) == [1, 2, 3, 4] and all(one["brings"] for one in steps.values())
    without_last = steps[4]["brings"]["mean"]
    assert without_last == pytest.approx(reached["m4"] - reached["m3"], abs=1e-5), (
        "without the last step there is what it was made of"
    )
    shown = cli.show("r-m4-steps")
    calls = [trial["action"]["inputs"] for trial in shown["trials"]]
    assert {"models": ["llama", "m2"]} in calls, "without trial 1 the base itself is merged"
    assert sum(trial["cached"] for trial in shown["trials"]) == 4 and len(calls) == 4 + 2 + 2 + 1
    assert (
        cli("contributions", "r", "--model", "m1").returncode == 1 and cli("contributions", "r", "--model", "x").returncode == 2
    )
    assert "trial   1" in cli("contributions", "r", "--model", "m4").stdout

    assert cli("export", "r", "--model", "m4", "--to", "out").returncode == 0
    replayed = cli("replay", "out", "--name", "again")
    assert replayed.returncode == 0, replayed.stderr
    trials = cli.show("again")["trials"]
    assert [trial["action"]["digest"] for trial in trials] == [
        source.trials[number].action["digest"] for number in (1, 2, 3, 4)
    ]  # type: ignore[index]
    assert trials[-1]["scores"]["call"]["search"]["mean"] == source.scores["m4"]["call"]["search"]["mean"]
    recipe = yaml.safe_load((cli.folder / "out" / "recipe.yaml").read_text())
    broken = cli.folder / "broken.yaml"
    broken.write_text(yaml.safe_dump({**recipe, "steps": []}))
    for path in (broken, cli.folder / "nothing.yaml"):
        refused = cli("replay", str(path))
        assert refused.returncode == 2 and "recipe" in refused.stderr and "Traceback" not in refused.stderr
