"""Power cuts at any moment of durable operations: what was acknowledged is there, and nothing is by half."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations import OPERATIONS
from tests.powercut import MODELS, Recording, record, replay
from tests.syscalls import Lab, has_strace

pytestmark = pytest.mark.skipif(not has_strace(), reason="no strace here that may trace: no operation can be recorded")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """One of every operation."""
    lab = Lab(tmp_path_factory.mktemp("powercut") / "lab")
    return [record(lab, name) for name in OPERATIONS]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing that is done there needs a disk's syncs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def try_out(recordings: list[Recording], memory: Path, count: int) -> None:
    """So many replays; the counts are printed. Raises AssertionError with what was wrong."""
    bad, told = [], Counter[str]()
    for number in range(count):
        recording, model = recordings[number % len(recordings)], MODELS[number // len(recordings) % len(MODELS)]
        found = replay(recording, model, memory / str(number), random.Random(number))
        told[f"{recording.operation}, {model}"] += 1
        bad += [f"seed {number}: {one}" for one in found]
        shutil.rmtree(memory / str(number), ignore_errors=True)
    print(f"{count} replays, {len(bad)} bad: {dict(sorted(told.items()))}")
    assert not bad, "\n".join(bad[:20])


def test_some_power_cuts(recordings: list[Recording], memory: Path) -> None:
    try_out(recordings, memory, 150)


@pytest.mark.slow
def test_many_power_cuts(recordings: list[Recording], memory: Path) -> None:
    try_out(recordings, memory, 3000)
