"""Modes of what is written to be handed on."""

from __future__ import annotations

import os
from pathlib import Path


def hand_on(*paths: Path) -> None:
    """Modes as the user's umask has them: libraries make weights private, and so are files that are replaced in one go."""
    mask = os.umask(0)
    os.umask(mask)
    for path in paths:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
