"""Questions to code, and templates, that somebody else wrote: whatever they raise and however long they take, there is an answer.

The time limit works in the main thread and between Python instructions. A call into C that does not return, and code that swallows
every BaseException in a loop, are not stopped by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

SECONDS = 3.0
TEXT_SECONDS = 5.0
"""Of this process's own work, for one text that is made by a template: some thousandth of that is usual."""
TEXT_BYTES = 1 << 30
"""More memory than before, for the same."""
Answer = TypeVar("Answer")
_slow: dict[str, str] = {}
"""What has taken too long once, and what was said of it: a search would ask it thousands of times."""


class TooMuch(ValueError):
    """Work took more than it may; the text is for people."""


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


_working = False
"""Whether the main thread is at work that SIGVTALRM ends."""
_measured = (0, -math.inf)
"""Bytes of address space, and when that was looked at (monotonic, s)."""
MEASURED_SECONDS = 1.0
"""For so long it is taken to be the same."""


def bounded(make: Callable[[], Answer], seconds: float = TEXT_SECONDS, more: int = TEXT_BYTES) -> Answer:
    """The result of work that may take so many seconds and so many bytes more than there are; the whole process has these limits meanwhile.

    Raises TooMuch that names the limit, and what the work raises. Seconds are of work, so that a process that is suspended meets none. In other
    threads than the main one only memory is bounded, and that only where /proc tells how much there is.
    """
    global _measured
    if time.monotonic() - _measured[1] < MEASURED_SECONDS:
        with contextlib.suppress(MemoryError):  # it may have grown meanwhile
            return _bounded(make, seconds, more)
    _measured = _address_space(), time.monotonic()
    try:
        return _bounded(make, seconds, more)
    except MemoryError:
        raise TooMuch(f"it takes more than {more >> 20} MiB of memory") from None


def _bounded(make: Callable[[], Answer], seconds: float, more: int) -> Answer:
    """Raises MemoryError, TooMuch for the time, and what the work raises."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = _measured[0] + more if _measured[0] else resource.RLIM_INFINITY
    known = [limit for limit in (most, *limits) if limit != resource.RLIM_INFINITY]
    if known:
        resource.setrlimit(resource.RLIMIT_AS, (min(known), limits[1]))
    try:
        return _timed(make, seconds)
    finally:
        if known:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def _timed(make: Callable[[], Answer], seconds: float) -> Answer:
    global _working
    if threading.current_thread() is not threading.main_thread():
        return make()
    if signal.getsignal(signal.SIGVTALRM) is not _stop:
        signal.signal(signal.SIGVTALRM, _stop)
    try:
        _working = True
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        return make()
    except _TookTooLong:
        raise TooMuch(f"it works for more than {seconds:g} s") from None
    finally:
        _working = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _stop(*_: object) -> None:
    # One that comes late, when the work is done, is nobody's.
    if _working:
        raise _TookTooLong


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
