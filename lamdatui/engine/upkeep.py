"""What a run needs before it goes on: room on the disk, undamaged inputs, and the scores of its models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import Damaged
from lamdatui.domain.actions import Action
from lamdatui.domain.budget import droppable, written
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.integrity import SPARE_BYTES, Fact, Lost, check_promises, damaged, free_bytes, inputs_of, maker, promised
from lamdatui.engine.requests import Requests
from lamdatui.engine.scoring import Scoring
from lamdatui.engine.steps import StepOutcome
from lamdatui.inputs.workspace import Workspace, open_workspace
from lamdatui.step.request import StepRequest
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal

ROOM_SECONDS = 5.0
"""How often a run that waits for room on the disk looks again."""
TRIES = 100
"""Work is tried again as often while its disk is full or what it stands on was damaged."""


class SearchEnded(Exception):
    """The search is over; carries status and reason, and the budget of trials where that was the reason."""

    def __init__(self, status: str, reason: str, *, trials: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.trials = trials


class Run(Protocol):
    """What upkeep needs of a run: the engine's loop has it."""

    workspace: Workspace
    journal: Journal
    store: Store
    scoring: Scoring
    requests: Requests
    woken: asyncio.Event

    @property
    def state(self) -> RunState:
        """What the journal adds up to."""
        ...

    def record(self, *facts: Fact) -> None:
        """Commit facts, then tell whoever watches."""

    def phase(self, phase: str, detail: str = "") -> None:
        """Say what the engine is doing now."""

    def problem(self, where: str, message: str) -> None:
        """Make a failure visible that the run survives."""

    def is_done(self, action: Action) -> bool:
        """Whether the store has the result of an action."""
        ...

    async def step(self, name: str, request: StepRequest) -> StepOutcome:
        """Have a step done; its outcome."""
        ...


class Upkeep:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._room_wanted = 0
        """Free bytes below which work is not tried: more than there were when a disk was full."""

    @property
    def _state(self) -> RunState:
        return self._run.state

    async def have_room(self) -> None:
        """Pause, with the reason, while the disk has less free than the run keeps free; go on by itself when there is room."""
        folder = self._run.journal.path.parent
        keep = int(self._run.workspace.profile.budget.keep_free_mib * 2**20)
        while (free := free_bytes(folder)) < max(keep, self._room_wanted) and not self._state.stopping:
            reason = f"{free / 2**20:.0f} MiB are free on the disk of {folder}; {max(keep, self._room_wanted) / 2**20:.0f} MiB are needed"
            if not self._state.paused:
                self._run.record(("run.paused", {"by": "engine", "reason": reason}))
            self._run.phase("paused", self._state.paused_reason or reason)
            self._run.woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._run.woken.wait(), ROOM_SECONDS)
                # A person says that it should be tried.
                self._room_wanted = 0
        self._room_wanted = 0
        if self._state.paused and self._state.paused_by == "engine":
            self._run.record(("run.unpaused", {"by": "engine"}))

    async def out_of_room(self, why: str) -> None:
        """The disk was full: wait until it has more room than it had."""
        self._run.problem("disk", why)
        self._room_wanted = free_bytes(self._run.journal.path.parent) + SPARE_BYTES
        await self.have_room()
        if self._state.stopping:
            raise SearchEnded("stopped", "stopped by a person")

    async def keep_within(self, needed: int = 0, keep: Iterable[str] = ()) -> None:
        """Have room for `needed` bytes within `disk_gib`: weights of merges that are not among `keep` go, until they are needed."""
        limit = self._run.workspace.profile.budget.disk_gib
        keep = set(keep)
        while limit and written(self._state) + needed > limit * 2**30 and (names := droppable(self._state, keep)):
            model = self._state.pool.model(names[0])
            try:
                freed = await asyncio.to_thread(self._run.store.drop, model.digest)
            except Damaged:
                # Of what it consisted is not known: it is put aside when it is needed.
                freed = None
            if freed is None:
                # So it is where another run's step uses it now.
                keep.add(model.id)
                continue
            self._run.record(("object.dropped", {"id": model.id, "bytes": model.bytes}))

    async def evaluate(self, model: ModelObject, split: str, name: str) -> None:
        """Have a model's scores on a split: from the store, or by a step of their own. Raises SearchEnded when it fails, Lost."""
        run = self._run
        known = all(split in self._state.scores.get(model.id, {}).get(task, {}) for task in run.workspace.tasks)
        for _ in range(TRIES):
            if run.scoring.complete(model.digest, split):
                break
            known = False
            await self.restore([model.id])
            run.phase("evaluating", f"{model.id} on {split}")
            outcome = await run.step(name, run.requests.evaluation(name, model, split, self._state.pool))
            if self._state.stopping and outcome["status"] != "ok":
                raise SearchEnded("stopped", "stopped by a person")
            if outcome["status"] != "ok":
                await self._not_evaluated(model.id, outcome["error"])
        if not known:
            run.record(*run.scoring.facts(model, split, self._base()))
        for text in run.scoring.doubts(model.digest, split):
            if text not in {problem["message"] for problem in self._state.problems}:
                run.problem("judge", text)

    def _base(self) -> str:
        base = self._state.pool.base
        return self._state.pool.items[base].digest if base else ""

    async def _not_evaluated(self, name: str, error: dict[str, Any]) -> None:
        """Wait for what can pass; raises SearchEnded for what can't."""
        if error["class"] == "disk":
            await self.out_of_room(f"{name} could not be evaluated: {error['message']}")
        elif error["class"] == "changed":
            raise SearchEnded("failed", await self.what_changed(error["message"]))
        elif error["class"] != "damaged":
            raise SearchEnded("failed", f"{name} could not be evaluated: {error['message']}")

    def may_come_again(self, number: int, kind: str) -> bool:
        """Whether a trial that failed of this does not count: its action is not to blame. Damage twice in a row does: it would go on for ever."""
        before = self._state.trials.get(number - 1)
        is_first = before is None or (before.error or {}).get("class") != "damaged"
        return kind in ("disk", "changed") or (kind == "damaged" and is_first)

    async def has_result(self, action: Action) -> bool:
        """Whether an action's result is in the store and undamaged: what is damaged is put aside and made again by its step."""
        if not self._run.is_done(action):
            return False
        wrong = await asyncio.to_thread(self._run.store.problem, action.digest)
        if wrong:
            told = f"the result of {action.type} is damaged in the store: {', '.join(wrong)}; it is made again"
            self._run.problem("store", told)
        return not wrong

    async def restore(self, names: Iterable[str], keep: Collection[str] = ()) -> None:
        """See to it that the store has what these objects consist of: what is damaged is put aside and made again. Raises Lost.

        `keep`: other objects that have to stay meanwhile.
        """
        names = list(names)
        keep = {*keep, *names}
        wrong = await asyncio.to_thread(damaged, self._run.store, [self._state.pool.items[name] for name in names])
        for digest, files in wrong.items():
            trial = maker(self._state, digest)
            if trial is None:
                raise self._lost(names[0], f"the store has lost {digest[:12]}, and no trial of this run made it")
            made = trial.model or trial.dataset or ""
            if files:
                damage = f"{made} (trial {trial.number}) is damaged in the store: {', '.join(files)}"
                self._run.problem("store", f"{damage}; it is made again")
            elif made not in self._state.dropped:
                self._run.problem("store", f"{made} is not in the store; it is made again")
            try:
                await self.restore(inputs_of(trial), keep)
            except Lost as lost:
                raise self._lost(made, str(lost)) from lost
            before = self._content(digest)
            await self.keep_within(self._state.pool.items[made].bytes, {*keep, *inputs_of(trial), made})
            await self._remake(trial, made)
            if made in self._state.dropped:
                self._run.record(("object.restored", {"id": made}))
            if before and before != self._content(digest):
                self._run.problem(
                    "store", f"{made} was made again and is not the same to the bit: its scores are those of the lost one"
                )

    async def _remake(self, trial: Trial, made: str) -> None:
        """Do a trial's action again. Raises Lost when that can't be done; a full disk is waited for, a changed input ends the run."""
        name = f"remake-{trial.number}"
        for _ in range(TRIES):
            outcome = await self._run.step(name, self._run.requests.remake(name, trial, self._state))
            if outcome["status"] == "ok":
                return
            if self._state.stopping:
                raise SearchEnded("stopped", "stopped by a person")
            error = outcome["error"]
            told = f"trial {trial.number} could not make {made} again: {error['message']}"
            if error["class"] == "changed":
                raise SearchEnded("failed", await self.what_changed(told))
            if error["class"] != "disk":
                raise self._lost(made, told)
            await self.out_of_room(told)

    def _content(self, digest: str) -> dict[str, Any]:
        """Weights or rows of an object, by their hashes; nothing where it has no readable manifest."""
        files: dict[str, Any] = {}
        for read in (self._run.store.dropped, self._run.store.manifest):
            with contextlib.suppress(OSError, ValueError):
                files = read(digest)["files"]
        return {name: entry["blake2b"] for name, entry in files.items() if name.endswith((".safetensors", ".jsonl"))}

    def _lost(self, name: str, reason: str) -> Lost:
        if name not in self._state.lost:
            self._run.record(("object.lost", {"id": name, "reason": reason}))
            self._run.problem("store", f"{name} is lost: {reason}")
        return Lost(name, reason)

    async def what_changed(self, message: str) -> str:
        """The step's words, with since when and the ways on where an input can be named."""
        try:
            opened = await asyncio.to_thread(open_workspace, self._run.workspace.profile, promised=promised(self._state))
            check_promises(opened, self._state)
        except LamdatuiError as error:
            return f"{error.what} ({error.where}); {error.fix}"
        return f"{message}; restore it as it was, or start another run"
