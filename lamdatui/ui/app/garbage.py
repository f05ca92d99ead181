"""When Python looks for garbage: not while a person types. Its walk through all that has survived takes a tenth of a second.

What surviving objects there are, textual's modules and a run's history, are some hundred thousand, and hardly any ever becomes
garbage. They are set aside (`gc.freeze`); the full walk through the rest is for moments in which nobody types.
"""

from __future__ import annotations

import gc

THRESHOLDS = (700, 10, 1000)
"""Python's own, but for the last: full walks come from `idle`, and by themselves only where nobody ever pauses."""
IDLE_SECONDS = 2.0
DUE = 10
"""Walks through the middle generation after which a full one is due: Python's own number."""


def release() -> None:
    """Another app begins: what was set aside for the one before it may be garbage by now."""
    gc.unfreeze()


def hold() -> None:
    """None for now: a history comes in, or the first paint."""
    gc.disable()


def settle() -> None:
    """What is there by now stays; from here on as the module says."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()


def idle(seconds: float) -> bool:
    """Nobody has typed for so long: walk through all if that is due. Whether it was done."""
    if seconds < IDLE_SECONDS or not gc.isenabled() or gc.get_count()[2] < DUE:
        return False
    gc.collect()
    return True
