"""A person's own editor on this terminal: the console steps aside and comes back when it is closed."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

from lamdatui.base.errors import EXIT_USAGE, LamdatuiError
from lamdatui.base.jsonio import regular


def editor_command() -> list[str]:
    """What `VISUAL` or else `EDITOR` says. Raises LamdatuiError where neither names a program that is there."""
    for name in ("VISUAL", "EDITOR"):
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise LamdatuiError(
                f"{name} can't be read: {error}", fix=f"write it like {name}=nano", exit_code=EXIT_USAGE
            ) from error
        if words and shutil.which(words[0]):
            return words
        raise LamdatuiError(f"{name} names {text!r}, which is not there", fix=f"set {name}, say to nano", exit_code=EXIT_USAGE)
    raise LamdatuiError("no editor is set", fix="set EDITOR, say to nano, before the console starts", exit_code=EXIT_USAGE)


def edit(app: App[Any], text: str, name: str) -> str:
    """The text as the person left it in the editor; `name` is the file's name.

    The console stands still meanwhile; the run does not. Raises LamdatuiError where no editor can be opened or where it failed.
    """
    command = editor_command()
    with tempfile.TemporaryDirectory(prefix="lamdatui-") as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        try:
            with app.suspend(), _interrupts_are_the_editors():
                failure = _run([*command, str(path)])
        except SuspendNotSupported as error:
            raise LamdatuiError("no editor can open here", fix="use the form: e", exit_code=EXIT_USAGE) from error
        if failure:
            raise LamdatuiError(f"{failure}; nothing was changed", where=command[0], exit_code=EXIT_USAGE)
        try:
            return regular(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LamdatuiError(
                "what the editor left can't be read; nothing was changed", where=name, exit_code=EXIT_USAGE
            ) from error


def _run(command: list[str]) -> str:
    """Wait for the editor; why it failed, or an empty string. Raises nothing: the console must come back."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        return f"the editor did not start: {error.strerror}"
    return f"the editor ended with code {code}" if code else ""


@contextlib.contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """Ctrl+c and ctrl+\\ in the editor reach every process of the terminal. A handler, not SIG_IGN: that would be inherited."""
    numbers = (signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
