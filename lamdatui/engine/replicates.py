"""Replicates: after a search, its best pipelines again with other seeds (`lamdatui.domain.replicates` says which and why)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lamdatui.domain import replicates
from lamdatui.domain.actions import action_from_json
from lamdatui.domain.budget import evaluation_seconds, pipeline_seconds, sealed_seconds
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject, ObjectPool
from lamdatui.domain.records import ActionRecord, Replicate, ReplicatesRecord
from lamdatui.domain.replicates import SEEDS
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import REPLICATE
from lamdatui.engine.aside import Aside, Missing, Run, reason_of
from lamdatui.engine.judging import Known

SPLITS = ("search", "sealed")


class Replicates:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._aside = Aside(run, REPLICATE, lambda: replicates.seconds_left(run.state, run.now()))

    @property
    def _state(self) -> RunState:
        return self._run.state

    async def make(self, goes_on: Callable[[], bool]) -> None:
        """Do the best pipelines again as often as fits into the run's time; each result, or why there is none, is put on record.
        `goes_on` is asked before each."""
        finalists = list(replicates.finalists(self._state, self._run.scoring.objectives(self._state)))
        done: dict[str, tuple[int, int]] = {}
        """Digest of what was made on the way → the trial that it repeats, and the shift of its seed."""

        for model in finalists:
            try:
                while len(self._made(model)) < SEEDS - 1 and goes_on():
                    await self._again(model, done)
                    # Not before it is on record, and not what another one needs, if only later: whatever ends an engine, nothing is trained twice.
                    needed = set(self._needed(finalists))
                    await self._aside.drop({digest for digest, made in done.items() if made not in needed})
            except Exception as error:  # noqa: BLE001 (`reason_of` says why)
                reason = reason_of(error)
                self._run.record(("replicates.missing", {"model": model, "reason": reason}))

    def _needed(self, finalists: list[str]) -> Iterator[tuple[int, int]]:
        """Trials with shifts of their seeds that are still to be done again for these models."""
        for model in finalists:
            for shift in range(len(self._made(model)) + 1, SEEDS):
                yield from ((trial.number, shift) for trial in lineage(self._state, model))

    def _made(self, model: str) -> list[Replicate]:
        found = self._state.replicates.get(model)
        return found["made"] if found else []

    async def _again(self, name: str, done: dict[str, tuple[int, int]]) -> None:
        """One more seed of a model's pipeline; `done` gets what it makes. Raises Missing."""
        run, state = self._run, self._state
        shift = len(self._made(name)) + 1
        scoring = evaluation_seconds(state) + sealed_seconds(state)
        self._aside.fits(pipeline_seconds(state, name) + scoring)
        run.phase("comparing", f"{name} with other seeds: {shift + 1} of {SEEDS}")
        pool = ObjectPool(dict(state.pool.items))
        actions: list[ActionRecord] = []
        known = Known.of(state, run.machine)
        again: dict[str, str] = {}
        """Object of the lineage → what stands for it now."""
        for trial in lineage(state, name):
            old = action_from_json(trial.action or {})
            if (bound := run.workspace.types.get(old.type)) is None:
                raise Missing(f"the profile does not offer {old.type} any more")
            inputs = {slot: tuple(again.get(each, each) for each in ids) for slot, ids in old.inputs.items()}
            action = known.action(bound, inputs, old.params, pool, seed=old.seed + shift, dtype=run.machine.dtype).to_json()
            made = trial.model or trial.dataset or ""
            again[made] = f"{made}-seed{shift + 1}"
            actions.append(action)
            done[action["digest"]] = trial.number, shift
            pool.add(await self._aside.done(bound, action, pool, again[made], score=made == name))
        model = pool.model(again[name])
        for split in SPLITS:
            await self._aside.scored(model, split, run.scoring, f"{model.id}-{split}", pool)
            await run.upkeep.evaluate(state.pool.model(name), split, f"{split}-{name}")
        run.record(("replicates.recorded", {"model": name, "replicates": self._told(name, model, shift, actions)}))

    def _told(self, name: str, model: ModelObject, shift: int, actions: list[ActionRecord]) -> ReplicatesRecord:
        scoring = self._run.scoring
        scores, keys = scoring.by_task(model.digest, SPLITS)
        one: Replicate = {"shift": shift, "digest": model.digest, "actions": actions, "scores": scores, "keys": keys}
        made = [*self._made(name), one]
        digests = [self._state.pool.model(name).digest, *(each["digest"] for each in made)]
        search, sealed = (scoring.over_seeds(digests, self._run.base.digest, split) for split in SPLITS)
        return {"made": made, "gain": {"search": search, "sealed": sealed}}
