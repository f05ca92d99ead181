"""The random policy: the baseline a planner has to beat (an ablation of LaMDAgent, arXiv 2505.21963, Table 2)."""

from __future__ import annotations

import random

from lamdatui.base.jsonio import digest
from lamdatui.domain.choice import Policy, PolicyError, Proposal, View
from lamdatui.policy.merges import draw_type


class RandomPolicy(Policy):
    """Uniform over action types (of many merges: `lamdatui.policy.merges`), then uniform over the type's candidates.

    The draw depends on the run's seed, the trial's number and the set of candidates only, so a resumed run proposes the
    same and the order in which candidates were listed does not matter.
    """

    name = "random"

    async def propose(self, view: View) -> Proposal:
        """A uniform draw. Raises PolicyError when there is no candidate."""
        if not view.candidates:
            raise PolicyError("there is no legal action left")
        draw = random.Random(digest(["random", view.seed, view.number]))
        kind = draw_type(view, draw)
        candidates = sorted(view.candidates[kind], key=lambda candidate: candidate.action.sort_key)
        action = draw.choice(candidates).action
        reason = (
            f"a uniform random choice: one of {len(view.candidates)} action types, then one of {len(candidates)} candidates"
        )
        return Proposal(action, reason, self.name)
