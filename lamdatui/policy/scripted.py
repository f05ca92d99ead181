"""A policy that follows a list of actions: a pipeline that is known, a paper's recipe, a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamdatui.domain.choice import Policy, PolicyError, Proposal, View
from lamdatui.domain.state import details_of


class ScriptedPolicy(Policy):
    """Each step is {"type", "inputs": slot → id or ids, "params": those that differ from the defaults, "makes": a name for its result}.

    A step that was proposed is over, whatever became of it, unless the run's stop cut it off. One that is not legal yet waits: the fallback takes the trial;
    one with a name is passed over, and so is what needs it.
    """

    name = "scripted"

    def __init__(self, script: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._script = script

    async def propose(self, view: View) -> Proposal:
        """The next step of the script. Raises PolicyError when it is not legal, and when the script is over."""
        told = [(trial, details_of(trial.proposal or {}).get("step")) for trial in view.trials if trial.status != "stopped"]
        mine = [(trial, place) for trial, place in told if isinstance(place, int)]
        made = {
            self._script[place].get("makes"): trial.model or trial.dataset
            for trial, place in mine
            if trial.status == "done" and place < len(self._script)
        }
        if view.candidate is None:
            raise PolicyError("a script needs to build its own actions, and here only listed ones can be chosen")
        names = {step.get("makes") for step in self._script} - {"", None}
        for place in range(1 + max((place for _, place in mine), default=-1), len(self._script)):
            step = self._script[place]
            inputs = {slot: (ids,) if isinstance(ids, str) else tuple(ids) for slot, ids in step.get("inputs", {}).items()}
            lacking = [name for ids in inputs.values() for name in ids if name in names and name not in made]
            inputs = {slot: tuple(str(made.get(name) or name) for name in ids) for slot, ids in inputs.items()}
            found = f"{lacking[0]} was not made" if lacking else view.candidate(step["type"], inputs, step.get("params", {}))
            if not isinstance(found, str):
                reason = f"step {place + 1} of {len(self._script)} of the script"
                return Proposal(found.action, reason, self.name, details={"step": place})
            if not step.get("makes"):
                raise PolicyError(f"step {place + 1} of the script ({step['type']}) is not possible: {found}")
        raise PolicyError(f"the script is over after its {len(self._script)} steps", over=True)
