"""Who sits at this console, so that others see who decided: `ana@pts/3`. No textual here."""

from __future__ import annotations

import os
import re

_OTHER = re.compile(r"[^\w./:+-]")


def who() -> str:
    """User and terminal; without a terminal (a browser, a pipe) the process stands for it."""
    # Imported here: the first paint does without it.
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{_OTHER.sub('-', user).replace('/', '-').replace(':', '-')[:32] or 'user'}@{_terminal()[:32]}"


def _terminal() -> str:
    for descriptor in (0, 1, 2):
        try:
            return _OTHER.sub("-", os.ttyname(descriptor).removeprefix("/dev/"))
        except OSError:
            continue
    return f"pid-{os.getpid()}"
