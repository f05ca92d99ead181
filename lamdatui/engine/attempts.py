"""One step, however many attempts it takes: after memory ran out, after a kill, after it was suspended."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from lamdatui.domain import baselines, replicates, trials
from lamdatui.domain.budget import grace_seconds, seconds_left
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.engine.layouts import Layouts
from lamdatui.engine.machine import Machine
from lamdatui.engine.steps import (
    CANCELLED,
    LAID_OUT,
    SUSPENDED,
    Patience,
    StepOutcome,
    StepRunner,
    is_out_of_memory,
    was_killed,
)
from lamdatui.inputs.workspace import Workspace
from lamdatui.step.request import StepRequest
from lamdatui.store.artifacts import Store
from lamdatui.store.checkpoints import newest_step


class Run(Protocol):
    """What attempts need of a run: the engine's loop has it."""

    workspace: Workspace
    store: Store
    runner: StepRunner
    machine: Machine
    woken: asyncio.Event

    @property
    def state(self) -> RunState:
        """What the journal adds up to."""
        ...

    def phase(self, phase: str, detail: str = "") -> None:
        """Say what the engine is doing now."""

    def problem(self, where: str, message: str) -> None:
        """Make a failure visible that the run survives."""

    def now(self) -> float:
        """On the clock that work is counted on."""
        ...


class Attempts:
    """Of one run's steps."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.is_suspended = False
        """Whether a step waits for the run to go on."""
        self._cancelled_by = ""

    async def outcome(self, name: str, request: StepRequest, pool: ObjectPool | None = None) -> StepOutcome:
        """Have a step done, on objects of the run's pool if it names no other; its last outcome."""
        run, runner = self._run, self._run.runner
        layouts = Layouts(run.machine, run.workspace.types, pool or run.state.pool)
        again = layouts.lay_out(request, runner.ran_out(name, LAID_OUT))
        request["small"] = runner.ran_out(name) > 0
        patience = Patience(lambda: newest_step(run.store.root, request["digest"]))
        runner.suspended, runner.until = False, self._until(request)
        outcome = await runner.ensure(name, request)
        while not run.state.stopping:
            if (outcome.get("error") or {}).get("class") == SUSPENDED:
                await self._resumed(request)
                if run.state.stopping:
                    break
                if by := self._cancelled_by:
                    self._cancelled_by = ""
                    return {**outcome, "error": {"class": CANCELLED, "message": f"cancelled by {by}"}}
            elif again and is_out_of_memory(outcome, LAID_OUT):
                layouts.ran_out(request, outcome)
                again = layouts.lay_out(request, runner.ran_out(name, LAID_OUT))
                run.problem("memory", f"{outcome['error']['message']}; once more with smaller micro-batches")
            elif is_out_of_memory(outcome) and not request["small"]:
                request["small"] = True
                run.problem("memory", f"{outcome['error']['message']}; once more with less at once")
            elif was_killed(outcome) and patience.allows():
                reached = newest_step(run.store.root, request["digest"])
                how = f"it goes on from step {reached}" if reached else "it begins again"
                run.problem("step", f"{outcome['error']['message']}; {how}")
                if patience.deaths > 1:
                    # The kernel ends what takes the machine's last memory without a word.
                    again = layouts.lay_out(request, runner.ran_out(name, LAID_OUT) + patience.deaths - 1)
            else:
                break
            outcome = await runner.run(name, request)
        return outcome

    def cancel_suspended(self, by: str) -> None:
        """Give the suspended step up, whose trial fails then; the run stays paused."""
        self._cancelled_by = by
        self._run.woken.set()

    def _until(self, request: StepRequest) -> float:
        """When a step has to end that begins now: the run's minutes bound its trials, its baselines and its replicates, not what results need."""
        state, awake = self._run.state, self._run.runner.clock.awake()
        match request["purpose"]:
            case "trial":
                return awake + seconds_left(state, self._run.now()) + grace_seconds(state)
            case baselines.PURPOSE:
                return awake + baselines.until(state, self._run.now())
            case trials.REPLICATE:
                return awake + replicates.until(state, self._run.now())
        return math.inf

    async def _resumed(self, request: StepRequest) -> None:
        """Wait until the run goes on whose step was suspended."""
        run = self._run
        before, self.is_suspended = (run.state.phase, run.state.phase_detail), True
        while run.state.paused and not run.state.stopping and not self._cancelled_by:
            run.phase("paused", run.state.paused_reason)
            run.woken.clear()
            await run.woken.wait()
        self.is_suspended = False
        run.phase(*before)
        run.runner.suspended, run.runner.until = False, self._until(request)
