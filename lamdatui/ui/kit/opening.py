"""Handing the terminal to the person's pager."""

from __future__ import annotations

import os
from pathlib import Path

from textual.app import SuspendNotSupported
from textual.widget import Widget

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.ui.kit import pager


def open_pager(widget: Widget, path: Path, *, line: int | None = None, follow: bool = False) -> None:
    """Show a log in the pager until that ends; what is in the way is told in a toast."""
    try:
        command = pager.pager_command(path, os.environ, line=line, follow=follow)
        with widget.app.suspend():
            pager.run_pager(command)
    except SuspendNotSupported:
        widget.notify(f"No program can be opened over this screen. The log is {path}", markup=False)
    except LamdatuiError as error:
        text = f"{error.what}: {error.where}" + (f"; {error.fix}" if error.fix else "")
        widget.notify(one_line(text), title="no pager", severity="error", markup=False)
    widget.app.refresh()
