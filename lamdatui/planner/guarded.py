"""Servers that are programs of others: vLLM, and llama-cpp-python's. Each runs below a reaper that ends it with us."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shlex
import shutil
import socket
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner import reading, reaper, vllm
from lamdatui.planner.client import endpoint
from lamdatui.planner.server import GRACE_SECONDS, OwnServer, listed_models
from lamdatui.planner.settings import PlannerSettings

POLL_SECONDS = 0.2

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "TMPDIR", "LD_", "CUDA", "NVIDIA", "HIP", "ROCR", "HSA", "GGML", "LLAMA", "OMP_")
"""Beginnings of the variables that llama_cpp.server gets: it reads each of its settings from a variable of that name too."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a guarded server is started, where it then is, and how that line is shown to people."""

    command: Sequence[str]
    environment: dict[str, str]
    shown: str
    url: str
    key: str
    model: str
    health: str
    """The address that answers with status 200 when it is ready."""


class GuardedServer(OwnServer):
    """A server that listens on a port which we choose, with a key which we make."""

    # The reaper first lets its server end politely, and must not be killed meanwhile.
    patience: ClassVar[float] = reaper.GRACE_SECONDS + GRACE_SECONDS
    _launch: Launch | None = None

    @abstractmethod
    def _launched(self, port: int, key: str) -> Launch:
        """The command line for a free port. Raises LamdatuiError (exit code 4)."""

    def _prepare(self) -> None:
        self._launch = self._launched(free_port(), secrets.token_urlsafe(24))

    async def _spawn(self) -> None:
        assert self._launch is not None
        launch = self._launch
        # As a file and isolated: the environment is the server's, in which lamdatui need not be found.
        command = [sys.executable, "-I", reaper.__file__, "--parent", str(os.getpid()), "--grace", str(reaper.GRACE_SECONDS)]
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            log.write(f"$ {launch.shown}\n".encode())
            log.flush()
            process = await asyncio.create_subprocess_exec(
                *command,
                "--",
                *launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=launch.environment,
                start_new_session=True,
            )
        self._take(process)
        self.url, self.key, self.model, self.shown = launch.url, launch.key, launch.model, launch.shown
        await self._wait(launch)

    async def _wait(self, launch: Launch) -> None:
        """Until it answers, with our model: on the port may also be somebody who took it first."""
        headers = {"Authorization": f"Bearer {launch.key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=5.0, headers=headers) as http:
            while True:
                if ended := await self.death(POLL_SECONDS):
                    raise self._failure(ended)
                with contextlib.suppress(httpx.HTTPError):
                    if (await reading.call(http, "GET", launch.health, 5.0)).status_code == 200:
                        break
            try:
                listed = listed_models(await reading.call(http, "GET", endpoint(launch.url, "models"), 5.0))
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                listed = []
        if launch.model not in listed:
            raise self._failure(f"what answers at {launch.url} is not {self.noun} that was started")


class VllmServer(GuardedServer):
    """`vllm serve`."""

    fix = "read the whole log; too little GPU memory: lower planner.context, or raise planner.gpu_memory_utilization"

    def _launched(self, port: int, key: str) -> Launch:
        settings, url = self._settings, f"http://127.0.0.1:{port}"
        executable = vllm.find_executable(settings)
        command = vllm.command_line(settings, port, executable)
        environment = vllm.environment(settings, key, executable, os.environ)
        shown, model = vllm.shown(settings, port, executable), vllm.served_name(settings)
        return Launch(command, environment, shown, url, key, model, f"{url}/health")

    async def _rest(self) -> bool:
        """It sleeps: its weights leave the GPU, its process stays."""
        sleep = vllm.Sleep(self.url, self.key)
        if not await sleep.is_sleeping():
            await sleep.sleep(1)
        return True

    async def _wake(self) -> bool:
        if not self.alive:
            return await super()._wake()
        await vllm.Sleep(self.url, self.key).wake()
        return False

    def gpu_bytes(self) -> int:
        """GPU memory that our vLLM may take, in bytes: its share of the GPU; 0 while it sleeps.

        Asleep it still holds a CUDA context, which is not counted.
        """
        if self.resting or not self.alive:
            return 0
        from lamdatui.hardware.gpu import read_gpus

        totals = [int(gpu["memory_total"] or 0) for gpu in read_gpus()[0]]
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        if first.isdecimal() and int(first) < len(totals):
            totals = [totals[int(first)]]
        return int(self._settings.gpu_memory_utilization * min(totals, default=0))


class LlamaCppPythonServer(GuardedServer):
    """`python -m llama_cpp.server`."""

    fix = "check that planner.model is a whole GGUF file, that there is memory for it, and planner.arguments"

    def _prepare(self) -> None:
        super()._prepare()
        self._check_model()

    def _launched(self, port: int, key: str) -> Launch:
        settings, url = self._settings, f"http://127.0.0.1:{port}"
        command = llama_cpp_command(settings, port)
        shown, model = f"API_KEY=<hidden> {shlex.join(command)}", Path(settings.model).stem
        return Launch(command, llama_cpp_environment(port, key), shown, url, key, model, endpoint(url, "models"))


def llama_cpp_command(settings: PlannerSettings, port: int) -> list[str]:
    """`python -m llama_cpp.server …`. Raises LamdatuiError (exit code 4) when our Python has no llama_cpp and no other is set."""
    if not settings.executable and importlib.util.find_spec("llama_cpp") is None:
        raise LamdatuiError(
            "llama-cpp-python is not installed",
            where="planner.backend",
            fix="pip install 'lamdatui[llama-cpp-python]', or set planner.executable to a Python that has it",
            exit_code=EXIT_PLANNER,
        )
    asked = os.path.expanduser(settings.executable) or sys.executable
    # The file whose contents were confirmed, not whatever the child's PATH has.
    line = [shutil.which(asked) or asked, "-m", "llama_cpp.server"]
    line += ["--model", settings.model, "--model_alias", Path(settings.model).stem]
    line += ["--n_ctx", str(settings.context)]
    line += ["--n_threads", str(settings.threads or 1), "--n_threads_batch", str(settings.threads or 1)]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    # Log-probabilities are only there with logits_all.
    line += ["--logits_all", "true", "--use_mlock", "false", "--interrupt_requests", "false", "--verbose", "false"]
    return [*line, *settings.arguments]


def llama_cpp_environment(port: int, key: str) -> dict[str, str]:
    """Only what the server needs: it would take HOST, PORT, CONFIG_FILE and the like from ours."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    return {**kept, "API_KEY": key, "HOST": "127.0.0.1", "PORT": str(port), "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
