"""The planner's server as its users see it, whoever started it; and what our own processes share."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import httpx
import psutil

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.base.jsonio import parse_json
from lamdatui.planner.settings import PlannerSettings

TAIL_LINES = 5
GRACE_SECONDS = 3.0
_ADAPTER_FIX = (
    "check that planner.adapter was made for planner.model (another model wants adapter: ''), and that there is memory"
)


class PlannerServer(ABC):
    """A server that a planner's client asks.

    `url`, `key` and `model` are what a client needs; they are set by `start`, and anew by a `wake` that returns True.
    """

    def __init__(self, settings: PlannerSettings, log_path: Path) -> None:
        self._settings = settings
        self._log_path = log_path
        self.url = settings.url
        self.key = ""
        self.model = settings.model
        self.shown = ""
        """The command line that was started, with the key hidden; "" where there is none."""
        self.identity: tuple[int, float] | None = None
        """(pid, start time in seconds since the epoch) of our process; None for an external server."""
        self.resting = False
        """Whether `rest` gave its memory back: it must `wake` before it is asked again."""

    external: ClassVar[bool] = False
    """Whether the server is not ours to start and stop."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether our process runs; always true for an external server, which only answers can tell."""

    @abstractmethod
    async def start(self) -> None:
        """Have a server that answers within `ready_limit`. Raises LamdatuiError (exit code 4), with the log's end."""

    @abstractmethod
    async def close(self) -> None:
        """End our process. An external server stays; if it sleeps because of us, it is woken."""

    async def rest(self) -> bool:
        """Give the planner's memory back until `wake`; nothing does with `sleep: never`.

        Returns whether it rests now. Raises LamdatuiError (exit code 4).
        """
        if self.resting or self._settings.sleep == "never" or not self.alive:
            return self.resting
        self.resting = await self._rest()
        return self.resting

    async def wake(self) -> bool:
        """End the rest. Returns whether address or key are new, so that a new client is needed. Raises LamdatuiError."""
        if not self.resting:
            return False
        changed = await self._wake()
        self.resting = False
        return changed

    @abstractmethod
    async def _rest(self) -> bool: ...

    @abstractmethod
    async def _wake(self) -> bool: ...

    def memory_bytes(self) -> int:
        """Main memory that our process and everything below it hold, in bytes; 0 for an external server."""
        return 0

    def gpu_bytes(self) -> int:
        """GPU memory that our server may take, in bytes; 0 where it takes none, and while it sleeps."""
        return 0

    async def death(self, within: float = 0.5) -> str:
        """How our process ended, in plain words, or "" when it is still alive after `within` seconds."""
        return ""


class OwnServer(PlannerServer):
    """A server in a process of ours. Start it from the process's main thread: the kernel ends the planner when the thread that
    spawned it does."""

    patience: ClassVar[float] = GRACE_SECONDS
    """Seconds that it may take to end after each kind of request."""
    fix: ClassVar[str]
    """What to look at when it can't be started."""
    noun: ClassVar[str] = "the planner"
    """What messages call it."""

    def __init__(self, settings: PlannerSettings, log_path: Path) -> None:
        super().__init__(settings, log_path)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        await self.close()
        self._prepare()
        try:
            async with asyncio.timeout(self._settings.ready_limit):
                await self._spawn()
        except TimeoutError:
            await self.close()
            raise self._failure(f"{self.noun} was not ready within {self._settings.ready_limit:g} s") from None
        except BaseException:
            await self.close()
            raise

    @abstractmethod
    def _prepare(self) -> None:
        """Raises LamdatuiError for what can be known before a process is started."""

    @abstractmethod
    async def _spawn(self) -> None:
        """Start the process and wait until it answers."""

    async def close(self) -> None:
        """End our process: its stdin first, then SIGTERM, then SIGKILL; it is reaped."""
        process, self._process, self.identity, self.resting = self._process, None, None, False
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for stop in (lambda: None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience):
                    await process.wait()
                    return

    async def _rest(self) -> bool:
        await self.close()
        return True

    async def _wake(self) -> bool:
        await self.start()
        return True

    def memory_bytes(self) -> int:
        """Main memory that our process and everything below it hold, in bytes."""
        total = 0
        if self._process is not None and self.identity is not None:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self._process.pid)
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_info().rss
        return total

    async def death(self, within: float = 0.5) -> str:
        """How our process ended, in plain words, or "" when it is still alive after `within` seconds."""
        process = self._process
        if process is None:
            return ""
        try:
            async with asyncio.timeout(within):
                code = await process.wait()
        except TimeoutError:
            return ""
        how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self.noun}'s process {how}"

    def _take(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        with contextlib.suppress(psutil.Error):
            self.identity = (process.pid, psutil.Process(process.pid).create_time())

    def _check_model(self) -> None:
        model = Path(self._settings.model)
        if not model.is_file():
            raise LamdatuiError(
                f"the planner's model {model} is not there",
                where="planner.model",
                fix="fetch it with `lamdatui models fetch`, or give the path of a GGUF file",
                exit_code=EXIT_PLANNER,
            )

    def _failure(self, what: str) -> LamdatuiError:
        lines = log_tail(self._log_path)
        detail = "; its log ends with: " + " | ".join(lines) if lines else ""
        fix = _ADAPTER_FIX if self._settings.adapter else self.fix
        return LamdatuiError(what + detail, where=str(self._log_path), fix=fix, exit_code=EXIT_PLANNER)


def log_tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a log, each at most 200 characters; none when it can't be read."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 8192))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip()[:200] for line in text.splitlines() if line.strip()][-lines:]


def listed_models(response: httpx.Response) -> list[str]:
    """Ids of the models that an OpenAI-compatible server offers. Raises ValueError, KeyError or TypeError when it is none."""
    return [str(item["id"]) for item in parse_json(response.text)["data"]]
