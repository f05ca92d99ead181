"""The status row: the fields that matter most, dropped from the right when the terminal is narrow."""

from __future__ import annotations

import re

from textual.content import Content
from textual.widget import Widget

from lamdatui.base.jsonio import finite
from lamdatui.base.text import one_line
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.view.format import MODE_BADGES, Span, count, size
from lamdatui.ui.view.state import ENDED, ViewState

SEPARATOR: Span = (" │ ", "dim")


class StatusRow(Widget):
    """One row: run, mode badge, what needs attention, trial n/max, phase, planner, GPU."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="status")
        self._view = view

    def render(self) -> Content:
        badge = Content.styled(f" {MODE_BADGES.get(self._view.run.mode, self._view.run.mode)} ", "bold $primary reverse")
        name: Span = (f" {self._view.run.name or 'lamdatui'} ", "strong")
        shown = paint([name]) + badge
        for field in fields(self._view):
            part = paint([SEPARATOR, field])
            if shown.cell_length + part.cell_length > self.size.width:
                break
            shown += part
        return shown


def fields(view: ViewState) -> list[Span]:
    """The fields after name and mode, most important first."""
    run = view.run
    found: list[Span] = [alert] if (alert := _alert(view)) else []
    if run.trials or run.max_trials:
        found.append((f"trial {next(reversed(run.trials), 0)}/{run.max_trials or '?'}", "plain"))
    if run.phase and not view.waiting and not view.is_over:
        found.append((phase_text(view), "run"))
    if planner := planner_text(view):
        found.append((planner, "plain"))
    if gpu := gpu_text(view):
        found.append((gpu, "plain"))
    if run.problems:
        found.append((f"{len(run.problems)} problem{'s' if len(run.problems) > 1 else ''}", "wait"))
    return found


def _alert(view: ViewState) -> Span | None:
    run = view.run
    if view.connection == "connecting":
        return ("connecting to the engine…", "wait")
    if view.connection == "lost" and view.connection_detail.startswith(ENDED):
        return (one_line(view.connection_detail), "bad")
    if view.connection == "lost":
        return ("run ended, engine gone", "dim") if view.is_over else ("engine gone: reconnecting…", "bad")
    if view.connection == "catching-up":
        return ("catching up…", "wait")
    if view.connection_detail:
        return (view.connection_detail, "bad")
    if view.is_over:
        return (f"■ {run.status}", "strong")
    if run.stopping:
        return (f"■ stopping {run.stopping}", "wait")
    if view.waiting:
        return ("? waiting for you", "wait")
    if run.paused_by == "engine":
        # Why stands beside it, as the phase's detail.
        return ("‖ paused: disk", "bad")
    return ("‖ paused", "wait") if run.paused else None


def phase_text(view: ViewState) -> str:
    """`running sft`: the phase, without the trial's number, which stands beside it."""
    detail = re.sub(r"^trial \d+(: )?", "", view.run.phase_detail)
    return f"{view.run.phase} {detail}".strip()


def planner_text(view: ViewState) -> str:
    """Policy or planner, and the tokens it used."""
    planner = view.run.profile.get("planner")
    name = ""
    if isinstance(planner, dict):
        name = next((str(planner[key]) for key in ("model", "name", "kind", "host") if planner.get(key)), "")
    elif isinstance(planner, str):
        name = planner
    text = " · ".join(part for part in (view.run.policy, name.rsplit("/", 1)[-1]) if part)
    return f"{text} {count(view.run.planner_tokens)} tok" if text and view.run.planner_tokens else text


def gpu_text(view: ViewState) -> str:
    """`GPU 97% 121/139 GB`, or CPU where there is no GPU."""
    frame = view.hardware or {}
    gpus = frame.get("gpus") or []
    if gpus:
        first = gpus[0]
        used = f"{(finite(first.get('memory_used')) or 0) / 1e9:.0f}/{size(finite(first.get('memory_total')))}"
        more = f" +{len(gpus) - 1}" if len(gpus) > 1 else ""
        recorded = " (recorded)" if frame.get("recorded") else ""
        return f"GPU{recorded} {first.get('util') if first.get('util') is not None else '?'}% {used}{more}"
    host = frame.get("host") or {}
    percents = [value for core in host.get("cpu_percent") or [] if (value := finite(core)) is not None]
    return f"no GPU, CPU {sum(percents) / len(percents):.0f}%" if percents else ""
