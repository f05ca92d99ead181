"""Two nodes side by side: what differs in how they were made, what they score, what they cost. Pure: state in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamdatui.domain.state import RunState
from lamdatui.ui.node import SPLITS, Subject, action_fields, difference, scores_of, sign_of, table
from lamdatui.ui.pipeline import cost_of
from lamdatui.ui.proposal import ancestry, params_of
from lamdatui.ui.words import Line, Span, duration, interval, score, signed

Json = dict[str, Any]
FIRST, SECOND, BOTH = "●", "○", "◉"
LABELS = 10
"""Cells of the labels beside a chart."""


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


def score_rows(state: RunState, one: Subject, other: Subject) -> list[Line]:
    """Each task on each split, the difference, and whether the intervals overlap; then the objectives."""
    first, second = scores_of(state, one), scores_of(state, other)
    rows: list[tuple[str, ...]] = []
    for split in SPLITS:
        for task in dict.fromkeys([*first, *second]):
            pair = (first.get(task, {}).get(split), second.get(task, {}).get(split))
            if any(pair):
                shown = [
                    f"{score(value.get('mean'))} {interval(value.get('interval'))}".strip() if value else "–" for value in pair
                ]
                rows.append((task, split, *shown, difference(pair[1], pair[0])))
    objectives = [item.trial.objective if item.trial else None for item in (one, other)]
    if any(value is not None for value in objectives):
        shown = ["–" if value is None else f"{value:.3f}" for value in objectives]
        left, right = objectives
        apart = "" if left is None or right is None else signed(right - left)
        rows.append(("objective", "search", *shown, apart))
    if not rows:
        return [(("neither is scored", "dim"),)]
    return table(("task", "split", f"{FIRST} {one.name}", f"{SECOND} {other.name}", f"{SECOND} − {FIRST}, intervals"), rows)


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


def curves(series: Sequence[tuple[str, Sequence[float]]], width: int, height: int) -> list[Line]:
    """Loss curves over each other on one scale: `●` the first, `○` the second, `◉` where they meet.

    Each curve has the whole width for its steps, so that runs of another length can be compared by shape.
    """
    drawn = [list(values) for _, values in series]
    known = [value for values in drawn for value in values]
    if not known or width < LABELS + 2 or height < 2:
        return [(("no losses were written", "dim"),)]
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    room = width - LABELS
    grid: list[list[int]] = [[0] * room for _ in range(height)]
    for bit, values in enumerate(drawn, 1):
        for column in range(room if values else 0):
            value = values[min(len(values) - 1, column * len(values) // room)]
            grid[height - 1 - round((value - low) / span * (height - 1))][column] |= bit
    lines: list[Line] = []
    for place, cells in enumerate(grid):
        label = _label(high) if place == 0 else _label(low) if place == height - 1 else " " * LABELS
        lines.append(((label, "dim"), *_runs(cells)))
    names: list[Span] = [(" " * LABELS, "plain")]
    for glyph, (name, values) in zip((FIRST, SECOND), series, strict=False):
        last = f", last {values[-1]:.3f}" if values else ", no losses"
        names.append((f"{glyph} {name}: {len(values)} steps{last}   ", "dim"))
    return [*lines, tuple(names)]


def _label(value: float) -> str:
    text = f"{value:.3g}" if len(f"{value:.3g}") < LABELS else f"{value:.0e}"
    return f"{text:>{LABELS - 1}} "


def _runs(cells: Sequence[int]) -> list[Span]:
    shown: dict[int, Span] = {0: (" ", "plain"), 1: (FIRST, "run"), 2: (SECOND, "wait"), 3: (BOTH, "strong")}
    spans: list[Span] = []
    for cell in cells:
        text, tone = shown[cell]
        if spans and spans[-1][1] == tone:
            spans[-1] = (spans[-1][0] + text, tone)
        else:
            spans.append((text, tone))
    return spans
