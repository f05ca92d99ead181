"""Each kind of event, and what it does to the state of a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lamdatui.domain.objects import object_from_json
from lamdatui.domain.trials import REPLICATE, StepRecord, Trial

if TYPE_CHECKING:
    from lamdatui.domain import events
    from lamdatui.domain.events import Event
    from lamdatui.domain.records import Declaration, ProblemRecord, ProposalRecord, Queued, TaskFile, Told, ToldOf
    from lamdatui.domain.state import RunState


def declared(proposal: ProposalRecord, types: Mapping[str, Declaration]) -> ProposalRecord:
    """A proposal with the declaration of its action's type. Older versions wrote it into each proposal; now it comes once, with the engine's start."""
    if "declaration" in proposal or (declaration := types.get(proposal["action"]["type"])) is None:
        return proposal
    return {**proposal, "declaration": declaration}


SPEC = ("name", "profile", "profile_digest", "seed", "mode", "policy", "max_trials", "wall_seconds")
"""What a run's first event says of it."""


def _run_created(state: RunState, data: events.RunCreated, _: Event) -> None:
    for name in SPEC:
        setattr(state, name, data[name])
    state.status, state.scheme = "running", data.get("scheme", 1)


def _run_forked(state: RunState, data: events.RunForked, _: Event) -> None:
    """From here on it is another run: what belongs to the first one's engine, to its clients and to its end is not this one's."""
    for name in SPEC:
        setattr(state, name, data[name])
    state.forked_from = data["forked_from"]
    if state.engine_since is not None:
        # The first one's engine worked on; this one's time ends with what it has taken over.
        state.used_seconds += max(0.0, state.metered_until - state.engine_since)
        state.engine_since = None
    state.engine_pid, state.queue, state.phase, state.phase_detail = None, {}, "", ""
    state.sealed_looks = list(dict.fromkeys([*state.sealed_looks, *data["looks"]]))
    for step in state.steps.values():
        # Whoever does it does it for the first one.
        step.status = "void" if step.status in ("intended", "running") else step.status
        state.touched.add(("step", step.key))
    _reopened(state)


def _reopened(state: RunState) -> None:
    """The search goes on: nothing is said yet of what it will find."""
    state.status, state.reason, state.stopping = "running", "", ""
    state.paused, state.paused_by, state.paused_reason = False, "", ""
    state.winner = state.beats_base = state.gain = state.searched = None
    state.finishing, state.baselines, state.baselines_missing, state.planned = None, {}, {}, {}
    # Those of a pipeline stay true, whatever is found later.
    state.replicates_missing = {}


def _stop_meter(state: RunState, event: Event) -> None:
    """The time budget counts work: not waiting for a person, not a pause, not what is watched after the end."""
    if state.engine_since is not None:
        state.used_seconds += max(0.0, _metered(state, event) - state.engine_since)
        state.engine_since = None


def _metered(state: RunState, event: Event) -> float:
    return event.mono if state.meter == "mono" else event.wall


def _engine_started(state: RunState, data: events.EngineStarted, event: Event) -> None:
    state.engine_pid, state.epoch, state.device = data["pid"], data["epoch"], data["device"]
    if state.engine_since is not None:
        # The engine before this one was killed: it worked at least until its last event.
        state.used_seconds += max(0.0, state.metered_until - state.engine_since)
    state.meter = data.get("clock", "wall")
    state.network = data.get("network", "")
    state.types = data.get("types") or state.types
    state.engine_since = _metered(state, event)
    if state.status == "interrupted":
        state.status = "running"


def _engine_stopped(state: RunState, data: events.Reason, event: Event) -> None:
    state.engine_pid = None
    _stop_meter(state, event)
    if state.status == "running":
        state.status, state.reason = "interrupted", data["reason"]


def _run_resumed(state: RunState, data: events.MaxTrials, event: Event) -> None:
    until = state.searched["trials"] if state.searched else state.max_trials
    if not state.has_ended and (state.searched or state.finishing) and data["max_trials"] <= until:
        # The search is over: it goes on with its baselines.
        state.status, state.reason, state.stopping = "running", "", ""
        state.paused, state.paused_by, state.paused_reason = False, "", ""
        return
    state.max_trials = data["max_trials"]
    if state.status == "done" or state.searched:
        # A person asked a finished search to go on: it has its time budget anew.
        state.used_seconds = 0.0
        state.engine_since = _metered(state, event) if state.engine_since is not None else None
        state.earlier_seconds += state.searched["seconds"] if state.searched else 0.0
    _reopened(state)


def _baselines_asked(state: RunState, data: events.By, _: Event) -> None:
    names = ("status", "reason", "winner", "beats_base", "gain")
    state.finishing = {name: getattr(state, name) for name in names}
    state.status, state.stopping, state.reason, state.searched = "running", "", "", None
    state.paused, state.paused_by, state.paused_reason = False, "", ""
    state.baselines_missing = state.replicates_missing = {}
    # What had no time for its whole length is planned anew.
    state.planned = {name: plan for name, plan in state.planned.items() if plan["length"] >= 1}


def _baseline_planned(state: RunState, data: events.BaselinePlanned, _: Event) -> None:
    state.planned = {**state.planned, data["name"]: data["plan"]}


def _baseline_recorded(state: RunState, data: events.BaselineRecorded, _: Event) -> None:
    state.baselines = {**state.baselines, data["name"]: data["baseline"]}
    state.baselines_missing = {name: why for name, why in state.baselines_missing.items() if name != data["name"]}


def _baseline_missing(state: RunState, data: events.BaselineMissing, _: Event) -> None:
    state.baselines_missing = {**state.baselines_missing, data["name"]: data["reason"]}


def _replicates_recorded(state: RunState, data: events.ReplicatesRecorded, _: Event) -> None:
    state.replicates = {**state.replicates, data["model"]: data["replicates"]}


def _replicates_missing(state: RunState, data: events.ReplicatesMissing, _: Event) -> None:
    state.replicates_missing = {**state.replicates_missing, data["model"]: data["reason"]}


def _found(state: RunState, data: events.RunEnded) -> None:
    """The winner, and what was measured of it."""
    state.winner, state.gain = data["winner"], data["gain"]
    is_sealed = bool((data["gain"] or {}).get("sealed"))
    if is_sealed and data["winner"] and data["winner"] not in state.sealed_looks:
        state.sealed_looks = [*state.sealed_looks, data["winner"]]
    # Older engines said it of the search split, too, where the sealed one was not opened.
    state.beats_base = data["beats_base"] if is_sealed else None


def _search_ended(state: RunState, data: events.SearchEnded, event: Event) -> None:
    _found(state, data)
    now = max(0.0, _metered(state, event) - state.engine_since) if state.engine_since is not None else 0.0
    how = {
        "status": data["status"],
        "reason": data["reason"],
        "trials": state.max_trials,
        "replicated": state.replicate_seconds,
    }
    state.searched = {**how, "seconds": state.used_seconds + now}


def _run_ended(state: RunState, data: events.RunEnded, event: Event) -> None:
    _stop_meter(state, event)
    state.status, state.reason, state.finishing = data["status"], data["reason"], None
    _found(state, data)
    state.phase, state.phase_detail = "ended", ""


def _paused(state: RunState, data: events.RunPaused, _: Event) -> None:
    state.paused, state.paused_by, state.paused_reason = True, data["by"], data.get("reason", "")


def _unpaused(state: RunState, data: events.By, _: Event) -> None:
    state.paused, state.paused_by, state.paused_reason = False, "", ""


def _stopping(state: RunState, data: events.RunStopping, _: Event) -> None:
    state.stopping = data["when"]


def _mode_changed(state: RunState, data: events.ModeChanged, _: Event) -> None:
    state.mode = data["mode"]


def _policy_changed(state: RunState, data: events.PolicyChanged, _: Event) -> None:
    state.policy = data["name"]


def _budget_changed(state: RunState, data: events.BudgetChanged, _: Event) -> None:
    state.max_trials = data["max_trials"]


def _phase_changed(state: RunState, data: events.PhaseChanged, event: Event) -> None:
    state.phase, state.phase_detail = data["phase"], data["detail"]
    if data["phase"] in ("waiting", "paused"):
        _stop_meter(state, event)
    elif state.engine_since is None:
        state.engine_since = _metered(state, event)


def _problem_noted(state: RunState, data: ProblemRecord, _: Event) -> None:
    state.problems = [*state.problems[-49:], data]


def _object_added(state: RunState, data: events.ObjectAdded, _: Event) -> None:
    item = object_from_json(data["object"])
    state.pool.add(item)
    state.lost = {name: reason for name, reason in state.lost.items() if name != item.id}
    state.touched.add(("object", item.id))


def _object_lost(state: RunState, data: events.ObjectLost, _: Event) -> None:
    # Replaced, not edited: snapshots refer to it as it was.
    state.lost = {**state.lost, data["id"]: data["reason"]}


def _object_dropped(state: RunState, data: events.ObjectDropped, _: Event) -> None:
    state.dropped = {**state.dropped, data["id"]: data["bytes"]}


def _object_restored(state: RunState, data: events.ObjectRestored, _: Event) -> None:
    state.dropped = {name: size for name, size in state.dropped.items() if name != data["id"]}


def _task_added(state: RunState, data: TaskFile, _: Event) -> None:
    state.tasks = {**state.tasks, data["name"]: data}


def _trial_opened(state: RunState, data: events.TrialOpened, event: Event) -> None:
    state.trials[data["number"]] = Trial(data["number"])
    state.trial(data["number"]).stamps = {"opened": event.mono}


def _trial_proposed(state: RunState, data: events.TrialProposed, event: Event) -> None:
    trial, proposal = state.trial(data["number"]), declared(data["proposal"], state.types)
    trial.stamps = {**trial.stamps, "proposed": event.mono}
    trial.proposal, trial.action = proposal, proposal["action"]
    trial.proposed_by, trial.reason, trial.status = proposal["proposed_by"], proposal["reason"], "awaiting"
    # Taken in the same event: whatever happens to the engine now, it is not taken twice.
    state.queue.pop(proposal.get("queued") or "", None)


def _shadows_recorded(state: RunState, data: events.ShadowsRecorded, _: Event) -> None:
    state.trial(data["number"]).shadows = data["shadows"]


def _trial_decided(state: RunState, data: events.TrialDecided, event: Event) -> None:
    trial = state.trial(data["number"])
    trial.stamps = {**trial.stamps, "decided": event.mono}
    trial.decision = {"verdict": data["verdict"], "by": data["by"], "reason": data["reason"]}
    trial.action = data["action"]
    trial.status = "approved" if data["verdict"] in ("approve", "edit") else trial.status


def _trial_closed(state: RunState, data: events.TrialClosed, _: Event) -> None:
    trial = state.trial(data["number"])
    for name in ("status", "model", "dataset", "scores", "objective", "gain", "cached", "seconds", "error"):
        setattr(trial, name, data.get(name))
    best = state.trials.get(state.best) if state.best is not None else None
    better = best is None or best.objective is None or (trial.objective or 0.0) > best.objective
    if trial.model and trial.objective is not None and better:
        state.best = trial.number


def _step_intended(state: RunState, data: events.StepIntended, _: Event) -> None:
    state.steps[data["step"]] = StepRecord(data["step"], data["purpose"], data["trial"], data["digest"])
    state.touched.add(("step", data["step"]))
    # A trial that is closed stays so: its action may be done again because the store has lost what it made.
    if data["trial"] is not None and (trial := state.trial(data["trial"])).is_open:
        trial.step, trial.status = data["step"], "running"


def _step_started(state: RunState, data: events.StepStarted, _: Event) -> None:
    record = state.steps[data["step"]]
    record.pid, record.start_time, record.boot_id = data["pid"], data["start_time"], data["boot_id"]
    record.status = "running"
    state.touched.add(("step", record.key))


def _step_ended(state: RunState, data: events.StepEnded, _: Event) -> None:
    record = state.steps[data["step"]]
    for name in ("status", "cached", "seconds", "error"):
        setattr(record, name, data[name])
    record.seconds = record.seconds or {}
    if record.purpose == REPLICATE:
        state.replicate_seconds += sum(record.seconds.get(part, 0.0) for part in ("execute", "evaluate"))
    state.touched.add(("step", record.key))


def _evaluation_recorded(state: RunState, data: events.EvaluationRecorded, _: Event) -> None:
    model, task, split = data["model"], data["task"], data["split"]
    # Replaced, not edited: trials and snapshots refer to the scores as they were.
    for known, value in ((state.scores, data["score"]), (state.keys, data["key"])):
        tasks = known.get(model, {})
        known[model] = {**tasks, task: {**tasks.get(task, {}), split: value}}
    state.touched.add(("score", model))


def _action_queued(state: RunState, data: Queued, _: Event) -> None:
    state.queue[data["id"]] = data


def _action_withdrawn(state: RunState, data: events.Revoked, _: Event) -> None:
    state.queue.pop(data["id"], None)


def _memory_updated(state: RunState, data: events.MemoryUpdated, _: Event) -> None:
    state.memory, state.memory_by = data["text"], data["by"]


def _hint_added(state: RunState, data: Told, _: Event) -> None:
    state.hints[data["id"]] = data


def _hint_revoked(state: RunState, data: events.Revoked, _: Event) -> None:
    state.hints.pop(data["id"], None)


def _planner_answered(state: RunState, data: events.PlannerAnswered, _: Event) -> None:
    state.planner_tokens += data["tokens"]
    state.planner_seconds += data["seconds"]


def _constraint_added(state: RunState, data: ToldOf, _: Event) -> None:
    state.constraints[data["id"]] = data


def _constraint_revoked(state: RunState, data: events.Revoked, _: Event) -> None:
    state.constraints.pop(data["id"], None)


def _rule_added(state: RunState, data: ToldOf, _: Event) -> None:
    state.rules[data["id"]] = data


def _rule_revoked(state: RunState, data: events.Revoked, _: Event) -> None:
    state.rules.pop(data["id"], None)


HANDLERS: Mapping[str, Callable[[RunState, Any, Event], None]] = {
    "run.created": _run_created,
    "run.forked": _run_forked,
    "engine.started": _engine_started,
    "engine.stopped": _engine_stopped,
    "run.resumed": _run_resumed,
    "search.ended": _search_ended,
    "baseline.planned": _baseline_planned,
    "baseline.recorded": _baseline_recorded,
    "baseline.missing": _baseline_missing,
    "replicates.recorded": _replicates_recorded,
    "replicates.missing": _replicates_missing,
    "baselines.asked": _baselines_asked,
    "run.ended": _run_ended,
    "run.paused": _paused,
    "run.unpaused": _unpaused,
    "run.stopping": _stopping,
    "mode.changed": _mode_changed,
    "policy.changed": _policy_changed,
    "budget.changed": _budget_changed,
    "phase.changed": _phase_changed,
    "problem.noted": _problem_noted,
    "object.added": _object_added,
    "object.lost": _object_lost,
    "object.dropped": _object_dropped,
    "object.restored": _object_restored,
    "task.added": _task_added,
    "trial.opened": _trial_opened,
    "trial.proposed": _trial_proposed,
    "shadows.recorded": _shadows_recorded,
    "trial.decided": _trial_decided,
    "trial.closed": _trial_closed,
    "step.intended": _step_intended,
    "step.started": _step_started,
    "step.ended": _step_ended,
    "evaluation.recorded": _evaluation_recorded,
    "action.queued": _action_queued,
    "action.withdrawn": _action_withdrawn,
    "memory.updated": _memory_updated,
    "hint.added": _hint_added,
    "hint.revoked": _hint_revoked,
    "planner.answered": _planner_answered,
    "constraint.added": _constraint_added,
    "constraint.revoked": _constraint_revoked,
    "rule.added": _rule_added,
    "rule.revoked": _rule_revoked,
}
