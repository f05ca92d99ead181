"""Runs steps: intent before effect, outcome after it, adoption of what outlived an engine, one slot a device."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from lamdatui.base.faults import fault
from lamdatui.base.jsonio import Damaged, make_folder
from lamdatui.domain.trials import StepRecord
from lamdatui.engine.watch import GRACE_SECONDS, VERDICTS, Verdict, Watch
from lamdatui.engine.world import Host, World
from lamdatui.inputs.profile import StepsSpec
from lamdatui.step.files import (
    BUSY,
    LOG,
    METRICS,
    OUTCOME,
    TRAINED,
    Identity,
    attempt_directory,
    claim,
    read_claim,
    read_outcome,
    write_request,
)
from lamdatui.step.request import StepRequest, is_bare
from lamdatui.store.journal import Journal
from lamdatui.wire.lastwords import LOW_BYTES

POLL_SECONDS = 0.03
CLAIM_SECONDS = 60.0
BUSY_SECONDS = 1800.0
"""How long a step that was asked to end may take while it writes a checkpoint or looks at held-out rows."""
EXIT_POLLS = 100
GONE = "the step's process ended"
CANCELLED = "cancelled"
SUSPENDED = "suspended"
LAID_OUT = ("oom-train", "oom-merge")
"""Where memory ran out that a plan lays out; elsewhere fewer answers at once or smaller shards help."""
StepOutcome = dict[str, Any]


def _failed(kind: str, message: str) -> StepOutcome:
    return {"status": "failed", "error": {"class": kind, "message": message}}


UNREADABLE = _failed("damaged", f"its {OUTCOME} can't be read")
"""The outcome of an attempt whose file is damaged."""


def is_out_of_memory(outcome: StepOutcome, kinds: tuple[str, ...] = ("oom-",)) -> bool:
    """Whether an attempt failed for want of memory, whatever it was doing, or at what `kinds` says."""
    error = outcome.get("error")
    return outcome["status"] == "failed" and bool(error) and error["class"].startswith(kinds)


def was_killed(outcome: StepOutcome) -> bool:
    """Whether an attempt was ended from outside: by somebody, by a machine that went down, or by the kernel for want of memory."""
    error = outcome.get("error")
    return outcome["status"] == "failed" and bool(error) and error["class"] == "killed"


class Patience:
    """With attempts at one work that are killed: another one is worth while if they get on, or once if they do not.

    `progress`: the optimiser step of its newest checkpoint.
    """

    def __init__(self, progress: Callable[[], int]) -> None:
        self._progress = progress
        self._reached = progress()
        self._deaths = 0
        self.deaths = 0
        """In all."""

    def allows(self) -> bool:
        """After one more attempt that was killed."""
        reached = self._progress()
        if reached > self._reached:
            self._reached, self._deaths = reached, 0
        self._deaths, self.deaths = self._deaths + 1, self.deaths + 1
        return self._deaths == 1


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

    def __init__(
        self,
        run_dir: Path,
        journal: Journal,
        host: Host,
        publish: Callable[[dict[str, Any]], None],
        limits: StepsSpec | None = None,
        world: World | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.journal = journal
        self.host = host
        self.publish = publish
        self.limits = limits or StepsSpec()
        world = world or World()
        self.clock, self.processes = world.clock, world.processes
        self.current: Identity | None = None
        self.stop_requested = False
        self.until = math.inf
        """When the steps that start now have to end, on the clock of time awake."""
        self.suspended = False
        """Whether the running step is to end with a checkpoint, because the run is paused."""
        self.cancelled: tuple[str, str] | None = None
        """The attempt that somebody does not want any more, and who."""

    def directory(self, key: str) -> Path:
        """Where an attempt's files are. Raises LamdatuiError for a key that would lead out of the run's directory."""
        return attempt_directory(self.run_dir, key)

    def next_key(self, name: str) -> str:
        """The key of the next attempt of `name`: NAME/1, NAME/2, …"""
        used = [int(key.rpartition("/")[2]) for key in self.journal.state.steps if key.rpartition("/")[0] == name]
        return f"{name}/{max(used, default=0) + 1}"

    async def ensure(self, name: str, request: StepRequest) -> StepOutcome:
        """The outcome of step `name`: of an attempt that is still open, or else of a new one."""
        open_records = [r for r in self.journal.state.steps.values() if r.status in ("intended", "running")]
        record = next((r for r in open_records if r.key.rpartition("/")[0] == name), None)
        if record is not None:
            outcome = await self.follow(record)
            # A step that died together with the engine before this one says nothing about its action: once more.
            lost = self._outcome(record.key) in (None, UNREADABLE) and record.key.endswith("/1")
            ended_by_us = (outcome.get("error") or {}).get("class") in (CANCELLED, SUSPENDED, *VERDICTS)
            if outcome["status"] != "void" and (ended_by_us or not lost):
                return outcome
        return await self.run(name, request)

    async def settle(self, name: str = "") -> None:
        """See open attempts (of `name`, or all) to their end whose work nobody waits for any more: what they made is there."""
        for record in [r for r in self.journal.state.steps.values() if r.status in ("intended", "running")]:
            if not name or record.key.rpartition("/")[0] == name:
                await self.follow(record)

    async def run(self, name: str, request: StepRequest) -> StepOutcome:
        """Run a step to its outcome. An attempt that provably never began, or whose outcome can't be read, is tried again, once per call."""
        outcome: StepOutcome = {}
        for _ in range(2):
            key = self.next_key(name)
            request["step"] = key
            directory = self.directory(key)
            try:
                make_folder(directory)
                write_request(directory, request)
            except OSError as error:
                return _failed("disk", f"{error.strerror}: {directory}")
            fault("step.before-intent")
            self._record(
                "step.intended", step=key, purpose=request["purpose"], trial=request["trial"], digest=request["digest"]
            )
            fault("step.after-intent")
            pid = await self.host.start(directory, bare=is_bare(request))
            fault("step.after-start")
            outcome = await self.follow(self.journal.state.steps[key], pid=pid)
            if outcome["status"] != "void" and outcome != UNREADABLE:
                break
        return outcome

    def _outcome(self, key: str) -> StepOutcome | None:
        """The outcome that an attempt left: None where there is none, UNREADABLE where it is damaged."""
        try:
            return read_outcome(self.directory(key))
        except Damaged:
            return UNREADABLE

    def ran_out(self, name: str, kinds: tuple[str, ...] = ("oom-",)) -> int:
        """How many attempts of `name` have ended out of memory, at what `kinds` says."""
        records = [r for r in self.journal.state.steps.values() if r.key.rpartition("/")[0] == name]
        return sum(is_out_of_memory({"status": r.status, "error": r.error}, kinds) for r in records)

    def began_before(self, name: str) -> bool:
        """Whether an attempt of `name` before its last one began the action's work."""
        keys = [key for key in self.journal.state.steps if key.rpartition("/")[0] == name]
        return any((self.directory(key) / TRAINED).exists() for key in keys[:-1])

    async def follow(self, record: StepRecord, *, pid: int | None = None) -> StepOutcome:
        """Wait for an attempt that this engine (then `pid` is its process) or one before it intended; journal its end."""
        directory = self.directory(record.key)
        identity = await self._claimed(directory, pid)
        if identity is None:
            return self._end(record, {"status": "void", "error": {"class": "void", "message": "the step never began"}})
        if record.pid is None:
            self._record(
                "step.started", step=record.key, pid=identity.pid, start_time=identity.start_time, boot_id=identity.boot_id
            )
        self.current, followed = identity, self.clock.awake()
        if self.stop_requested:
            self.stop()
        if self.suspended:
            self.suspend()
        if self.cancelled and self.cancelled[0] == record.key:
            self.ask_to_end()
        tail = asyncio.create_task(self._tail(record.key, directory / METRICS))
        try:
            verdict = await self._see_to_end(record, identity)
            # It may have written its outcome and ended between the two looks.
            outcome = self._outcome(record.key) or await self._killed(identity, ours=pid is not None)
        finally:
            self.current = None
            tail.cancel()
        if self.suspended and outcome["status"] != "ok" and not self.stop_requested:
            outcome = {**outcome, "error": {"class": SUSPENDED, "message": "it goes on when the run does"}}
        if self.cancelled and self.cancelled[0] == record.key and outcome["status"] != "ok":
            outcome = {**outcome, "error": {"class": CANCELLED, "message": f"cancelled by {self.cancelled[1]}"}}
        if outcome == UNREADABLE:
            self._note(f"step {record.key}: {UNREADABLE['error']['message']}; it is done again")
        if verdict is not None and outcome["status"] != "ok":
            outcome = {**outcome, "error": {"class": verdict.kind, "message": verdict.message}}
        if outcome["status"] != "ok" and not outcome.get("seconds"):
            # What it took counts, whatever came of it; of an attempt that another engine began, what this one saw.
            outcome = {**outcome, "seconds": {"execute": round(self.clock.awake() - followed, 3)}}
        return self._end(record, outcome)

    async def _see_to_end(self, record: StepRecord, identity: Identity) -> Verdict | None:
        """Wait until a step's process is gone. Ends one that is over its limits, and kills one that does not end when it is asked to."""
        directory = self.directory(record.key)
        files = [directory / METRICS, directory / LOG]
        now = self.clock.awake
        watch = Watch(files, self.limits, lambda told: self._note(f"step {record.key}: {told}"), now, self.until)
        verdict, asked = None, None
        while (process := self.processes.find(identity)) is not None:
            if verdict is None and (verdict := watch.look(process)) is not None:
                self.ask_to_end()
            unwanted = self.cancelled is not None and self.cancelled[0] == record.key
            if asked is None and (verdict or self.stop_requested or self.suspended or unwanted):
                asked = now()
            patience = BUSY_SECONDS if (directory / BUSY).exists() else GRACE_SECONDS
            if asked is not None and now() - asked > patience:
                self.kill()
            await asyncio.sleep(POLL_SECONDS)
        return verdict

    def _note(self, message: str) -> None:
        self._record("problem.noted", where="step", message=message[:1000])

    async def _claimed(self, directory: Path, pid: int | None) -> Identity | None:
        """Who does the attempt; None when nobody began it and now nobody will.

        The process that this engine has just started has the right of way while it lives; without one, an attempt
        that nobody has claimed is given up at once.
        """
        waited = 0.0
        while (found := self._claim_of(directory, pid)) is None and pid is not None and waited < CLAIM_SECONDS:
            if pid in self.host.exits or not self.processes.exists(pid):
                break
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        if found is None:
            if claim(directory, "engine"):
                return None
            found = self._claim_of(directory, pid)
        if found is None:
            raise Damaged(f"the claim of {directory} came and went")
        return found[1] if found[0] == "step" else None

    def _claim_of(self, directory: Path, pid: int | None) -> tuple[str, Identity] | None:
        """Who claimed an attempt. One whose claim is damaged is taken for its step's: known from its start, or gone."""
        try:
            return read_claim(directory)
        except Damaged:
            record = self.journal.state.steps.get(str(directory.relative_to(self.run_dir / "steps")))
            if record is not None and record.pid and record.start_time is not None:
                return "step", Identity(record.pid, record.start_time, record.boot_id)
            with contextlib.suppress(psutil.NoSuchProcess):
                if pid is not None:
                    return "step", self.processes.identity(pid)
            # Should it still work: the store's lock keeps anybody else from the same work until it has ended.
            return "step", Identity(0, 0.0, "")

    async def _killed(self, identity: Identity, *, ours: bool) -> StepOutcome:
        """A process that is gone without an outcome; the host of our own step is about to tell how it ended."""
        for _ in range(EXIT_POLLS if ours else 0):
            if identity.pid in self.host.exits:
                break
            await asyncio.sleep(POLL_SECONDS)
        status = self.host.exits.get(identity.pid)
        how = f"signal {-status}" if status is not None and status < 0 else "no outcome was written"
        if status == -signal.SIGKILL and not self.stop_requested:
            how += " (somebody killed it, or the kernel did for want of memory)"
        if (free := shutil.disk_usage(self.run_dir).free) < LOW_BYTES:
            return _failed("disk", f"the step's process ended: the disk is full ({free / 2**20:.1f} MiB free)")
        return _failed("killed", f"{GONE}: {how}")

    def _end(self, record: StepRecord, outcome: StepOutcome) -> StepOutcome:
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
        self.ask_to_end()

    def suspend(self) -> None:
        """Ask the running step to end with a checkpoint; the search waits for it (`lamdatui.engine.attempts`)."""
        self.suspended = True
        self.ask_to_end()

    def cancel(self, key: str, by: str) -> None:
        """End one attempt alone, which is at work or about to be: the search goes on."""
        self.cancelled = key, by
        self.ask_to_end()

    def ask_to_end(self) -> None:
        """Have the running step end cleanly, also one that is stopped by a signal."""
        process = self.processes.find(self.current) if self.current else None
        if process is not None:
            process.terminate()
            process.resume()

    def kill(self) -> None:
        """End the running step at once."""
        process = self.processes.find(self.current) if self.current else None
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
                        with contextlib.suppress(ValueError, RecursionError):
                            if isinstance(metric := json.loads(line), dict):
                                self.publish({"type": "metric", "step": key, "metric": metric})
            await asyncio.sleep(0.2)
