"""Combinations of objects by their place in the list of all, without the list: three of 10,000 models are 10^11. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import overload


class Combinations(Sequence[tuple[str, ...]]):
    """Every combination of each size within each group, in the order of `itertools.combinations`: groups, in them sizes.

    With `empty` the empty combination comes first.
    """

    def __init__(self, groups: Sequence[Sequence[str]], sizes: range, empty: bool) -> None:
        self._parts: list[tuple[int, Sequence[str], int]] = [(1, (), 0)] if empty else []
        self._parts += [(comb(len(group), size), group, size) for group in groups for size in sizes if size]
        self._length = sum(count for count, _, _ in self._parts)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._length))]
        place = index + self._length if index < 0 else index
        for count, group, size in self._parts:
            if 0 <= place < count:
                return tuple(group[each] for each in combination(len(group), size, place))
            place -= count
        raise IndexError(f"there are {self._length} combinations, none has the index {index}")


def combination(count: int, size: int, index: int) -> list[int]:
    """The `index`-th of the ascending picks of `size` numbers below `count`, in lexicographic order."""
    picked: list[int] = []
    start = 0
    for left in range(size, 0, -1):
        rest = count - start
        total = comb(rest, left)
        # How many picks begin with one of the first `low` numbers that are left is total - comb(rest - low, left).
        low, high = 0, rest - left
        while low < high:
            middle = (low + high + 1) // 2
            if total - comb(rest - middle, left) <= index:
                low = middle
            else:
                high = middle - 1
        index -= total - comb(rest - low, left)
        picked.append(start + low)
        start += low + 1
    return picked
