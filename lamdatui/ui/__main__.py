"""`python -m lamdatui.ui RUN_DIR` or `--start RUNS_DIR`: the console process, started by `lamdatui.launcher`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from lamdatui.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE


def main(argv: list[str]) -> int:
    """Run the console of one run, or the start screen, until the person leaves it; the exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        # Also while it is being imported: a traceback would tell nobody anything.
        return EXIT_INTERRUPTED


def _run(argv: list[str]) -> int:
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        # A terminal tells its size itself; what a shell has exported of it would hold whatever becomes of the window.
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)
    match argv:
        case ["--start", runs_dir]:
            return start(Path(runs_dir))
        case [run_dir] if not run_dir.startswith("-"):
            return console(Path(run_dir))
    print("usage: python -m lamdatui.ui RUN_DIR | --start RUNS_DIR", file=sys.stderr)
    return EXIT_USAGE


def console(run_dir: Path) -> int:
    """The console of one run."""
    # Collecting while some hundred thousand lasting objects are made costs a tenth of the first paint; the app goes
    # back to collecting after it.
    gc.disable()
    from lamdatui.ui.app import ConsoleApp

    app = ConsoleApp(run_dir)
    result = app.run()
    # Without a result and without an error it was cancelled: that is what an INT from elsewhere does to it.
    return result if result is not None else (app.return_code or EXIT_INTERRUPTED)


def start(runs_dir: Path) -> int:
    """The start screen; leaving the console of a run that was opened from it comes back to it."""
    gc.disable()
    from lamdatui.ui.startapp import StartApp

    while True:
        app = StartApp(runs_dir)
        chosen = app.run()
        if chosen is None:
            return EXIT_INTERRUPTED if app.return_code is None else app.return_code
        code = console(chosen)
        if code != EXIT_DONE:
            return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
