"""What a key of the console is, and the places where keys are live. The table is `lamdatui.ui.keys.table`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Where = Literal[
    "always",
    "app",
    "run",
    "start",
    "console",
    "pane",
    "logs",
    "card",
    "planner",
    "scroll",
    "dialog",
    "text",
    "edit",
    "line",
    "page",
    "form",
    "pick",
    "pick-row",
    "hardware",
    "progress",
    "newrun",
    "newprofile",
    "pipeline",
    "filter",
    "node",
    "compare",
    "rows",
    "queue",
]


@dataclass(frozen=True, slots=True)
class Key:
    """A binding: `id` is its name in a keymap, `palette` its name in the command palette."""

    id: str
    keys: str
    action: str
    label: str
    tooltip: str
    where: Where
    show: bool = False
    priority: bool = False
    palette: str = ""

    def binding(self) -> Binding:
        """The Textual binding."""
        return Binding(
            self.keys, self.action, self.label, show=self.show, priority=self.priority, tooltip=self.tooltip, id=self.id
        )
