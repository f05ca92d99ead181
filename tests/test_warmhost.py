"""The engine's side of the step host: one that is killed is replaced once, whoever waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lamdatui.engine.warmhost import HostKilled, StepHost


def test_a_host_that_is_killed_is_asked_again_once(tmp_path: Path) -> None:
    async def kill_and_ask(times: int) -> list[int]:
        """Ask for the network; kill the first hosts before they can answer; their processes."""
        host = StepHost(tmp_path / "steps.log", 1, online=True)
        killed: list[int] = []
        await host.warm()
        asked = asyncio.create_task(host.network())
        while not asked.done():
            if len(killed) < times and host.pid is not None and host.pid not in killed:
                # At once: Python itself takes longer to begin.
                killed.append(host.pid)
                os.kill(host.pid, signal.SIGKILL)
            await asyncio.sleep(0.001)
        try:
            assert await asked == "online"
            assert host.pid is not None and host.pid not in killed
        finally:
            await host.close()
        return killed

    assert len(asyncio.run(kill_and_ask(1))) == 1
    with pytest.raises(HostKilled, match="has ended"):
        asyncio.run(kill_and_ask(2))


def test_a_host_that_ends_by_itself_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psutil.py").write_text("raise SystemExit('nothing works here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def ask() -> None:
        host = StepHost(tmp_path / "steps.log", 1, online=True)
        try:
            with pytest.raises(Exception, match="nothing works here") as told:
                await host.network()
            assert not isinstance(told.value, HostKilled)
        finally:
            await host.close()

    asyncio.run(ask())
    assert (tmp_path / "steps.log").read_text().count("nothing works here") == 1
