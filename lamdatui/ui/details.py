"""The whole story of one model or trial, for the details screen. Pure: state in, lines out, no textual."""

from __future__ import annotations

from typing import Any

from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState, Trial
from lamdatui.ui.activity import changes_text
from lamdatui.ui.proposal import ancestry, facts, grounds, labelled
from lamdatui.ui.words import Line, call_text, count, duration, interval, mark, score, signed, size

Json = dict[str, Any]


def model_lines(state: RunState, name: str) -> list[Line]:
    """A base model."""
    item = state.pool.items.get(name)
    lines: list[Line] = []
    if isinstance(item, ModelObject):
        lines.append(labelled("kind", (item.architecture, "plain")))
        lines.append(labelled("size", (f"{count(item.parameters)} parameters", "plain")))
        lines.append(labelled("weights", (item.weights, "plain")))
        lines.append(labelled("digest", (item.digest, "plain")))
    return [*lines, *_score_lines(state.scores.get(name, {}))]


def trial_lines(state: RunState, trial: Trial) -> list[Line]:
    """A trial: what was proposed, decided and run, and what came of it."""
    sign = mark(trial.status)
    lines: list[Line] = [((f"{sign.glyph} {sign.word}", sign.tone), ("  = cached" if trial.cached else "", "good"))]
    if trial.proposal:
        lines += [*facts(state, trial.proposal, None), *grounds(trial.proposal)]
    lines += _decision_lines(trial)
    if trial.action:
        lines.append(labelled("action", (call_text(trial.action), "strong")))
        lines.append(labelled("digest", (str(trial.action.get("digest", "")), "plain")))
    if trial.error:
        lines.append(labelled("error", (f"{trial.error.get('class', '')}: {trial.error.get('message', '')}", "bad")))
    if trial.model:
        lines.append(labelled("result", (f"{trial.model}: {ancestry(state, trial.model)}", "plain")))
    if isinstance(made := state.pool.items.get(trial.dataset or ""), DatasetObject):
        text = f"{made.id}: {made.rows} rows, {made.format}; {ancestry(state, made.id)}"
        lines.append(labelled("result", (text, "plain")))
        lines.append(
            labelled("rows", (f"{made.path.replace('store:', 'store/objects/')}/data.jsonl in the runs directory", "plain"))
        )
    known = state.scores.get(trial.model or "", {})
    lines += _score_lines({**(trial.scores or {}), **known})
    if trial.gain:
        text = f"{signed(trial.gain.get('mean'))} {interval(trial.gain.get('interval'), True)} against the base"
        lines.append(labelled("gain", (text, "plain")))
    if trial.seconds:
        parts = " · ".join(f"{name} {duration(value)}" for name, value in trial.seconds.items() if value is not None)
        lines.append(labelled("time", (parts, "plain")))
    if trial.step:
        lines.append(labelled("log", (f"steps/{trial.step}/log.txt in the run directory", "plain")))
    return lines


def _decision_lines(trial: Trial) -> list[Line]:
    decision = trial.decision
    if not decision:
        return []
    text = f"{decision.get('verdict', '?')} by {decision.get('by', '?')}"
    if decision.get("reason"):
        text += f": {decision['reason']}"
    if decision.get("verdict") == "edit" and trial.proposal:
        text += f" ({changes_text(trial.proposal['action'], trial.action)})"
    return [labelled("decided", (text, "plain"))]


def _score_lines(scores: Json) -> list[Line]:
    lines: list[Line] = []
    for task, splits in scores.items():
        for split, value in splits.items():
            text = f"{score(value.get('mean'))} {interval(value.get('interval'))} n={value.get('n', '?')}"
            lines.append(labelled("score", (f"{task} {text}", "plain"), (f" {split} split", "dim")))
    return lines


def budget_text(state: RunState) -> str:
    """What mode auto may use without asking."""
    left = max(0, state.max_trials - len([t for t in state.trials.values() if not t.is_open and t.status != "stopped"]))
    parts = [f"{left} more trial{'s' if left != 1 else ''}"]
    if state.wall_seconds:
        parts.append(f"{duration(max(0.0, state.wall_seconds - state.used_seconds))} of wall time")
    return " and ".join(parts)


def storage_text(frame: Json | None) -> str:
    """Free disk, where it is known."""
    free = ((frame or {}).get("host") or {}).get("disk_free")
    return f"{size(free)} of disk are free" if free is not None else ""
