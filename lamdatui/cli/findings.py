"""What `check` and `doctor` say: one finding for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue.entries import MADE_HERE

Status = Literal["ok", "info", "warn", "bad"]
"""`info`: nothing is wrong; it is optional, or lamdatui makes it when it is needed."""
MADE = tuple(f"lamdatui models fetch {name}" for name in MADE_HERE)
"""Fixes of what `lamdatui run` does by itself before it starts."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, and what to do about it."""

    status: Status
    subject: str
    detail: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.status:4}  {self.subject:22} {self.detail}"
        return f"{text}\n{'':29}fix: {self.fix}" if self.fix else text


def tried(subject: str, look: Callable[[], str]) -> Finding:
    """The finding of a look that tells what it saw, or raises."""
    try:
        return Finding("ok", subject, look())
    except LamdatuiError as error:
        if error.fix in MADE:
            return Finding("info", subject, "made when a run starts, once")
        where = f" ({error.where})" if error.where else ""
        return Finding("bad", subject, error.what + where, error.fix)
    except (OSError, RecursionError, TypeError, ValueError) as error:
        # Nothing is known that ends here; whatever does is a finding all the same.
        return Finding("bad", subject, f"it can't be read: {type(error).__name__}: {error}"[:500])
