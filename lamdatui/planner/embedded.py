"""The embedded planner: `lamdatui.planner.llamacpp` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys

from lamdatui.planner.server import GRACE_SECONDS, OwnServer


class EmbeddedServer(OwnServer):
    """llama.cpp, through the package xllamacpp."""

    fix = "check that planner.model is a whole GGUF file and that there is memory for it"

    def _prepare(self) -> None:
        self._check_model()

    async def _spawn(self) -> None:
        settings = self._settings
        command = [sys.executable, "-P", "-m", "lamdatui.planner.llamacpp", "--model", settings.model]
        command += ["--context", str(settings.context), "--threads", str(settings.threads or 1)]
        command += ["--adapter", settings.adapter] if settings.adapter else []
        command += ["--parent", str(os.getpid())]
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        self._take(process)
        self.shown = shlex.join(command)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise self._failure(await self.death(GRACE_SECONDS) or "the planner's process closed its output")
        ready = json.loads(line)
        self.url, self.key, self.model = ready["url"], ready["key"], ready["model"]
