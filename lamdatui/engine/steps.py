"""Runs steps: intent before effect, outcome after it, adoption of what outlived an engine, one slot a device."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from lamdatui.engine.stephost import StepHost
from lamdatui.faults import fault
from lamdatui.jsonio import write_json
from lamdatui.pipeline import StepRequest
from lamdatui.state import StepRecord
from lamdatui.step.files import METRICS, REQUEST, Identity, claim, read_claim, read_outcome
from lamdatui.store.journal import Journal

POLL_SECONDS = 0.03
CLAIM_SECONDS = 60.0
EXIT_POLLS = 100
Outcome = dict[str, Any]


def is_out_of_memory(outcome: Outcome) -> bool:
    """Whether an attempt failed for want of memory, whatever it was doing."""
    error = outcome.get("error")
    return outcome["status"] == "failed" and bool(error) and error["class"].startswith("oom-")


class Slots:
    """Where steps run: one slot a GPU, or one for the CPU. A step holds its slot while it lives."""

    def __init__(self, devices: list[str]) -> None:
        self._free: asyncio.Queue[str] = asyncio.Queue()
        for device in devices:
            self._free.put_nowait(device)

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[str]:
        """A device, for as long as the block lasts."""
        device = await self._free.get()
        try:
            yield device
        finally:
            self._free.put_nowait(device)


class StepRunner:
    """Starts steps through the host and sees them to their end; the journal has every intent and every end."""

    def __init__(self, run_dir: Path, journal: Journal, host: StepHost, publish: Callable[[dict[str, Any]], None]) -> None:
        self.run_dir = run_dir
        self.journal = journal
        self.host = host
        self.publish = publish
        self.current: Identity | None = None
        self.stop_requested = False

    def directory(self, key: str) -> Path:
        """Where an attempt's files are."""
        return self.run_dir / "steps" / key

    def next_key(self, name: str) -> str:
        """The key of the next attempt of `name`: NAME/1, NAME/2, …"""
        used = [int(key.rpartition("/")[2]) for key in self.journal.state.steps if key.rpartition("/")[0] == name]
        return f"{name}/{max(used, default=0) + 1}"

    async def ensure(self, name: str, request: StepRequest) -> Outcome:
        """The outcome of step `name`: of an attempt that is still open, or else of a new one."""
        open_records = [r for r in self.journal.state.steps.values() if r.status in ("intended", "running")]
        record = next((r for r in open_records if r.key.rpartition("/")[0] == name), None)
        if record is not None:
            outcome = await self.follow(record)
            # A step that died together with the engine before this one says nothing about its action: once more.
            lost = read_outcome(self.directory(record.key)) is None and record.key.endswith("/1")
            if outcome["status"] != "void" and not lost:
                return outcome
        return await self.run(name, request)

    async def run(self, name: str, request: StepRequest) -> Outcome:
        """Run a step to its outcome. An attempt that provably never began is tried again, once per call."""
        outcome: Outcome = {}
        for _ in range(2):
            key = self.next_key(name)
            request["step"] = key
            directory = self.directory(key)
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / REQUEST, request)
            fault("step.before-intent")
            self._record(
                "step.intended", step=key, purpose=request["purpose"], trial=request["trial"], digest=request["digest"]
            )
            fault("step.after-intent")
            pid = await self.host.start(directory)
            fault("step.after-start")
            outcome = await self.follow(self.journal.state.steps[key], pid=pid)
            if outcome["status"] != "void":
                break
        return outcome

    def ran_out(self, name: str) -> int:
        """How many attempts of `name` have ended out of memory."""
        records = [r for r in self.journal.state.steps.values() if r.key.rpartition("/")[0] == name]
        return sum(is_out_of_memory({"status": r.status, "error": r.error}) for r in records)

    async def follow(self, record: StepRecord, *, pid: int | None = None) -> Outcome:
        """Wait for an attempt that this engine (then `pid` is its process) or one before it intended; journal its end."""
        directory = self.directory(record.key)
        identity = await self._claimed(directory, pid)
        if identity is None:
            return self._end(record, {"status": "void", "error": {"class": "void", "message": "the step never began"}})
        if record.pid is None:
            self._record(
                "step.started", step=record.key, pid=identity.pid, start_time=identity.start_time, boot_id=identity.boot_id
            )
        self.current = identity
        if self.stop_requested:
            self.stop()
        tail = asyncio.create_task(self._tail(record.key, directory / METRICS))
        try:
            while (outcome := read_outcome(directory)) is None and identity.process() is not None:
                await asyncio.sleep(POLL_SECONDS)
            # It may have written its outcome and ended between the two looks.
            outcome = outcome or read_outcome(directory) or await self._killed(identity, ours=pid is not None)
            while identity.process() is not None:
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.current = None
            tail.cancel()
        return self._end(record, outcome)

    async def _claimed(self, directory: Path, pid: int | None) -> Identity | None:
        """Who does the attempt; None when nobody began it and now nobody will.

        The process that this engine has just started has the right of way while it lives; without one, an attempt
        that nobody has claimed is given up at once.
        """
        waited = 0.0
        while (found := read_claim(directory)) is None and pid is not None and waited < CLAIM_SECONDS:
            if pid in self.host.exits or not psutil.pid_exists(pid):
                break
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        if found is None:
            if claim(directory, "engine"):
                return None
            found = read_claim(directory)
        assert found is not None
        return found[1] if found[0] == "step" else None

    async def _killed(self, identity: Identity, *, ours: bool) -> Outcome:
        """A process that is gone without an outcome; the host of our own step is about to tell how it ended."""
        for _ in range(EXIT_POLLS if ours else 0):
            if identity.pid in self.host.exits:
                break
            await asyncio.sleep(POLL_SECONDS)
        status = self.host.exits.get(identity.pid)
        how = f"signal {-status}" if status is not None and status < 0 else "no outcome was written"
        return {"status": "failed", "error": {"class": "killed", "message": f"the step's process ended: {how}"}}

    def _end(self, record: StepRecord, outcome: Outcome) -> Outcome:
        fault("step.before-end")
        self._record(
            "step.ended",
            step=record.key,
            status=outcome["status"],
            cached=outcome.get("cached", False),
            seconds=outcome.get("seconds", {}),
            error=outcome.get("error"),
        )
        fault("step.after-end")
        return outcome

    def _record(self, kind: str, **data: Any) -> None:
        for event in self.journal.append((kind, data)):
            self.publish({"type": "event", "event": event.to_json()})

    def stop(self) -> None:
        """Ask the running step to stop cleanly; a step that starts later is asked too."""
        self.stop_requested = True
        process = self.current.process() if self.current else None
        if process is not None:
            process.terminate()

    def kill(self) -> None:
        """End the running step at once."""
        process = self.current.process() if self.current else None
        if process is not None:
            process.kill()

    async def _tail(self, key: str, path: Path) -> None:
        """Send each whole line of metrics.jsonl to whoever watches."""
        position = 0
        while True:
            with contextlib.suppress(FileNotFoundError):
                with path.open("rb") as handle:
                    handle.seek(position)
                    for line in handle:
                        if not line.endswith(b"\n"):
                            break
                        position += len(line)
                        with contextlib.suppress(ValueError):
                            self.publish({"type": "metric", "step": key, "metric": json.loads(line)})
            await asyncio.sleep(0.2)
