"""What the console remembers between two starts: the theme that was chosen in it. The settings file stays the person's own."""

from __future__ import annotations

import json
from pathlib import Path

from lamdatui.base.jsonio import read_json, write_atomic
from lamdatui.base.paths import state_dir


def _file() -> Path:
    return state_dir() / "console.json"


def remembered_theme() -> str:
    """The theme that was chosen last, or nothing."""
    try:
        found = read_json(_file())
    except (OSError, ValueError):
        return ""
    theme = found.get("theme") if isinstance(found, dict) else None
    return theme if isinstance(theme, str) else ""


def remember_theme(name: str) -> None:
    """Keep it for the next start. Raises OSError where the state folder can't be written."""
    _file().parent.mkdir(parents=True, exist_ok=True)
    write_atomic(_file(), json.dumps({"theme": name}))
