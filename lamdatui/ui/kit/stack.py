"""Opening and leaving screens. Keys that come all at once ask a second time before anybody has seen what the first time did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from textual.app import App
from textual.message import Message
from textual.screen import Screen

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.ui.view.state import ViewState

DIALOG_STYLES = Path(__file__).with_name("dialogs.tcss")
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


@runtime_checkable
class LiveScreen(Protocol):
    """A screen above this one that shows the state as it changes."""

    def update_view(self) -> None:
        """Show the state again."""


def attempt(screen: Screen[Any], part: str, update: Callable[[], object]) -> None:
    """Show a part of a screen. The engine may be newer than this console: what can't be shown must not end the rest."""
    try:
        update()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        screen.notify(one_line(f"can't show the {part}: {type(error).__name__} {error}"), severity="error", markup=False)


@dataclass
class TrialAsked(Message):
    """A trial is looked at that may be brief; `then` is called when all of it is there, or can't be had."""

    number: int
    then: Callable[[], object]


@dataclass
class Asked(Message):
    """A question to the engine; `then` is called with its answer, or with None where there is none: a refusal is shown."""

    command: str
    args: dict[str, Any]
    then: Callable[[Any], object]


def send(
    app: App[Any],
    ask: Callable[..., Awaitable[Any]],
    command: str,
    args: dict[str, Any],
    *,
    refused: Callable[[], None] | None = None,
    accepted: Callable[[], object] | None = None,
) -> None:
    """Send a command to the engine; a refusal is shown as a toast. It goes on when the screen that asked is left."""

    async def deliver() -> None:
        try:
            await ask(command, **args)
        except LamdatuiError as error:
            app.notify(one_line(error.what), title=f"{command} refused", severity="error", markup=False)
            if refused:
                refused()
            return
        if accepted:
            accepted()

    app.run_worker(deliver(), group="commands")
