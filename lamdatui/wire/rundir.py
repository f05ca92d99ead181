"""Run directories: making, finding and listing them, and starting their engine."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.jsonio import make_folder, regular, write_atomic
from lamdatui.base.network import OFF, ONLINE
from lamdatui.base.paths import private, socket_path
from lamdatui.inputs.profile import Profile, dump_profile, load_profile
from lamdatui.wire.lastwords import last_line, last_words

START_SECONDS = 120.0
HELLO_SECONDS = 5.0
LOCKED = 75
"""Exit status of an engine that found the run's lock taken (EX_TEMPFAIL of sysexits.h)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class StartOptions:
    """What the command line says about one start of an engine."""

    headless: bool = False
    view: bool = False
    mode: str | None = None
    max_trials: int | None = None
    policy: str | None = None
    fake_gpu: Path | None = None
    baselines: bool = False
    online: bool | None = None
    """Whether steps may use the network; None: as the run was started, which is offline at first."""

    def arguments(self) -> list[str]:
        """As the engine's own command line takes them."""
        found = ["--headless"] if self.headless else []
        found += ["--view"] if self.view else []
        found += ["--baselines"] if self.baselines else []
        found += ["--network", ONLINE if self.online else OFF] if self.online is not None else []
        found += ["--mode", self.mode] if self.mode else []
        found += ["--policy", self.policy] if self.policy else []
        found += ["--fake-gpu", str(self.fake_gpu.resolve())] if self.fake_gpu else []
        return found + (["--max-trials", str(self.max_trials)] if self.max_trials else [])


def find_run(text: str, runs_dir: Path) -> Path:
    """A run directory from a path or a name. Raises LamdatuiError with the nearest name."""
    for path in (Path(text).expanduser(), runs_dir / text):
        if (path / "run.db").is_file():
            return path.resolve()
    known = [path.name for path in list_runs(runs_dir)]
    close = difflib.get_close_matches(text, known, n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"runs here: {', '.join(known) or 'none'}"
    raise LamdatuiError(f"no run {text!r}", where=str(runs_dir), fix=fix)


def profile_of(run_dir: Path) -> Path:
    """The profile that a run keeps, which an engine needs. Raises LamdatuiError when it is gone: the run can still be read."""
    path = run_dir / "profile.yaml"
    if not path.exists():
        raise LamdatuiError(
            "the run has no profile.yaml, and without it no engine can be started",
            where=str(run_dir),
            fix=f"put the file back; `lamdatui show {run_dir.name}` and `export` work without it",
        )
    return path


def list_runs(runs_dir: Path) -> list[Path]:
    """Run directories, the newest first."""
    if not runs_dir.is_dir():
        return []
    found = [path.parent for path in runs_dir.glob("*/run.db") if path.is_file()]
    return sorted(found, key=lambda path: -(path / "run.db").stat().st_mtime)


def is_alive(run_dir: Path) -> bool:
    """Whether an engine holds the run's lock. Raises LamdatuiError where that can't be told."""
    try:
        with regular(run_dir / "lock").open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise LamdatuiError(
            f"can't look at the run's lock: {error.strerror}", where=str(run_dir / "lock"), exit_code=EXIT_FAILED
        ) from error
    return False


def take_lock(run_dir: Path) -> TextIO | None:
    """The run's lock for this process's life, or None when another engine has it. The kernel frees it at death."""
    handle = (run_dir / "lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def check_name(name: str) -> None:
    """Raises LamdatuiError for what can't name a run."""
    if not _NAME.fullmatch(name) or name == "store":
        raise LamdatuiError(
            f"{name[:200]!r} can't name a run", fix="letters, digits, dot, dash and underscore; at most 64; not 'store'"
        )


def new_name(profile: Profile, runs_dir: Path) -> str:
    """PROFILE-1, PROFILE-2, …: the first that is free. Raises LamdatuiError where the profile's name can't name a run."""
    number = 1
    check_name(f"{profile.name}-{number}")
    while (runs_dir / f"{profile.name}-{number}").exists():
        number += 1
    return f"{profile.name}-{number}"


def prepare_run(profile: Profile, name: str, runs_dir: Path) -> Path:
    """The directory of a new run, or of an unfinished one of the same profile.

    Raises LamdatuiError for a bad name or a run of another profile; nothing is written then.
    """
    check_name(name)
    run_dir = runs_dir / name
    frozen = run_dir / "profile.yaml"
    if frozen.exists():
        begun = load_profile(frozen)
        if begun.search_digest() != profile.search_digest():
            raise LamdatuiError(
                f"the run {name!r} was made from another profile", where=str(frozen), fix="choose another --name"
            )
        now = begun.model_copy(update={"verify": profile.verify, "steps": profile.steps})
        if now != begun:
            write_atomic(frozen, dump_profile(now))
        return run_dir.resolve()
    try:
        with private():
            make_folder(run_dir / "steps")
            write_atomic(frozen, dump_profile(profile))
    except OSError as error:
        raise LamdatuiError(f"can't write the run directory: {error.strerror}", where=str(run_dir)) from error
    return run_dir.resolve()


def start_engine(run_dir: Path, options: StartOptions) -> bool:
    """Have an engine that answers; starts one, detached, unless one is there. Whether it started one.

    One that is leaving is waited for. Raises LamdatuiError when none answers.
    """
    with held_engine(run_dir, options) as started:
        return started


@contextlib.contextmanager
def held_engine(run_dir: Path, options: StartOptions) -> Iterator[bool]:
    """The same, and the engine of an ended run does not leave while this lasts.

    It stays as long as somebody is connected. A console takes its time to connect: longer, on a busy machine, than such
    an engine waits for one.
    """
    connection, started = _connected(run_dir, options)
    with connection:
        yield started


def _connected(run_dir: Path, options: StartOptions) -> tuple[socket.socket, bool]:
    process: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            if is_alive(run_dir):
                if connection := greeted(run_dir):
                    return connection, process is not None and peer_of(connection)[0] == process.pid
                check_answers(run_dir)
            elif process is None or process.poll() == LOCKED:
                with _held_back(signal.SIGINT, signal.SIGTERM):
                    process = _spawn(run_dir, options)
            elif process.poll() is not None:
                raise _engine_error(run_dir, process.returncode)
            time.sleep(0.02)
    except KeyboardInterrupt:
        if process is not None:
            # Nobody has seen it yet, and nobody is left who waits for it.
            process.kill()
        raise
    raise LamdatuiError("the engine does not answer", where=str(run_dir / "engine.log"), exit_code=EXIT_FAILED)


@contextlib.contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Signals have their effect afterwards: what was started meanwhile has its name then."""
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    # Blocked or ignored ones would stay so in what is started.
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _spawn(run_dir: Path, options: StartOptions) -> subprocess.Popen[bytes]:
    with private(), (run_dir / "engine.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "lamdatui.engine", str(run_dir), *options.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=os.getcwd(),
            # Its log and those of its steps are UTF-8 whatever the terminal is.
            env={**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace"},
        )


def greeted(run_dir: Path) -> socket.socket | None:
    """A connection to the engine, when it greets who connects; one that is leaving does not."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(HELLO_SECONDS)
    with contextlib.suppress(OSError):
        connection.connect(str(socket_path(run_dir)))
        if connection.recv(1):
            return connection
    connection.close()
    return None


def check_answers(run_dir: Path) -> None:
    """Raises LamdatuiError when a signal has stopped the engine: it would not answer, however long somebody waits."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(HELLO_SECONDS)
        connection.connect(str(socket_path(run_dir)))
        pid, _ = peer_of(connection)
        if is_stopped(pid):
            raise stopped_error(run_dir, pid)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process (SIGSTOP, or a debugger). False where that can't be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def stopped_error(run_dir: Path, pid: int) -> LamdatuiError:
    """What to say of an engine that is stopped."""
    return LamdatuiError(
        f"the engine of this run (process {pid}) is stopped by a signal and answers nobody",
        where=str(run_dir),
        fix=f"kill -CONT {pid} lets it go on; kill -KILL {pid} ends it, and nothing that is recorded is lost",
        exit_code=EXIT_FAILED,
    )


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a unix socket; for one that has connected, the process that listens."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, user, _ = struct.unpack("3i", raw)
    return process, user


def _engine_error(run_dir: Path, code: int) -> LamdatuiError:
    if words := last_words(run_dir):
        return words
    log = run_dir / "engine.log"
    line = last_line(log)
    what = f"the engine ended with status {code}{'; its log ends with: ' + line if line else ''}"
    return LamdatuiError(what, where=str(log), exit_code=EXIT_FAILED)


def wait_for_end(run_dir: Path, seconds: float) -> bool:
    """Wait until no engine holds the run's lock."""
    deadline = time.monotonic() + seconds
    while is_alive(run_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
