"""The planner's server: started as our own process, or only looked at where it is someone else's."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.base.jsonio import parse_json
from lamdatui.planner import reaper, vllm
from lamdatui.planner.client import endpoint
from lamdatui.planner.settings import PlannerSettings

TAIL_LINES = 5
GRACE_SECONDS = 3.0
POLL_SECONDS = 0.2

_ADAPTER_FIX = (
    "check that planner.adapter was made for planner.model (another model wants adapter: ''), and that there is memory"
)
_FIXES = {
    "llamacpp": "check that planner.model is a whole GGUF file and that there is memory for it",
    "llama-cpp-python": "check that planner.model is a whole GGUF file, that there is memory for it, and planner.arguments",
    "vllm": "read the whole log; too little GPU memory: lower planner.context, or raise planner.gpu_memory_utilization",
}

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "TMPDIR", "LD_", "CUDA", "NVIDIA", "HIP", "ROCR", "HSA", "GGML", "LLAMA", "OMP_")
"""Beginnings of the variables that llama_cpp.server gets: it reads each of its settings from a variable of that name too."""


@dataclass(frozen=True, slots=True)
class _Launch:
    """How a guarded server is started, where it then is, and how that line is shown to people."""

    command: Sequence[str]
    environment: dict[str, str]
    shown: str
    url: str
    key: str
    model: str


class PlannerHost:
    """Owns our planner's process, or knows an external OpenAI-compatible server.

    `url`, `key` and `model` are what a client needs; they are set by `start`, and anew by a `wake` that returns True. Start it
    from the process's main thread: the kernel ends the planner when the thread that spawned it does.
    """

    def __init__(self, settings: PlannerSettings, log_path: Path) -> None:
        self._settings = settings
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self.url = settings.url
        self.key = ""
        self.model = settings.model
        self.shown = ""
        """The command line that was started, with the key hidden; "" where there is none."""
        self.identity: tuple[int, float] | None = None
        """(pid, start time in seconds since the epoch) of our process; None for an external server."""
        self.resting = False
        """Whether `rest` gave its memory back: it must `wake` before it is asked again."""

    @property
    def external(self) -> bool:
        """Whether the server is not ours to start and stop."""
        return self._settings.backend == "openai"

    @property
    def alive(self) -> bool:
        """Whether our process runs; always true for an external server, which only answers can tell."""
        return self.external or (self._process is not None and self._process.returncode is None)

    async def start(self) -> None:
        """Have a server that answers within `ready_timeout`. Raises LamdatuiError (exit code 4), with the log's end."""
        if self.external:
            await self._look()
            return
        await self.close()
        launch = None if self._settings.backend == "llamacpp" else self._launch()
        if self._settings.backend != "vllm":
            self._check_model()
        try:
            async with asyncio.timeout(self._settings.ready_timeout):
                if launch is None:
                    await self._spawn_own()
                    await self._wait_line()
                else:
                    await self._spawn_guarded(launch)
                    await self._wait_http(launch)
        except TimeoutError:
            await self.close()
            raise self._failure(f"the planner was not ready within {self._settings.ready_timeout:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End our process: its stdin first, then SIGTERM, then SIGKILL; it is reaped.

        An external server stays; if it sleeps because of us, it is woken.
        """
        if self.external:
            if self.resting:
                with contextlib.suppress(LamdatuiError):
                    await self.wake()
            self.resting = False
            return
        process, self._process, self.identity, self.resting = self._process, None, None, False
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        # A guard first lets its server end politely, and must not be killed meanwhile.
        patience = GRACE_SECONDS if self._settings.backend == "llamacpp" else reaper.GRACE_SECONDS + GRACE_SECONDS
        for stop in (lambda: None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await process.wait()
                    return

    async def rest(self) -> bool:
        """Give the planner's memory back until `wake`: vLLM sleeps, an embedded planner's process ends.

        Returns whether it rests now. An external server does so only if it is a vLLM with VLLM_SERVER_DEV_MODE=1; with
        `sleep: never` nothing does. Raises LamdatuiError (exit code 4).
        """
        if self.resting or self._settings.sleep == "never" or not self.alive:
            return self.resting
        if not self.external and self._settings.backend != "vllm":
            await self.close()
            self.resting = True
            return True
        sleep = vllm.Sleep(self.url, self.key)
        asleep = await sleep.is_sleeping()
        if asleep is None and self.external:
            return False
        if not asleep:
            await sleep.sleep(1)
        self.resting = True
        return True

    async def wake(self) -> bool:
        """End the rest. Returns whether address or key are new, so that a new client is needed. Raises LamdatuiError."""
        if not self.resting:
            return False
        if self.external or (self._settings.backend == "vllm" and self.alive):
            await vllm.Sleep(self.url, self.key).wake()
            self.resting = False
            return False
        await self.start()
        self.resting = False
        return True

    def memory_bytes(self) -> int:
        """Main memory that our process and everything below it hold, in bytes; 0 for an external server."""
        total = 0
        if self._process is not None and self.identity is not None:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self._process.pid)
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_info().rss
        return total

    def gpu_bytes(self) -> int:
        """GPU memory that our vLLM may take, in bytes: its share of the GPU; 0 for other backends, and while it sleeps.

        Asleep it still holds a CUDA context, which is not counted.
        """
        if self._settings.backend != "vllm" or self.resting or not self.alive:
            return 0
        from lamdatui.hardware.gpu import read_gpus

        totals = [int(gpu["memory_total"] or 0) for gpu in read_gpus()[0]]
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        if first.isdecimal() and int(first) < len(totals):
            totals = [totals[int(first)]]
        return int(self._settings.gpu_memory_utilization * min(totals, default=0))

    async def death(self, within: float = 0.5) -> str:
        """How our process ended, in plain words, or "" when it is still alive after `within` seconds."""
        process = self._process
        if self.external or process is None:
            return ""
        try:
            async with asyncio.timeout(within):
                code = await process.wait()
        except TimeoutError:
            return ""
        how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the planner's process {how}"

    # --- embedded and guarded processes --------------------------------------------------------------------------

    def _check_model(self) -> None:
        model = Path(self._settings.model)
        if not model.is_file():
            raise LamdatuiError(
                f"the planner's model {model} is not there",
                where="planner.model",
                fix="fetch it with `lamdatui models fetch`, or give the path of a GGUF file",
                exit_code=EXIT_PLANNER,
            )

    async def _spawn_own(self) -> None:
        settings = self._settings
        command = [sys.executable, "-P", "-m", "lamdatui.planner.llamacpp", "--model", settings.model]
        command += ["--context", str(settings.context), "--threads", str(settings.threads)]
        command += ["--adapter", settings.adapter] if settings.adapter else []
        command += ["--parent", str(os.getpid())]
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        self._identify(self._process)
        self.shown = shlex.join(command)

    async def _wait_line(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise self._failure(await self.death(GRACE_SECONDS) or "the planner's process closed its output")
        ready = json.loads(line)
        self.url, self.key, self.model = ready["url"], ready["key"], ready["model"]

    def _launch(self) -> _Launch:
        settings, port, key = self._settings, free_port(), secrets.token_urlsafe(24)
        url = f"http://127.0.0.1:{port}"
        if settings.backend == "vllm":
            executable = vllm.find_executable(settings)
            command = vllm.command_line(settings, port, executable)
            environment = vllm.environment(settings, key, executable, os.environ)
            return _Launch(command, environment, vllm.shown(settings, port, executable), url, key, vllm.served_name(settings))
        command = llama_cpp_command(settings, port)
        shown = f"API_KEY=<hidden> {shlex.join(command)}"
        return _Launch(command, llama_cpp_environment(port, key), shown, url, key, Path(settings.model).stem)

    async def _spawn_guarded(self, launch: _Launch) -> None:
        # As a file and isolated: the environment is the server's, in which lamdatui need not be found.
        command = [sys.executable, "-I", reaper.__file__, "--parent", str(os.getpid()), "--grace", str(reaper.GRACE_SECONDS)]
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            log.write(f"$ {launch.shown}\n".encode())
            log.flush()
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--",
                *launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=launch.environment,
                start_new_session=True,
            )
        self._identify(self._process)
        self.url, self.key, self.model, self.shown = launch.url, launch.key, launch.model, launch.shown

    def _identify(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(psutil.Error):
            self.identity = (process.pid, psutil.Process(process.pid).create_time())

    async def _wait_http(self, launch: _Launch) -> None:
        """Until it answers, with our model: on the port may also be somebody who took it first."""
        health = f"{launch.url}/health" if self._settings.backend == "vllm" else endpoint(launch.url, "models")
        headers = {"Authorization": f"Bearer {launch.key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=5.0, headers=headers) as http:
            while True:
                if ended := await self.death(POLL_SECONDS):
                    raise self._failure(ended)
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(health)).status_code == 200:
                        break
            try:
                listed = _models(await http.get(endpoint(launch.url, "models")))
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                listed = []
        if launch.model not in listed:
            raise self._failure(f"what answers at {launch.url} is not the planner that was started")

    def _failure(self, what: str) -> LamdatuiError:
        lines = log_tail(self._log_path)
        detail = "; its log ends with: " + " | ".join(lines) if lines else ""
        fix = _ADAPTER_FIX if self._settings.adapter else _FIXES[self._settings.backend]
        return LamdatuiError(what + detail, where=str(self._log_path), fix=fix, exit_code=EXIT_PLANNER)

    # --- somebody else's server ----------------------------------------------------------------------------------

    async def _look(self) -> None:
        url, self.key = endpoint(self._settings.url, "models"), self._key()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with (
                asyncio.timeout(self._settings.ready_timeout),
                httpx.AsyncClient(trust_env=False, timeout=10.0, headers=headers) as http,
            ):
                response = await http.get(url)
                if response.status_code in (401, 403):
                    raise self._locked(url)
                response.raise_for_status()
                listed = _models(response)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise self._unreachable(f"no planner answers at {url}: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreachable(f"what answers at {url} is not an OpenAI-compatible server") from error
        if not self.model:
            if not listed:
                raise self._unreachable(f"the server at {url} offers no model")
            self.model = listed[0]
        self.resting = False
        sleep = vllm.Sleep(self.url, self.key)
        # A run that was killed may have left it asleep.
        if self._settings.sleep != "never" and await sleep.is_sleeping():
            await sleep.wake()

    def _key(self) -> str:
        name = self._settings.api_key_env
        key = os.environ.get(name, "") if name else ""
        if name and not key:
            raise LamdatuiError(
                f"the environment variable {name}, which should hold the planner's key, is not set",
                where="planner.api_key_env",
                fix=f"export {name}=…, then start again",
                exit_code=EXIT_PLANNER,
            )
        return key

    def _locked(self, url: str) -> LamdatuiError:
        return LamdatuiError(
            f"the server at {url} {'refuses the key' if self.key else 'wants a key'}",
            where="planner.api_key_env",
            fix="put the key into an environment variable and that variable's name into planner.api_key_env",
            exit_code=EXIT_PLANNER,
        )

    def _unreachable(self, what: str) -> LamdatuiError:
        fix = "start the server (vLLM, llama-server, Ollama, LM Studio) or correct planner.url"
        return LamdatuiError(what, where="planner.url", fix=fix, exit_code=EXIT_PLANNER)


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
    line += ["--n_threads", str(settings.threads), "--n_threads_batch", str(settings.threads)]
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


def log_tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a log, each at most 200 characters; none when it can't be read."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 8192))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip()[:200] for line in text.splitlines() if line.strip()][-lines:]


def _models(response: httpx.Response) -> list[str]:
    return [str(item["id"]) for item in parse_json(response.text)["data"]]
