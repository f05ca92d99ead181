"""What the approval card says about a proposal, as lines of text. Pure: JSON in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamdatui.base.jsonio import finite
from lamdatui.base.text import one_line
from lamdatui.domain.budget import seconds_left
from lamdatui.domain.decisions import by_person
from lamdatui.domain.lineage import ancestry
from lamdatui.domain.objects import DatasetObject, ModelObject, unlike
from lamdatui.domain.state import RunState, details_of
from lamdatui.domain.trials import Trial
from lamdatui.ui.view.format import Line, Span, call_text, count, duration, inputs_text, labelled, number
from lamdatui.ui.view.proposals import alternatives, by_text, forecast, params_of, rivals, weighed_text

Json = dict[str, Any]
SHOWN = 6
"""As many are named on the card."""
Z95 = 1.96
"""Standard deviations on either side of a mean that hold 95% of a normal distribution."""


def title(trial: int, proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> str:
    """`Approve trial 3: sft? · opening`."""
    text = f"Approve trial {trial}: {(edited or proposal['action'])['type']}?"
    if proposal.get("opening"):
        text += " · opening"
    return text + (" · changed by you" if edited else "")


def facts(
    state: RunState,
    proposal: Mapping[str, Any],
    edited: Mapping[str, Any] | None,
    tried: Mapping[str, Any] | None = None,
) -> list[Line]:
    """What it will do: method, forecast, inputs with lineage, hyperparameters, and where an edit differs from the proposal.

    `edited` is the action that would run instead, `tried` what the engine said of it.
    """
    action = proposal["action"]
    shown = edited or action
    other = shown["type"] != action["type"]
    lines = [_method(proposal, shown)]
    lines += _checked(tried) if edited else [labelled("forecast", *forecast(proposal.get("estimate") or {}))]
    lines.append(labelled("predicts", *_predicts(state, proposal, tried if edited else details_of(proposal), edited)))
    for slot, ids in shown.get("inputs", {}).items():
        before = [] if other else list(action.get("inputs", {}).get(slot) or [])
        if not ids and not before:
            continue
        text = " + ".join(_object(state, name) for name in ids) or "none"
        if edited and list(ids) != before:
            was = "" if other else f"{'+'.join(before) or 'none'}\xa0→\xa0"
            lines.append(labelled(slot, (was + text, "wait")))
        else:
            lines.append(labelled(slot, (text, "plain")))
    family = (state.types.get(shown["type"]) or proposal.get("declaration") or {}).get("family", "")
    cost = ((tried or {}) if edited else proposal).get("estimate") or {}
    lines += _cautions(state, shown, family, finite(cost.get("seconds")) or 0.0)
    lines.append(labelled("params", *_params(proposal, edited)))
    if other:
        lines.append(labelled("proposed", (described(action), "dim")))
    return lines


def _cautions(state: RunState, action: Mapping[str, Any], family: str, seconds: float) -> list[Line]:
    """What is to know of the data and models that go in, and of the time that is left for what takes `seconds`."""
    items = [state.pool.items.get(name) for ids in action.get("inputs", {}).values() for name in ids]
    said = [f"{item.id}: {note}" for item in items if isinstance(item, DatasetObject) for note in item.notes]
    if seconds > (left := seconds_left(state)):
        said.append(f"the run has {duration(left)} left for it: it would be ended then, with a checkpoint")
    models = [item for item in items if isinstance(item, ModelObject)]
    names = " and ".join(item.id for item in models)
    if len({item.chat for item in models if item.chat}) > 1:
        said.append(f"{names} have different chat templates; the result has the first one's")
    if family == "merge":
        said += [
            f"{names} have {what}" for what in unlike([item.traits for item in models], [item.tokenizer for item in models])
        ]
    return [labelled("mind", (f"! {one_line(text)}", "wait")) for text in said[:SHOWN]]


def grounds(proposal: Mapping[str, Any]) -> list[Line]:
    """Why: the reason, who proposed it, what is expected of it, what replaced a failed planner, the alternatives."""
    lines = [labelled("why", (proposal.get("reason") or "no reason was given", "plain"))]
    by = by_text(proposal)
    if seconds := proposal.get("seconds"):
        by += f", in {duration(seconds).replace(' ', chr(0xA0))}"
    lines.append(labelled("by", (by, "plain")))
    lines += _chances(proposal)
    if fallback := proposal.get("fallback"):
        lines.append(labelled("fallback", (f"! the planner was replaced: {fallback}", "bad")))
    others = [weighed_text(item) for item in rivals(proposal)]
    if others:
        more = f" · {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        lines.append(labelled("instead of", (" · ".join(others[:SHOWN]) + more, "dim")))
    return lines


def queue_lines(state: RunState) -> list[Line]:
    """What people queued for the trials after this one."""
    queue = state.queue
    if not queue:
        return []
    named = [call_text(item.get("action")) for item in queue.values()]
    more = f" · {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return [labelled("then", (f"{len(queue)} queued by people: {' · '.join(named[:SHOWN])}{more}", "plain"))]


def described(action: Mapping[str, Any]) -> str:
    """`sft(m1, mix; epochs=2)`: an action on one line."""
    params = ", ".join(f"{name}={number(value)}" for name, value in action.get("params", {}).items())
    return f"{action.get('type', '?')}({inputs_text(action)}{'; ' if params else ''}{params})"


def _method(proposal: Mapping[str, Any], shown: Mapping[str, Any]) -> Line:
    kind, proposed = str(shown["type"]), str(proposal["action"]["type"])
    if kind != proposed:
        return labelled("method", (f"{proposed}\xa0→\xa0{kind}", "wait"))
    summary = proposal.get("declaration", {}).get("summary")
    return labelled("method", (kind, "strong"), (f": {summary}" if summary else "", "dim"))


def _checked(tried: Mapping[str, Any] | None) -> list[Line]:
    """The forecast of an edited action: what the engine said of it, or that nothing is known."""
    if tried is None:
        return [labelled("forecast", ("asking the engine…", "dim"))]
    if why := tried.get("unknown"):
        return [labelled("forecast", (f"unknown for the changed action: {why}", "wait"))]
    lines = [labelled("forecast", *forecast(tried.get("estimate") or {}))]
    for problem in tried.get("problems") or []:
        lines.append(labelled("problem", (f"✗ {problem}", "bad")))
    if tried.get("cached"):
        before = f" by trial {tried['trial']}" if tried.get("trial") is not None else ""
        lines.append(labelled("note", (f"= this exact action was done before{before}; its result is used again", "good")))
    return lines


def _predicts(
    state: RunState, proposal: Mapping[str, Any], told: Mapping[str, Any] | None, edited: Mapping[str, Any] | None
) -> list[Span]:
    """`objective 0.372, 95% from 0.311 to 0.433 · best so far 0.405 (m6): -0.033`."""
    if proposal.get("declaration", {}).get("output") == "dataset" and not edited:
        return [("a dataset has no score of its own", "dim")]
    expected, std = finite((told or {}).get("expected")), finite((told or {}).get("std"))
    best = best_before(state, proposal)
    against = f" · best so far {best[1]:.3f}\xa0({best[0]})" if best else " · no trial is scored yet"
    if expected is None:
        return [("objective unknown", "wait"), (against, "dim")]
    spread = (
        ", interval unknown"
        if std is None
        else f", 95%\xa0from\xa0{expected - Z95 * std:.3f}\xa0to\xa0{expected + Z95 * std:.3f}"
    )
    spans: list[Span] = [(f"objective\xa0{expected:.3f}{spread}", "plain"), (against, "dim")]
    if best:
        spans.append((f":\xa0{expected - best[1]:+.3f}", "good" if expected > best[1] else "plain"))
    return spans


def best_before(state: RunState, proposal: Mapping[str, Any]) -> tuple[str, float] | None:
    """Model and objective of the best trial before this proposal's; None before one is scored."""
    own = next((trial.number for trial in state.trials.values() if trial.proposal is proposal), None)
    scored = [
        (trial.objective, trial.model)
        for trial in state.trials.values()
        if trial.objective is not None and trial.model and (own is None or trial.number < own)
    ]
    if not scored:
        return None
    objective, model = max(scored, key=lambda item: item[0])
    return model, objective


def _chances(proposal: Mapping[str, Any]) -> list[Line]:
    """The planner's probability for it, and the surrogate's own favourite where that is another."""
    own = proposal.get("action", {}).get("digest")
    chances = [finite(item.get("probability")) for item in alternatives(proposal) if item.get("digest") == own]
    spans: list[Span] = []
    if chances and chances[0] is not None:
        spans.append((f"the planner gave it {chances[0]:.0%}", "plain"))
    rival = details_of(proposal).get("rival")
    if isinstance(rival, dict):
        spans.append((f"{' · ' if spans else ''}the surrogate's favourite: {weighed_text(rival)}", "dim"))
    return [labelled("chances", *spans)] if spans else []


def rule_text(proposal: Mapping[str, Any], edited: Mapping[str, Any] | None = None) -> str:
    """The rule that approve-and-remember adds: it holds for this type on these inputs (`engine/approval.py`, `consequences`)."""
    action = edited or proposal["action"]
    return f"always {action['type']} on {inputs_text(action)}, with any hyperparameters, in this run"


def veto_text(proposal: Mapping[str, Any]) -> str:
    """The constraint that a veto adds."""
    action = proposal["action"]
    return f"never {action['type']} on {inputs_text(action)}, in this run, because"


def decided_text(trial: Trial) -> str:
    """`Trial 7 was approved by person in another console: too slow`, for those who were still looking at it."""
    decision = trial.decision or {}
    verdict, by = str(decision.get("verdict", "?")), one_line(decision.get("by", "?"))
    words = {"approve": "approved", "edit": "changed and approved", "veto": "vetoed", "skip": "skipped", "stop": "stopped"}
    where = " in another console" if by_person(by) else ""
    text = f"Trial {trial.number} was {words.get(verdict, verdict)} by {by}{where}"
    return text + (f": {one_line(decision['reason'])}" if decision.get("reason") else "")


def in_force_text(kind: str, name: str, item: Mapping[str, Any]) -> str:
    """`Constraint c7: never sft on m6: too slow. Take it back on the planner's screen (r on the card, or P).`"""
    word = "Constraint" if kind == "constraints" else "Rule"
    return f"{word} {name}: {item.get('text', '')}. Take it back on the planner's screen: r on the card, or P."


def _object(state: RunState, name: str) -> str:
    item = state.pool.items.get(name)
    if isinstance(item, DatasetObject):
        made = f", {origin}" if (origin := ancestry(state, name)) else ""
        return f"{name} ({item.format}, {item.rows} rows{made})"
    if not isinstance(item, ModelObject):
        return name
    size_text = f"{count(item.parameters)} parameters" if item.parameters else item.architecture
    return f"{name} ({ancestry(state, name) or f'base, {size_text}'})"


def _params(proposal: Mapping[str, Any], edited: Mapping[str, Any] | None) -> list[Span]:
    action = proposal["action"]
    other = bool(edited) and edited["type"] != action["type"]
    declared = {} if other else {param.name: param for param in params_of(proposal)}
    before = action.get("params", {})
    spans: list[Span] = []
    for name, shown in (edited or action).get("params", {}).items():
        if spans:
            spans.append(("  ", "plain"))
        # No-break spaces: a name must not be parted from its value where the card wraps.
        spans.append((f"{name}\xa0", "dim"))
        param = declared.get(name)
        unit = f"\xa0{param.unit}" if param and param.unit else ""
        if other:
            spans.append((f"{number(shown)}", "wait"))
        elif shown != before.get(name):
            spans.append((f"{number(before.get(name))}\xa0→\xa0{number(shown)}{unit}", "wait"))
        elif param and param.default != shown:
            spans.append((f"{number(shown)}*{unit}", "strong"))
        else:
            spans.append((f"{number(shown)}{unit}", "plain"))
    return spans or [("none", "dim")]
