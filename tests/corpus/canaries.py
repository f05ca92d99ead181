"""What a hostile input must not reach, and who notices when it does: files that nobody makes, a secret that nobody opens, a door at which nobody knocks."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "LAMDATUI_CANARY_KEY"
"""The environment variable that holds a secret."""
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000
_OPENED, _CHANGED, _GONE = 0x20, 0x2 | 0x4, 0x400 | 0x800


class Canaries:
    """Below `root`: `nest/` for files named after cases, `outside/` with a secret and a program. `close` ends the listener."""

    def __init__(self, root: Path) -> None:
        self.nest, outside = root / "nest", root / "outside"
        self.nest.mkdir(parents=True)
        outside.mkdir()
        self.secret, self.variable = f"secret-{secrets.token_hex(12)}", f"variable-{secrets.token_hex(12)}"
        self.file = outside / "secret.txt"
        self.file.write_text(f"{self.secret}\n")
        self.program = outside / "program.sh"
        self.program.write_text(f"#!/bin/sh\necho ran >> {self.nest}/program\n")
        self.program.chmod(0o755)
        os.environ[VARIABLE] = self.variable
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._knocks = 0
        threading.Thread(target=self._listen, daemon=True).start()
        self._watch = _watch(self.file)

    def path(self, case: str) -> Path:
        """The file that a case tries to make."""
        return self.nest / case

    def _listen(self) -> None:
        while True:
            try:
                peer, _ = self._door.accept()
            except OSError:
                return
            self._knocks += 1
            peer.close()

    def touched(self, texts: Iterable[str | bytes] = (), *, may_open: bool = False) -> list[str]:
        """What happened since the last look, in words; `texts` is all that was said and written. `may_open`: the secret's file was named by its path
        in a profile, and may be opened; its text is to be told nowhere all the same."""
        found = sorted(f"made {file.name}" for file in self.nest.iterdir())
        for file in self.nest.iterdir():
            file.rmdir() if file.is_dir() else file.unlink()
        if self._knocks:
            found.append(f"{self._knocks} connections")
            self._knocks = 0
        if (seen := _events(self._watch)) & (_CHANGED | _GONE):
            found.append("the secret's file was changed")
        elif seen & _OPENED and not may_open:
            found.append("the secret's file was opened")
        for text in texts:
            data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
            found += [
                f"{name} was told"
                for name, secret in (("the secret", self.secret), (VARIABLE, self.variable))
                if secret.encode() in data
            ]
        return found

    def close(self) -> None:
        """End the listener and the watch."""
        self._door.close()
        os.environ.pop(VARIABLE, None)
        if self._watch >= 0:
            os.close(self._watch)


def _watch(file: Path) -> int:
    """inotify(7) on a file; -1 where there is none."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if handle >= 0 and libc.inotify_add_watch(handle, os.fsencode(file), _OPENED | _CHANGED | _GONE) < 0:
            os.close(handle)
            return -1
    except (AttributeError, OSError):
        return -1
    return handle


def _events(watch: int) -> int:
    """The kinds of all events that wait, together."""
    found = 0
    while watch >= 0:
        try:
            data = os.read(watch, 65536)
        except BlockingIOError:
            break
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            found |= mask
            at += 16 + length
    return found
