"""The footer: the keys that count now, as many as fit. What does not fit is left out whole, the least important first."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

FIRST = ("help", "quit", "review", "hold")
"""Ids of the keys that go last where there is no room; a key that leads back is as important."""
GAP = 1
"""Cells between two keys."""
RULE = 1
"""Cells of the line beside the command palette's key."""


class KeyFooter(Footer):
    """Textual's footer without what would be cut: help and the way out are there at every width."""

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._width = 0

    def compose(self) -> ComposeResult:
        if not self._bindings_ready:
            return
        self._width = self.app.size.width
        active = list(self.screen.active_bindings.values())
        shown = {found.binding.action: found for found in reversed(active) if found.binding.show}
        keys = [found for found in active if shown.get(found.binding.action) is found]
        palette = self.screen.active_bindings.get(self.app.COMMAND_PALETTE_BINDING)
        kept = fitting([(found.binding, self._cells(found.binding)) for found in keys], self._width)
        taken = sum(self._cells(binding) + GAP for binding in kept)
        for _, binding, enabled, tooltip in keys:
            if binding in kept:
                yield self._key(binding, enabled, tooltip or binding.tooltip)
        if palette and len(kept) == len(keys) and taken + self._cells(palette.binding) + RULE <= self._width:
            yield self._key(palette.binding, palette.enabled, palette.binding.tooltip, "-command-palette")

    def _cells(self, binding: Binding) -> int:
        return cell_len(f"{self.app.get_key_display(binding)} {binding.description}")

    def _key(self, binding: Binding, enabled: bool, tooltip: str, classes: str = "") -> FooterKey:
        return FooterKey(
            binding.key,
            self.app.get_key_display(binding),
            binding.description,
            binding.action,
            disabled=not enabled,
            tooltip=tooltip or binding.description,
            classes=classes,
        )

    def bindings_changed(self, screen: Screen) -> None:
        """Also in a window that is not focused: it may be looked at all the same."""
        self._bindings_ready = True
        if self.is_attached and screen is self.screen:
            self.call_after_refresh(self.recompose)

    def on_resize(self, event: Resize) -> None:
        if self._width != self.app.size.width:
            self.call_after_refresh(self.recompose)


def fitting(keys: list[tuple[Binding, int]], width: int) -> list[Binding]:
    """Of keys and their cells those that fit into `width` cells, in their order."""

    def rank(item: tuple[Binding, int]) -> int:
        name = item[0].id or ""
        if name.endswith("-back"):
            return FIRST.index("review")
        return FIRST.index(name) if name in FIRST else len(FIRST)

    kept: list[Binding] = []
    room = width
    for binding, cells in sorted(keys, key=rank):
        if cells > room:
            break
        kept.append(binding)
        room -= cells + GAP
    return [binding for binding, _ in keys if binding in kept]
