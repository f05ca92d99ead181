"""vLLM as the planner's server: its command line, its environment, and its sleep (flags and endpoints of vLLM 0.32).

vLLM lives in an environment of its own: it pins torch and transformers. Nothing of it is imported here.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.base.jsonio import parse_json
from lamdatui.planner import reading
from lamdatui.planner.settings import PlannerSettings

VERSION = "0.32.0"
"""The release whose flags and endpoints are meant; `python -m bench.vllm_args` checks them."""

MOST_REQUESTS = 8
"""Requests that vLLM works on at a time: a planner is asked one question, at most in a few orders at once."""

MOST_LOGPROBS = 64
"""Alternatives per token that our server gives; vLLM's own limit of 20 is less than the letters of a long list."""

MODULE = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` runs: for a Python in place of the command, which builds for CPUs lack."""

_HIDDEN = "<hidden>"
_SLEEP_SECONDS = 120.0
_LOOK_SECONDS = 5.0


def find_executable(settings: PlannerSettings) -> str:
    """Path of the `vllm` command, or of a Python that has vLLM: `planner.executable`, or what PATH has. Raises LamdatuiError (exit code 4)."""
    asked = settings.executable or "vllm"
    found = shutil.which(os.path.expanduser(asked))
    if found is None:
        raise LamdatuiError(
            f"there is no vLLM: {asked} can't be run",
            where="planner.executable",
            fix=f"python3 -m venv ~/.vllm && ~/.vllm/bin/pip install vllm=={VERSION}, then set planner.executable: ~/.vllm/bin/vllm",
            exit_code=EXIT_PLANNER,
        )
    return found


def served_name(settings: PlannerSettings) -> str:
    """What the server calls the model: a folder's last part, or the model's name."""
    return Path(settings.model).name if os.path.isabs(settings.model) else settings.model


def command_line(settings: PlannerSettings, port: int, executable: str = "vllm") -> list[str]:
    """`vllm serve …` for one planner. The key is not in it: other users of the machine can read command lines."""
    is_python = Path(executable).name.startswith("python")
    line = [executable, "-m", MODULE, "--model", settings.model] if is_python else [executable, "serve", settings.model]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    line += ["--served-model-name", served_name(settings)]
    line += ["--max-model-len", str(settings.context)]
    line += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    line += ["--max-num-seqs", str(MOST_REQUESTS)]
    line += ["--max-logprobs", str(MOST_LOGPROBS)]
    line += ["--seed", "0"]
    # Without this the model's own top-p and top-k would cut the choices that the temperature leaves open.
    line += ["--generation-config", "vllm"]
    line += ["--uvicorn-log-level", "warning"]
    if settings.sleep != "never":
        line.append("--enable-sleep-mode")
    return [*line, *settings.arguments]


def own_environment(settings: PlannerSettings, key: str) -> dict[str, str]:
    """The variables that this program sets for vLLM."""
    ours = {
        "VLLM_API_KEY": key,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Else `python -m` would run what the current folder has under the names of its modules.
        "PYTHONSAFEPATH": "1",
    }
    if settings.sleep != "never":
        # vLLM has the sleep endpoints in this mode only.
        ours["VLLM_SERVER_DEV_MODE"] = "1"
    return ours


def environment(settings: PlannerSettings, key: str, executable: str, base: Mapping[str, str]) -> dict[str, str]:
    """The process's whole environment: `base` without what leads Python to our packages, and what vLLM needs.

    The folder of `executable` comes first in PATH: vLLM starts compilers that were installed beside it.
    """
    # The last one would have names of models looked up at another hub, which HF_HUB_OFFLINE says nothing of.
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_USE_MODELSCOPE")
    kept = {name: value for name, value in base.items() if name not in left_out}
    folder = str(Path(executable).parent)
    kept["PATH"] = os.pathsep.join([folder, *filter(None, [base.get("PATH", "")])])
    return {**kept, **own_environment(settings, key)}


def shown(settings: PlannerSettings, port: int, executable: str = "vllm") -> str:
    """The command with its environment, as one can type it into a shell; the key is hidden."""
    ours = own_environment(settings, _HIDDEN)
    return " ".join(
        [
            *(f"{name}={shlex.quote(value)}" for name, value in ours.items()),
            shlex.join(command_line(settings, port, executable)),
        ]
    )


class Sleep:
    """The sleep endpoints of the server at `base`; they exist where it runs with VLLM_SERVER_DEV_MODE=1."""

    def __init__(self, base: str, key: str = "") -> None:
        self._base = base.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def is_sleeping(self) -> bool | None:
        """Whether it sleeps; None where the server has no such endpoint or does not answer."""
        try:
            response = await self._call("GET", "/is_sleeping", _LOOK_SECONDS)
            value = parse_json(response.text)["is_sleeping"]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, bool) else None

    async def sleep(self, level: int = 1, mode: str = "wait") -> None:
        """Give the GPU's memory back. Level 1 keeps the weights in main memory, level 2 drops them.

        `mode` says what becomes of running requests: `wait`, `abort` or `keep`. Raises LamdatuiError (exit code 4).
        """
        await self._order("POST", f"/sleep?level={level}&mode={mode}", "go to sleep")

    async def wake(self) -> None:
        """Take the memory again. Raises LamdatuiError (exit code 4), for one when a step still has it."""
        await self._order("POST", "/wake_up", "wake up")
        if await self.is_sleeping():
            raise self._refused("wake up", "it still sleeps")

    async def _order(self, method: str, path: str, what: str) -> None:
        try:
            await self._call(method, path, _SLEEP_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._refused(what, str(error) or type(error).__name__) from error

    def _refused(self, what: str, why: str) -> LamdatuiError:
        return LamdatuiError(
            f"vLLM at {self._base} did not {what}: {why}",
            where="planner.sleep",
            fix="look into its log; sleep: never leaves it awake",
            exit_code=EXIT_PLANNER,
        )

    async def _call(self, method: str, path: str, seconds: float) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=seconds, headers=self._headers) as http:
            response = await reading.call(http, method, self._base + path, seconds)
            response.raise_for_status()
            return response
