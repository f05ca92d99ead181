"""Decisions: what the mode, a remembered rule or a person says of a proposal. Nobody there means no."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import Action, BoundType
from lamdatui.domain.choice import Proposal
from lamdatui.domain.decisions import VERDICTS, by_person
from lamdatui.domain.state import RunState
from lamdatui.engine.judging import matches
from lamdatui.engine.machine import Machine
from lamdatui.engine.orders import OWN, fresh, judge_order, read_order

PERSON = "person"
"""Who gives commands, and who proposes what was queued."""
MOST_REASON = 4000
"""Characters of a person's reason: what is recorded of it goes to every client as one frame."""
RISKY_SECONDS = 60.0
"""In `ask-risky`, work of unknown length or longer than this asks; shorter work on the CPU goes ahead."""


@dataclass(frozen=True)
class Decision:
    """`action` is what will run (edited or not); it is what was proposed when nothing runs."""

    verdict: str
    by: str
    reason: str
    action: Action
    remember: bool = False


class Approvals:
    """The one pending question, if any, and who may answer it."""

    def __init__(self, types: dict[str, BoundType], machine: Machine) -> None:
        self._types = types
        self._machine = machine
        self._pending: tuple[int, Action, asyncio.Future[Decision]] | None = None
        self.unattended = False
        """True for a headless run: then a question that no mode or rule answers is rejected."""

    def standing(self, state: RunState, proposal: Proposal, seconds: float | None) -> Decision | None:
        """What needs no person: the mode's answer or a remembered rule's."""
        action = proposal.action
        if state.mode == "read-only":
            return Decision("rejected", "mode read-only", "nothing runs in this mode", action)
        if by_person(proposal.proposed_by):
            return Decision("approve", proposal.proposed_by, OWN, action)
        if state.mode == "auto":
            return Decision("approve", "mode auto", "", action)
        for rule in state.rules.values():
            if matches(action, rule["match"]):
                return Decision("approve", f"rule {rule['id']}", rule["text"], action)
        short = seconds is not None and seconds <= RISKY_SECONDS and self._machine.device == "cpu"
        if state.mode == "ask-risky" and short:
            return Decision("approve", "mode ask-risky", f"about {seconds:.0f} s on the CPU", action)
        return None

    async def ask(self, number: int, proposal: Proposal) -> Decision:
        """Wait for a person. In an unattended run the answer is no."""
        if self.unattended:
            return Decision("rejected", "nobody", "no approver is attached", proposal.action)
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._pending = (number, proposal.action, future)
        try:
            return await future
        finally:
            self._pending = None

    def release(self, decision_for: str) -> None:
        """Answer the pending question without a person (the mode changed, the run stops)."""
        if self._pending and not self._pending[2].done():
            _, action, future = self._pending
            verdict = "approve" if decision_for == "mode auto" else "stop"
            future.set_result(Decision(verdict, decision_for, "", action))

    def read(self, state: RunState, args: dict[str, Any], by: str) -> tuple[int, Decision]:
        """A person's decision and its trial's number; nothing is done yet.

        Raises LamdatuiError when it is not about the pending action or not legal.
        """
        if self._pending is None or self._pending[2].done():
            raise LamdatuiError("no proposal is waiting for a decision")
        number, action, _ = self._pending
        if args["number"] != number or args["digest"] != action.digest:
            raise LamdatuiError("this proposal is no longer the one that waits; look again")
        verdict = args["verdict"]
        if verdict not in VERDICTS[:-1]:
            raise LamdatuiError(f"a decision is one of {', '.join(VERDICTS[:-1])}, not {verdict!r}")
        if verdict in ("approve", "edit") and args.get("action"):
            action = self.other(state, action, args["action"])
            verdict = "edit" if action.digest != self._pending[1].digest else "approve"
        return number, Decision(verdict, by, str(args.get("reason") or "")[:MOST_REASON], action, bool(args.get("remember")))

    def answer(self, decision: Decision) -> None:
        """Answer the pending question with a decision that is on record."""
        if self._pending and not self._pending[2].done():
            self._pending[2].set_result(decision)

    def other(self, state: RunState, proposed: Action, wanted: Any) -> Action:
        """The action that a person wants in place of the proposed one. Raises LamdatuiError when it can't be run."""
        order = read_order(wanted)
        judged = judge_order(self._types, order, state, self._machine)
        if judged.action is not None and judged.action.digest == proposed.digest and not judged.problems:
            return proposed
        return fresh(self._types, order, state, self._machine)

    def consequences(self, state: RunState, number: int, decision: Decision) -> list[tuple[str, dict[str, Any]]]:
        """Facts that follow from a decision: a constraint from a veto, a rule from a remembered approval."""
        action = decision.action
        match = {"type": action.type, "inputs": {slot: list(ids) for slot, ids in action.inputs.items()}}
        spelled = f"{action.type} on " + ", ".join("+".join(ids) for ids in action.inputs.values() if ids)
        if decision.verdict == "veto":
            text = f"never {spelled}" + (f": {decision.reason}" if decision.reason else "")
            data = {"id": f"c{number}", "text": text, "match": match, "by": decision.by, "trial": number}
            return [("constraint.added", data)]
        if decision.remember and decision.verdict in ("approve", "edit"):
            data = {"id": f"r{number}", "text": f"always {spelled}", "match": match, "by": decision.by, "trial": number}
            return [("rule.added", data)]
        return []
