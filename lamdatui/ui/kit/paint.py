"""Tones to theme colours. Text becomes Content here and is never parsed as markup."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from lamdatui.ui.view.format import Line, Span, Tone

STYLES: dict[Tone, str] = {
    "plain": "",
    "dim": "$foreground 55%",
    "good": "$text-success",
    "bad": "$text-error",
    "wait": "$text-warning",
    "run": "$text-accent",
    "strong": "bold",
}


def paint(spans: Iterable[Span]) -> Content:
    """One line."""
    return Content.assemble(*((text, STYLES[tone]) for text, tone in spans))


def paint_lines(lines: Iterable[Line]) -> Content:
    """Several lines."""
    return Content("\n").join([paint(line) for line in lines])
