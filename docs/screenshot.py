"""Writes an SVG of the console as it is on a run: `python docs/screenshot.py RUN_DIR OUT.svg [--size 120x40] [--theme T] [--press P]`.

The picture is drawn by the console itself, attached to the run's own engine (which must be at work, or shows a run that
has ended).
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from lamdatui.ui.app.consoleapp import ConsoleApp
from lamdatui.wire.rundir import StartOptions, start_engine

SETTLE_SECONDS = 4.0
"""Time for the replay of events, the first hardware reading and the tail of the log."""
KEY_SECONDS = 1.0
"""Time for what a key opens, and for the grace of the approval card."""


async def draw(run_dir: Path, target: Path, columns: int, rows: int, keys: list[str], theme: str) -> None:
    """Attach, wait until the screen is whole, write the picture."""
    app = ConsoleApp(run_dir)
    if theme:
        app.theme = theme
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause(SETTLE_SECONDS)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(KEY_SECONDS)
        target.write_text(app.export_screenshot(title="lamdatui"), encoding="utf-8")


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--theme", default="", help="a theme's name; the one of the settings when not given")
    parser.add_argument("--press", nargs="*", default=[], help="keys to press first")
    options = parser.parse_args()
    columns, rows = map(int, options.size.split("x"))
    start_engine(options.run_dir.resolve(), StartOptions(view=True))
    asyncio.run(draw(options.run_dir.resolve(), options.target, columns, rows, options.press, options.theme))


if __name__ == "__main__":
    main()
