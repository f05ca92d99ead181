"""kill -9 at random moments of whole runs (`tests/kills/`): a share of it by a fixed seed; by the thousand, slowly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills import campaign as campaigns
from tests.kills.campaign import Campaign, Verdict
from tests.kills.watching import Run

NOTHING = {name: 0 for name in ("lost", "executed_twice", "published_twice", "stuck", "orphans", "unsound")}


def check(campaign: Campaign, count: int) -> Verdict:
    """Kill so many times; nothing may be wrong afterwards."""
    verdict = campaign.go(count)
    print(campaign.summary())
    assert verdict.told == []
    assert {name: getattr(verdict, name) for name in NOTHING} == NOTHING
    assert len(campaign.hits) == count
    # Of few, chance has more of a say.
    assert campaign.inside() >= (0.6 if count >= 100 else 0.4) * count
    return verdict


def test_runs_that_are_killed_at_random_moments_lose_and_repeat_nothing(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = Campaign(tmp_path / "kills", "cheap", 1, trials=6)
    verdict = check(campaign, 14)
    assert verdict.trials == verdict.runs * 6 and verdict.unasked == 0
    it_would_have_been_noticed(campaign, monkeypatch)


def it_would_have_been_noticed(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault that is counted, made by hand in what the last run has left."""
    run = Run(campaign.folder, f"k1-{campaign.verdict.runs}")

    def faults() -> set[str]:
        before = len(campaign.verdict.told)
        campaign.judge(run, seen)
        return {text.partition(":")[0] for text in campaign.verdict.told[before:]}

    seen = run.chain()
    assert faults() == set()
    seen[3] = "0" * 64
    assert faults() == {"lost"}
    seen = {}
    (told, *_) = campaign.folder.glob(f"{run.name}.*.jsonl")
    lines = told.read_text()
    told.write_text(lines + json.dumps({"seq": 10**6, "kind": "trial.closed"}) + "\n")
    assert faults() == {"lost"}
    told.write_text(lines)
    executed = [folder for folder in run.attempts() if (folder / "trained.json").exists()][-1]
    os.utime(executed / "trained.json")
    assert faults() == {"executed_twice"}
    digest = json.loads((executed / "trained.json").read_text())["digest"]
    os.utime(run.store / "objects" / digest / "manifest.json")
    assert faults() == {"published_twice"}
    with (run.store / "objects" / digest / "data.jsonl").open("r+b") as handle:
        handle.write(b"#")
    assert "unsound" in faults()
    monkeypatch.setattr(campaigns, "ORPHAN_SECONDS", 0.2)
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=campaign.environment)
    campaign._end(run)
    assert left.wait(10) == -signal.SIGKILL and campaign.verdict.orphans == 1


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_thousand_kills_lose_and_repeat_nothing(lab: Path, tmp_path: Path) -> None:
    check(Campaign(tmp_path / "kills", "cheap", 2), 1000)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("host", ["fork", "spare"])
def test_kills_of_trainings_lose_and_repeat_nothing(lab: Path, tmp_path: Path, host: str) -> None:
    check(Campaign(tmp_path / "kills", "sft", 3, host=host), {"fork": 100, "spare": 20}[host])
