"""A card's keys in as many rows as they need, never cut."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from lamdatui.ui.legend import Groups, arranged


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
