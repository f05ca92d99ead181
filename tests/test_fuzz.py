"""A share of the fuzzing (`tests.fuzz`) in every run of the tests, all of it in the long ones; and the smallest input of each kind that was bad once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from lamdatui.base.errors import LamdatuiError
from tests import fuzz
from tests.fuzz import Target, dice_of, folder_in_memory, hunt, hunt_apart, targets
from tests.mutators import mutate, reshape, wrong_json

Json = dict[str, Any]
SHARE = {"profile": 60, "dataset": 250, "task": 250, "planner": 120, "declaration": 400, "action-file": 60, "frame-console": 60, "frame-command": 250,
         "frame-client": 200, "frame-step": 500, "model": 120, "run.db": 25, "store": 30, "checkpoint": 100}  # fmt: skip
"""Cases of each target in a usual run of the tests."""
KNOWN = targets()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", KNOWN)
def test_a_share_of_wrong_input_ends_no_reader(name: str) -> None:
    report = hunt(name, KNOWN[name], 1, range(SHARE[name]))
    assert report.is_good and report.cases == SHARE[name], str(report)
    assert name == "checkpoint" or name == "frame-console" or 0 < report.refused <= report.cases, (
        "what tells nothing wrong from wrong tells nothing"
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", KNOWN)
def test_no_wrong_input_ends_a_reader(name: str) -> None:
    report = hunt_apart(name, 1, KNOWN[name].whole)
    print(report)
    assert report.is_good, str(report)


# --- the fuzzing itself ----------------------------------------------------------------------------------------------


def test_a_case_is_made_of_its_target_seed_and_number_alone() -> None:
    for name in ("dataset", "declaration", "frame-step", "checkpoint"):
        made = []
        for _ in range(2):
            with folder_in_memory() as folder:
                make, _read = KNOWN[name].open(folder)
                made.append([make(dice_of(name, 7, number)) for number in range(30)])
        assert repr(made[0]) == repr(made[1])
    values = [{"a": [1, {"b": "x"}], "c": None}]
    assert [wrong_json(random.Random(5), values) for _ in range(2)] == [wrong_json(random.Random(5), values)] * 2
    assert len({wrong_json(random.Random(seed), values) for seed in range(300)}) > 200
    assert len({mutate(random.Random(seed), b'{"a": 12}' * 9) for seed in range(300)}) > 200
    assert values == [{"a": [1, {"b": "x"}], "c": None}], "seeds stay as they are"
    assert reshape(random.Random(1), values[0]) is not values[0]


def _reader(read: Callable[[int], None]) -> Target:
    return Target(lambda _: (lambda dice: dice.randrange(10), read))


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda _: _raise(KeyError("x")), "KeyError"),
        (lambda _: _raise(MemoryError()), "MemoryError"),
        (lambda _: _raise(LamdatuiError(" ")), "it says nothing"),
        (lambda _: _raise(ValueError("x" * 9999)), "ValueError"),
    ],
)
def test_what_is_bad_is_told_with_its_cases(read: Callable[[int], None], told: str) -> None:
    report = hunt("x", _reader(read), 1, range(3))
    assert not report.is_good and told in str(report)
    assert [numbers for numbers in report.bad.values()] == [[0, 1, 2]]


def test_a_slow_a_growing_and_a_dying_reader_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.05)

    def burn(case: int) -> None:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass

    assert "more than 0.05 s of CPU" in str(hunt("slow", _reader(burn), 1, range(1)))
    monkeypatch.setattr(fuzz, "STUCK_SECONDS", 0.4)
    assert "more than 0.2 s" in str(hunt("stuck", _reader(lambda _: time.sleep(20)), 1, range(1)))
    monkeypatch.setattr(fuzz, "STUCK_SECONDS", 60)
    assert not fuzz.Report("x", 1, growth=fuzz.MOST_GROWTH_MIB + 1).is_good
    monkeypatch.setattr(
        fuzz,
        "targets",
        lambda: {
            "dies": Target(lambda _: (lambda dice: dice.randrange(3), lambda case: fuzz.os.abort() if case == 1 else None))
        },
    )
    report = hunt_apart("dies", 1, 12)
    assert report.cases == 12 and "SIGABRT" in str(report)
