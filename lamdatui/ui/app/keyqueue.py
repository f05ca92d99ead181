"""Keys one at a time: each goes to where the one before it has led.

Textual gives a key to the focused widget at once and looks for its binding when it has come back up to the app. Of keys that come
together all would be given to the widget that the first of them leaves: a `/` opens a line, and what was typed behind it is lost or
taken for commands. So the next key waits until all that the one before has set going is through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Key, Paste
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

Typed = Key | Paste

TRIPS, MOST_TRIPS = 2, 12
"""A key's own way up to the app, then that of what its action told the widgets; more while the focus still moves."""
LOOK_SECONDS = 0.05
PATIENCE = 40
"""Looks before a key is no longer waited for: a widget that hangs must not keep the key that leaves the console."""


class Passed(Message, bubble=True):
    """Goes from a widget up to the app, behind the key and what the key has caused: queues keep their order."""

    def __init__(self, turn: int, at_app: bool = False) -> None:
        super().__init__()
        self.turn = turn
        self.at_app = at_app


class Turns:
    """Says of an app's keys when they may be handled. The app calls `handle` for a new one and `passed` for a `Passed`."""

    def __init__(self, app: App[Any], act: Callable[[Typed], Awaitable[None]]) -> None:
        self._app = app
        self._act = act
        self._waiting: deque[Typed] = deque()
        self._turn = 0
        self._trips = 0
        self._target: Widget | None = None
        """Where the messenger was sent; None while no key is under way."""
        self._timer: Timer | None = None
        self._looks = 0

    @property
    def busy(self) -> bool:
        """Whether a key is under way."""
        return self._target is not None and not self._lost

    async def handle(self, typed: Typed) -> None:
        """Handle a key or a paste, now or when those before it are through."""
        self._waiting.append(typed)
        if self._target is None:
            await self._next()
            return
        if self._lost:
            self._send(self._focus)
        if self._timer is None:
            self._timer = self._app.set_interval(LOOK_SECONDS, self._look, name="waiting keys")

    async def passed(self, message: Passed) -> None:
        """The messenger is back: send it on another way, or let the next key have its turn."""
        message.stop()
        if message.turn != self._turn or self._target is None:
            return
        if not message.at_app:
            # Behind what is in the app's own queue by now: focus changes and callbacks.
            self._app.post_message(Passed(self._turn, at_app=True))
            return
        self._trips += 1
        if self._trips < TRIPS or (self._focus is not self._target and self._trips < MOST_TRIPS):
            self._send(self._focus)
        else:
            await self._next()

    async def _next(self) -> None:
        self._target, self._looks = None, 0
        self._turn += 1
        if not self._waiting:
            if self._timer is not None:
                self._timer.stop()
                self._timer = None
            return
        typed, self._trips = self._waiting.popleft(), 0
        before = self._focus
        await self._act(typed)
        self._send(before)

    @property
    def _focus(self) -> Widget | None:
        """Who gets keys now."""
        return (self._app.focused or self._app.screen) if self._app.screen_stack else None

    @property
    def _lost(self) -> bool:
        """Whether the messenger can't come back, because where it was sent is no longer there."""
        return self._target is not None and not (self._target.is_attached and self._target.is_running)

    def _send(self, target: Widget | None) -> None:
        self._target = target
        if target is not None and not (target.is_attached and target.post_message(Passed(self._turn))):
            self._app.post_message(Passed(self._turn))

    async def _look(self) -> None:
        """While keys wait: whether they still have to."""
        self._looks += 1
        if self._looks > PATIENCE:
            await self._next()
        elif self._lost:
            self._send(self._focus)
