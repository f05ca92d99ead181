"""What the node screen says of a model or trial, section by section. Pure: state in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from lamdatui.domain.lineage import ancestry, model_inputs
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.scores import remarks
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import corrected, direction, looks, verdict, winner_gain
from lamdatui.ui.node.answers_text import flips_text, found_of
from lamdatui.ui.view.format import (
    Line,
    Mark,
    Span,
    Tone,
    call_text,
    cost_of,
    count,
    duration,
    interval,
    labelled,
    mark,
    number,
    score,
    signed,
    size,
)
from lamdatui.ui.view.proposals import by_text, params_of
from lamdatui.ui.view.subject import Subject, action_fields

if TYPE_CHECKING:
    from lamdatui.domain.actions import Param
    from lamdatui.domain.records import Score, Scores

Json = dict[str, Any]
VERDICTS = {"approve": "approved", "edit": "edited and approved", "veto": "vetoed", "skip": "skipped", "stop": "stopped"}
SPLITS = ("search", "sealed")
WAYS = 40
"""Lines of a lineage before the rest is left to the pipeline pane."""


def sign_of(item: Subject) -> Mark:
    """Its state as glyph and word."""
    if item.trial is None:
        return Mark("●", "base model", "plain")
    return mark("cached" if item.trial.cached and item.trial.status == "done" else item.trial.status)


def head_line(state: RunState, item: Subject, best: bool) -> Line:
    """`✓ done  m3  sft(base, mix)  +0.06 [0.00, 0.12] against the base  38 s  ★ best`."""
    sign, trial = sign_of(item), item.trial
    spans: list[Span] = [(f" {sign.glyph} {sign.word}  ", sign.tone), (item.name, "strong")]
    if trial and trial.action:
        spans.append((f"  {call_text(trial.action)}", "plain"))
    if trial and trial.gain:
        count = looks(state)
        tone: Tone = "good" if direction(trial.gain, count) > 0 else "plain"
        spans.append((f"  {signed(trial.gain.get('mean'))} {interval(corrected(trial.gain, count), True)}", tone))
        spans.append((f" against the base on search, widened for {count} scored", "dim"))
    if trial and (cost := cost_of(trial)) is not None:
        spans.append((f"  {duration(cost)}", "dim"))
    if best:
        spans.append(("  ★ best", "wait"))
    return tuple(spans)


def action_lines(state: RunState, item: Subject) -> list[Line]:
    """The action with its hyperparameters, the changed ones marked; of a base model what it is."""
    if item.trial is None:
        base = state.pool.items.get(item.model or "")
        if not isinstance(base, ModelObject):
            return []
        return [
            labelled("kind", (base.architecture, "plain")),
            labelled("size", (f"{count(base.parameters)} parameters", "plain")),
            labelled("digest", (base.digest, "dim")),
        ]
    action, trial = item.trial.action, item.trial
    if not action:
        return [(("nothing is proposed yet", "dim"),)]
    declared = params_of(trial.proposal or {})
    lines = [labelled("action", (call_text(action), "strong"))]
    if summary := (trial.proposal or {}).get("declaration", {}).get("summary"):
        lines.append(labelled("method", (str(summary), "dim")))
    lines += _param_lines(action.get("params", {}), declared)
    lines.append(labelled("seed", (str(action.get("seed", "?")), "plain")))
    lines.append(labelled("digest", (str(action.get("digest", "")), "dim")))
    if trial.error:
        lines.append(labelled("error", (f"{trial.error.get('class', '')}: {trial.error.get('message', '')}", "bad")))
    return lines


def _param_lines(params: Mapping[str, Any], declared: Iterable[Param]) -> list[Line]:
    known = {param.name: param for param in declared}
    lines: list[Line] = []
    for name, value in params.items():
        param = known.get(name)
        unit = f" {param.unit}" if param and param.unit else ""
        if param and param.default != value:
            spans: list[Span] = [(f"{number(value)}{unit} *", "strong"), (f"  default {number(param.default)}", "dim")]
        else:
            spans = [(f"{number(value)}{unit}", "plain")]
        lines.append((("  ", "plain"), (f"{name:<22} ", "dim"), *spans))
    return lines


def data_lines(state: RunState, item: Subject) -> list[Line]:
    """The datasets that went in, and what a data action made."""
    names = [name for ids in ((item.trial and item.trial.action) or {}).get("inputs", {}).values() for name in ids]
    lines: list[Line] = []
    for name in names:
        if isinstance(data := state.pool.items.get(name), DatasetObject):
            made = ancestry(state, name) or data.path
            lines.append(labelled(name, (f"{data.format}, {data.rows} rows", "plain"), (f"  {made}", "dim")))
    made = state.pool.items.get((item.trial.dataset if item.trial else None) or "")
    if isinstance(made, DatasetObject):
        lines.append(labelled("made", (f"{made.id}: {made.format}, {made.rows} rows", "strong")))
    return lines or [(("no dataset went in", "dim"),)]


def lineage_lines(state: RunState, item: Subject) -> list[Line]:
    """How it came to be, as a small tree with its parents below it; then what was made from it."""
    name = item.model or (item.trial.dataset if item.trial else None)
    lines: list[Line] = []
    seen: set[str] = set()
    start = (name, None if name else item.trial)
    stack: list[tuple[tuple[str | None, Trial | None], str, str]] = [(start, "", "")]
    while stack and len(lines) < WAYS:
        (made, trial), guide, below = stack.pop()
        known = state.pool.items.get(made or "")
        trial = trial or (state.trials.get(known.trial) if known and known.trial is not None else None)
        again = made in seen
        seen.add(made or "")
        lines.append(_ancestor(made, trial, guide, again))
        parents = list(dict.fromkeys(model_inputs(state, trial.action))) if trial and not again else []
        for place, parent in reversed(list(enumerate(parents))):
            last = place == len(parents) - 1
            stack.append(((parent, None), f"{below}{'└ ' if last else '├ '}", f"{below}{'  ' if last else '│ '}"))
    if stack:
        lines.append(((f"… and {len(stack)} more branches", "dim"),))
    users = [t for t in state.trials.values() if t.action and any(name in ids for ids in t.action.get("inputs", {}).values())]
    if users:
        texts = [f"{t.model or t.dataset or t.number} {t.action['type']}" for t in users[:12] if t.action]
        more = f" and {len(users) - 12} more" if len(users) > 12 else ""
        lines.append(labelled("used by", (", ".join(texts) + more, "plain")))
    return lines


def _ancestor(made: str | None, trial: Trial | None, guide: str, again: bool) -> Line:
    spans: list[Span] = [(guide, "dim"), (made or (f"trial {trial.number}" if trial else "?"), "strong")]
    if trial and trial.action:
        spans.append((f"  {call_text(trial.action)}", "plain"))
        if trial.objective is not None:
            spans.append((f"  {score(trial.objective)}", "dim"))
    elif trial is None:
        spans.append(("  base", "dim"))
    if again:
        spans.append(("  as above", "dim"))
    return tuple(spans)


def scores_of(state: RunState, item: Subject) -> Json:
    """task → split → score: what the trial says, and what was recorded later."""
    found: Json = {task: dict(splits) for task, splits in ((item.trial.scores if item.trial else None) or {}).items()}
    for task, splits in state.scores.get(item.model or "", {}).items():
        found[task] = {**found.get(task, {}), **splits}
    return found


def base_of(state: RunState, item: Subject) -> str | None:
    """The base model that the scores are set against: the first one of its lineage."""
    name, steps = item.model or next(iter(model_inputs(state, item.trial.action if item.trial else None)), None), 0
    while name is not None and steps <= len(state.trials):
        made = state.pool.items.get(name)
        if made is None or made.trial is None:
            return name
        name, steps = next(iter(model_inputs(state, state.trials[made.trial].action)), None), steps + 1
    return None


def score_lines(state: RunState, item: Subject, flips: Sequence[Mapping[str, Any]] = ()) -> list[Line]:
    """Each task on each split: base, this one, and how their rows differ, once the engine has told (`flips`)."""
    base = base_of(state, item)
    mine, theirs = scores_of(state, item), state.scores.get(base or "", {})
    rows: list[tuple[str, str, str, str, str]] = []
    for split in SPLITS:
        for task in dict.fromkeys([*mine, *theirs]):
            one, other = mine.get(task, {}).get(split), theirs.get(task, {}).get(split)
            if one or (other and item.trial is None):
                rows.append(
                    (task, split, _scored(other), _scored(one or other), difference(one, other, found_of(flips, task, split)))
                )
    if not rows:
        return [(("not scored", "dim"),)]
    shown = rows if item.trial else [(task, split, "", mine, "") for task, split, _, mine, _ in rows]
    lines = table(("task", "split", base or "base", item.name, "difference by rows"), shown)
    for task, split, told in _remarks(mine):
        lines.append(((f"! {task}, {split}: {told}", "wait"),))
    trial = item.trial
    if trial and trial.objective is not None:
        wide = interval(corrected(trial.gain, looks(state)), True)
        text = (
            f"  {signed((trial.gain or {}).get('mean'))} {wide} against the base on search, widened for {looks(state)} scored"
        )
        lines.append(labelled("objective", (f"{trial.objective:.3f}", "strong"), (text, "plain")))
    if item.model and item.model == state.winner:
        _, gain = winner_gain(state) or ("", {})
        text = f"{verdict(state)} {signed(gain.get('mean'))} {interval(gain.get('interval'), True)}".strip(" –")
        lines.append(labelled("winner", (text, "wait")))
    return lines


def _remarks(scores: Scores) -> Iterator[tuple[str, str, str]]:
    for task, splits in scores.items():
        yield from ((task, split, told) for split, value in splits.items() if (told := remarks(value["n"], value)))


def _scored(value: Score | None) -> str:
    return f"{score(value['mean'])} {interval(value['interval'])}".strip() if value else "–"


def difference(one: Score | None, other: Score | None, told: Mapping[str, Any] | None) -> str:
    """`+0.14 [+0.02, +0.26] 12 won 3 lost, p 0.035`, of the same rows; the difference alone while the engine has not told."""
    if not one or not other:
        return ""
    return flips_text(told) or signed(one["mean"] - other["mean"])


def table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[Line]:
    """Rows in columns as wide as their content; empty columns are left out."""
    rows = list(rows)
    kept = [place for place in range(len(names)) if any(row[place] for row in rows)]
    sizes = {place: max(cell_len(row[place]) for row in [names, *rows]) for place in kept}

    def line(row: tuple[str, ...], tone: Tone) -> Line:
        cells = [row[place] + " " * (sizes[place] - cell_len(row[place]) + 2) for place in kept]
        return (("".join(cells).rstrip(), tone),)

    return [line(names, "dim"), *(line(row, "plain") for row in rows)]


def story_lines(state: RunState, item: Subject, ran: Mapping[str, Any] | None) -> list[Line]:
    """Proposal, decision and what ran, side by side, with what differs marked; then who and why."""
    trial = item.trial
    if trial is None:
        return [(("the profile names it; nothing was proposed", "dim"),)]
    proposal, decision = trial.proposal or {}, trial.decision or {}
    verdict = str(decision.get("verdict") or "")
    proposed = proposal.get("action")
    decided = trial.action if verdict in ("approve", "edit") else None
    columns = [action_fields(proposed), action_fields(decided), action_fields(ran)]
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(name for fields in columns for name in fields):
        values = [fields.get(name, "") for fields in columns]
        told = {value for value, fields in zip(values, columns, strict=True) if fields}
        rows.append(("≠" if len(told) > 1 else " ", name, *values))
    lines = table(("", "", "proposed", f"decided: {verdict or 'not yet'}", "ran"), rows) if rows else []
    lines.append(labelled("by", (by_text(proposal), "plain")))
    lines.append(labelled("why", (str(proposal.get("reason") or trial.reason or "no reason was given"), "plain")))
    if decision:
        reason = f": {decision['reason']}" if decision.get("reason") else ""
        lines.append(labelled("decided", (f"{VERDICTS.get(verdict, verdict)} by {decision.get('by', '?')}{reason}", "plain")))
    for key, step in state.steps.items():
        if step.trial == trial.number:
            sign = mark("cached" if step.cached else step.status)
            error = f": {(step.error or {}).get('class', '')}" if step.error else ""
            lines.append(labelled(f"step {key}", (f"{sign.glyph} {sign.word}{error}", sign.tone)))
    if trial.seconds:
        parts = " · ".join(f"{name} {duration(value)}" for name, value in trial.seconds.items() if value is not None)
        lines.append(labelled("time", (parts, "plain")))
    return lines


def file_lines(files: Iterable[tuple[Path, int | None]]) -> list[Line]:
    """Paths with their sizes."""
    lines: list[Line] = [((f"{size(found):>9}  ", "dim"), (str(path), "plain")) for path, found in files]
    return lines or [(("no files", "dim"),)]
