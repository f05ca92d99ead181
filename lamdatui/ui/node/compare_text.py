"""Two nodes side by side: what differs in how they were made, what they score, what they cost. Pure: state in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamdatui.domain.lineage import ancestry
from lamdatui.domain.state import RunState
from lamdatui.ui.node.answers_text import found_of
from lamdatui.ui.node.text import SPLITS, difference, scores_of, sign_of, table
from lamdatui.ui.view.format import Line, cost_of, duration, interval, score, signed
from lamdatui.ui.view.proposals import params_of
from lamdatui.ui.view.subject import Subject, action_fields

Json = dict[str, Any]
FIRST, SECOND, BOTH = "●", "○", "◉"
"""What stands for the first, the second, and both."""


def made_lines(state: RunState, one: Subject, other: Subject) -> list[Line]:
    """How each was made, with the lines that differ marked, and with `*` what is not the default."""
    fields = [_fields(item) for item in (one, other)]
    changed = [_changed(item) for item in (one, other)]
    pairs = {name: [found.get(name, "–") for found in fields] for name in dict.fromkeys([*fields[0], *fields[1]])}
    rows: list[tuple[str, ...]] = []
    for name, values in pairs.items():
        shown = [f"{value} *" if name in marked else value for value, marked in zip(values, changed, strict=True)]
        rows.append((_sign(values), name, *shown))
    pairs["lineage"] = [ancestry(state, item.model, 12) if item.trial and item.model else "–" for item in (one, other)]
    different = sum(first != second for first, second in pairs.values())
    legend = f"{different} difference{'' if different == 1 else 's'}{' · * not the default' if any(changed) else ''}"
    return [
        *table(("", "", f"{FIRST} {one.name}", f"{SECOND} {other.name}"), rows),
        *_lineages(pairs["lineage"]),
        ((legend, "dim"),),
    ]


def _sign(values: Sequence[str]) -> str:
    return "≠" if values[0] != values[1] else "="


def _lineages(pair: Sequence[str]) -> list[Line]:
    """Below the columns, because a lineage may be as long as both of them."""
    head = f"{_sign(pair)}  lineage  "
    if pair[0] == pair[1]:
        return [((f"{head}{BOTH} {pair[0]}", "plain"),)]
    return [((f"{head}{FIRST} {pair[0]}", "plain"),), ((f"{' ' * len(head)}{SECOND} {pair[1]}", "plain"),)]


def _fields(item: Subject) -> dict[str, str]:
    sign = sign_of(item)
    fields = {"state": f"{sign.glyph} {sign.word}"}
    return fields | (action_fields(item.trial.action) if item.trial else {"action": "base model"})


def _changed(item: Subject) -> set[str]:
    """The hyperparameters that are not at their defaults, as far as the declaration is there."""
    trial = item.trial
    if trial is None or not trial.action:
        return set()
    params = trial.action.get("params") or {}
    return {param.name for param in params_of(trial.proposal or {}) if params.get(param.name, param.default) != param.default}


def score_rows(state: RunState, one: Subject, other: Subject, flips: Sequence[Json] = ()) -> list[Line]:
    """Each task on each split, and how the rows of the second differ, once the engine has told (`flips`); then the objectives."""
    first, second = scores_of(state, one), scores_of(state, other)
    rows: list[tuple[str, ...]] = []
    for split in SPLITS:
        for task in dict.fromkeys([*first, *second]):
            pair = (first.get(task, {}).get(split), second.get(task, {}).get(split))
            if any(pair):
                shown = [
                    f"{score(value.get('mean'))} {interval(value.get('interval'))}".strip() if value else "–" for value in pair
                ]
                rows.append((task, split, *shown, difference(pair[1], pair[0], found_of(flips, task, split))))
    objectives = [item.trial.objective if item.trial else None for item in (one, other)]
    if any(value is not None for value in objectives):
        shown = ["–" if value is None else f"{value:.3f}" for value in objectives]
        left, right = objectives
        apart = "" if left is None or right is None else signed(right - left)
        rows.append(("objective", "search", *shown, apart))
    if not rows:
        return [(("neither is scored", "dim"),)]
    return table(("task", "split", f"{FIRST} {one.name}", f"{SECOND} {other.name}", f"{SECOND} − {FIRST}, by rows"), rows)


def cost_rows(one: Subject, other: Subject) -> list[Line]:
    """Seconds of each part of the trials."""
    seconds = [(item.trial.seconds if item.trial else None) or {} for item in (one, other)]
    names = [name for name in dict.fromkeys([*seconds[0], *seconds[1]]) if name != "total"]
    rows: list[tuple[str, ...]] = []
    for name, values in [(name, [found.get(name) for found in seconds]) for name in names]:
        rows.append((name, *("–" if value is None else duration(value) for value in values), _ratio(values)))
    work = [cost_of(item.trial) if item.trial else None for item in (one, other)]
    if any(value is not None for value in work):
        rows.append(("work", *("–" if value is None else duration(value) for value in work), _ratio(work)))
    if not rows:
        return [(("neither cost anything", "dim"),)]
    return table(("", f"{FIRST} {one.name}", f"{SECOND} {other.name}", f"{SECOND} / {FIRST}"), rows)


def _ratio(values: Sequence[float | None]) -> str:
    one, other = values
    return f"{other / one:.2f}" if one and other is not None else ""
