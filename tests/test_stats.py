"""Intervals: cover what they should, pair by row."""

from __future__ import annotations

import numpy as np
import pytest

from lamdatui.tasks.stats import interval, paired_gain, sign_test, summary


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = interval((rng.random(60) < 0.4).astype(float).tolist(), seed=trial)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 200 <= 1.0


def test_the_same_rows_give_the_same_interval() -> None:
    values = [0.0, 1.0, 1.0, 0.5] * 10
    assert summary(values) == summary(values) == {"mean": 0.625, "n": 40, "interval": [0.4875, 0.75]}
    assert summary([1.0, 1.0]) == {"mean": 1.0, "n": 2, "interval": [0.34238, 1.0]}


def test_pairing_makes_the_interval_of_a_constant_difference_narrow() -> None:
    rng = np.random.default_rng(1)
    base = {str(i): float(value) for i, value in enumerate(rng.random(50))}
    ours = {key: value + 0.1 for key, value in base.items()}
    gain = paired_gain({"t": ours}, {"t": base}, {"t": 2.0})
    assert gain["mean"] == pytest.approx(0.2)
    assert gain["interval"] == pytest.approx([0.2, 0.2])
    ours = {key: value + 0.01 * int(key) ** 0.5 for key, value in base.items()}
    gain = paired_gain({"t": ours}, {"t": base}, {"t": 2.0})
    assert gain == {"mean": 0.092786, "interval": [0.083119, 0.102043]}


def test_every_row_counts_alike_wherever_it_stands() -> None:
    values = [0.0] * 9 + [1.0]
    there, back = np.array(interval(values)), np.array(interval(values[::-1]))
    assert np.abs(there - back).max() <= 0.1
    rows = {f"{i:02}": value for i, value in enumerate(values)}
    mirrored = {f"{9 - i:02}": value for i, value in enumerate(values)}
    base = dict.fromkeys(rows, 0.0)
    gains = [np.array(paired_gain({"t": each}, {"t": base}, {"t": 1.0}, seed=3)["interval"]) for each in (rows, mirrored)]
    assert np.abs(gains[0] - gains[1]).max() <= 0.1
    draws = [np.mean([interval(each, seed) for seed in range(20)]) for each in (values, values[::-1])]
    assert abs(draws[0] - draws[1]) < 0.02


def test_an_interval_is_as_wide_as_the_confidence_says() -> None:
    values = list(np.random.default_rng(2).normal(size=400))
    error = float(np.std(values)) / 20
    for confidence, width in ((0.95, 1.96), (0.68, 0.994)):
        low, high = interval(values, confidence=confidence)
        assert (high - low) / 2 == pytest.approx(width * error, rel=0.1)
        assert (high + low) / 2 == pytest.approx(float(np.mean(values)), abs=0.1 * error)
    assert summary(values)["interval"] == pytest.approx(interval(values), abs=1e-6)
    gain = paired_gain({"t": dict(enumerate(values))}, {"t": dict.fromkeys(range(400), 0.0)}, {"t": 1.0})["interval"]
    assert gain == pytest.approx(interval(values), abs=0.1 * error)


def test_no_score_is_certain_because_all_rows_agree() -> None:
    assert summary([0.0] * 120)["interval"] == [0.0, pytest.approx(0.031, abs=0.001)]
    rng = np.random.default_rng(3)
    for share, n in ((0.01, 32), (0.02, 120), (0.97, 48), (0.5, 40)):
        draws = [summary((rng.random(n) < share).astype(float).tolist())["interval"] for _ in range(300)]
        covered = np.mean([low - 1e-9 <= share <= high + 1e-9 for low, high in draws])
        assert covered >= 0.9, (share, n, covered)
    # Graded scores keep the bootstrap.
    assert summary([0.5] * 9)["interval"] == [0.5, 0.5]


@pytest.mark.parametrize(("wins", "losses", "p"), [(4, 0, 0.125), (6, 0, 0.03125), (5, 1, 0.21875), (3, 3, 1.0), (0, 0, 1.0)])
def test_the_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == sign_test(losses, wins) == pytest.approx(p)


def test_few_rows_are_no_gain_before_the_exact_test_says_so() -> None:
    def gained(wins: int, losses: int, n: int = 120) -> tuple[float, float]:
        base = {str(row): 1.0 if row >= n - losses else 0.0 for row in range(n)}
        ours = {str(row): 1.0 if row < wins else 0.0 for row in range(n)}
        low, high = paired_gain({"t": ours}, {"t": base}, {"t": 1.0})["interval"]
        return low, high

    assert gained(4, 0)[0] == 0.0 and gained(5, 0)[0] == 0.0, "p = 0.125 and 0.0625"
    assert gained(6, 0)[0] > 0.0, "p = 0.031"
    assert gained(0, 4)[1] == 0.0 and gained(0, 6)[1] < 0.0
    # Never above the nominal level where both are as likely.
    rng = np.random.default_rng(5)
    false = sum(gained(wins, 9 - wins)[0] > 0 for wins in rng.binomial(9, 0.5, size=400))
    assert false / 400 <= 0.04


def test_a_task_that_is_only_kept_does_not_hide_how_few_rows_make_a_gain() -> None:
    ours = {"t": {str(n): float(n < 4) for n in range(50)}, "kept": {str(n): float(n % 3 == 0) for n in range(50)}}
    base = {"t": dict.fromkeys(ours["t"], 0.0), "kept": dict.fromkeys(ours["kept"], 0.0)}
    alone = paired_gain(ours, base, {"t": 1.0})["interval"]
    beside = paired_gain(ours, base, {"t": 1.0, "kept": 0.0})["interval"]
    assert alone[0] == beside[0] == 0.0, "four wins without a loss may be chance"


def test_rows_that_differ_are_refused() -> None:
    with pytest.raises(KeyError, match="differ"):
        paired_gain({"t": {"a": 1.0}}, {"t": {"b": 1.0}}, {"t": 1.0})
