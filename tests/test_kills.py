"""kill -9 at random moments of whole runs (`tests/kills.py`): a share of it by a fixed seed; by the thousand, slowly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import Campaign, Verdict

NOTHING = {name: 0 for name in ("lost", "executed_twice", "published_twice", "stuck", "orphans", "unsound")}


def check(campaign: Campaign, kills: int) -> Verdict:
    """Kill so many times; nothing may be wrong afterwards."""
    verdict = campaign.go(kills)
    print(campaign.summary())
    assert verdict.told == []
    assert {name: getattr(verdict, name) for name in NOTHING} == NOTHING
    assert len(campaign.hits) == kills
    assert campaign.inside() >= 0.6 * kills
    return verdict


def test_runs_that_are_killed_at_random_moments_lose_and_repeat_nothing(lab: Path, tmp_path: Path) -> None:
    verdict = check(Campaign(tmp_path / "kills", "cheap", 1, trials=6), 14)
    assert verdict.trials == verdict.runs * 6


@pytest.mark.slow
def test_a_thousand_kills_lose_and_repeat_nothing(lab: Path, tmp_path: Path) -> None:
    check(Campaign(tmp_path / "kills", "cheap", 2), 1000)


@pytest.mark.slow
def test_a_hundred_kills_of_trainings_lose_and_repeat_nothing(lab: Path, tmp_path: Path) -> None:
    check(Campaign(tmp_path / "kills", "sft", 3), 100)
