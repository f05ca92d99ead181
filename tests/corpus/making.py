"""What a hostile model or dataset is: a case with a name, and the changes of a folder that it is made by."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Make = Callable[[Path], None]
REFUSED, TAKEN, EITHER = "refused", "taken", "either"
"""What `check` says of a case; `either`: a finding of any kind, for what matters is that there is one."""


@dataclass(frozen=True)
class InputCase:
    """`make` writes it at the path that it is given; `path`: what of it a profile names, if not all. `settings`: more of the profile's section about it.
    `may_open`: it leads to the secret by its path, which whoever names a path may."""

    family: str
    name: str
    tries: str
    make: Make
    want: str = REFUSED
    path: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    may_open: bool = False

    def __str__(self) -> str:
        return f"{self.family}-{self.name}"


class Touch:
    """Pickled, it is a file that is made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def code(path: Path, *more: str) -> str:
    """Python that makes a file, whatever it is imported as; then `more`."""
    return "\n".join([f"open({str(path)!r}, 'w').close()", *more, ""])


def write(name: str, text: str | bytes) -> Make:
    """A file of the directory."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    return make


def change(name: str, **values: Any) -> Make:
    """Keys of one of its JSON files; None takes one out."""

    def make(folder: Path) -> None:
        told = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**told, **values}))

    return make


def every(*makes: Make) -> Make:
    """One after the other."""

    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


def without(name: str) -> Make:
    """A file of it taken out."""
    return lambda folder: (folder / name).unlink()


def link(name: str, target: Path | str) -> Make:
    """A symbolic link in a file's place."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def special(name: str, kind: str) -> Make:
    """A FIFO, a socket, a folder or a link in a circle in a file's place."""

    def make(folder: Path) -> None:
        place = folder / name
        place.unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        elif kind == "circle":
            place.symlink_to(place)
        else:
            before = os.getcwd()
            os.chdir(folder)  # a socket's path is short
            try:
                with socket.socket(socket.AF_UNIX) as one:
                    one.bind(name)
            finally:
                os.chdir(before)

    return make
