"""The hardware pane: the running step's progress and loss, GPUs, the host."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from lamdatui.ui.pipeline import fit
from lamdatui.ui.state import Progress, ViewState
from lamdatui.ui.widgets.paint import paint_lines
from lamdatui.ui.words import Line, Span, bar, count, duration, hang, size, sparkline

Json = dict[str, Any]


class HardwarePane(VerticalScroll):
    """Text that is laid out for the width that the pane has."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="hardware", classes="pane")
        self.border_title = "4 GPU · CPU"
        self._view = view
        self._body = Static(markup=False, id="hardware-body")

    def compose(self) -> ComposeResult:
        yield self._body

    def update_view(self) -> None:
        """Show the state again."""
        room = self.scrollable_content_region
        # Room for a scrollbar is always left: bars that fill the pane must not wrap when one appears.
        width = room.width - (0 if self.show_vertical_scrollbar else 1)
        self._body.update(hardware_content(self._view, max(24, width), room.height))

    def on_resize(self, event: Resize) -> None:
        self.update_view()


def hardware_content(view: ViewState, width: int, height: int) -> Content:
    """The pane's text for a size: the step first, because it is what one waits for."""
    rest = [*_gpus(view, width), *_host(view, width)]
    chart = max(1, min(8, height - len(rest) - 3))
    return paint_lines([*_step(view, width, chart), *rest])


def _step(view: ViewState, width: int, chart: int) -> list[Line]:
    step, progress = view.running_step, view.progress
    if step is None:
        return [(("no step is running", "dim"),)]
    title: Line = (("▶ ", "run"), (f"step {step.key} ", "strong"), (step.purpose, "dim"))
    if progress is None or progress.step != step.key:
        starting: Line = (("  starting", "dim"),)
        return [title, starting]
    lines: list[Line] = [title]
    if progress.total:
        tail = f" {progress.done}/{progress.total}"
        lines.append(((bar(progress.done / progress.total, max(4, width - len(tail))), "run"), (tail, "plain")))
    lines.append(((_pace(progress), "dim"),))
    if progress.losses:
        lines.extend(((text, "run"),) for text in sparkline(progress.losses, width, chart))
    return lines


def _pace(progress: Progress) -> str:
    if progress.phase != "train":
        return f"{progress.phase} {progress.task}".strip()
    parts = [f"{duration(progress.eta)} left"] if progress.eta is not None else []
    if progress.tokens_per_second:
        parts.append(f"{count(progress.tokens_per_second)} tok/s")
    if progress.losses:
        parts.append(f"loss {progress.losses[-1]:.3f}")
    if progress.grad_norm is not None:
        parts.append(f"grad {progress.grad_norm:.2f}")
    return " · ".join(parts) or progress.phase


def _meter(label: str, fraction: float | None, text: str, width: int) -> list[Span]:
    """`util ████░░ 97%` in exactly `width` cells."""
    room = max(2, width - len(label) - len(text) - 2)
    cells = bar(fraction, room) if fraction is not None else f"{'?':<{room}}"
    hot = fraction is not None and fraction > 0.95
    return [(f"{label} ", "dim"), (cells, "wait" if hot else "run"), (f" {text}", "plain")]


def _pair(left: list[Span], right: list[Span]) -> Line:
    return (*left, ("  ", "plain"), *right)


def _halves(width: int) -> tuple[int, int]:
    left = (width - 2) // 2
    return left, width - 2 - left


def _gpus(view: ViewState, width: int) -> list[Line]:
    frame = view.hardware
    if frame is None:
        return [(("no hardware reading yet", "dim"),)]
    lines: list[Line] = []
    for gpu in frame.get("gpus") or []:
        parts = []
        if gpu.get("power_w") is not None:
            parts.append(f"{gpu['power_w']:.0f} W")
        if gpu.get("temperature_c") is not None:
            parts.append(f"{gpu['temperature_c']:.0f} °C")
        if processes := gpu.get("processes"):
            parts.append(f"{len(processes)} process{'es' if len(processes) > 1 else ''}")
        text = " · ".join(parts)
        name: list[Span] = [(f"GPU {gpu.get('index', '?')} ", "strong"), (str(gpu.get("name", "")), "plain")]
        lines.append((*fit(name, max(8, width - len(text))), (text, "dim")))
        util, used, total = gpu.get("util"), gpu.get("memory_used"), gpu.get("memory_total")
        left, right = _halves(width)
        share = used / total if used is not None and total else None
        memory = f"{size(used).removesuffix(' GB')}/{size(total)}"
        lines.append(
            _pair(
                _meter("util", None if util is None else util / 100, "?" if util is None else f"{util:.0f}%", left),
                _meter("mem", share, memory, right),
            )
        )
    if not lines:
        reason = str(frame.get("reason") or "the probe gave no reason")
        lines += hang((("no GPU: ", "strong"), (reason, "dim")), width, 0)
    return lines


def _host(view: ViewState, width: int) -> list[Line]:
    host: Json = (view.hardware or {}).get("host") or {}
    left, right = _halves(width)
    first: list[list[Span]] = []
    if percents := host.get("cpu_percent"):
        mean = sum(percents) / len(percents)
        first.append(_meter("CPU", mean / 100, f"{mean:.0f}% of {len(percents)}", left))
    if (total := host.get("memory_total")) and (used := host.get("memory_used")) is not None:
        first.append(_meter("RAM", used / total, f"{size(used).removesuffix(' GB')}/{size(total)}", right))
    lines: list[Line] = [_pair(first[0], first[1])] if len(first) == 2 else [tuple(meter) for meter in first]
    second: list[list[Span]] = []
    if (total := host.get("disk_total")) and (free := host.get("disk_free")) is not None:
        second.append(_meter("disk", 1 - free / total, f"{size(free)} free", left))
    load = " ".join(f"{value:.2f}" for value in host.get("load") or [])
    if load and len(load) + 5 <= right:
        second.append([("load ", "dim"), (load, "plain")])
    return [*lines, _pair(second[0], second[1])] if len(second) == 2 else [*lines, *(tuple(part) for part in second)]
