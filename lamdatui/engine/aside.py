"""Work that a run does beside its search: objects that no search builds on, made and scored for what the winner is compared with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import Damaged
from lamdatui.domain.actions import BoundType
from lamdatui.domain.objects import ModelObject, ObjectPool
from lamdatui.domain.records import ActionRecord
from lamdatui.engine.integrity import Lost
from lamdatui.engine.layouts import Layouts
from lamdatui.engine.machine import Machine
from lamdatui.engine.scoring import Scoring
from lamdatui.engine.steps import StepOutcome
from lamdatui.engine.upkeep import Run as Kept
from lamdatui.engine.upkeep import SearchEnded, Upkeep
from lamdatui.step.request import StepRequest, made
from lamdatui.store.journal import JournalFailed


def _named(name: str, digest: str) -> str:
    """What a step is called that makes something: one that only scores has no digest in its name."""
    return f"{name}-{digest[:8]}"


class Missing(Exception):
    """It won't be made; says why."""


def reason_of(error: Exception) -> str:
    """Why something was not made, for the record: whatever is wrong beside a search, its winner is to be reported. Raises what the journal can't take."""
    if isinstance(error, JournalFailed):
        raise error
    words = str(error).splitlines()[0] if str(error) else ""
    known = isinstance(error, (Missing, Lost, SearchEnded, LamdatuiError))
    return (words if known else f"{type(error).__name__}: {words}")[:500]


class Run(Kept, Protocol):
    """What such work needs of a run: the engine's loop has it."""

    machine: Machine
    upkeep: Upkeep

    @property
    def base(self) -> ModelObject:
        """What gains are measured against."""
        ...

    def now(self) -> float:
        """On the clock that work is counted on."""
        ...

    async def unpaused(self) -> None:
        """Wait while the run is paused."""

    async def make_room(self, needed: int | None) -> None:
        """Let the planner give memory back."""

    async def step(self, name: str, request: StepRequest, pool: ObjectPool | None = None) -> StepOutcome:
        """Have a step done; its outcome."""
        ...


class Aside:
    """Of one run, for one purpose: that of the steps that train."""

    def __init__(self, run: Run, purpose: str, left: Callable[[], float]) -> None:
        """`left`: seconds that such work may still take."""
        self._run = run
        self._purpose = purpose
        self.left = left

    async def done(
        self,
        bound: BoundType,
        action: ActionRecord,
        pool: ObjectPool,
        name: str,
        *,
        keep: Collection[str] = (),
        score: bool = True,
    ) -> Any:
        """The object that an action makes, under the id `name`, with its scores on the search rows unless `score` says otherwise; `keep`: models
        whose weights have to stay meanwhile. Raises Missing."""
        run = self._run
        plan, estimate = run.machine.plan(bound, run.machine.call(bound, action["inputs"], action["params"], pool))
        if lacking := run.machine.lacks(estimate, plan):
            raise Missing(lacking)
        await run.upkeep.keep_within(estimate.disk_bytes or 0, keep)
        await run.make_room(estimate.memory_bytes)
        step = _named(name, action["digest"])
        request = run.requests.action(step, self._purpose, bound.type, action, pool)
        if not score:
            request["evaluations"] = []
        outcome = await self._step(step, request, pool)
        Layouts(run.machine, run.workspace.types, pool).measured(request, outcome)
        return made(name, 0, action, bound.type, run.store.manifest(action["digest"]), pool)

    async def scored(self, model: ModelObject, split: str, scoring: Scoring, step: str, pool: ObjectPool | None = None) -> None:
        """Have a model's scores in the store. Raises Missing."""
        if not scoring.complete(model.digest, split):
            # Its time is reserved: what was trained is scored, however late it is.
            purpose = split if split == "sealed" else self._purpose
            pool = pool or self._run.state.pool
            await self._step(step, self._run.requests.evaluation(step, model, split, pool, scoring, purpose), pool)

    async def _step(self, name: str, request: StepRequest, pool: ObjectPool) -> StepOutcome:
        await self._run.upkeep.have_room()
        await self._run.unpaused()
        outcome = await self._run.step(name, request, pool)
        if outcome["status"] != "ok":
            raise Missing(str(outcome["error"]["message"]))
        return outcome

    async def drop(self, digests: Collection[str]) -> None:
        """Remove weights and rows that this run made for it, which were not in the store before, and that the run's pool does not have."""
        state = self._run.state
        named = {item.digest for item in state.pool.items.values()}
        ended = [
            step for step in state.steps.values() if (step.purpose, step.status, step.cached) == (self._purpose, "ok", False)
        ]
        own = {step.digest for step in ended if step.digest and step.key.partition("/")[0].endswith(_named("", step.digest))}
        for digest in sorted(set(digests) & (own - named)):
            try:
                await asyncio.to_thread(self._run.store.drop, digest)
            except (OSError, Damaged) as error:
                self._run.problem("store", f"{digest[:12]} is not needed any more, and stays: {error}")

    def fits(self, seconds: float) -> None:
        """Raises Missing where there is not as much time left."""
        left = self.left()
        if seconds > left:
            raise Missing(f"it takes about {seconds:.0f} s, and {left:.0f} s are left for it")
