"""A card's keys in as many rows as they need, never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

GAP = "  "

ROWS = 2
"""As many rows of keys as a card may have."""


class Legend(Widget):
    """Groups of keys; how they are arranged depends on the width."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._groups = Groups(())

    def show(self, groups: Groups) -> None:
        """Replace the keys."""
        if groups != self._groups:
            self._groups = groups
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(arranged(self._groups, width)))

    def render(self) -> Content:
        return Content("\n".join(arranged(self._groups, self.content_size.width)))


@dataclass(frozen=True, slots=True)
class Groups:
    """Keys in groups that begin a row of their own where they don't fit into one, and what is shown where that is too much."""

    groups: tuple[tuple[str, ...], ...]
    few: tuple[str, ...] = ()
    gap: str = GAP


def arranged(keys: Groups, width: int) -> list[str]:
    """The keys as rows: one where all fit, a row a group where that fits, else the few that matter most."""
    whole = keys.gap.join(item for group in keys.groups for item in group)
    if cell_len(whole) <= width:
        return [whole]
    rows = [row for group in keys.groups for row in _wrapped(group, width, keys.gap)]
    if not keys.few or (len(rows) <= ROWS and all(cell_len(row) <= width for row in rows)):
        return rows
    return _wrapped(keys.few, width, keys.gap)[:ROWS]


def _wrapped(items: Sequence[str], width: int, gap: str) -> list[str]:
    rows = [""]
    for item in items:
        if rows[-1] and cell_len(rows[-1] + gap + item) > width:
            rows.append(item)
        else:
            rows[-1] += f"{gap}{item}" if rows[-1] else item
    return rows
