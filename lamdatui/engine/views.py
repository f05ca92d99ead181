"""What a policy sees of a run."""

from __future__ import annotations

from collections.abc import Mapping

from lamdatui.domain.choice import Candidate, View
from lamdatui.domain.scores import weights_of
from lamdatui.domain.state import RunState
from lamdatui.engine.candidates import legal
from lamdatui.engine.machine import Machine
from lamdatui.inputs.workspace import Workspace

Candidates = Mapping[str, tuple[Candidate, ...]]


def view_of(
    state: RunState,
    workspace: Workspace,
    machine: Machine,
    objectives: Mapping[str, float],
    number: int,
    candidates: Candidates,
) -> View:
    """What policies see before trial `number` (0: of all trials so far)."""
    means = {
        model: {task: splits["search"]["mean"] for task, splits in tasks.items() if "search" in splits}
        for model, tasks in state.scores.items()
    }
    aim = workspace.profile.objective
    weights = weights_of({"objective": aim.model_dump()})
    kept = "".join(f", while {task} stays within {room:g} of the base" for task, room in aim.keep.items())
    return View(
        number=number,
        seed=state.seed,
        pool=state.pool,
        trials=tuple(state.trials[n] for n in sorted(state.trials) if n != number),
        candidates=candidates,
        summaries={name: bound.type.summary for name, bound in workspace.types.items()},
        objective="maximise "
        + " + ".join(f"{weight:g} × {task}" for task, weight in aim.weights.items())
        + kept
        + (", gained over the base per hour of the steps that lead to a model" if aim.per_hour else ""),
        scores=means,
        objectives=dict(objectives),
        memory=state.memory,
        memory_by=state.memory_by,
        constraints=tuple(item["text"] for item in state.constraints.values()),
        trials_left=state.max_trials - state.counted,
        weights=weights,
        keep=aim.keep,
        per_hour=aim.per_hour,
        makes_data=frozenset(name for name, bound in workspace.types.items() if bound.type.output == "dataset"),
        hints=tuple(f"{item['by']}: {item['text']}" for item in state.hints.values()),
        candidate=lambda kind, inputs, params: legal(workspace.types, kind, inputs, params, state, machine),
    )
