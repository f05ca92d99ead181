"""The main job on real input: the whole quickstart, with the figures that it has to reach."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Commands
from tests.test_run import executions


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quickstart_adds_tool_use_and_keeps_format_constraints(cli: Commands) -> None:
    done = cli("run", "quickstart", "--name", "q", "--headless", "--mode", "auto", "--json", timeout=3500)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = cli.show("q")
    assert found["status"] == "done"
    assert len(found["trials"]) >= 6
    kinds = {trial["action"]["type"].partition("_")[0] for trial in found["trials"] if trial["status"] == "done"}
    assert kinds >= {"sft", "dpo", "merge"}
    first = next(event for event in events if event["kind"] == "trial.closed")
    assert first["mono"] - events[0]["mono"] < 8 * 60
    assert events[-1]["mono"] - events[0]["mono"] < 30 * 60
    for model in (found["base"], found["winner"]):
        assert model["scores"]["tool_use"]["search"]["n"] >= 40
        assert model["scores"]["tool_use"]["sealed"]["n"] >= 100
        assert model["scores"]["format_constraints"]["search"]["n"] >= 24
        assert model["scores"]["format_constraints"]["sealed"]["n"] >= 64
    sealed = found["gain"]["sealed"]["tasks"]
    assert sealed["tool_use"]["interval"][0] > 0.20
    assert sealed["format_constraints"]["interval"][0] > -0.10
    assert found["beats_base"] is True
    assert {trial["proposed_by"] for trial in found["trials"][3:]} == {"hybrid"}
    assert len(set(executions(cli.runs))) == len(executions(cli.runs))
    assert not found["problems"]
