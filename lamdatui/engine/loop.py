"""The loop: enumerate → select → decide → execute → evaluate → remember, from wherever the journal says it stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from lamdatui.base.clock import Clock
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.jsonio import Damaged
from lamdatui.domain.actions import Action, ActionType, BoundType, action_from_json
from lamdatui.domain.budget import baselines_share, ledgers, replicates_share, seconds_left
from lamdatui.domain.choice import PolicyError, Proposal, View
from lamdatui.domain.objects import ModelObject, ObjectPool, object_to_json
from lamdatui.domain.records import Queued
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.approval import Approvals, Decision
from lamdatui.engine.attempts import Attempts
from lamdatui.engine.baselines import Baselines
from lamdatui.engine.candidates import OPENING, TOO_LONG, enumerate_all, opening
from lamdatui.engine.closing import Closing, ending, lost
from lamdatui.engine.forecasts import Forecasts
from lamdatui.engine.integrity import Fact, Lost, inputs_of, opening_facts
from lamdatui.engine.layouts import Layouts
from lamdatui.engine.machine import Machine
from lamdatui.engine.orders import OWN, waiting
from lamdatui.engine.promotion import promoted_step
from lamdatui.engine.proposals import proposal_json
from lamdatui.engine.replicates import Replicates
from lamdatui.engine.requests import Requests
from lamdatui.engine.scoring import Scoring
from lamdatui.engine.selection import Selection
from lamdatui.engine.steps import SUSPENDED, Slots, StepOutcome, StepRunner
from lamdatui.engine.upkeep import SearchEnded, Upkeep
from lamdatui.engine.views import Candidates, view_of
from lamdatui.engine.watch import OUT_OF_TIME
from lamdatui.inputs.workspace import Workspace
from lamdatui.step.request import StepRequest, result_object
from lamdatui.store.artifacts import Store
from lamdatui.store.journal import Journal


class Loop:
    """One run. All state is in the journal; this object may be thrown away and made again at any moment."""

    def __init__(
        self,
        workspace: Workspace,
        journal: Journal,
        store: Store,
        runner: StepRunner,
        slots: Slots,
        selection: Selection,
        machine: Machine,
        clock: Clock,
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self.workspace = workspace
        self.journal = journal
        self.store = store
        self.runner = runner
        self.slots = slots
        self.selection = selection
        self.machine = machine
        self.clock = clock
        self.publish = publish
        self.approvals = Approvals(workspace.types, machine)
        aim = workspace.profile.objective
        self.scoring = Scoring(
            workspace.tasks, aim.weights, store, machine.dtype, journal.state.scheme, machine.generator, aim.keep
        )
        self.requests = Requests(workspace, store, self.scoring, machine)
        self.forecasts = Forecasts()
        self.woken = asyncio.Event()
        self.upkeep = Upkeep(self)
        self.attempts = Attempts(self)
        self.baselines = Baselines(self)
        self.replicates = Replicates(self)
        self._chosen: tuple[int, View, Proposal] | None = None

    @property
    def state(self) -> RunState:
        """What the journal adds up to."""
        return self.journal.state

    @property
    def base(self) -> ModelObject:
        """The profile's first model: what gains are measured against."""
        return self.state.pool.model(next(iter(self.workspace.models)))

    def record(self, *facts: Fact) -> None:
        """Commit facts, then tell whoever watches."""
        for event in self.journal.append(*facts):
            self.publish({"type": "event", "event": event.to_json()})

    def phase(self, phase: str, detail: str = "") -> None:
        """Say what the engine is doing now."""
        if (self.state.phase, self.state.phase_detail) != (phase, detail):
            self.record(("phase.changed", {"phase": phase, "detail": detail}))

    def problem(self, where: str, message: str) -> None:
        """A failure that the run survives, made visible."""
        self.record(("problem.noted", {"where": where, "message": message[:1000]}))

    # --- the run -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Search until a budget or a person ends it, then report the winner on the sealed split. May be called again after `resume`."""
        while True:
            try:
                if self.state.searched is None:
                    await self._bases()
                while self.state.searched is None:
                    await self._may_go_on()
                    trial = self.state.open_trial or self._open()
                    await self._turn(trial)
            except SearchEnded as end:
                if not await self._finish(end):
                    continue
            if self.state.searched is None or await self._compared(self.state.searched):
                return

    def resume(self, trials: int) -> None:
        """Let an ended run have that many trials more: the search goes on when `run` is called."""
        self.runner.stop_requested = False
        self.record(("run.resumed", {"max_trials": self.state.counted + trials}))

    async def unpaused(self) -> None:
        """Wait while the run is paused. Raises SearchEnded when it is to stop."""
        while self.state.paused and not self.state.stopping:
            self.phase("paused", self.state.paused_reason)
            self.woken.clear()
            await self.woken.wait()
        if self.state.stopping:
            raise SearchEnded("stopped", "stopped by a person")

    async def _may_go_on(self) -> None:
        if self.state.open_trial is None:
            await self.upkeep.have_room()
        if self.state.finishing:
            raise SearchEnded("done", self.state.finishing["reason"])
        await self.unpaused()
        if self.state.open_trial is not None:
            return
        await self.upkeep.keep_within()
        for ledger in ledgers(self.state, self.now()):
            if ledger.is_spent:
                raise SearchEnded(
                    "done", ledger.limit_text(), trials=self.state.max_trials if ledger.name == "trials" else None
                )

    def now(self) -> float:
        """On the clock that work is counted on."""
        return self.clock.mono() if self.state.meter == "mono" else self.clock.wall()

    def _open(self) -> Trial:
        number = max(self.state.trials, default=0) + 1
        self.record(("trial.opened", {"number": number}))
        return self.state.trials[number]

    async def _bases(self) -> None:
        if facts := opening_facts(self.workspace, self.state):
            self.record(*facts)
        for model in self.workspace.models.values():
            await self.upkeep.evaluate(model, "search", f"base-{model.id}")

    async def step(self, name: str, request: StepRequest, pool: ObjectPool | None = None) -> StepOutcome:
        """Have a step done on the next free device; its outcome. `pool`: of what it works with, where that is not the run's."""
        async with self.slots.hold() as device:
            self.forecasts.warm(len(self.state.trials))
            request["device"] = device
            return await self.attempts.outcome(name, request, pool)

    # --- one trial -----------------------------------------------------------------------------------------------

    async def _turn(self, trial: Trial) -> None:
        number = trial.number
        if trial.status == "proposing":
            self.phase("planning", f"trial {number}")
            await self._propose(number)
        trial = self.state.trials[number]
        if trial.status == "awaiting" and trial.decision is None:
            await self._decide(number)
        elif trial.status == "awaiting" and trial.decision and trial.action:
            # Decided against, then the engine died before it could close the trial: nobody is asked twice.
            told = trial.decision
            self._close_undone(number, Decision(told["verdict"], told["by"], told["reason"], action_from_json(trial.action)))
        if self.state.trials[number].status in ("approved", "running"):
            await self._execute(number)

    def view(self, number: int = 0, candidates: Candidates = MappingProxyType({})) -> View:
        """What policies see before trial `number` (0: of all trials so far)."""
        return view_of(self.state, self.workspace, self.machine, self.scoring.objectives(self.state), number, candidates)

    async def _propose(self, number: int) -> None:
        began = self.clock.mono()
        while True:
            queued = self._queued()
            if queued is None:
                view, proposal, fallback = await self._choose(number)
            else:
                view, fallback = self.view(number), None
                proposal = Proposal(queued[1], queued[0]["note"] or OWN, queued[0]["by"])
            proposal = await self.forecasts.complete(view, proposal)
            if queued is None or queued[0]["id"] in self.state.queue:
                break  # else it was withdrawn at the last moment
        seconds = self.clock.mono() - began
        fault("loop.before-propose")
        bound = self._bound(proposal.action)
        told = proposal_json(number, proposal, bound, self.state, self.machine, fallback=fallback, seconds=seconds)
        told["queued"] = queued[0]["id"] if queued else None
        self.record(("trial.proposed", {"number": number, "proposal": told}))
        fault("loop.after-propose")

    def _queued(self) -> tuple[Queued, Action] | None:
        """What a person wants next, if it can still be run; what can't be is withdrawn, and the reason told."""
        for item in list(self.state.queue.values()):
            try:
                return item, waiting(self.workspace.types, item, self.state, self.machine)
            except Exception as error:  # noqa: BLE001 (a type's own check may be anybody's code)
                why = error.what if isinstance(error, LamdatuiError) else f"{type(error).__name__}: {error}"
                message = f"{action_from_json(item['action']).describe()} can't be run any more: {why}"[:1000]
                withdrawn = {"id": item["id"], "by": "engine"}
                self.record(("problem.noted", {"where": "queue", "message": message}), ("action.withdrawn", withdrawn))
        return None

    async def _choose(self, number: int) -> tuple[View, Proposal, str | None]:
        """The opening's next action or the policy's, with what it was chosen from and why a fallback had to choose."""
        opens = self.workspace.profile.policy.opening
        objectives = self.scoring.objectives(self.state)
        first = opening(self.workspace.types, self.state, self.machine, objectives) if opens else None
        if first is not None:
            reason = f"the opening tries each kind of action and data once, at defaults; this is {first.action.describe()}"
            return self.view(number), Proposal(first.action, reason, OPENING), None
        if longer := promoted_step(self.state, objectives, self.workspace.types, self.machine, self.now()):
            return self.view(number), longer, None
        candidates, counts = enumerate_all(self.workspace.types, self.state, self.machine, number)
        self.record(("candidates.listed", {"number": number, "types": counts}))
        if not candidates:
            return await self._nothing_left(number, counts)
        view = self.view(number, candidates)
        proposal, fallback = await self._select(number, view)
        self._chosen = (number, view, proposal)
        return view, proposal, fallback

    async def _nothing_left(self, number: int, counts: Mapping[str, Any]) -> tuple[View, Proposal, str | None]:
        """No action can be proposed: for want of disk space the run waits for some, otherwise it ends, and says of what."""
        refused = Counter[str]()
        for kind, count in counts.items():
            refused.update({f"{kind}: {reason}": times for reason, times in count["refused"].items()})
        lacking = [reason for reason in refused if "free on the disk" in reason]
        if lacking:
            await self.upkeep.out_of_room(f"no action fits on the disk: {lacking[0]}")
            return await self._choose(number)
        if any(reason.endswith(TOO_LONG) for reason in refused):
            left = seconds_left(self.state, self.now())
            limit = next(one.limit_text() for one in ledgers(self.state) if one.unit == "s" and one.limit is not None)
            raise SearchEnded("done", f"{limit}: nothing that is left to try fits into the {left:.0f} s that are left")
        told = "; ".join(reason for reason, _ in refused.most_common(3) if not reason.endswith(": tried already"))
        why = "no legal action is left that was not tried" + (f" ({told})" if told else "")
        # Where nothing was ever possible, the search has not been done.
        raise SearchEnded("done" if self.state.counted > 1 else "refused", why)

    def _bound(self, action: Action) -> BoundType:
        return self.workspace.types[action.type]

    async def _select(self, number: int, view: View) -> tuple[Proposal, str | None]:
        """The policy's choice; when it can't, the fallback's, and why."""
        try:
            return await self.selection.select(view)
        except PolicyError as error:
            raise SearchEnded("done" if error.over else "failed", str(error)) from error
        finally:
            self._take_calls(number)

    def _take_calls(self, number: int) -> None:
        for call in self.selection.take_calls():
            data = {"number": number, "call": call.call, "answer": call.answer[:4000], "tokens": call.tokens}
            self.record(("planner.answered", {**data, "seconds": round(call.seconds, 3)}))

    async def _shadows(self, number: int) -> None:
        """Note what the other policies would have done; the step runs meanwhile, so it costs no time of the run."""
        if self._chosen is None or self._chosen[0] != number:
            return
        _, view, proposal = self._chosen
        self._chosen = None
        found = await self.selection.shadows(view, proposal)
        self.record(("shadows.recorded", {"number": number, "shadows": found}))

    async def _decide(self, number: int) -> None:
        trial = self.state.trials[number]
        assert trial.proposal is not None
        action = action_from_json(trial.proposal["action"])
        proposal = Proposal(action, trial.reason, trial.proposed_by)
        if self.state.stopping:
            decision = Decision("stop", "stop", "", action)
        else:
            decision = self.approvals.standing(self.state, proposal, trial.proposal["estimate"]["seconds"])
        if decision is None:
            self.phase("waiting", f"trial {number}: {action.type} awaits a decision")
            decision = await self.approvals.ask(number, proposal)
        if self.state.trials[number].decision is None:
            self._decided(number, decision)
        if decision.verdict not in ("approve", "edit"):
            self._close_undone(number, decision)

    def decide(self, args: dict[str, Any], by: str) -> str:
        """Take a person's decision, on record when this returns; the verdict. Raises LamdatuiError when it can't be taken."""
        number, decision = self.approvals.read(self.state, args, by)
        self._decided(number, decision)
        self.approvals.answer(decision)
        return decision.verdict

    def _decided(self, number: int, decision: Decision) -> None:
        data = {
            "number": number,
            "verdict": decision.verdict,
            "by": decision.by,
            "reason": decision.reason,
            "action": decision.action.to_json(),
        }
        fault("loop.before-decide")
        self.record(("trial.decided", data), *self.approvals.consequences(self.state, number, decision))
        fault("loop.after-decide")

    def _close_undone(self, number: int, decision: Decision) -> None:
        status = {"veto": "vetoed", "skip": "skipped", "stop": "stopped", "rejected": "rejected"}[decision.verdict]
        self._close(number, Closing(status))
        if decision.verdict == "stop":
            raise SearchEnded("stopped", "stopped by a person")
        if decision.by == "nobody":
            raise SearchEnded("refused", "a decision was needed and no approver is attached")

    def is_done(self, action: Action) -> bool:
        """Whether the store has the result of an action, with its scores where it makes a model."""
        scored = self._bound(action).type.output == "model"
        found = self.store.find(action.digest) is not None
        return found and (not scored or self.scoring.complete(action.digest, "search"))

    async def _execute(self, number: int) -> None:
        trial = self.state.trials[number]
        assert trial.action is not None
        bound = self.workspace.types[trial.action["type"]]
        cached, seconds = True, {"execute": 0.0, "evaluate": 0.0}
        if trial.status == "running" or not await self.upkeep.has_result(action_from_json(trial.action)):
            self.phase("running", f"trial {number}: {trial.action['type']}")
            call = self.machine.call(bound, trial.action["inputs"], trial.action["params"], self.state.pool)
            await self.make_room(self.machine.estimate(bound, call).memory_bytes)
            try:
                await self.upkeep.restore(inputs_of(trial))
            except Lost as reason:
                self._close(number, lost(reason))
                return
            await self._room_on_disk(trial, bound)
            request = self.requests.trial(trial, self.state)
            outcome, _ = await asyncio.gather(self.step(str(number), request), self._shadows(number))
            if outcome["status"] != "ok":
                await self._failed(number, outcome)
                return
            # What an attempt before this one published is this run's work all the same.
            cached = outcome["cached"] and not self.runner.began_before(str(number))
            seconds = outcome["seconds"]
            Layouts(self.machine, self.workspace.types, self.state.pool).measured(request, outcome)
        else:
            await self._shadows(number)
        try:
            await self._score(number, bound.type, cached, seconds)
        except Lost as reason:
            self._close(number, lost(reason))
        except (Damaged, OSError) as error:
            # Between its publication and now.
            message = f"the result was damaged before it was taken: {error}"
            await self._failed(number, {"status": "failed", "error": {"class": "damaged", "message": message}})

    async def _score(self, number: int, action_type: ActionType, cached: bool, seconds: Mapping[str, float]) -> None:
        """Take a trial's result into the pool with its scores, and close the trial. Raises Lost when its evaluation and it are damaged."""
        action = self.state.trials[number].action
        assert action is not None
        digest = action["digest"]
        result = result_object(self.state, number, action_type, self.store.manifest(digest))
        fault("loop.before-score")
        if isinstance(result, ModelObject) and not self.scoring.complete(digest, "search"):
            # Its evaluation was damaged meanwhile.
            self.record(("object.added", {"object": object_to_json(result)}))
            await self.upkeep.evaluate(result, "search", f"search-{result.id}")
        scores = self.scoring.facts(result, "search", self.base.digest) if isinstance(result, ModelObject) else []
        self.record(("object.added", {"object": object_to_json(result)}), *scores)
        closing = Closing("done", dataset=result.id, cached=cached, seconds=seconds)
        if isinstance(result, ModelObject):
            await self.upkeep.evaluate(self.base, "search", f"base-{self.base.id}")
            closing = replace(
                closing,
                model=result.id,
                dataset=None,
                scores=self.state.scores[result.id],
                objective=self.scoring.objective(self.state, result.id),
                gain=self.scoring.gain(result.digest, self.base.digest, "search"),
            )
        await self._remember(number, closing)

    async def _failed(self, number: int, outcome: StepOutcome) -> None:
        """A trial's step has failed. What is no fault of the action does not count: the trial may come again."""
        error = outcome["error"]
        stopped = (self.state.stopping and error["class"] in ("killed", SUSPENDED)) or error["class"] == OUT_OF_TIME
        again = self.upkeep.may_come_again(number, error["class"])
        status = "stopped" if stopped or again else "failed"
        self._close(number, Closing(status, error=error, seconds=outcome.get("seconds", {})))
        if error["class"] == "changed":
            raise SearchEnded("failed", await self.upkeep.what_changed(error["message"]))
        if error["class"] == "disk":
            await self.upkeep.out_of_room(f"trial {number}: {error['message']}")

    async def make_room(self, needed: int | None) -> None:
        """Let the planner give memory back where a step that needs so many bytes would not fit beside it."""
        try:
            await self.selection.policy.make_room(needed, self.machine.memory_bytes, self.machine.device)
        except LamdatuiError as error:
            self.problem("planner", f"it could not be put to sleep: {error.what}")

    async def _room_on_disk(self, trial: Trial, bound: BoundType) -> None:
        """Let weights go that are easily made again, where the result would not fit beside them within `disk_gib`."""
        assert trial.action is not None
        call = self.machine.call(bound, trial.action["inputs"], trial.action["params"], self.state.pool)
        await self.upkeep.keep_within(self.machine.estimate(bound, call).disk_bytes or 0, inputs_of(trial))

    async def _remember(self, number: int, closing: Closing) -> None:
        """Let the policy learn from a trial that is done, and close it."""
        self.phase("remembering", f"trial {number}")
        began = self.clock.mono()
        result = {name: getattr(closing, name) for name in ("status", "model", "dataset", "scores", "objective", "gain")}
        facts = await self._observe(number, replace(self.state.trials[number], **result))
        self._close(number, replace(closing, remembering=self.clock.mono() - began), *facts)

    async def _observe(self, number: int, trial: Trial) -> list[Fact]:
        view = self.view(number)
        try:
            outcome = await self.selection.observe(view, trial)
        except PolicyError as error:
            self.problem("planner", f"memory was not updated: {error}")
            return []
        finally:
            self._take_calls(number)
        return [("memory.updated", {"text": outcome.memory, "by": outcome.by})] if outcome.memory is not None else []

    def _close(self, number: int, closing: Closing, *facts: Fact) -> None:
        fault("loop.before-close")
        self.record(*facts, ("trial.closed", closing.to_json(self.state.trials[number], self.clock.mono())))
        fault("loop.after-close")

    # --- the end -------------------------------------------------------------------------------------------------

    async def _finish(self, end: SearchEnded) -> bool:
        """Choose and report the winner; False when more trials were asked for meanwhile: then the search has not ended."""
        await self.runner.settle()
        open_trial = self.state.open_trial
        if open_trial is not None and open_trial.status != "running":
            self._close(open_trial.number, Closing("stopped"))
        ended = await ending(end, self.state, self.base, self.scoring, self.upkeep)
        more = end.trials is not None and end.trials < self.state.max_trials
        if more and ended["status"] == "done" and not self.state.stopping:
            return False
        is_found = ended["status"] == "done" and ended["winner"]
        if self.state.finishing and not is_found:
            # What it had found stands.
            self.record(("run.ended", self.state.finishing))
            return True
        compares = is_found and (self.state.finishing or baselines_share(self.state) or replicates_share(self.state))
        self.record(("search.ended" if compares else "run.ended", ended))
        return True

    async def _compared(self, searched: Mapping[str, Any]) -> bool:
        """Make baselines and replicates, and end the run; False when more trials were asked for meanwhile."""

        def more() -> bool:
            return self.state.max_trials > searched["trials"] and not self.state.stopping

        if self.state.finishing or baselines_share(self.state):
            await self.baselines.make(lambda: not more())
        if self.state.finishing or replicates_share(self.state):
            await self.replicates.make(lambda: not more())
        await self.runner.settle()
        if more():
            self.record(("run.resumed", {"max_trials": self.state.max_trials}))
            return False
        how = self.state.finishing or searched
        found = {name: getattr(self.state, name) for name in ("winner", "beats_base", "gain")}
        self.record(("run.ended", {"status": how["status"], "reason": how["reason"], **found}))
        return True
