"""Named fault points: `fault("journal.before-commit")` does nothing until the environment arms it.

`LAMDATUI_FAULTS="name=action[@n],…"` arms points; `action` is `kill` (SIGKILL to this process), `stop` (SIGSTOP), `exit`, `error`
(raises OSError), `enospc` (OSError ENOSPC) or `sleep:SECONDS`; `@n` means at the n-th hit only (counted per process).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable

_hits: dict[str, int] = {}


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed = {}
    for part in filter(None, text.split(",")):
        name, _, action = part.partition("=")
        action, _, nth = action.partition("@")
        armed[name.strip()] = (action.strip(), int(nth or 0))
    return armed


_armed = _parse(os.environ.get("LAMDATUI_FAULTS", ""))
on_pass: Callable[[str], None] | None = None
"""What a simulator does at each point."""


def fault(name: str) -> None:
    """Pass a named point; act if it is armed. Raises OSError when armed with `error` or `enospc`."""
    if on_pass is not None:
        on_pass(name)
    if not _armed:
        return
    action, nth = _armed.get(name, ("", 0))
    if not action:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if nth and _hits[name] != nth:
        return
    match action.partition(":"):
        case ("kill", _, _):
            os.kill(os.getpid(), signal.SIGKILL)
        case ("stop", _, _):
            os.kill(os.getpid(), signal.SIGSTOP)
        case ("exit", _, _):
            os._exit(70)
        case ("error", _, _):
            raise OSError(errno.EIO, f"fault point {name}")
        case ("enospc", _, _):
            raise OSError(errno.ENOSPC, f"fault point {name}")
        case ("sleep", _, seconds):
            time.sleep(float(seconds))
        case _:
            raise ValueError(f"unknown fault action {action!r} for {name}")
