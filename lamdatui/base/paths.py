"""Where things live on this machine: XDG places through platformdirs, all moved at once by `LAMDATUI_HOME`."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from lamdatui.base.errors import LamdatuiError

APP = "lamdatui"


def _place(kind: str) -> Path:
    home = os.environ.get("LAMDATUI_HOME")
    if home:
        try:
            place = Path(home).expanduser().resolve()
        except RuntimeError as error:  # links in a circle, or nobody's home
            raise LamdatuiError("LAMDATUI_HOME is not a folder", where=home) from error
        if place.exists() and not place.is_dir():
            raise LamdatuiError("LAMDATUI_HOME is not a folder", where=home, fix="name a folder; it is made when it is missing")
        return place / kind
    places = {
        "config": platformdirs.user_config_path,
        "cache": platformdirs.user_cache_path,
        "state": platformdirs.user_state_path,
        "runtime": platformdirs.user_runtime_path,
    }
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR the fallback is a folder in /tmp, which `socket_path` makes private.
        warnings.simplefilter("ignore")
        return places[kind](APP)


def config_dir() -> Path:
    """The user's own actions, prompts, profiles and settings."""
    return _place("config")


def cache_dir() -> Path:
    """What was fetched or converted and can be made again: embedded model, lab bases, built data."""
    return _place("cache")


def state_dir() -> Path:
    """Screenshots, crash reports, and what steps took on this machine."""
    return _place("state")


def measurements_file() -> Path:
    """Seconds and memory of earlier steps on this machine, one JSON line each."""
    return state_dir() / "measurements.jsonl"


PRIVATE = 0o077
"""The umask of whatever makes files of runs: models, prompts and logs are their owner's alone."""


@contextmanager
def private() -> Iterator[None]:
    """What this process makes meanwhile can be read by this user only, whatever the umask was."""
    before = os.umask(PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Take a folder and all in it away from other users; links are left alone, and what belongs to somebody else."""
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            with suppress(OSError):
                mode = os.lstat(path).st_mode
                if not stat.S_ISLNK(mode) and mode & PRIVATE:
                    os.chmod(path, stat.S_IMODE(mode) & ~PRIVATE)


def socket_path(run_dir: Path) -> Path:
    """A short path for the run's socket: a unix socket path ends at 107 bytes, a run directory may not.

    Raises LamdatuiError when the folder for sockets belongs to somebody else.
    """
    # The console's first paint does without a socket, and without OpenSSL.
    import hashlib

    digest = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:20]
    folder = _place("runtime")
    if len(os.fsencode(folder)) > 70:
        folder = Path(f"/tmp/{APP}-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LamdatuiError("the folder for sockets belongs to another user", where=str(folder), fix="set LAMDATUI_HOME")
    return folder / f"{digest}.sock"
