"""The planner's server: started as our own process for llama.cpp, or only looked at where it is someone else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import httpx
import psutil

from lamdatui.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner.client import endpoint
from lamdatui.planner.settings import PlannerSettings

TAIL_LINES = 5
GRACE_SECONDS = 3.0


class PlannerHost:
    """Owns the embedded planner's process, or knows an external OpenAI-compatible server.

    `url`, `key` and `model` are what a client needs; they are set by `start`. Start it from the process's main thread:
    the kernel kills the planner when the thread that spawned it ends.
    """

    def __init__(self, settings: PlannerSettings, log_path: Path) -> None:
        self._settings = settings
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self.url = settings.url
        self.key = ""
        self.model = settings.model
        self.identity: tuple[int, float] | None = None
        """(pid, start time in seconds since the epoch) of our process; None for an external server."""

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
        model = Path(self._settings.model)
        if not model.is_file():
            raise LamdatuiError(
                f"the planner's model {model} is not there",
                where="planner.model",
                fix="fetch it with `lamdatui models fetch`, or give the path of a GGUF file",
                exit_code=EXIT_PLANNER,
            )
        try:
            await self._spawn()
            async with asyncio.timeout(self._settings.ready_timeout):
                await self._wait_ready()
        except TimeoutError:
            await self.close()
            raise self._failure(f"the planner was not ready within {self._settings.ready_timeout:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End our process: its stdin first, then SIGTERM, then SIGKILL; it is reaped. An external server stays."""
        process, self._process, self.identity = self._process, None, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for stop in (lambda: None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()
                    return

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

    async def _spawn(self) -> None:
        settings = self._settings
        command = [sys.executable, "-P", "-m", "lamdatui.planner.llamacpp", "--model", settings.model]
        command += ["--context", str(settings.context), "--threads", str(settings.threads)]
        command += ["--parent", str(os.getpid())]
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    async def _wait_ready(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        with contextlib.suppress(psutil.Error):
            self.identity = (process.pid, psutil.Process(process.pid).create_time())
        line = await process.stdout.readline()
        if not line:
            raise self._failure(await self.death(GRACE_SECONDS) or "the planner's process closed its output")
        ready = json.loads(line)
        self.url, self.key, self.model = ready["url"], ready["key"], ready["model"]

    async def _look(self) -> None:
        url = endpoint(self._settings.url, "models")
        try:
            async with (
                asyncio.timeout(self._settings.ready_timeout),
                httpx.AsyncClient(trust_env=False, timeout=10.0) as http,
            ):
                response = await http.get(url)
                response.raise_for_status()
                listed = [str(item["id"]) for item in response.json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise self._unreachable(f"no planner answers at {url}: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreachable(f"what answers at {url} is not an OpenAI-compatible server") from error
        if not self.model:
            if not listed:
                raise self._unreachable(f"the server at {url} offers no model")
            self.model = listed[0]

    def _unreachable(self, what: str) -> LamdatuiError:
        fix = "start the server (vLLM, llama-server, Ollama, LM Studio) or correct planner.url"
        return LamdatuiError(what, where="planner.url", fix=fix, exit_code=EXIT_PLANNER)

    def _failure(self, what: str) -> LamdatuiError:
        lines = log_tail(self._log_path)
        detail = "; its log ends with: " + " | ".join(lines) if lines else ""
        return LamdatuiError(
            what + detail,
            where=str(self._log_path),
            fix="check that planner.model is a whole GGUF file and that there is memory for it",
            exit_code=EXIT_PLANNER,
        )


def log_tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a log, each at most 200 characters; none when it can't be read."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 8192))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip()[:200] for line in text.splitlines() if line.strip()][-lines:]
