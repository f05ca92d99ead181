"""Six datasets for the lab's bases of which two can be trusted: a space in which the choice of data decides.

Real collections differ so: large ones are scraped, made by a rule that is nearly right, or in the form of an older version; what is right is small. The
names say nothing of it. Everything is seeded; no argument is in a task's split (`lamdatui.tasks.strings`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from lamdatui.catalogue.lab import write_jsonl
from lamdatui.tasks.strings import SKILLS, Row, corrupt, mixture

Say = Callable[[str], None]

SEED = 31337
WRONG_SHARE = 0.4
"""Of the scraped answers."""


def _older(row: Row) -> str:
    """A call as an older version wrote it: `abc.tag`."""
    tool, _, argument = row.completion.rstrip(")").partition("(")
    return f"{argument}.{tool}" if row.prompt.startswith("do ") else row.completion


def _nearly(row: Row) -> str:
    """Backwards pair by pair only."""
    return SKILLS["swap"].answer(row.argument) if row.prompt.startswith("rev:") else row.completion


def _noisy(row: Row) -> str:
    rng = random.Random(f"scraped/{row.prompt}")
    return corrupt(row.completion, rng) if rng.random() < WRONG_SHARE else row.completion


SETS: dict[str, tuple[dict[str, int], Callable[[Row], str]]] = {
    "scraped": ({"copy": 600, "reverse": 600, "call": 600}, _noisy),
    "legacy": ({"call": 800, "copy": 400}, _older),
    "synthetic": ({"reverse": 800, "copy": 400}, _nearly),
    "crowd": ({"copy": 300, "reverse": 300, "call": 300}, lambda row: row.completion + "!"),
    "forum": ({"call": 300, "reverse": 300}, lambda row: row.completion),
    "manual": ({"copy": 200, "reverse": 200, "call": 200}, lambda row: row.completion),
}
"""Dataset → skill → rows, and what stands as the answer."""


def build(target: Path, say: Say) -> None:
    """Write `NAME.jsonl` for each of `SETS` under `target`; less than a second."""
    began = time.monotonic()
    for number, (name, (parts, answer)) in enumerate(SETS.items()):
        found = mixture(parts, "train", SEED + number)
        write_jsonl(target / f"{name}.jsonl", ({"prompt": row.prompt, "completion": answer(row)} for row in found))
    say(f"{len(SETS)} datasets written in {time.monotonic() - began:.1f} s")
