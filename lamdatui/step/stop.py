"""SIGTERM in a step's process: it ends at once, or in training with a checkpoint first, where an optimiser step is short enough to wait for."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from lamdatui.step.errors import Stopped

PATIENCE_SECONDS = 20.0
"""An optimiser step that takes longer is not waited for: whoever asks ends the process by force after a minute."""

_asked_at: float | None = None
_deferred = False
_step_ended = 0.0
_step_seconds: float | None = None


def asked() -> bool:
    """Whether somebody wants the step to end. A library may turn `Stopped` into an error of its own; what ended the step is known all the same."""
    return _asked_at is not None


def on_term(*_: object) -> None:
    """The handler of SIGTERM. Raises Stopped, but for the first signal while it is deferred."""
    global _asked_at
    again, _asked_at = asked(), time.monotonic()
    waits = _deferred and _step_seconds is not None and _step_seconds < PATIENCE_SECONDS
    if again or not waits:
        raise Stopped


def check() -> None:
    """Raise Stopped where a stop was asked for and nothing waits for it: what was interrupted may have swallowed it, as a destructor does."""
    if asked() and not _deferred:
        raise Stopped


def listen() -> None:
    """Take SIGTERM from now on."""
    signal.signal(signal.SIGTERM, on_term)


def step_began() -> None:
    """An optimiser step begins after something else than one."""
    global _step_ended
    _step_ended = time.monotonic()


def step_ended() -> None:
    """An optimiser step has ended: the next one takes about as long."""
    global _step_ended, _step_seconds
    now = time.monotonic()
    _step_seconds, _step_ended = (now - _step_ended if _step_ended else None), now


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a stop waits for the end of the optimiser step, whose checkpoint is written first; what is over by then is kept."""
    global _deferred, _step_seconds, _step_ended
    check()
    _deferred, _step_seconds, _step_ended = True, None, 0.0
    try:
        yield
    finally:
        _deferred = False
