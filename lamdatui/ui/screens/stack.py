"""Opening and leaving screens. Keys that come all at once ask a second time before anybody has seen what the first time did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from textual.screen import Screen

from lamdatui.ui.state import ViewState

Answer = TypeVar("Answer")


def open_over(below: Screen[Any], screen: Screen[Answer], answered: Callable[[Answer | None], None] | None = None) -> bool:
    """Open a screen that was asked for in `below`; whether it was.

    It is not when `below` is no longer on top: what was asked for just before has been opened over it, or it was left.
    """
    if not below.is_active:
        return False
    below.app.push_screen(screen, answered)
    return True


def leave(screen: Screen[Answer], answer: Answer) -> None:
    """Leave a screen with its answer; nothing when it is not on top: it was left already, or another one covers it.

    Textual would close the screen on top in its place.
    """
    if screen.is_active:
        screen.dismiss(answer)


class OverConsole(Screen[str]):
    """A screen over the console: back to it, or (answer `review`) to the proposal that waits there."""

    _view: ViewState

    def action_back(self) -> None:
        leave(self, "")

    def action_review(self) -> None:
        if self._view.waiting is None:
            self.notify("No proposal waits for you.")
        else:
            leave(self, "review")
