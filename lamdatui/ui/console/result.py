"""What a search has found, below the panes once it is over: the winner, its gain on the sealed rows, over seeds, and the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

from lamdatui.domain.baselines import board, standing
from lamdatui.domain.replicates import spreads
from lamdatui.domain.verdicts import corrected, direction, looks, losses, verdict, winner_gain
from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.view.format import interval, signed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lamdatui.domain.state import RunState
    from lamdatui.ui.view.format import Line, Tone
    from lamdatui.ui.view.state import ViewState

TONES: dict[int, Tone] = {1: "good", -1: "bad", 0: "plain"}
NAME, GAIN = 16, 22
"""Cells of a baseline's name and of a gain with its interval."""


def result_lines(state: RunState) -> list[Line]:
    """The winner's line, then one a baseline; nothing before there is a winner."""
    found = winner_gain(state)
    if not state.winner or found is None:
        return []
    split, gain = found
    count = max(1, len(state.sealed_looks)) if split == "sealed" else looks(state)
    shown = f"{signed(gain.get('mean'))} {interval(corrected(gain, count), True)}"
    lines: list[Line] = [
        (
            ("★ ", "wait"),
            (f"{state.winner} ", "strong"),
            (shown, TONES[direction(gain, count)]),
            (f" {verdict(state)}", "plain"),
        )
    ]
    for loss in losses(state):
        lines.append(((f"  {loss}", "bad"),))
    for one in spreads(state):
        if one.model == state.winner:
            each = ", ".join(signed(value) for value in one.each)
            lines.append(
                ((f"  {one.name:{NAME}} ", "plain"), (f"{_gain(one.gain):{GAIN}}", "plain"), (f" its seeds {each}", "dim"))
            )
    for row in board(state)[:-1]:
        if row.missing:
            lines.append(((f"  {row.name:{NAME}} ", "dim"), (f"– {row.missing}", "dim")))
            continue
        behind: tuple[str, Tone] = (_gain(row.behind), TONES[row.sign])
        lines.append(
            (
                (f"  {row.name:{NAME}} ", "plain"),
                (f"{_gain(row.gain):{GAIN}}", "plain"),
                (" winner ", "dim"),
                behind,
                (f" {row.what}", "dim"),
            )
        )
    if words := standing(state):
        lines.append(((f"  {words}", "strong"),))
    return lines


def _gain(gain: Mapping[str, Any] | None) -> str:
    return f"{signed(gain.get('mean'))} {interval(gain.get('interval'), True)}" if gain else "–"


class ResultPanel(Static):
    """As tall as what there is to tell; not there before."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="result")
        self._view = view
        self._lines: list[Line] = []
        self.display = False

    def update_view(self) -> None:
        """Show the view's result."""
        lines = result_lines(self._view.run)
        if lines != self._lines:
            self._lines = lines
            self.display = bool(lines)
            self.update(paint_lines(lines))
