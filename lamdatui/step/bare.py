"""`python -m lamdatui.step.bare DIRECTORY`: a step that works on data alone, in a process that has imported no torch.

It begins within a second, however long the step host still imports, and uses up no spare of it. As the host's steps it is a session of its own,
outlives the engine, and has no interface but loopback unless it may.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lamdatui.base.network import ONLINE, fence


def main() -> None:
    """Do the step; the process's status is 0 when its outcome is ok, and 70 for what has none."""
    if ONLINE not in sys.argv[2:]:
        fence()
    status = 70
    try:
        from lamdatui.config.resources import load_registry
        from lamdatui.step.child import enter, run_step

        directory = Path(sys.argv[1])
        enter(directory)
        status = run_step(directory, load_registry(step=True))
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
