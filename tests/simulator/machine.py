"""A machine's processes, and who starts steps, as an engine sees them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lamdatui.base.clock import boot_id
from lamdatui.base.errors import LamdatuiError
from lamdatui.step.files import Identity

if TYPE_CHECKING:
    from tests.simulator.simulation import Simulation


class Killed(BaseException):
    """What a killed process meets wherever it would go on."""


class SimulatedProcess:
    """What an engine sees of a process (as of psutil's), and what it is made of: tasks."""

    def __init__(self, pid: int, what: str, loop: asyncio.AbstractEventLoop) -> None:
        self.pid, self.what = pid, what
        self.alive = True
        self.exit_status: int | None = None
        self.asked = False
        self.is_stopped = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.loop = loop
        self.context: Context = copy_context()
        self.context.run(current.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return self.loop.create_task(work, context=self.context)

    def terminate(self) -> None:
        self.asked = True

    def resume(self) -> None:
        self.is_stopped = False

    def status(self) -> str:
        return psutil.STATUS_STOPPED if self.is_stopped else psutil.STATUS_RUNNING

    def kill(self) -> None:
        """SIGKILL: nothing of it goes on."""
        if self.alive:
            self.alive, self.exit_status = False, -signal.SIGKILL
            for task in self.tasks:
                task.cancel()

    def identity(self) -> Identity:
        return Identity(self.pid, float(self.pid), boot_id())


current: ContextVar[SimulatedProcess | None] = ContextVar("process", default=None)


class SimulatedProcesses:
    """`lamdatui.engine.world.Processes`."""

    def __init__(self) -> None:
        self.by_pid: dict[int, SimulatedProcess] = {}

    def exists(self, pid: int) -> bool:
        return pid in self.by_pid and self.by_pid[pid].alive

    def identity(self, pid: int) -> Identity:
        if not self.exists(pid):
            raise psutil.NoSuchProcess(pid)
        return self.by_pid[pid].identity()

    def find(self, identity: Identity) -> Any:
        found = self.by_pid.get(identity.pid)
        return found if found is not None and found.alive and identity == found.identity() else None


class SimulatedHost:
    """`lamdatui.engine.world.Host`: starts simulated steps."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.exits: dict[int, int] = {}
        self.pid = 1

    async def warm(self) -> None:
        """It is."""

    async def ready(self) -> dict[str, Any]:
        return {"ready": True, "cuda": 0, "mode": "fork"}

    async def network(self) -> str:
        return "simulated"

    async def start(self, directory: Path, *, bare: bool = False) -> int:
        await asyncio.sleep(self._simulation.draw.choice([0.0, 0.01, 0.3]))
        if self._simulation.draw.random() < self._simulation.trouble * 0.02:
            raise LamdatuiError("the process that starts steps has ended", where="simulated")
        return self._simulation.start_step(directory, self).pid

    async def close(self) -> None:
        """Its steps live on."""
