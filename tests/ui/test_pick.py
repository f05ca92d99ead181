"""The list from which one row, or several, are picked: what was typed decides which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from textual.app import App

from lamdatui.ui.kit.pick import PickScreen

NAMES = ("newest", "m1", "m10", "m11", "m12", "step:7/1", "step:17/1", "data:base m1")
ROWS = {
    "newest": "newest step   now 7/1",
    "step:7/1": "7/1   running",
    "step:17/1": "17/1   done",
    "m12": "m12  base → sft(m1)",
}


async def picked(typed: str, now: Sequence[str] = (), most: int = 1, *keys: str) -> Any:
    """What these keys pick from the list; `now` is picked already."""
    answers: list[Any] = []

    def line(name: str) -> tuple[Any, ...]:
        return (("· ", "dim"), (ROWS.get(name, name), "plain"))

    app: App[None] = App()
    async with app.run_test() as pilot:
        app.push_screen(PickScreen("Which?", NAMES, line, now, most), answers.append)
        await pilot.pause()
        await pilot.press(*typed, *(keys or ("enter",)))
        await pilot.pause()
        if most > 1:
            await pilot.press("escape")
            await pilot.pause()
    return answers[-1]


@pytest.mark.parametrize("now", [(), ("newest",), ("m12",), ("step:17/1",)])
@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("7/1", "step:7/1"),
        ("m1", "m1"),
        ("m10", "m10"),
        ("M11", "m11"),
        ("now", "newest"),
        ("sft", "m12"),
        ("base m1", "data:base m1"),
    ],
)
async def test_enter_takes_what_was_typed_whatever_was_picked_before(typed: str, first: str, now: tuple[str, ...]) -> None:
    """The row that was picked already was taken as long as it matched: the same keys led somewhere else each time."""
    assert await picked(typed, now) == (first,)


async def test_nothing_typed_stays_with_what_is_picked() -> None:
    assert await picked("", ("m12",)) == ("m12",)


@pytest.mark.parametrize("now", [(), ("m12",)])
async def test_the_same_keys_move_to_the_same_row(now: tuple[str, ...]) -> None:
    assert await picked("m1", now, 1, "down", "enter") == ("m10",)


async def test_several_are_picked_in_the_order_of_picking() -> None:
    assert await picked("m1", ("m12",), 3) == ("m12", "m1")
