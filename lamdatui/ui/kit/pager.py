"""Which command opens a log file in the person's pager. No textual."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lamdatui.base.errors import LamdatuiError


def pager_command(path: Path, env: Mapping[str, str], *, line: int | None = None, follow: bool = False) -> list[str]:
    """`$PAGER`, else less, else more. `less` follows a file that grows, or begins at `line` (from 1).

    Raises LamdatuiError when there is no pager or nothing to open.
    """
    if not path.is_file():
        raise LamdatuiError("this log has no file yet", where=str(path))
    words = _words(env.get("PAGER", "")) or [next((name for name in ("less", "more") if shutil.which(name)), "")]
    if not shutil.which(words[0]):
        what = f"the pager {words[0]!r} is not there" if words[0] else "no pager is there"
        raise LamdatuiError(what, where=str(path), fix="install less, or set PAGER")
    if Path(words[0]).name == "less":
        if follow:
            words.append("+F")
        elif line is not None:
            words.append(f"+{line}")
        words.append("--")
    return [*words, str(path.absolute())]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise LamdatuiError(f"PAGER can't be read: {error}", where=text, fix="set PAGER to a command") from error


def run_pager(command: list[str]) -> None:
    """Run a pager on this terminal until it ends. Raises LamdatuiError when it can't be started."""
    # Ctrl+c ends the following of `less +F`; it must end nothing here. A handler, because what is ignored stays ignored
    # in the child.
    numbers = (signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        subprocess.run(command, check=False)
    except OSError as error:
        raise LamdatuiError(f"the pager can't be started: {error.strerror}", where=command[0], fix="set PAGER") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
