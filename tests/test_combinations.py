"""Combinations by their place are those of itertools, and cost nothing to have."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.engine.combinations import Combinations


@given(st.lists(st.integers(0, 6), max_size=3), st.integers(0, 2), st.integers(0, 4), st.booleans())
def test_the_order_is_that_of_itertools(lengths: list[int], least: int, most: int, empty: bool) -> None:
    groups = [[f"g{place}-{each}" for each in range(length)] for place, length in enumerate(lengths)]
    sizes = range(least, most + 1)
    listed = [ids for group in groups for size in sizes if size for ids in itertools.combinations(group, size)]
    found = Combinations(groups, sizes, empty)
    assert list(found) == [*([()] if empty else []), *listed]
    assert len(found) == len(list(found))


def test_a_pool_of_ten_thousand_models_is_no_burden() -> None:
    names = [f"m{number}" for number in range(10_000)]
    found = Combinations([names], range(2, 5), False)
    assert found[0] == ("m0", "m1")
    assert found[-1] == ("m9996", "m9997", "m9998", "m9999")
    assert found[len(found) // 2] == found[len(found) // 2 : len(found) // 2 + 1][0]
    with pytest.raises(IndexError):
        found[len(found)]
