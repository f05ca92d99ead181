"""A policy that follows a list of actions: a pipeline that is known, a paper's recipe, a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamdatui.domain.choice import Policy, PolicyError, Proposal, View
from lamdatui.domain.state import details_of


class ScriptedPolicy(Policy):
    """Each step is {"type", "inputs": slot → id or ids, "params": those that differ from the defaults}.

    A step that was proposed is over, whatever became of it, unless the run's stop cut it off. One that is not legal yet waits: the fallback takes the trial.
    """

    name = "scripted"

    def __init__(self, script: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._script = script

    async def propose(self, view: View) -> Proposal:
        """The next step of the script. Raises PolicyError when it is not legal, and when the script is over."""
        proposed = [trial.proposal or {} for trial in view.trials if trial.status != "stopped"]
        mine = [proposal for proposal in proposed if details_of(proposal).get("step") is not None]
        place = len(mine)
        if place >= len(self._script):
            raise PolicyError(f"the script is over after its {len(self._script)} steps", over=True)
        step = self._script[place]
        inputs = {slot: (ids,) if isinstance(ids, str) else tuple(ids) for slot, ids in step.get("inputs", {}).items()}
        if view.candidate is None:
            raise PolicyError("a script needs to build its own actions, and here only listed ones can be chosen")
        found = view.candidate(step["type"], inputs, step.get("params", {}))
        if isinstance(found, str):
            raise PolicyError(f"step {place + 1} of the script ({step['type']}) is not possible: {found}")
        reason = f"step {place + 1} of {len(self._script)} of the script"
        return Proposal(found.action, reason, self.name, details={"step": place})
