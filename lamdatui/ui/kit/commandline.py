"""lamdatui's own commands as child processes: what is slow or imports much stays out of the screen's process. No textual."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.text import clean, clean_json

LINE_BYTES = 1 << 20
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, its cleaned output and what it said last on stderr."""

    code: int
    output: str
    errors: tuple[str, ...]


async def run(*arguments: str, said: Callable[[str], object] | None = None) -> Ended:
    """Run `lamdatui ARGUMENTS` to its end; `said` gets every line of stderr. Cancelling ends the command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "lamdatui",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    assert process.stdout and process.stderr
    errors: list[str] = []

    async def listen(stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = clean(raw.decode("utf-8", "replace").rstrip().rsplit("\r", 1)[-1])
            errors.append(line)
            del errors[:-20]
            if said:
                said(line)

    try:
        output, _ = await asyncio.gather(process.stdout.read(), listen(process.stderr))
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    return Ended(code, clean(output.decode("utf-8", "replace")), tuple(errors))


async def ask(*arguments: str) -> Any:
    """What a command says with `--json`. Raises LamdatuiError when it says nothing that can be read."""
    try:
        async with asyncio.timeout(SECONDS):
            ended = await run(*arguments, "--json")
    except TimeoutError as error:
        raise LamdatuiError(
            f"lamdatui {arguments[0]} did not end within {SECONDS:.0f} s", exit_code=EXIT_FAILED, fix=f"lamdatui {arguments[0]}"
        ) from error
    try:
        # An exit code that tells of problems comes with the list of them.
        return clean_json(json.loads(ended.output))
    except ValueError as error:
        what = next((line.removeprefix("error: ") for line in ended.errors if line), f"ended with status {ended.code}")
        raise LamdatuiError(what, where=f"lamdatui {' '.join(arguments)}", exit_code=EXIT_FAILED) from error
