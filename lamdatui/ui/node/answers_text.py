"""What the answers screen and the comparison say of answers. Pure: the engine's answers in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lamdatui.ui.view.format import Line, Span, Tone, interval, labelled, score, signed

Json = Mapping[str, Any]
FILTERS = ("all", "lost", "won", "wrong", "unfinished", "empty")
"""Kinds of rows that can be looked at alone."""


def flips_text(told: Json | None) -> str:
    """`+0.14 [+0.02, +0.26] 12 won 3 lost, p 0.035`; empty where there is nothing to compare."""
    if not told or "won" not in told:
        return ""
    gain = told["gain"]
    return f"{signed(gain['mean'])} {interval(gain['interval'], True)} {told['won']} won {told['lost']} lost, p {told['p']:.2g}"


def found_of(tasks: Sequence[Json] | None, task: str, split: str) -> Json | None:
    """The engine's line on a task and a split."""
    return next((one for one in tasks or () if one["task"] == task and one["split"] == split), None)


def head_lines(model: str, against: str, told: Json | None, kind: str, shown: int) -> list[Line]:
    """Whose answers to what, how they differ from the other model's by an exact test of the rows, and what is shown of them."""
    if told is None:
        return [((f" {model}: no task was scored", "dim"),)]
    first: list[Span] = [(f" {model}", "strong"), (f"  {told['task']} ({told['split']})", "plain")]
    if "error" in told:
        return [tuple(first), ((f" {told['error']}", "bad"),)]
    first.append((f"  {score(told['mean'])} on {told['n']} rows", "plain"))
    lines: list[Line] = [tuple(first)]
    if "won" in told:
        lines.append(((f" against {against}: {flips_text(told)} (exact)", "plain"),))
    elif against:
        lines.append(((f" {against} was not scored on these rows", "dim"),))
    lines.append(((f" {kind}: {shown} row{'' if shown == 1 else 's'}", "dim"),))
    return lines


def row_line(row: Json) -> Line:
    """`▲ 1.00  was 0.00  live_12`."""
    mine, other = row["score"], row["other"]
    sign, tone = _sign(mine, other)
    spans: list[Span] = [(f"{sign} ", tone), (f"{score(mine)}", "plain")]
    if other is not None:
        spans.append((f"  was {score(other)}", "dim"))
    spans.append((f"  {row['id']}", "plain"))
    if marks := [kind for kind in ("unfinished", "empty") if kind in row["kinds"]]:
        spans.append((f"  {', '.join(marks)}", "wait"))
    return tuple(spans)


def _sign(mine: float, other: float | None) -> tuple[str, Tone]:
    if other is None or mine == other:
        return ("✓", "good") if mine >= 1 else ("·", "dim")
    return ("▲", "good") if mine > other else ("▼", "bad")


def row_lines(told: Json) -> list[Line]:
    """One row whole: question, reference, and each model's answer with its score."""
    lines: list[Line] = [*_block("asked", told["asked"]), *_block("wanted", told["wanted"])]
    for one in told["answers"]:
        ended = "" if one["ended"] is not False else ", cut off at its last token"
        lines.append(())
        lines.append(labelled(str(one["model"]), (f"{score(one['score'])}{ended}", "strong")))
        lines += _indented(one["text"].splitlines() or ["(nothing)"])
    return lines


def _block(label: str, text: str) -> list[Line]:
    first, *rest = text.splitlines() or ["(nothing)"]
    return [labelled(label, (first, "plain")), *_indented(rest)]


def _indented(texts: Sequence[str]) -> Iterator[Line]:
    for text in texts:
        yield (("  ", "plain"), (text, "plain"))
