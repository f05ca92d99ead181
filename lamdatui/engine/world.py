"""What an engine stands on in its machine: clocks, processes, and who starts its steps. Injected, so that a simulator can own them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from lamdatui.base.clock import Clock, SystemClock
from lamdatui.engine.warmhost import StepHost
from lamdatui.inputs.workspace import Workspace, open_workspace
from lamdatui.step.files import Identity


class Host(Protocol):
    """Who starts steps: see `lamdatui.engine.warmhost.StepHost`."""

    exits: dict[int, int]
    """pid → exit status (minus the signal when killed) of steps that this engine has seen end."""

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        ...

    async def warm(self) -> object:
        """Have it ready soon."""
        ...

    async def ready(self) -> dict[str, Any]:
        """Wait until it is; what it says of the GPUs."""
        ...

    async def network(self) -> str:
        """What keeps steps from the network."""
        ...

    async def start(self, directory: Path, *, bare: bool = False) -> int:
        """Start a step, `bare` in a process without torch; its pid. Raises LamdatuiError."""
        ...

    async def close(self) -> None:
        """End it; its steps live on."""


class Processes(Protocol):
    """The machine's processes, as far as an engine cares for them."""

    def exists(self, pid: int) -> bool:
        """Whether there is one of this number, dead or alive."""
        ...

    def identity(self, pid: int) -> Identity:
        """Of a live process. Raises psutil.NoSuchProcess."""
        ...

    def find(self, identity: Identity) -> psutil.Process | None:
        """The process if it still is this one and lives."""
        ...


class SystemProcesses:
    """The kernel's."""

    def exists(self, pid: int) -> bool:
        return psutil.pid_exists(pid)

    def identity(self, pid: int) -> Identity:
        return Identity.of(pid)

    def find(self, identity: Identity) -> psutil.Process | None:
        return identity.process()


def step_host(log: Path, threads: int, cpu_only: bool, online: bool) -> Host:
    """A warm host with its log, threads of a step, without a GPU, with the network."""
    return StepHost(log, threads, cpu_only=cpu_only, online=online)


@dataclass(frozen=True)
class World:
    """The machine's own, or a simulated one."""

    clock: Clock = field(default_factory=SystemClock)
    processes: Processes = field(default_factory=SystemProcesses)
    host: Callable[[Path, int, bool, bool], Host] = step_host
    workspace: Callable[..., Workspace] = open_workspace
