"""How a step's work is laid out in the memory that is free when it starts, and what is learned of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lamdatui.domain.actions import BoundType, Call
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.plans import plan_from_json
from lamdatui.engine.machine import Machine
from lamdatui.engine.steps import StepOutcome
from lamdatui.step.request import StepRequest


@dataclass(frozen=True, slots=True)
class Layouts:
    """Of one run's steps."""

    machine: Machine
    types: Mapping[str, BoundType]
    pool: ObjectPool

    def lay_out(self, request: StepRequest, failures: int) -> bool:
        """Choose a request's plan after so many attempts that ran out of memory; whether an attempt after this one would take less."""
        request["small"], request["plan"] = failures > 0, None
        if (work := self._work(request)) is None:
            return failures == 0
        # What a judge takes comes later, and says nothing of the training.
        machine, below, plan = replace(self.machine.now(), judge_bytes=0), None, None
        for _ in range(failures + 1):
            plan, cost = machine.plan(*work, below)
            below = cost.memory_bytes
        if plan is None:
            return failures == 0
        request["plan"] = plan.to_json()
        following = machine.plan(*work, below)[0]
        return following is not None and replace(following, probe=plan.probe) != plan

    def ran_out(self, request: StepRequest, outcome: StepOutcome) -> None:
        """Let this machine's ledger learn from an attempt that ran out of memory."""
        if work := self._work(request):
            bound, call = work
            self.machine.ran_out(bound, replace(call, plan=plan_from_json(outcome.get("plan"))))

    def measured(self, request: StepRequest, outcome: StepOutcome) -> None:
        """Let it learn from a step that did its work, all of it: what went on from a checkpoint or ended early took less time."""
        work = self._work(request)
        if (
            work is None
            or outcome["cached"]
            or outcome.get("resumed")
            or outcome.get("ended_early")
            or outcome["seconds"].get("execute", 0.0) <= 0
        ):
            return
        bound, call = work
        self.machine.measured(bound, replace(call, plan=plan_from_json(outcome.get("plan"))), outcome)

    def _work(self, request: StepRequest) -> tuple[BoundType, Call] | None:
        """What a request asks for, as forecasts see it; None for an evaluation."""
        if (action := request["action"]) is None:
            return None
        if (bound := self.types.get(action["type"])) is None:
            return None  # what a baseline needs and the search does not offer
        return bound, self.machine.call(bound, action["inputs"], action["params"], self.pool)
