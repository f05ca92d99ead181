"""`python -m lamdatui.ui RUN_DIR`: the console process, started by `lamdatui.launcher`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from lamdatui.errors import EXIT_FAILED, EXIT_USAGE


def main(argv: list[str]) -> int:
    """Run the console of one run directory until the person leaves it."""
    if len(argv) != 1:
        print("usage: python -m lamdatui.ui RUN_DIR", file=sys.stderr)
        return EXIT_USAGE
    # Collecting while some hundred thousand lasting objects are made costs a tenth of the first paint; the app goes
    # back to collecting after it.
    gc.disable()
    from lamdatui.ui.app import ConsoleApp

    app = ConsoleApp(Path(argv[0]))
    result = app.run()
    return result if result is not None else (app.return_code or EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
