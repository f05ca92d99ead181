"""Intervals: cover what they should, pair by row."""

from __future__ import annotations

import numpy as np
import pytest

from lamdatui.tasks.stats import interval, paired_gain, summary


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = interval((rng.random(60) < 0.4).astype(float).tolist(), seed=trial)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 200 <= 1.0


def test_the_same_rows_give_the_same_interval() -> None:
    values = [0.0, 1.0, 1.0, 0.5] * 10
    assert summary(values) == summary(values)
    assert summary([1.0, 1.0]) == {"mean": 1.0, "n": 2, "interval": [1.0, 1.0]}


def test_pairing_makes_the_interval_of_a_constant_difference_narrow() -> None:
    rng = np.random.default_rng(1)
    base = {str(i): float(value) for i, value in enumerate(rng.random(50))}
    ours = {key: value + 0.1 for key, value in base.items()}
    gain = paired_gain({"t": ours}, {"t": base}, {"t": 2.0})
    assert gain["mean"] == pytest.approx(0.2)
    assert gain["interval"] == pytest.approx([0.2, 0.2])


def test_rows_that_differ_are_refused() -> None:
    with pytest.raises(KeyError, match="differ"):
        paired_gain({"t": {"a": 1.0}}, {"t": {"b": 1.0}}, {"t": 1.0})
