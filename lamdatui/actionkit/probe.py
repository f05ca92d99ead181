"""`python -P -m lamdatui.actionkit.probe MODE ORIGIN PLACE FD SECONDS`: reads somebody's action file where it can do no harm to who asks.

MODE: `read` (an action file), `score` (a scorer's) or `point` (an entry point by what it points to); `check` and `check-point` hold them to the rule book, too. One line of JSON goes to
the descriptor FD: `{"names": […]}`, `{"checked": […]}` or `{"problem": "…"}`. `lamdatui.config.reading` is the other side.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lamdatui.base.network import fence


def look(mode: str, origin: str, place: str) -> dict[str, Any]:
    """The report. Raises whatever the file raises."""
    from lamdatui.config.resources import load_point, load_scorer, load_types

    if mode == "score":
        load_scorer(origin, Path(place))
        return {"names": [Path(place).stem]}
    kinds = load_point(place) if mode.endswith("point") else load_types(origin, Path(place))
    if mode.startswith("check"):
        from lamdatui.actionkit.check import checked

        return {"checked": [item.to_json() for item in checked(kinds, place)]}
    return {"names": [str(getattr(kind, "name", "")) for kind in kinds]}


def told(error: BaseException, place: str) -> str:
    """One line on what the file raised, with the line of the file where it was."""
    if isinstance(error, SystemExit):
        code = error.code
        status = 0 if code is None else code if isinstance(code, int) else f"1 ({code})"
        text = f"it ended Python with status {status} while it was read"
    else:
        text = f"{type(error).__name__}: {error}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == place:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return " ".join(text[:500].split()) + (f" (line {lines[-1]})" if lines else "")


def main(words: list[str]) -> None:
    """Read, report, end as any program does: what waits at the end of the process would wait in ours, too."""
    mode, origin, place, descriptor, seconds = words
    # Where whoever asked is killed, nobody else would end a file that hangs.
    signal.alarm(int(float(seconds)) + 10)
    report, process = int(descriptor), os.getpid()
    fence()
    os.set_inheritable(report, False)
    try:
        found = look(mode, origin, place)
    except BaseException as error:  # noqa: BLE001 (somebody's file may raise anything; it becomes the report)
        found = {"problem": told(error, place)}
    if os.getpid() != process:
        found = {"problem": "it forks while it is read, and two processes would go on"}
    os.write(report, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
