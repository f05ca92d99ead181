"""What happened, one line per event that a person cares about. Pure: events in, rows out, no textual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamdatui.base.network import sentence
from lamdatui.base.text import one_line
from lamdatui.domain.baselines import told
from lamdatui.domain.events import Event
from lamdatui.domain.replicates import spread_of
from lamdatui.domain.replicates import told as told_seeds
from lamdatui.domain.scores import remarks
from lamdatui.domain.state import RunState
from lamdatui.domain.verdicts import beats_base
from lamdatui.ui.view.format import Mark, Tone, call_text, duration, interval, mark, number, score, signed, size
from lamdatui.ui.view.proposals import proposer

if TYPE_CHECKING:
    from lamdatui.domain.records import ActionRecord

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One line of the activity pane; `detail` is what enter shows when there is more than the line says."""

    wall: float
    glyph: str
    head: str
    text: str
    tone: Tone = "plain"
    trial: int | None = None
    detail: str = ""


def rows(event: Event, before: RunState) -> list[ActivityRow]:
    """Rows for an event; `before` is the state that the event has not changed yet."""
    maker = _MAKERS.get(event.kind)
    return [_finish(row, event) for row in maker(event.data, before)] if maker else []


def _finish(row: ActivityRow, event: Event) -> ActivityRow:
    return ActivityRow(event.wall, row.glyph, row.head, one_line(row.text), row.tone, row.trial, row.detail or row.text)


def _row(sign: Mark | str, head: str, text: str, tone: Tone = "plain", trial: int | None = None) -> ActivityRow:
    if isinstance(sign, Mark):
        return ActivityRow(0.0, sign.glyph, head, text, sign.tone, trial)
    return ActivityRow(0.0, sign, head, text, tone, trial)


def _trial(data: Json) -> str:
    return f"trial {data['number']}"


def _created(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("·", "run", f"{data['name']}: {data['max_trials']} trials, policy {data['policy']}, mode {data['mode']}")]


def _forked(data: Json, _: RunState) -> list[ActivityRow]:
    origin = data["forked_from"]
    how = f"{data['max_trials']} trials, policy {data['policy']}, seed {data['seed']}, mode {data['mode']}"
    return [_row("·", "forked", f"{data['name']} goes on from trial {origin['at']} of {origin['run']}: {how}", "strong")]


def _engine(data: Json, _: RunState) -> list[ActivityRow]:
    word = "engine started" if data["epoch"] <= 1 else "engine started again"
    device = data["device"].get("device") or "an unknown device"
    steps = f"; {fenced}" if (fenced := sentence(data.get("network", ""))) else ""
    return [_row("·", word, f"on {device}, {data['device'].get('dtype') or 'dtype unknown'} (pid {data['pid']}){steps}", "dim")]


def _engine_stopped(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("■", "engine stopped", data["reason"], "dim")]


def _search_ended(data: Json, before: RunState) -> list[ActivityRow]:
    return [_row("·", "search", "over: its winner is compared with baselines", "dim"), *_found(data, before)]


def _baseline(data: Json, _: RunState) -> list[ActivityRow]:
    one = data["baseline"]
    gain = (one.get("gain") or {}).get("objective") or {}
    text = f"{data['name']}: {signed(gain.get('mean'))} {interval(gain.get('interval'), True)} over the base, {told(one)}"
    return [_row("·", "baseline", text)]


def _asked(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("·", "baselines", f"wanted by {data['by']}, however long they take", "dim")]


def _no_baseline(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("·", "baseline", f"no {data['name']}: {data['reason']}", "dim")]


def _replicates(data: Json, _: RunState) -> list[ActivityRow]:
    one = spread_of(data["model"], data["replicates"])
    text = f"{one.name}: {signed(one.gain.get('mean'))} {interval(one.gain.get('interval'), True)} over the base, {told_seeds(one)}"
    return [_row("·", "seeds", text)]


def _no_replicates(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("·", "seeds", f"no more of {data['model']}: {data['reason']}", "dim")]


def _ended(data: Json, before: RunState) -> list[ActivityRow]:
    reason = f" ({data['reason']})" if data["reason"] else ""
    found = [_row("■", "run ended", f"{data['status']}{reason}", "strong")]
    # Told already where the winner was compared with baselines.
    return found if before.searched else [*found, *_found(data, before)]


def _found(data: Json, before: RunState) -> list[ActivityRow]:
    beats = {True: "beats the base on the sealed split", False: "the sealed split does not tell it from the base", None: ""}[
        beats_base(data["gain"], len({*before.sealed_looks, data["winner"]}))
    ]
    if not data["winner"]:
        return [_row("", "", "no winner", "dim")]
    found = [_row("★", "winner", f"{data['winner']}: {beats}".rstrip(": "), "strong")]
    for split, report in (data["gain"] or {}).items():
        gain = report.get("objective") if isinstance(report, dict) else None
        if isinstance(gain, dict) and "mean" in gain:
            picked = " (the rows that picked it)" if split == "search" else ""
            found.append(_row("", "", f"gain {signed(gain['mean'])} {interval(gain.get('interval'), True)} on {split}{picked}"))
    return found


def _object(data: Json, _: RunState) -> list[ActivityRow]:
    item = data["object"]
    if item["trial"] is not None and item["kind"] == "model":
        return []
    what = f"{item['rows']} rows, {item['format']}" if item["kind"] == "dataset" else item["architecture"]
    return [_row("·", item["kind"], f"{item['id']} ({what})", "dim")]


def _candidates(data: Json, _: RunState) -> list[ActivityRow]:
    types = data["types"]
    offered = {name: value["offered"] if isinstance(value, dict) else value for name, value in types.items()}
    names = ", ".join(f"{name} {value}" for name, value in offered.items() if value)
    found = [_row("·", _trial(data), f"{sum(offered.values())} legal actions: {names}", "dim", data["number"])]
    refused = [
        f"{name} ({next(iter(value['refused']))})"
        for name, value in types.items()
        if isinstance(value, dict) and not value["offered"] and value.get("refused")
    ]
    if refused:
        found.append(_row("", "", f"not offered: {'; '.join(refused)}", "dim", data["number"]))
    return found


def _proposed(data: Json, _: RunState) -> list[ActivityRow]:
    proposal, trial = data["proposal"], data["number"]
    found = [_row("?", _trial(data), f"proposed {call_text(proposal['action'])}", "wait", trial)]
    if proposal.get("fallback"):
        found.append(_row("!", _trial(data), f"planner replaced for this trial: {proposal['fallback']}", "bad", trial))
    reason = f": {proposal['reason']}" if proposal.get("reason") else ""
    return [*found, _row("", "", f"{proposer(proposal)}{reason}", "dim", trial)]


def _decided(data: Json, before: RunState) -> list[ActivityRow]:
    verdict, trial = data["verdict"], data["number"]
    words = {"approve": "approved", "edit": "edited and approved", "veto": "vetoed", "skip": "skipped", "stop": "stop asked"}
    text = f"{words.get(verdict, verdict)} by {data['by']}"
    if verdict == "edit" and (known := before.trials.get(trial)) and known.proposal:
        text += f": {edit_text(known.proposal['action'], data['action'])}"
    if data["reason"]:
        text += f": {data['reason']}"
    sign = Mark("✓", "", "plain") if verdict in ("approve", "edit") else mark(verdict)
    return [_row(sign, _trial(data), text, trial=trial)]


def edit_text(proposed: ActionRecord, ran: ActionRecord) -> str:
    """What an edit made of a proposal: other hyperparameters, or another action."""
    if (proposed["type"], proposed["inputs"]) != (ran["type"], ran["inputs"]):
        return f"{call_text(ran)} instead"
    return changes_text(proposed, ran)


def changes_text(proposed: ActionRecord, ran: ActionRecord) -> str:
    """`learning_rate 0.001 → 0.0005, epochs 1 → 2`."""
    before, after = proposed["params"], ran["params"]
    names = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"{name} {number(before.get(name))} → {number(after[name])}" for name in names)


def _closed(data: Json, _: RunState) -> list[ActivityRow]:
    status, trial = data["status"], data["number"]
    if status in ("vetoed", "skipped", "rejected"):
        return []
    parts = [status + (" (= cached)" if data["cached"] else "")]
    if data["error"]:
        parts[0] += f": {data['error'].get('class', '')}: {data['error'].get('message', '')}"
    if data["gain"]:
        parts.append(f"gain {signed(data['gain'].get('mean'))} {interval(data['gain'].get('interval'), True)}".rstrip())
    if data.get("dataset"):
        parts.append(f"made the dataset {data['dataset']}")
    if data["objective"] is not None:
        parts.append(f"objective {score(data['objective'])}")
    if total := (data["seconds"] or {}).get("total"):
        parts.append(duration(total))
    return [_row(mark(status), _trial(data), ", ".join(parts), trial=trial)]


def _started(data: Json, before: RunState) -> list[ActivityRow]:
    record = before.steps.get(data["step"])
    return [_row("▶", f"step {data['step']}", f"{record.purpose if record else 'step'} started", "run")]


def _step_ended(data: Json, before: RunState) -> list[ActivityRow]:
    if data["cached"]:
        return [_row("=", f"step {data['step']}", "cached: the same work was done before", "good")]
    if not data["error"]:
        return []
    text = f"{data['error'].get('class', '')}: {data['error'].get('message', '')}"
    return [_row(mark(data["status"]), f"step {data['step']}", f"{data['status']}: {text}")]


def _evaluated(data: Json, _: RunState) -> list[ActivityRow]:
    value = data["score"]
    text = f"{data['task']} {score(value.get('mean'))} {interval(value.get('interval'))} n={value.get('n', '?')}"
    if told := remarks(value["n"], value):
        text += f"; {told}"
    sealed = data["split"] == "sealed"
    return [_row("·", str(data["model"]), f"sealed {text}" if sealed else text, "strong" if sealed else "plain")]


def _queued(data: Json, _: RunState) -> list[ActivityRow]:
    note = f": {data['note']}" if data["note"] else ""
    return [_row("+", "queued", f"{call_text(data['action'])} (by {data['by']}){note}")]


def _withdrawn(data: Json, before: RunState) -> list[ActivityRow]:
    known = before.queue.get(data["id"])
    return [_row("−", "withdrawn", f"{call_text(known['action']) if known else data['id']} (by {data['by']})")]


def _memory(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("·", "memory", data["text"], "dim")]


def _hint(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("+", "hint", f"{data['text']} (by {data['by']})")]


def _constraint(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("⊘", "constraint", f"{data['text']} (by {data['by']})")]


def _rule(data: Json, _: RunState) -> list[ActivityRow]:
    return [_row("+", "rule", f"{data['text']} (by {data['by']})")]


def _revoked(kind: str) -> Callable[[Json, RunState], list[ActivityRow]]:
    def make(data: Json, before: RunState) -> list[ActivityRow]:
        known = getattr(before, f"{kind}s").get(data["id"], {})
        return [_row("−", f"{kind} revoked", f"{known.get('text', data['id'])} (by {data['by']})")]

    return make


def _said(glyph: str, head: str, template: str, tone: Tone = "plain") -> Callable[[Json, RunState], list[ActivityRow]]:
    return lambda data, _: [_row(glyph, head, template.format_map(data), tone)]


_MAKERS: dict[str, Callable[[Json, RunState], list[ActivityRow]]] = {
    "run.created": _created,
    "run.forked": _forked,
    "engine.started": _engine,
    "engine.stopped": _engine_stopped,
    "run.resumed": _said("·", "run resumed", "up to {max_trials} trials"),
    "run.paused": lambda data, _: [_row("‖", "paused", f"by {data['by']} {data.get('reason', '')}".rstrip(), "wait")],
    "object.lost": _said("✗", "lost", "{id}: {reason}", "bad"),
    "object.dropped": lambda data, _: [
        _row("·", data["id"], f"weights dropped, {size(data['bytes'])} freed; made again when needed", "dim")
    ],
    "object.restored": _said("·", "restored", "{id} was made again", "dim"),
    "run.unpaused": _said("▶", "goes on", "by {by}", "run"),
    "run.stopping": _said("■", "stopping", "{when}, by {by}", "wait"),
    "search.ended": _search_ended,
    "baseline.recorded": _baseline,
    "baseline.missing": _no_baseline,
    "baselines.asked": _asked,
    "replicates.recorded": _replicates,
    "replicates.missing": _no_replicates,
    "run.ended": _ended,
    "mode.changed": _said("·", "mode", "{mode}, by {by}", "strong"),
    "policy.changed": _said("·", "policy", "{name} proposes from the next trial on, by {by}", "strong"),
    "budget.changed": _said("·", "budget", "up to {max_trials} trials, by {by}", "strong"),
    "action.queued": _queued,
    "action.withdrawn": _withdrawn,
    "problem.noted": _said("!", "problem", "{where}: {message}", "bad"),
    "object.added": _object,
    "candidates.listed": _candidates,
    "trial.proposed": _proposed,
    "trial.decided": _decided,
    "trial.closed": _closed,
    "step.started": _started,
    "step.ended": _step_ended,
    "evaluation.recorded": _evaluated,
    "memory.updated": _memory,
    "hint.added": _hint,
    "hint.revoked": _revoked("hint"),
    "constraint.added": _constraint,
    "constraint.revoked": _revoked("constraint"),
    "rule.added": _rule,
    "rule.revoked": _revoked("rule"),
}
