"""The Python that runs us, with what the libraries need of it."""

from __future__ import annotations

import os
import sys

MARK = "LAMDATUI_STARTED_AGAIN"


def without_optimization(module: str) -> None:
    """Where Python drops asserts or docstrings (-O, -OO, PYTHONOPTIMIZE), start `module` again in this process without that.

    transformers can't be imported without docstrings, and others check their arguments by asserts. Does not return then.
    """
    if not sys.flags.optimize or not sys.executable or MARK in os.environ:
        return
    # The mark: a `python` that is a script with -O in it would be started for ever.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONOPTIMIZE"} | {MARK: "1"}
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *sys.argv[1:]], environment)
