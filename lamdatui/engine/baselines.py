"""Baselines: after a search, what its winner is compared with on the sealed rows (`lamdatui.domain.baselines` says which)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.config.resources import load_registry
from lamdatui.domain import baselines
from lamdatui.domain.actions import BoundType, Call
from lamdatui.domain.baselines import ALL_ROWS, SFT_ALL
from lamdatui.domain.budget import evaluation_seconds, few_shot_seconds, sealed_seconds
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool, object_to_json
from lamdatui.domain.records import ActionRecord, BaselinePlan, Value
from lamdatui.domain.state import RunState
from lamdatui.domain.training import in_steps
from lamdatui.engine.aside import Aside, Missing, Run, reason_of
from lamdatui.engine.judging import Known
from lamdatui.engine.scoring import Scoring
from lamdatui.inputs.datafiles import read_noted
from lamdatui.inputs.fewshot import examples

LEAST = 0.25
"""Where there is no time to train for as long as the search has, it may be so much of that; it is told then."""
NEARLY = 0.95
"""Steps are whole, and rounded."""
WHOLE: dict[str, Value] = {"epochs": 0.0, "replay_fraction": 0.0, "data_fraction": 1.0, "holdout": 0.0}
"""What a profile may say of `sft` that a plain one does not do."""
SHOWN = 3
"""As many datasets, the first ones, are tried as a source of examples."""
SFT, CONCAT = "sft", "concat"


@dataclass(frozen=True)
class Found:
    """A model that a baseline is, what scored it, and what is told of it."""

    model: ModelObject
    what: str
    scoring: Scoring
    more: Mapping[str, Any] = field(default_factory=dict)
    spare: frozenset[str] = frozenset()
    """Digests of what was made for it and is not needed once it is on record."""


class Baselines:
    """Of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._goes_on: Callable[[], bool] = lambda: True
        self._aside = Aside(run, baselines.PURPOSE, lambda: baselines.seconds_left(run.state, run.now()))

    @property
    def _state(self) -> RunState:
        return self._run.state

    async def make(self, goes_on: Callable[[], bool]) -> None:
        """Make those that the run does not have and that fit into its time, those of the search first, which are only scored; each, or why it is missing, is put
        on record. `goes_on` is asked before each, and before each training."""
        self._goes_on = goes_on
        makers: dict[str, Callable[[], Awaitable[Found]]] = {
            "best_single_step": lambda: self._of_run(baselines.best_single_step, "no trial trained the base itself"),
            "best_merge": lambda: self._of_run(baselines.best_merge, "no trial merged models"),
            "sft_all": self._sft_all,
            "few_shot": self._few_shot,
        }
        for name, maker in makers.items():
            known = self._state.baselines.get(name)
            if (known and not (self._state.finishing and baselines.is_partial(known))) or not goes_on():
                continue
            self._run.phase("comparing", f"{self._state.winner} with {name}")
            try:
                await self._sealed()
                found = await maker()
                told = self._told(found)
            except Exception as error:  # noqa: BLE001 (`reason_of` says why)
                reason = reason_of(error)
                self._run.record(("baseline.missing", {"name": name, "reason": reason}))
            else:
                self._run.record(("baseline.recorded", {"name": name, "baseline": told}))
                # Not before: another engine would have to make it again.
                await self._aside.drop(found.spare)

    async def _sealed(self) -> None:
        """See to it that the base and the winner have their sealed scores: they had them when the search ended."""
        winner = self._state.winner
        for model in (self._run.base, *([self._state.pool.model(winner)] if winner else [])):
            await self._run.upkeep.evaluate(model, "sealed", f"sealed-{model.id}")

    # --- the models ----------------------------------------------------------------------------------------------

    async def _of_run(self, pick: Callable[[RunState, Mapping[str, float]], str | None], none: str) -> Found:
        """A model that the search has made."""
        run = self._run
        name = pick(self._state, run.scoring.objectives(self._state))
        if name is None:
            raise Missing(none)
        model = self._state.pool.model(name)
        if not run.scoring.complete(model.digest, "sealed"):
            self._aside.fits(sealed_seconds(self._state))
            await run.unpaused()
        await run.upkeep.evaluate(model, "sealed", f"sealed-{name}")
        return Found(model, f"{name} of this run", run.scoring)

    async def _few_shot(self) -> Found:
        """The base, asked after examples of the dataset that helps most on the search rows, for each task."""
        run, base = self._run, self._run.base
        if all("plain" in (row.get("asking") or {}) for task in run.workspace.tasks.values() for row in task.rows["search"]):
            raise Missing("the benchmarks bring examples of their own")
        best: dict[str, tuple[float, str]] = {}
        shown: dict[str, tuple[dict[str, Any], ...]] = {}
        why = "the rows of the datasets are too long to stand in a prompt"
        for data in self._datasets()[:SHOWN]:
            try:
                messages = await asyncio.to_thread(self._examples, data)
                if not messages:
                    continue
                scoring = run.scoring.with_examples(dict.fromkeys(run.workspace.tasks, messages))
                if not scoring.complete(base.digest, "search"):
                    self._aside.fits(few_shot_seconds(self._state))
                await self._aside.scored(base, "search", scoring, f"few-shot-{data.id}")
            except (Missing, LamdatuiError) as error:
                why = str(error)
                continue
            shown[data.id] = messages
            for task, score in scoring.scores(base.digest, "search").items():
                if task not in best or score["mean"] > best[task][0]:
                    best[task] = score["mean"], data.id
        if not best:
            raise Missing(why)
        chosen = {task: data for task, (_, data) in best.items()}
        scoring = run.scoring.with_examples({task: shown[data] for task, data in chosen.items()})
        await self._aside.scored(base, "sealed", scoring, "few-shot-sealed")
        what = f"{base.id} after examples of {' and '.join(dict.fromkeys(chosen.values()))}"
        return Found(base, what, scoring, {"examples": chosen})

    async def _sft_all(self) -> Found:
        """One fine-tuning of the base that trains for as long as the search has: the best, by the search rows, of what there is time for."""
        run, state = self._run, self._state
        bound = run.workspace.types.get(SFT)
        if (
            bound is None
            or bound.type.output != "model"
            or not {"minutes", "max_steps", "learning_rate"} <= bound.defaults().keys()
        ):
            raise Missing("the profile does not offer the action sft")
        datasets = self._datasets()
        pool = ObjectPool(dict(state.pool.items))
        try:
            every = await self._all_rows(datasets, pool)
        except (Missing, LamdatuiError) as error:
            run.problem("baselines", f"the rows of all datasets can't be one: {error}")
            every = datasets[0].id
        if SFT_ALL not in state.planned:
            plan = self._planned(bound, list(dict.fromkeys([every, datasets[0].id])), pool)
            run.record(("baseline.planned", {"name": SFT_ALL, "plan": plan}))
        plan = state.planned[SFT_ALL]
        found: list[tuple[float, Found]] = []
        why, known = "", 0
        for number, action in enumerate(plan["actions"], start=1):
            told = f"{action['inputs']['dataset'][0]} at {action['params']['learning_rate']:g}"
            is_scored, is_kept = run.scoring.complete(action["digest"], "search"), run.store.find(action["digest"]) is not None
            is_there = is_scored and is_kept
            if is_scored and not is_kept and SFT_ALL in state.baselines:
                known += 1  # worse than the one that was kept
                continue
            if found and not is_there and self._aside.left() < self._training_seconds() + self._rest():
                break
            if not self._goes_on():
                raise Missing("the search goes on first")
            run.phase("comparing", f"{state.winner} with {SFT_ALL}: {number} of {len(plan['actions'])}, {told}")
            try:
                found.append(await self._trained(bound, action, pool))
            except Missing as error:
                why = why or str(error)
        if not found:
            raise Missing(why)
        best = max(found, key=lambda one: one[0])[1]
        await self._aside.scored(best.model, "sealed", run.scoring, f"{SFT_ALL}-sealed")
        spare = frozenset(other.model.digest for _, other in found) - {best.model.digest}
        more = {
            "tried": len(found) + known,
            "of": len(plan["actions"]),
            "length": plan["length"],
            "object": object_to_json(best.model),
        }
        return Found(best.model, best.what, run.scoring, {**best.more, **more}, spare)

    async def _all_rows(self, datasets: Sequence[DatasetObject], pool: ObjectPool) -> str:
        """The id of a dataset in `pool` that has the rows of all of these. Raises Missing, LamdatuiError."""
        if len(datasets) == 1:
            return datasets[0].id
        bound = load_registry().get(CONCAT)
        inputs = {"datasets": tuple(data.id for data in datasets)}
        if problems := bound.problems(inputs, {}, pool, self._run.machine.device):
            raise Missing(problems[0])
        known = Known.of(self._state, self._run.machine)
        action = known.action(bound, inputs, {}, pool, seed=self._state.seed, dtype=self._run.machine.dtype).to_json()
        pool.add(await self._done(bound, action, pool, ALL_ROWS))
        return ALL_ROWS

    def _planned(self, bound: BoundType, sources: Sequence[str], pool: ObjectPool) -> BaselinePlan:
        """What is to be trained, each for as many seconds as the search has, or as there are left. Raises Missing."""
        run, state = self._run, self._state
        spent = self._training_seconds()
        if not spent:
            raise Missing("the search has trained nothing")
        seconds = min(spent, self._aside.left() - self._rest())
        if seconds < spent * LEAST:
            self._aside.fits(spent + self._rest())
        known, actions, lengths = Known.of(state, run.machine), [], []
        whole = {name: value for name, value in WHOLE.items() if name in bound.defaults()}
        for rate in learning_rates(bound):
            for data in sources:
                inputs = {"model": (run.base.id,), "dataset": (data,)}
                params: dict[str, Value] = {**bound.defaults(), **whole, "learning_rate": rate, "minutes": seconds / 60}
                if problems := bound.problems(inputs, params, pool, run.machine.device):
                    raise Missing(problems[0])

                def expected(call: Call) -> float | None:
                    return run.machine.estimate(bound, call).seconds

                try:
                    params = in_steps(bound, run.machine.call(bound, inputs, params, pool), expected)
                except ValueError as error:
                    raise Missing(str(error)) from error
                # The limits of max_steps may have cut it.
                lengths.append((expected(run.machine.call(bound, inputs, params, pool)) or 0.0) / spent)
                made = known.action(bound, inputs, params, pool, seed=state.seed, dtype=run.machine.dtype)
                actions.append(made.to_json())
        length = min(lengths)
        return {"actions": actions, "length": 1.0 if length > NEARLY else round(length, 2)}

    async def _trained(self, bound: BoundType, action: ActionRecord, pool: ObjectPool) -> tuple[float, Found]:
        """The base fine-tuned as planned, with its objective on the search rows. Raises Missing."""
        run = self._run
        model = await self._done(bound, action, pool, SFT_ALL)
        data, params = action["inputs"]["dataset"][0], action["params"]
        what = f"sft of {run.base.id} on {data}, {params['max_steps']} steps, learning rate {params['learning_rate']:g}"
        made_of = [pool.dataset(data)] if data == ALL_ROWS else []
        actions = [*(run.store.manifest(item.digest)["action"] for item in made_of), action]
        means = {task: score["mean"] for task, score in run.scoring.scores(action["digest"], "search").items()}
        value = sum(weight * means[task] for task, weight in run.scoring.weights.items())
        return value, Found(model, what, run.scoring, {"actions": actions})

    # --- what there is -------------------------------------------------------------------------------------------

    def _datasets(self) -> list[DatasetObject]:
        """The profile's datasets of questions with answers. Raises Missing."""
        found = [data for data in self._state.pool.datasets if data.trial is None and data.format == SFT]
        if not found:
            raise Missing("the profile has no dataset of questions with answers")
        return found

    async def _done(self, bound: BoundType, action: ActionRecord, pool: ObjectPool, name: str) -> Any:
        """The object that an action makes; the best merge is scored after it. Raises Missing."""
        best = baselines.best_merge(self._state, self._run.scoring.objectives(self._state))
        return await self._aside.done(bound, action, pool, name, keep=[best] if best else [])

    def _examples(self, data: DatasetObject) -> tuple[dict[str, Any], ...]:
        rows = read_noted(Path(data.path), data.digest, columns=dict(data.columns)).rows
        return examples(rows, self._state.seed)

    def _rest(self) -> float:
        """Seconds for scoring what was trained, and for asking after examples."""
        return evaluation_seconds(self._state) + sealed_seconds(self._state) + few_shot_seconds(self._state)

    def _training_seconds(self) -> float:
        return baselines.training_seconds(self._state)

    def _told(self, found: Found) -> dict[str, Any]:
        """The record of a baseline: its scores, its gain over the base, and the winner's over it, on the sealed rows."""
        run, base = self._run, self._run.base
        digest = found.model.digest
        splits = [split for split in ("search", "sealed") if found.scoring.complete(digest, split)]
        scores, keys = found.scoring.by_task(digest, splits)
        told = {
            "model": found.model.id,
            "digest": digest,
            "scores": scores,
            "keys": keys,
            "what": found.what,
            "gain": found.scoring.report(digest, base.digest, "sealed", run.scoring),
            **found.more,
        }
        winner = self._state.winner
        if winner in self._state.pool.items:
            ours = self._state.pool.model(winner).digest
            told["winner_gain"] = run.scoring.gain(ours, digest, "sealed", None, found.scoring)
        return told


def learning_rates(bound: BoundType) -> list[float]:
    """Two of them: the default, and the next larger of the grid, or the next smaller where there is none."""
    param = bound.param("learning_rate")
    usual = float(param.default)
    others = sorted(float(value) for value in param.choices if float(value) != usual)
    near = next((value for value in others if value > usual), others[-1] if others else None)
    return [usual] if near is None else [usual, near]
