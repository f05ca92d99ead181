"""The engine's side of the warm step host: spawn it, ask it to start steps, hear of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.network import OFFLINE, ONLINE
from lamdatui.wire.lastwords import last_line

ENVIRONMENT = {
    # A CUDA check must not initialise CUDA in a process that forks.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # NVML's order, so that a slot's number means the same GPU everywhere.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # Threads that spin long while they wait take the core from whoever could work; ones that sleep at once cost a
    # third of a training step. So they spin for some ten microseconds.
    "GOMP_SPINCOUNT": "10000",
}
POLL_SECONDS = 0.05
Answer = TypeVar("Answer")


class HostKilled(LamdatuiError):
    """Somebody has killed the host, or the kernel has for want of memory: nothing is wrong with it."""


@dataclass(eq=False)
class _Host:
    """One host process. A Popen, because asyncio's own transport kills its child when it is collected."""

    process: subprocess.Popen[bytes]
    ready: asyncio.Future[dict[str, Any]]
    network: asyncio.Future[str]
    starting: dict[str, asyncio.Future[int]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class StepHost:
    """One warm host process. After a crash, or as a used-up spare, it is started again when the next step needs it."""

    def __init__(self, log: Path, threads: int, *, cpu_only: bool = False, online: bool = False) -> None:
        self._log = log
        self._threads = threads
        self._cpu_only = cpu_only
        self._online = online
        self._host: _Host | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.exits: dict[int, int] = {}
        """pid → exit status (minus the signal when killed) of steps that this engine has seen end."""

    @property
    def pid(self) -> int | None:
        """The host's process, while there is one."""
        return self._host.process.pid if self._host else None

    def _spawn(self, words: list[str], pipe: int, **more: str) -> subprocess.Popen[bytes]:
        """A process of the steps' own environment, as a session of its own."""
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(self._threads), **more}
        environment |= {} if self._online else OFFLINE
        if self._cpu_only:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", *words, *([ONLINE] if self._online else [])],
                stdin=pipe,
                stdout=pipe if pipe == subprocess.PIPE else log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def warm(self) -> _Host:
        """Have a host importing; returns at once."""
        if self._host is not None:
            return self._host
        process = self._spawn(["lamdatui.step.warm"], subprocess.PIPE, LAMDATUI_ENGINE=str(os.getpid()))
        loop = asyncio.get_running_loop()
        host = self._host = _Host(process, loop.create_future(), loop.create_future())
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        host.task = asyncio.create_task(self._read(host, reader))
        self._tasks.add(host.task)
        host.task.add_done_callback(self._tasks.discard)
        return host

    async def ready(self) -> dict[str, Any]:
        """Wait until the host has imported everything. Raises LamdatuiError when it dies before, as `_again` says."""
        return await self._again(self._ready)

    async def _ready(self) -> dict[str, Any]:
        host = await self.warm()
        return await asyncio.shield(host.ready)

    async def network(self) -> str:
        """What keeps the host and its steps from the network, as `lamdatui.base.network` says. Raises as `ready`."""
        return await self._again(self._network)

    async def _network(self) -> str:
        host = await self.warm()
        return await asyncio.shield(host.network)

    async def _again(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask the host, and the next one where this one is killed meanwhile. Raises LamdatuiError when it ends by itself, or HostKilled at the second time."""
        try:
            return await ask()
        except HostKilled:
            return await ask()

    async def _read(self, host: _Host, reader: asyncio.StreamReader) -> None:
        # What has no end of its line was being said when the host was killed.
        while (line := await reader.readline()).endswith(b"\n"):
            frame = json.loads(line)
            if "network" in frame and not host.network.done():
                host.network.set_result(frame["network"])
            elif "ready" in frame and not host.ready.done():
                host.ready.set_result(frame)
            elif "started" in frame:
                future = host.starting.pop(frame["started"], None)
                if future and not future.done():
                    future.set_result(frame["pid"])
            elif "exited" in frame:
                self.exits[frame["exited"]] = frame["status"]
        # A spare that has become a step closes its answers and lives on: its own status is the step's.
        while host.process.poll() is None:
            await asyncio.sleep(POLL_SECONDS)
        self.exits[host.process.pid] = host.process.returncode
        if self._host is host:
            self._host = None
        error = self._ended(host.process.returncode)
        for future in (host.network, host.ready, *host.starting.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting for it

    async def start(self, directory: Path, *, bare: bool = False) -> int:
        """Start a step; its pid. `bare`: in a process without torch, for which nobody waits. Raises as `ready`.

        A host may be killed when it has started the step and has not told so: the next one starts another process, and the step's claim lets one of them work.
        """
        return self._start_bare(directory) if bare else await self._again(lambda: self._start(directory))

    async def _start(self, directory: Path) -> int:
        host = await self.warm()
        frame = await asyncio.shield(host.ready)
        assert host.process.stdin is not None
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        host.starting[str(directory)] = future
        # A host that is gone is told of by whoever reads its answers.
        with contextlib.suppress(BrokenPipeError):
            host.process.stdin.write(json.dumps({"start": str(directory)}).encode() + b"\n")
            host.process.stdin.flush()
        pid = await future
        if frame["mode"] == "spare":
            # The host has become the step: the next one is warmed while this one works.
            self._host = None
            await self.warm()
        return pid

    def _start_bare(self, directory: Path) -> int:
        process = self._spawn(["lamdatui.step.bare", str(directory)], subprocess.DEVNULL)

        async def reap() -> None:
            while process.poll() is None:
                await asyncio.sleep(POLL_SECONDS)
            self.exits[process.pid] = process.returncode

        task = asyncio.create_task(reap())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return process.pid

    def _ended(self, status: int) -> LamdatuiError:
        line = last_line(self._log)
        kind = HostKilled if status == -signal.SIGKILL else LamdatuiError
        return kind(
            f"the process that starts steps has ended{': ' + line if line else ''}", where=str(self._log), exit_code=EXIT_FAILED
        )

    async def close(self) -> None:
        """End the host (its steps live on)."""
        host, self._host = self._host, None
        for task in list(self._tasks):
            task.cancel()
        if host is None:
            return
        assert host.process.stdin is not None
        host.process.stdin.close()
        for _ in range(40):
            if host.process.poll() is not None:
                return
            await asyncio.sleep(POLL_SECONDS)
        # Still importing: it has no step and nothing to lose.
        host.process.kill()
        host.process.wait()
