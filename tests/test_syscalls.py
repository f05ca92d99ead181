"""A kill at any system call of a durable operation, and an error of the disk at any: what was acknowledged is there, and nothing is by half."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.operations import OPERATIONS
from tests.syscalls import Lab, Point, complaints, errors, has_strace, kills, record

pytestmark = pytest.mark.skipif(not has_strace(), reason="no strace here that may trace: the system calls are not tried")
SHARE = 30
"""`make test` tries one point of so many, `make test-slow` all."""


def try_out(lab: Lab, points: Iterable[Point]) -> None:
    """Every point on its own, two at a time; the counts are printed. Raises AssertionError with all that was wrong."""
    points = list(points)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda point: complaints(lab, point), points))
    bad = [one for each in found for one in each]
    told = Counter(f"{point.operation}, {point.fault}" for point in points)
    print(f"{len(points)} points, {sum(map(bool, found))} bad: {dict(sorted(told.items()))}")
    assert not bad, "\n".join(bad)


def test_some_points_of_every_operation(tmp_path: Path) -> None:
    lab, draw, chosen = Lab(tmp_path / "lab"), random.Random(7), []
    with ThreadPoolExecutor(2) as pool:
        for points in pool.map(lambda name: record(lab, name), OPERATIONS):
            every = kills(points) + errors(points)
            chosen += draw.sample(every, -(-len(every) // SHARE))
    assert {point.operation for point in chosen} == set(OPERATIONS)
    try_out(lab, chosen)


def test_a_database_whose_log_can_not_be_written_back_does_not_get_its_name(tmp_path: Path) -> None:
    """Closed, it got its name all the same, and was malformed: closing says nothing of an error."""
    lab = Lab(tmp_path / "lab")
    points = [point for point in record(lab, "create") if point.path.startswith(".new")]
    try_out(lab, [point for point in errors(points) if point.name in ("pread64", "pwrite64") and "EIO" in point.fault][-9:])


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_point_of_an_operation(tmp_path: Path, name: str) -> None:
    lab = Lab(tmp_path / "lab")
    points = record(lab, name)
    assert points == record(lab, name), "its calls are not the same each time"
    try_out(lab, kills(points) + errors(points))
