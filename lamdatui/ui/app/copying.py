"""Which text `y` copies: the selection, else the row, else what the focused pane shows."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList


def text_to_copy(screen: Screen[Any]) -> str:
    """The text; a widget or screen says what its row is by a method `copy_text() -> str`. Empty when there is nothing."""
    if selected := screen.get_selected_text():
        return selected
    focused = screen.focused
    nodes = [node for node in focused.ancestors_with_self if isinstance(node, Widget)] if focused else [screen]
    for node in nodes:
        if text := _row(node):
            return text
        if node.has_class("pane") or node.has_class("dialog") or node.id == "card":
            return _shown(node)
    return _shown(nodes[0])


def _row(widget: Widget) -> str:
    own = getattr(widget, "copy_text", None)
    if callable(own):
        return str(own())
    if isinstance(widget, OptionList) and widget.highlighted_option:
        return _plain(widget.highlighted_option.prompt)
    return ""


def _shown(widget: Widget) -> str:
    """The texts of what is displayed in a container, one below the other."""
    leaves = [child for child in widget.query("*").results(Widget) if child.display and not child.children]
    texts = [_plain(leaf.render()) for leaf in leaves or [widget] if not isinstance(leaf, OptionList)]
    return "\n".join(text for text in texts if text)


def _plain(visual: object) -> str:
    if isinstance(visual, Text | Content):
        visual = visual.plain
    return "\n".join(line.rstrip() for line in visual.splitlines()).strip("\n") if isinstance(visual, str) else ""
