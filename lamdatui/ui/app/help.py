"""F1: what the focused pane is, and the keys that work there now."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from lamdatui.base.text import one_line
from lamdatui.ui.app.help_text import Group, HelpEntry, about, help_lines, indent
from lamdatui.ui.keys.table import KEYS, bindings, display, shown
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.stack import DIALOG_STYLES

IDS = frozenset(key.id for key in KEYS)


class HelpScreen(ModalScreen[None]):
    """Taken from the live bindings of another screen, so that it is true after remapping too."""

    CSS_PATH = DIALOG_STYLES
    BINDINGS = [*bindings("text")]

    def __init__(self, of: Screen[Any]) -> None:
        super().__init__()
        focused = of.focused
        ids = [found for node in (focused.ancestors_with_self if focused else (of,)) if (found := node.id or node.name)]
        self._title = one_line(next((found for node in _nodes(of) if (found := name_of(node))), "this screen"))
        self._about = about(ids)
        self._groups = groups(of)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -help") as box:
            box.border_title = Content(f"Help: {self._title}")
            box.border_subtitle = Content(f"{shown('text-back')} goes back")
            if self._about:
                yield Static(self._about, markup=False, classes="dialog-text")
            yield Hanging(indent(self._groups), help_lines(self._groups))

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


def _nodes(screen: Screen[Any]) -> list[DOMNode]:
    return list(screen.focused.ancestors_with_self) if screen.focused else [screen]


def name_of(node: DOMNode) -> str:
    """How a pane or screen is called on the screen."""
    # What Textual gives back is markup.
    title = Content.from_markup(node.border_title or "").plain if isinstance(node, Widget) else ""
    return title or (node.BINDING_GROUP_TITLE or "")


def groups(screen: Screen[Any]) -> list[Group]:
    """The live bindings by who takes them, the innermost first; what does the same is one entry.

    What the toolkit's widgets have by themselves comes last.
    """
    found: list[Group] = []
    others: dict[str, HelpEntry] = {}
    for node, listed in groupby(screen.active_bindings.values(), key=lambda active: active.node):
        entries: dict[str, HelpEntry] = {}
        for active in listed:
            binding = active.binding
            if binding.system or not active.enabled or not (binding.description or binding.tooltip):
                continue
            place = entries if binding.id in IDS else others
            before = place.get(binding.action)
            keys = (*(before.keys if before else ()), display(binding.key))
            place[binding.action] = HelpEntry(tuple(dict.fromkeys(keys)), binding.description, binding.tooltip or "")
        title = name_of(node) or ("This screen" if isinstance(node, Screen) else "Here")
        found.append(Group(one_line(title), tuple(entries.values())))
    return [*found, Group("Moving and selecting", tuple(others.values()))]
