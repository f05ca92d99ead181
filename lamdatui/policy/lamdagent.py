"""The paper's policy (LaMDAgent, arXiv 2505.21963): an LLM chooses the type, then the objects, and keeps a memory.

Two inferences make one choice, because asking for everything at once fails more often, and asking for one object at a
time makes the result depend on the order of asking. A third one rewrites the memory after each trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lamdatui.domain.choice import Candidate, Outcome, PlannerCall, Policy, PolicyError, Proposal, View
from lamdatui.domain.decisions import by_person
from lamdatui.domain.trials import Trial
from lamdatui.planner import brief
from lamdatui.planner.prompts import Load
from lamdatui.planner.session import PlannerSession, draw, weighed
from lamdatui.planner.settings import MOST_OPTIONS, PlannerSettings
from lamdatui.policy.merges import offered


class LamdagentPolicy(Policy):
    """Every choice is the planner's, among candidates that code has enumerated."""

    name = "lamdagent"

    def __init__(self, settings: PlannerSettings, load_prompt: Load, log_path: Path) -> None:
        super().__init__()
        self.session = PlannerSession(settings, load_prompt, log_path)

    @property
    def calls(self) -> list[PlannerCall]:
        """Exchanges since the engine last took them."""
        return self.session.calls

    async def start(self) -> None:
        """Have a planner that answers. Raises LamdatuiError (exit code 4)."""
        await self.session.start()

    async def propose(self, view: View) -> Proposal:
        """One type, then one candidate of it. A question with one possible answer is not asked. Raises PolicyError."""
        if not view.candidates:
            raise PolicyError("there is no legal action left")
        kind, asked = await self._choose_type(view)
        shortlist = self._shortlist(view, kind)
        if len(shortlist) == 1:
            why = f"the only legal {kind}; the planner chose the type" if asked else "the only legal action"
            return Proposal(shortlist[0].action, why, self.name)
        return await propose_one(self.session, view, shortlist, self.name, reuse_prefix=asked)

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Rewrite the memory. Raises PolicyError; the old memory then stays."""
        return await remember(self.session, view, trial, self.name)

    async def make_room(self, needed: int | None, total: int, device: str) -> None:
        """Let the planner sleep where the step needs its memory."""
        await self.session.make_room(needed, total, device)

    async def close(self) -> None:
        """End the client and our planner's process."""
        await self.session.close()

    async def _choose_type(self, view: View) -> tuple[str, bool]:
        if len(view.candidates) == 1:
            return next(iter(view.candidates)), False
        # Small models favour what stands first, so the order changes with each trial.
        kinds = offered(view, draw(view, "types"))
        # One letter each: where there are more types than letters, the draw says which are offered.
        kinds = kinds[:MOST_OPTIONS]
        lines = [brief.type_line(view, kind, facts=self.session.settings.facts) for kind in kinds]
        choice = await self.session.choose(view, "type", lines)
        return kinds[choice.place], True

    def _shortlist(self, view: View, kind: str) -> list[Candidate]:
        candidates = sorted(view.candidates[kind], key=lambda candidate: candidate.action.sort_key)
        return draw(view, f"{self.name} shortlist").sample(candidates, min(self.session.settings.shortlist, len(candidates)))


async def propose_one(
    session: PlannerSession, view: View, shortlist: Sequence[Candidate], name: str, *, reuse_prefix: bool = False
) -> Proposal:
    """What the planner prefers of a shortlist, with its probabilities and the reason. Raises PolicyError."""
    lines = brief.option_lines(view, shortlist, facts=session.settings.facts)
    choice = await session.choose(view, "action", lines, reuse_prefix=reuse_prefix)
    chosen = shortlist[choice.place]
    reason = ""
    if session.writes_reasons:
        reason = await session.explain(view, lines[choice.place])
    return Proposal(
        chosen.action,
        reason or "; ".join(brief.reasons(view, chosen)),
        name,
        weighed(shortlist, choice),
        {"planner": session.model, "style": choice.style},
    )


async def remember(session: PlannerSession, view: View, trial: Trial, name: str) -> Outcome:
    """The memory after a trial, written by whoever writes it here. Raises PolicyError."""
    match session.memory_mode:
        case "planner":
            return Outcome(await session.remember(view, trial), f"{name} ({session.model})")
        case "facts" if not by_person(view.memory_by) or not view.memory:
            # The view was taken before this trial was closed.
            return Outcome(brief.findings(replace(view, trials=(*view.trials, trial))), "facts")
    return Outcome(by=name)
