"""Scorers that a person wrote: `scorers/NAME.py` in a drop-in folder, trusted as actions are (`lamdatui.config.resources`).

A file has `score(reference, completion) -> float` (0 to 1), and may have `problem(reference) -> str | None`, which is asked of each row before a run. What a file is
when a run begins is part of its evaluations' keys: another text is another scorer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import file_digest
from lamdatui.config import reading
from lamdatui.config.resources import files, load_scorer, untrusted
from lamdatui.tasks.judging import JUDGED
from lamdatui.tasks.scorers import SCORERS


@dataclass(frozen=True)
class OwnScorer:
    """`source` is the sha256 of its file."""

    name: str
    path: Path
    source: str
    rule: Callable[[Any, str], Any]
    check: Callable[[Any], Any] | None = None

    def score(self, reference: Any, completion: str) -> float:
        """Of one answer. Raises ValueError, with what the file did, where that is no number from 0 to 1."""
        try:
            found = self.rule(reference, completion)
            value = float(found)
        except Exception as error:
            raise ValueError(f"the scorer {self.name} failed: {type(error).__name__}: {error}") from error
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise ValueError(f"the scorer {self.name} gave {found!r}, which is no number from 0 to 1")
        return value

    def problem(self, reference: Any) -> str | None:
        """What is wrong with a row's reference, or None."""
        try:
            if self.check is not None and (wrong := self.check(reference)):
                return str(wrong)
            self.score(reference, "")
        except Exception as error:  # noqa: BLE001 (somebody's file may raise anything)
            return str(error)
        return None


def own_scorer(name: str, *, step: bool = False) -> OwnScorer:
    """By its file's name; `step` as in `lamdatui.config.reading`. Raises LamdatuiError where there is none, or it can't be read."""
    known = files("scorers")
    if name not in known:
        fix = (
            untrusted()
            or f"scorers: {', '.join([*SCORERS, *JUDGED, *sorted(set(known) - SCORERS.keys())])}; or a file scorers/{name}.py"
        )
        raise LamdatuiError(f"no scorer named {name!r}", fix=fix)
    origin, path = known[name]
    if wrong := reading.problems([reading.file_source(origin, path, "score")], step=step).get(str(path)):
        raise LamdatuiError(
            f"the scorer {name} can't be read: {wrong}", where=str(path), fix="it has a function score(reference, completion)"
        )
    module = load_scorer(origin, path)
    return OwnScorer(name, path, file_digest(path), module.score, getattr(module, "problem", None))
