"""Select: which policy proposes, what takes over when it can't, and what the others would have done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.choice import Outcome, PlannerCall, Policy, PolicyError, Proposal, View
from lamdatui.domain.trials import Trial
from lamdatui.policy import CHEAP

FALLBACKS = ("surrogate", "random")
"""Who chooses when the policy can't: the first that can."""

Make = Callable[[str], Policy]


class Selection:
    """The policy of a run. It may be replaced while the run goes on; the new one starts before the next proposal."""

    def __init__(self, make: Make, name: str, problem: Callable[[str, str], None]) -> None:
        self._make = make
        self._problem = problem
        self._fallbacks = [make(each) for each in FALLBACKS]
        self._shadows = [make(each) for each in CHEAP]
        self.policy = make(name)
        self._next: Policy | None = None

    async def start(self) -> None:
        """Get the policy ready. Raises LamdatuiError when its planner can't be had."""
        await self.policy.start()

    async def close(self) -> None:
        """Release the policy's planner."""
        await self.policy.close()

    def prepared(self, name: str) -> Callable[[], None]:
        """Make another policy; calling the result has it propose from then on. Raises LamdatuiError where it can't be made."""
        made = self._make(name)

        def switch() -> None:
            self._next = made

        return switch

    async def select(self, view: View) -> tuple[Proposal, str | None]:
        """The policy's proposal; when it can't choose, the fallback's, and why. Raises PolicyError when the search is over."""
        await self._replace()
        try:
            return await self._checked(self.policy, view), None
        except PolicyError as error:
            if error.over:
                raise
            self._problem("planner", str(error))
            return await self._fallback(view), str(error)

    async def _replace(self) -> None:
        if self._next is None:
            return
        old, self.policy, self._next = self.policy, self._next, None
        await old.close()
        try:
            await self.policy.start()
        except LamdatuiError as error:
            self._problem("planner", f"{error.what} {error.where}".strip())

    async def _fallback(self, view: View) -> Proposal:
        why = PolicyError("there is no fallback")
        for policy in self._fallbacks:
            try:
                return await self._checked(policy, view)
            except PolicyError as error:
                why = error
        raise why

    async def _checked(self, policy: Policy, view: View) -> Proposal:
        """A policy's proposal, which has to be legal: what code enumerated, or what it can make. Raises PolicyError."""
        try:
            proposal = await policy.propose(view)
        except (PolicyError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise PolicyError(f"the policy {policy.name} failed: {type(error).__name__}: {error}") from error
        action = proposal.action
        listed = {item.action.digest for item in view.candidates.get(action.type, ())}
        if action.digest not in listed:
            made = view.candidate(action.type, action.inputs, action.params) if view.candidate else "it was not listed"
            if isinstance(made, str):
                raise PolicyError(f"the policy {policy.name} proposed what is not possible: {made}")
            if made.action.digest != action.digest:
                raise PolicyError(f"the policy {policy.name} proposed an action under another one's digest")
        return proposal

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Let the policy take a finished trial in. Raises PolicyError."""
        try:
            return await self.policy.observe(view, trial)
        except PolicyError:
            raise
        except Exception as error:
            raise PolicyError(f"the policy {self.policy.name} failed: {type(error).__name__}: {error}") from error

    def take_calls(self) -> list[PlannerCall]:
        """What was said to the planner since this was last asked."""
        calls, self.policy.calls[:] = list(self.policy.calls), []
        return calls

    async def shadows(self, view: View, chosen: Proposal) -> list[dict[str, Any]]:
        """What each cheap policy would have done: its name, the action, what it expects, seconds. One that fails is left out."""
        return await asyncio.to_thread(_ask_shadows, [p for p in self._shadows if p.name != chosen.proposed_by], view)


def _ask_shadows(policies: Sequence[Policy], view: View) -> list[dict[str, Any]]:
    found = []
    for policy in policies:
        began = time.monotonic()
        try:
            proposal = asyncio.run(policy.propose(view))
        except Exception:  # noqa: BLE001 (nothing depends on a shadow)
            continue
        told = {"policy": policy.name, "action": proposal.action.describe(), "digest": proposal.action.digest}
        seconds = round(time.monotonic() - began, 3)
        found.append({**told, "expected": proposal.details.get("expected"), "seconds": seconds})
    return found
