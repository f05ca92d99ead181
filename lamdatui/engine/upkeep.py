"""What a run needs before it goes on: room on the disk, undamaged inputs, and the scores of its models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import Action
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState, Trial
from lamdatui.engine.integrity import SPARE_BYTES, Lost, check_promises, damaged, free_bytes, inputs_of, maker
from lamdatui.inputs.workspace import open_workspace

if TYPE_CHECKING:
    from lamdatui.engine.loop import Loop

ROOM_SECONDS = 5.0
"""How often a run that waits for room on the disk looks again."""
TRIES = 100
"""Work is tried again as often while its disk is full or what it stands on was damaged."""


class Ended(Exception):
    """The search is over; carries status and reason, and the budget of trials where that was the reason."""

    def __init__(self, status: str, reason: str, *, trials: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.trials = trials


class Upkeep:
    """Of one loop's run."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._room_wanted = 0
        """Free bytes below which work is not tried: more than there were when a disk was full."""

    @property
    def _state(self) -> RunState:
        return self._loop.state

    async def have_room(self) -> None:
        """Pause, with the reason, while the disk has less free than the run keeps free; go on by itself when there is room."""
        folder = self._loop.journal.path.parent
        keep = int(self._loop.workspace.profile.budget.keep_free_mib * 2**20)
        while (free := free_bytes(folder)) < max(keep, self._room_wanted) and not self._state.stopping:
            reason = f"{free / 2**20:.0f} MiB are free on the disk of {folder}; {max(keep, self._room_wanted) / 2**20:.0f} MiB are needed"
            if not self._state.paused:
                self._loop.record(("run.paused", {"by": "engine", "reason": reason}))
            self._loop.phase("paused", self._state.paused_reason or reason)
            self._loop.woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._loop.woken.wait(), ROOM_SECONDS)
                # A person says that it should be tried.
                self._room_wanted = 0
        self._room_wanted = 0
        if self._state.paused and self._state.paused_by == "engine":
            self._loop.record(("run.unpaused", {"by": "engine"}))

    async def out_of_room(self, why: str) -> None:
        """The disk was full: wait until it has more room than it had."""
        self._loop.problem("disk", why)
        self._room_wanted = free_bytes(self._loop.journal.path.parent) + SPARE_BYTES
        await self.have_room()
        if self._state.stopping:
            raise Ended("stopped", "stopped by a person")

    async def evaluate(self, model: ModelObject, split: str, name: str) -> None:
        """Have a model's scores on a split: from the store, or by a step of their own. Raises Ended when it fails, Lost."""
        loop = self._loop
        known = all(split in self._state.scores.get(model.id, {}).get(task, {}) for task in loop.workspace.tasks)
        for _ in range(TRIES):
            if loop.scoring.complete(model.digest, split):
                break
            known = False
            await self.restore([model.id])
            loop.phase("evaluating", f"{model.id} on {split}")
            outcome = await loop.step(name, loop.requests.evaluation(name, model, split, self._state.pool))
            if self._state.stopping and outcome["status"] != "ok":
                raise Ended("stopped", "stopped by a person")
            if outcome["status"] != "ok":
                await self._not_evaluated(model.id, outcome["error"])
        if not known:
            loop.record(*loop.scoring.facts(model, split))

    async def _not_evaluated(self, name: str, error: dict[str, Any]) -> None:
        """Wait for what can pass; raises Ended for what can't."""
        if error["class"] == "disk":
            await self.out_of_room(f"{name} could not be evaluated: {error['message']}")
        elif error["class"] == "changed":
            raise Ended("failed", await self.what_changed(error["message"]))
        elif error["class"] != "damaged":
            raise Ended("failed", f"{name} could not be evaluated: {error['message']}")

    def may_come_again(self, number: int, kind: str) -> bool:
        """Whether a trial that failed of this does not count: its action is not to blame. Damage twice in a row does: it would go on for ever."""
        before = self._state.trials.get(number - 1)
        is_first = before is None or (before.error or {}).get("class") != "damaged"
        return kind in ("disk", "changed") or (kind == "damaged" and is_first)

    async def has_result(self, action: Action) -> bool:
        """Whether an action's result is in the store and undamaged: what is damaged is put aside and made again by its step."""
        if not self._loop.is_done(action):
            return False
        wrong = await asyncio.to_thread(self._loop.store.problem, action.digest)
        if wrong:
            told = f"the result of {action.type} is damaged in the store: {', '.join(wrong)}; it is made again"
            self._loop.problem("store", told)
        return not wrong

    async def restore(self, names: Iterable[str]) -> None:
        """See to it that the store has what these objects consist of: what is damaged is put aside and made again. Raises Lost."""
        names = list(names)
        wrong = await asyncio.to_thread(damaged, self._loop.store, [self._state.pool.items[name] for name in names])
        for digest, files in wrong.items():
            trial = maker(self._state, digest)
            if trial is None:
                raise self._lost(names[0], f"the store has lost {digest[:12]}, and no trial of this run made it")
            made = trial.model or trial.dataset or ""
            told = (
                f"{made} (trial {trial.number}) is damaged in the store: {', '.join(files)}"
                if files
                else f"{made} is not in the store"
            )
            self._loop.problem("store", f"{told}; it is made again")
            try:
                await self.restore(inputs_of(trial))
            except Lost as lost:
                raise self._lost(made, str(lost)) from lost
            before = self._content(digest)
            await self._remake(trial, made)
            if before and before != self._content(digest):
                self._loop.problem(
                    "store", f"{made} was made again and is not the same to the bit: its scores are those of the lost one"
                )

    async def _remake(self, trial: Trial, made: str) -> None:
        """Do a trial's action again. Raises Lost when that can't be done; a full disk is waited for, a changed input ends the run."""
        name = f"remake-{trial.number}"
        for _ in range(TRIES):
            outcome = await self._loop.step(name, self._loop.requests.remake(name, trial, self._state))
            if outcome["status"] == "ok":
                return
            if self._state.stopping:
                raise Ended("stopped", "stopped by a person")
            error = outcome["error"]
            told = f"trial {trial.number} could not make {made} again: {error['message']}"
            if error["class"] == "changed":
                raise Ended("failed", await self.what_changed(told))
            if error["class"] != "disk":
                raise self._lost(made, told)
            await self.out_of_room(told)

    def _content(self, digest: str) -> dict[str, Any]:
        """Weights or rows of an object, by their hashes; nothing where it has no readable manifest."""
        try:
            files = self._loop.store.manifest(digest)["files"]
        except (OSError, ValueError):
            return {}
        return {name: entry["blake2b"] for name, entry in files.items() if name.endswith((".safetensors", ".jsonl"))}

    def _lost(self, name: str, reason: str) -> Lost:
        if name not in self._state.lost:
            self._loop.record(("object.lost", {"id": name, "reason": reason}))
            self._loop.problem("store", f"{name} is lost: {reason}")
        return Lost(name, reason)

    async def what_changed(self, message: str) -> str:
        """The step's words, with since when and the ways on where an input can be named."""
        try:
            opened = await asyncio.to_thread(open_workspace, self._loop.workspace.profile)
            check_promises(opened, self._state)
        except LamdatuiError as error:
            return f"{error.what} ({error.where}); {error.fix}"
        return f"{message}; restore it as it was, or start another run"
