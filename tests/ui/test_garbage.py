"""The garbage collector does not walk through everything while a person types. In a process of its own: it is the process's."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from lamdatui.ui.app import garbage

class Cycle:
    def __init__(self):
        self.me = self

full = []
gc.callbacks.append(lambda phase, info: full.append(1) if phase == "stop" and info["generation"] == 2 else None)
garbage.hold()
assert not gc.isenabled() and not garbage.idle(99.0), "not while a history comes in"
kept = [Cycle() for _ in range(100_000)]
garbage.settle()
assert gc.isenabled() and gc.get_freeze_count() > 100_000

dead = weakref.ref(Cycle())
survivors = []
while gc.get_count()[2] < garbage.DUE:
    survivors += [[] for _ in range(1000)]
for _ in range(200):
    survivors += [[] for _ in range(1000)]
assert not full, "no full walk by itself"
assert not garbage.idle(garbage.IDLE_SECONDS - 0.1), "not while somebody types"
old = Cycle()
gc.collect(1)
gone = weakref.ref(old)
del old
assert garbage.idle(garbage.IDLE_SECONDS) and len(full) == 1
assert gone() is None and dead() is None
assert not garbage.idle(99.0), "it is not due again"
garbage.release()
assert gc.get_freeze_count() == 0
"""


def test_a_full_walk_waits_until_nobody_types() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
