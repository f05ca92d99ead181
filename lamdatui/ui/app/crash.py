"""What is kept of an error that ends the console, or keeps it from ending: a report in a file, and three lines. No textual.

A traceback on the terminal is long, and what it quotes may come from anywhere.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
import time
import traceback
from typing import Any

from lamdatui.base.errors import EXIT_FAILED
from lamdatui.base.paths import state_dir
from lamdatui.base.text import clean, one_line


def report(error: BaseException, way_back: str) -> str:
    """Write the report; what to tell the person, cleaned."""
    return _told(f"the console failed: {type(error).__name__} {error}", "".join(traceback.format_exception(error)), way_back)


def end_within(seconds: float, way_back: str) -> threading.Timer:
    """From now on this process has so long to end; then it is ended, and a report tells what it waited for. Cancel to go on."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        text = f"the console was left and did not end within {seconds:g} s"
        print(_told(text, f"{text}\n\n{_waiting(loop)}", way_back), file=sys.__stderr__, flush=True)
        os._exit(EXIT_FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    """Where every thread and every task of a loop stands."""
    out = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(f"Thread {names.get(ident, ident)}", file=out)
        traceback.print_stack(frame, file=out)
    for task in asyncio.all_tasks(loop):
        print(f"Task {task.get_name()}", file=out)
        # What it awaits, and what that awaits: the task itself tells only of the first.
        step: Any = task.get_coro()
        while step is not None:
            frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
            if frame is not None:
                traceback.print_list(traceback.extract_stack(frame, limit=1), out)
            step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    return out.getvalue()


def _told(what: str, details: str, way_back: str) -> str:
    folder = state_dir() / "crashes"
    path = folder / time.strftime("%Y%m%d-%H%M%S.txt")
    where = str(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(clean(details), encoding="utf-8")
    except OSError as failed:
        where = f"no report could be written: {failed.strerror}"
    lines = (f"error: {what}", f"  where: {where}", f"  fix:   {way_back}")
    return "\n".join(one_line(line[:2000]) if line.startswith("error") else clean(line) for line in lines)
