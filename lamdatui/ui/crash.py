"""What is kept of an error that ends the console: a report in a file, and three lines for the terminal. No textual.

A traceback on the terminal is long, and what it quotes may come from anywhere.
"""

from __future__ import annotations

import time
import traceback

from lamdatui.paths import state_dir
from lamdatui.ui.sanitize import clean, one_line


def report(error: BaseException, way_back: str) -> str:
    """Write the report; what to tell the person, cleaned."""
    folder = state_dir() / "crashes"
    path = folder / time.strftime("%Y%m%d-%H%M%S.txt")
    where = str(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(clean("".join(traceback.format_exception(error))), encoding="utf-8")
    except OSError as failed:
        where = f"no report could be written: {failed.strerror}"
    lines = (
        f"error: the console failed: {type(error).__name__} {error}",
        f"  where: {where}",
        f"  fix:   {way_back}",
    )
    return "\n".join(one_line(line[:2000]) if line.startswith("error") else clean(line) for line in lines)
