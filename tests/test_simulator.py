"""Whole runs in a simulated machine, as seeds have them: see `tests.simulator`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamdatui.engine.steps import StepRunner
from tests.simulator.__main__ import simulate
from tests.simulator.spaces import Variant, variants


@pytest.fixture
def known(tmp_path: Path, lab: Path) -> list[Variant]:
    return variants(tmp_path)


def wrong(known: list[Variant], seeds: range) -> list[str]:
    """What went wrong, by seed; the counts are printed."""
    found, counts = [], {}
    for seed in seeds:
        simulation, told = simulate(seed, known)
        found += [f"seed {seed}: {told}"] if told else []
        for what, times in simulation.counts.items():
            counts[what] = counts.get(what, 0) + times
    print(f"{len(seeds)} seeds, {len(found)} bad: {dict(sorted(counts.items()))}")
    return found


def test_some_seeds(known: list[Variant]) -> None:
    assert not (bad := wrong(known, range(25))), "\n".join(bad[:3])


@pytest.mark.slow
def test_many_seeds(known: list[Variant]) -> None:
    assert not (bad := wrong(known, range(1_000, 3_000))), "\n".join(bad[:3])


def test_a_seed_is_the_same_run_each_time(known: list[Variant]) -> None:
    told: list[list[str]] = [[], []]
    for lines in told:
        simulate(3, known, lines.append)
    first, again = ([line for line in lines if "engine.started" not in line] for lines in told)
    assert len(first) > 50
    assert first == again


async def settle_nothing(self: StepRunner, name: str = "") -> None:
    """As it was before."""


def test_open_attempts_that_stay_open_are_found(known: list[Variant], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepRunner, "settle", settle_nothing)
    assert any("steps are open" in simulate(seed, known)[1] for seed in range(60))
