"""What a step is asked to do, from the run's state: the content of its action.json."""

from __future__ import annotations

from lamdatui.domain.actions import ActionType
from lamdatui.domain.objects import ModelObject, ObjectPool, object_to_json
from lamdatui.domain.records import ActionRecord
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.machine import Machine
from lamdatui.engine.scoring import Scoring
from lamdatui.inputs.workspace import Workspace
from lamdatui.step.request import StepRequest, reference
from lamdatui.store.artifacts import Store


class Requests:
    """Builds requests; the device and the size of micro-batches are settled when the step gets its slot."""

    def __init__(self, workspace: Workspace, store: Store, scoring: Scoring, machine: Machine) -> None:
        self._workspace = workspace
        self._store = store
        self._scoring = scoring
        self._machine = machine

    def trial(self, trial: Trial, state: RunState) -> StepRequest:
        """Do a trial's action, and score the model that it makes on the search split."""
        assert trial.action is not None
        kind = self._workspace.types[trial.action["type"]].type
        return {**self.action(str(trial.number), "trial", kind, trial.action, state.pool), "trial": trial.number}

    def action(self, name: str, purpose: str, kind: ActionType, action: ActionRecord, pool: ObjectPool) -> StepRequest:
        """Do an action on objects of a pool, and score the model that it makes on the search split."""
        request = self._blank(name, purpose, action["digest"])
        request["action"] = action
        for slot in kind.slots:
            ids = action["inputs"].get(slot.name, [])
            if slot.takes_models:
                request["models"][slot.name] = [reference(pool.model(each), pool) for each in ids]
            else:
                request["datasets"][slot.name] = [object_to_json(pool.dataset(each)) for each in ids]
        if kind.output == "model":
            request["evaluations"] = self._scoring.requests(action["digest"], "search")
        return request

    def evaluation(
        self, name: str, model: ModelObject, split: str, pool: ObjectPool, scoring: Scoring | None = None, purpose: str = ""
    ) -> StepRequest:
        """Score a model on a split."""
        request = self._blank(name, purpose or split, model.digest)
        asked = (scoring or self._scoring).requests(model.digest, split)
        request["subject"], request["evaluations"] = reference(model, pool), asked
        return request

    def remake(self, name: str, trial: Trial, state: RunState) -> StepRequest:
        """Do a trial's action again, because the store has lost its result; nothing is scored."""
        request = self.trial(trial, state)
        return {**request, "step": name, "purpose": "remake", "evaluations": []}

    def _blank(self, name: str, purpose: str, digest: str) -> StepRequest:
        return {
            "step": name,
            "purpose": purpose,
            "trial": None,
            "digest": digest,
            "action": None,
            "models": {},
            "datasets": {},
            "subject": None,
            "evaluations": [],
            "store": str(self._store.root.absolute()),
            "device": self._machine.device,
            "dtype": self._machine.dtype,
            "threads": self._workspace.threads,
            "tasks": [{"path": str(task.path), "digest": task.digest} for task in self._workspace.tasks.values()],
            "small": False,
            "checkpoint_minutes": self._workspace.profile.steps.checkpoint_minutes,
            "generation": {
                **self._workspace.profile.generation.model_dump(mode="json"),
                "backend": self._machine.generator.partition(" ")[0],
            },
            "always": self._store.always,
        }
