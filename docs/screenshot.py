"""Writes an SVG of the console as it is on a run: `python docs/screenshot.py RUN_DIR OUT.svg [--size 120x40] [--press P]`.

The picture is drawn by the console itself, attached to the run's own engine (which must be at work, or shows a run that
has ended).
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from lamdatui.runs import StartOptions, start_engine
from lamdatui.ui.app import ConsoleApp

SETTLE_SECONDS = 4.0
"""Time for the replay of events, the first hardware reading and the tail of the log."""


async def draw(run_dir: Path, target: Path, columns: int, rows: int, keys: list[str]) -> None:
    """Attach, wait until the screen is whole, write the picture."""
    app = ConsoleApp(run_dir)
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause(SETTLE_SECONDS)
        if keys:
            await pilot.press(*keys)
            await pilot.pause(1.0)
        target.write_text(app.export_screenshot(title="lamdatui"), encoding="utf-8")


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--press", nargs="*", default=[], help="keys to press first")
    options = parser.parse_args()
    columns, rows = map(int, options.size.split("x"))
    start_engine(options.run_dir.resolve(), StartOptions(view=True))
    asyncio.run(draw(options.run_dir.resolve(), options.target, columns, rows, options.press))


if __name__ == "__main__":
    main()
