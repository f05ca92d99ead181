"""What the metrics of one step add up to: progress, pace and curves. Pure, no textual."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lamdatui.base.jsonio import finite
from lamdatui.ui.view.format import count, duration

Json = dict[str, Any]

CURVE_POINTS = 2048
CURVES = (
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "reward",
    "reward_std",
    "accuracies",
    "margins",
    "groups_alike",
    "kl",
    "entropy",
    "answer_tokens",
    "answers_cut",
)
"""The values of a training step that are kept as curves; their names in metrics.jsonl."""


@dataclass(slots=True)
class Curve:
    """A curve of any length in bounded memory: when it is full, neighbours are averaged, so that all of it stays in view."""

    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)
    stride: int = 1
    _pending: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """The next point; `x` grows."""
        self._pending.append((x, y))
        if len(self._pending) < self.stride:
            return
        self.xs.append(sum(x for x, _ in self._pending) / self.stride)
        self.ys.append(sum(y for _, y in self._pending) / self.stride)
        self._pending.clear()
        if len(self.xs) >= CURVE_POINTS:
            for values in (self.xs, self.ys):
                values[:] = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]
            self.stride *= 2


def _whole(value: Any) -> int:
    """A whole number of a metric; 0 for what is none."""
    return int(finite(value) or 0)


@dataclass(slots=True)
class Progress:
    """What the metrics of one step add up to."""

    step: str
    done: int = 0
    total: int = 0
    curves: dict[str, Curve] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    """The newest value of each curve."""
    epoch: float | None = None
    epochs: float | None = None
    seconds: float | None = None
    """Seconds since the step began, at its newest metric."""
    phase: str = "train"
    task: str = ""
    trained: int = -1
    """The newest training step that was taken in."""
    _phase_from: tuple[float, int] = (0.0, 0)
    """Seconds and done when the phase began."""

    @property
    def losses(self) -> list[float]:
        """The loss, step by step (averaged over neighbours in a long step)."""
        return self.curves["loss"].ys if "loss" in self.curves else []

    @property
    def grad_norm(self) -> float | None:
        """The newest gradient norm."""
        return self.latest.get("grad_norm")

    @property
    def tokens_per_second(self) -> float | None:
        """The newest pace."""
        return self.latest.get("tokens_per_second")

    @property
    def eta(self) -> float | None:
        """Seconds that are left of the phase at its pace so far; None where the pace is unknown."""
        began, first = self._phase_from
        if self.seconds is None or self.done <= first or self.total < self.done or self.seconds <= began:
            return None
        return (self.seconds - began) / (self.done - first) * (self.total - self.done)

    def take(self, metric: Json) -> None:
        """One line of metrics.jsonl. A line that was seen before (after a reconnect) changes nothing."""
        seconds = finite(metric.get("seconds"))
        if seconds is not None and self.seconds is not None and seconds < self.seconds:
            return
        if "phase" in metric and "total" in metric:
            done = _whole(metric.get("done"))
            self._enter(str(metric["phase"]), str(metric.get("task", "")), done, seconds)
            self.done, self.total = done, _whole(metric["total"])
            self.seconds = seconds if seconds is not None else self.seconds
            return
        step = metric.get("step")
        if not isinstance(step, int) or finite(step) is None or step <= self.trained:
            return
        self._enter("train", "", step, seconds)
        self.done, self.trained = step, step
        self.total = _whole(metric.get("max_steps")) or self.total
        self.seconds = seconds if seconds is not None else self.seconds
        for name in ("epoch", "epochs"):
            if (value := finite(metric.get(name))) is not None:
                setattr(self, name, value)
        for name in CURVES:
            if (value := finite(metric.get(name))) is not None:
                self.latest[name] = value
                self.curves.setdefault(name, Curve()).add(float(step), value)

    def _enter(self, phase: str, task: str, done: int, seconds: float | None) -> None:
        if (phase, task) != (self.phase, self.task) or self.seconds is None:
            self.phase, self.task = phase, task
            # Where a phase is first heard of in its middle, its time since then is its pace.
            self._phase_from = (seconds or 0.0, done) if done == 0 or phase != "train" else (0.0, 0)


def pace_text(progress: Progress) -> str:
    """`38 s left · 5.3k tok/s · loss 0.812 · grad 0.80`, or the phase while no training runs."""
    parts = [f"{duration(progress.eta)} left"] if progress.eta is not None else []
    if progress.phase != "train":
        return " · ".join([f"{progress.phase} {progress.task}".strip(), *parts])
    if progress.tokens_per_second:
        parts.append(f"{count(progress.tokens_per_second)} tok/s")
    if progress.losses:
        parts.append(f"loss {progress.losses[-1]:.3f}")
    if progress.grad_norm is not None:
        parts.append(f"grad {progress.grad_norm:.2f}")
    return " · ".join(parts) or progress.phase
