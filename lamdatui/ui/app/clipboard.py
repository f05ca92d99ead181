"""Copying text to where a person can paste it from: by the terminal (OSC 52), a local tool, or a file. No textual.

OSC 52 goes through SSH, but no terminal says whether it took it. So a local tool is used as well where one is there,
and where neither is sure the text is written to a file that is named.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

OSC_BYTES = 74_994
"""Of encoded text: what terminals commonly take at most."""
SCREEN_BYTES = 250
"""GNU screen drops a device control string that is much longer; the text goes in several."""
TOOL_SECONDS = 2.0
FILE_NAME = "copied.txt"
_NO_OSC_52 = ("Apple_Terminal",)
_NO_OSC_52_TERMS = ("linux", "dumb", "")

Run = Callable[[list[str], bytes], bool]


@dataclass(frozen=True, slots=True)
class Copied:
    """Where a text went; `sure` says that whatever took it said so."""

    ways: tuple[str, ...]
    sure: bool
    file: Path | None = None
    problem: str = ""


def copy(text: str, env: Mapping[str, str], write: Callable[[str], None] | None, file: Path, run: Run | None = None) -> Copied:
    """Copy `text`; `write` sends to the terminal, None where there is no terminal to send to."""
    run = run or run_tool
    ways: list[str] = []
    data = text.encode("utf-8", "replace")
    tool = next((words for words in tools(env) if run(words, data)), None)
    if tool:
        ways.append(tool[0])
    sequence = osc52(text, env)
    if sequence and write:
        write(sequence)
        ways.append("the terminal (OSC 52)")
    if tool:
        return Copied(tuple(ways), True)
    try:
        _write_private(file, data)
    except OSError as error:
        return Copied(tuple(ways), False, None, f"{file}: {error.strerror}")
    return Copied(tuple(ways), False, file)


def osc52(text: str, env: Mapping[str, str]) -> str | None:
    """The sequence that asks the terminal to take the text; None for a terminal that can't, or a text too long for it."""
    if env.get("TERM_PROGRAM") in _NO_OSC_52 or env.get("TERM", "") in _NO_OSC_52_TERMS:
        return None
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    if len(encoded) > OSC_BYTES:
        return None
    sequence = f"\x1b]52;c;{encoded}\x07"
    if env.get("TMUX"):
        return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\"
    if env.get("STY"):
        parts = [sequence[at : at + SCREEN_BYTES] for at in range(0, len(sequence), SCREEN_BYTES)]
        return "".join(f"\x1bP{part}\x1b\\" for part in parts)
    return sequence


def tools(env: Mapping[str, str]) -> list[list[str]]:
    """Commands that take the text on their input, best first: those of the display that is there, then the multiplexer's."""
    found = []
    if env.get("WAYLAND_DISPLAY"):
        found.append(["wl-copy"])
    if env.get("DISPLAY"):
        found += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    if not env.get("SSH_CONNECTION"):
        found.append(["pbcopy"])
    if env.get("TMUX"):
        # As delivered, tmux passes nothing through; its own command reaches the terminal, with -w even the clipboard there.
        found += [["tmux", "load-buffer", "-w", "-"], ["tmux", "load-buffer", "-"]]
    return found


def run_tool(words: list[str], data: bytes) -> bool:
    """Whether a command is there and took the text. Never waits for one that hangs."""
    if not shutil.which(words[0]):
        return False
    try:
        # xclip and wl-copy stay in the background and hold what they inherited: no pipes but the input.
        done = subprocess.run(
            words,
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def told(copied: Copied, text: str) -> str:
    """What to say of a copy."""
    lines = text.count("\n") + 1
    what = f"{lines} lines" if lines > 1 else f"{len(text)} characters"
    if copied.ways:
        said = f"{what} copied to {' and '.join(copied.ways)}"
        return said if copied.sure or not copied.file else f"{said}; also in {copied.file}"
    return f"{what} written to {copied.file}" if copied.file else f"nothing took the text; {copied.problem}"


def _write_private(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(data)
