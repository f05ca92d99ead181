"""Questions to code that somebody else wrote: whatever it raises and however long it takes, there is an answer.

The time limit works in the main thread and between Python instructions. A call into C that does not return, and code that swallows
every BaseException in a loop, are not stopped by it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

SECONDS = 3.0
Answer = TypeVar("Answer")
_slow: dict[str, str] = {}
"""What has taken too long once, and what was said of it: a search would ask it thousands of times."""


class _TookTooLong(BaseException):
    """Not an Exception: an `except Exception` in the other code must not take it."""


def answer(what: str, ask: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """(the answer, "") or (None, why there is none, one sentence that begins with `what`).

    asyncio.CancelledError and KeyboardInterrupt pass through.
    """
    if what in _slow:
        return None, _slow[what]
    try:
        with _limited(SECONDS):
            return ask(), ""
    except _TookTooLong:
        _slow[what] = f"{what} failed: it takes longer than {SECONDS:g} s"
        return None, _slow[what]
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001 (somebody's code may raise anything; it becomes the reason)
        return None, " ".join(f"{what} failed: {type(error).__name__}: {error}"[:500].split())


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TookTooLong in the body after so many seconds; another timer of this process goes on afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TookTooLong

    handler = signal.signal(signal.SIGALRM, stop)
    other = (0.0, 0.0)
    try:
        other = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *other)
