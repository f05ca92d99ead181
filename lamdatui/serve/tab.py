"""`python -P -m lamdatui.serve.tab PARENT CMD…`: becomes CMD, which the kernel ends when the server PARENT ends.

A server that is killed can end nothing itself, and a console whose pipes are closed would not notice. Killed outright: a
console holds no truth, and here it has no terminal to restore.
"""

from __future__ import annotations

import os
import signal
import sys

from lamdatui.planner.reaper import set_pdeathsig

if __name__ == "__main__":
    set_pdeathsig(signal.SIGKILL, int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
