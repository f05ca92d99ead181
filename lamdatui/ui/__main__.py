"""`python -m lamdatui.ui RUN_DIR` or `--start RUNS_DIR`: the console process, started by `lamdatui.cli.launcher`."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lamdatui.base.errors import EXIT_DONE, EXIT_USAGE, LamdatuiError

if TYPE_CHECKING:
    from lamdatui.ui.app.shell import ShellApp

Result = TypeVar("Result")


def main(argv: list[str]) -> int:
    """Run the console of one run, or the start screen, until the person leaves it; the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # As TERM and HUP do, at once and wherever it is: asyncio would cancel whatever the app waits for at that moment. The
        # terminal is the launcher's care, and nothing here needs an orderly end. (Ctrl+c is a key, it sends no signal.)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
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
    from lamdatui.ui.app.consoleapp import ConsoleApp

    app = ConsoleApp(run_dir)
    result = _show(app)
    return result if result is not None else (app.return_code or EXIT_DONE)


def start(runs_dir: Path) -> int:
    """The start screen; leaving the console of a run that was opened from it comes back to it."""
    gc.disable()
    from lamdatui.ui.app.startapp import StartApp

    while True:
        app = StartApp(runs_dir)
        chosen = _show(app)
        if chosen is None:
            return app.return_code or EXIT_DONE
        with _connected(chosen):
            code = console(chosen)
        if code != EXIT_DONE:
            return code


@contextlib.contextmanager
def _connected(run_dir: Path) -> Iterator[None]:
    """Hold the engine of a run that has ended: it leaves when nobody is connected, and a console takes its time to be there."""
    # Not `runs.greeted`: with it comes all that reads profiles, a quarter of a second before the console.
    import socket

    from lamdatui.base.paths import socket_path

    with socket.socket(socket.AF_UNIX) as connection:
        # Where there is none, the console says so.
        with contextlib.suppress(OSError, LamdatuiError):
            connection.connect(str(socket_path(run_dir)))
        yield


def _show(app: ShellApp[Result]) -> Result | None:
    from lamdatui.ui.app import garbage
    from lamdatui.ui.app.shell import ShellApp

    if ShellApp.leaving:
        # The app before this one is through.
        ShellApp.leaving.cancel()
        ShellApp.leaving = None
    garbage.release()
    app.own_process = True
    return app.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
