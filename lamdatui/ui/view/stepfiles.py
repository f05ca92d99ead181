"""The files of a step that the console reads: where they are, and its metrics. No textual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import parse_json, regular
from lamdatui.base.text import clean_json


def step_folder(run_dir: Path, key: str) -> Path | None:
    """The directory of a step; None for a key that would lead out of the run directory."""
    path = Path(key)
    return None if path.is_absolute() or ".." in path.parts else run_dir / "steps" / path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; broken lines are left out."""
    found = []
    try:
        text = regular(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(clean_json(value))
    return found
