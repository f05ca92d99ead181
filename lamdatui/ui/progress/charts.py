"""The charts of the progress screen as data: points, axes with units, the same numbers as a table. Pure, no textual."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from lamdatui.ui.progress.results import Results, Scored
from lamdatui.ui.view.format import duration, number
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.training import Progress

Look = Literal["line", "faint", "dots", "marks"]

CHART_POINTS = 400
DOTS = 1000
"""Single trials that are drawn: the newest."""
TABLE_ROWS = 200
METRIC_ROWS = 40

METRICS: Mapping[str, tuple[str, str]] = {
    "reward": ("mean reward", ""),
    "reward_std": ("spread of rewards in a group", ""),
    "accuracies": ("share of pairs ranked right", "0 to 1"),
    "margins": ("reward margin, chosen over rejected", ""),
    "groups_alike": ("share of groups with equal rewards", "0 to 1"),
    "kl": ("distance to the reference (KL)", "nats"),
    "entropy": ("entropy of answers", "nats"),
    "answer_tokens": ("length of answers", "tokens"),
    "answers_cut": ("share of answers cut off", "0 to 1"),
}
"""What a step may report beside its loss: name in metrics.jsonl → what it is, its unit where it has one."""

Axis = Literal["trials", "steps", "work"]
AXES: Mapping[Axis, str] = {
    "trials": "trial",
    "steps": "seconds of steps (training and evaluation)",
    "work": "seconds of the whole run, waiting for a person left out",
}
"""What the best score so far can be drawn over."""


@dataclass(frozen=True, slots=True)
class Points:
    """One series. `faint` is a line to compare with, `dots` are points, `marks` are the points that stand out."""

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    look: Look


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and the table that says the same; `note` explains the marks, `empty` says why nothing is drawn."""

    title: str
    x: str
    y: str
    series: tuple[Points, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    empty: str = ""


def thinned(xs: Sequence[float], ys: Sequence[float], most: int = CHART_POINTS) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """At most `most` points, each the mean of its neighbours."""
    if len(xs) <= most:
        return tuple(xs), tuple(ys)
    edges = [place * len(xs) // most for place in range(most + 1)]
    spans = list(pairwise(edges))
    return (tuple(sum(xs[a:b]) / (b - a) for a, b in spans), tuple(sum(ys[a:b]) / (b - a) for a, b in spans))


# --- the step ----------------------------------------------------------------------------------------------------


def loss_chart(view: ViewState) -> Chart:
    """The loss of the shown step by training step."""
    return _metric_chart(view.progress, "loss", "loss", "mean over the batch", "No loss yet: nothing has trained here.")


def rate_chart(view: ViewState) -> Chart:
    """The learning rate of the shown step."""
    return _metric_chart(view.progress, "learning_rate", "learning rate", "per step", "No learning rate yet.")


def reward_metrics(progress: Progress | None) -> list[str]:
    """What the step reports beside its loss, in the table's order."""
    return [name for name in METRICS if progress and name in progress.curves]


def reward_chart(view: ViewState, name: str = "") -> Chart:
    """A reward-like value of the shown step: `name`, or the first that it reports."""
    known = reward_metrics(view.progress)
    if not known:
        reason = "This step reports no reward: preference and reinforcement steps do."
        return Chart("reward", "training step", "reward", empty=reason)
    name = name if name in known else known[0]
    title, unit = METRICS[name]
    chart = _metric_chart(view.progress, name, title, unit, "")
    others = [METRICS[other][0] for other in known if other != name]
    return (
        _with_note(chart, f"n: {others[0]}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")) if others else chart
    )


def _with_note(chart: Chart, note: str) -> Chart:
    return Chart(chart.title, chart.x, chart.y, chart.series, chart.header, chart.rows, note, chart.empty)


def _metric_chart(progress: Progress | None, name: str, title: str, unit: str, empty: str) -> Chart:
    curve = progress.curves.get(name) if progress else None
    if progress is None or curve is None or not curve.xs:
        return Chart(title, "training step", title, empty=empty)
    xs, ys = thinned(curve.xs, curve.ys)
    table_xs, table_ys = thinned(curve.xs, curve.ys, METRIC_ROWS)
    rows = tuple((f"{x:.0f}", f"{y:.4g}") for x, y in zip(table_xs, table_ys, strict=True))
    return Chart(
        f"{title}, step {progress.step}",
        "training step",
        f"{title} ({unit})" if unit else title,
        (Points(title, xs, ys, "line"),),
        ("step", title),
        rows,
    )


# --- the run -----------------------------------------------------------------------------------------------------


def best_chart(found: Results, axis: Axis = "trials") -> Chart:
    """Every trial's objective and the best so far, over trials or over time."""
    items, base = found.items, found.base
    title, y = "best so far", "objective (search split)"
    if not items:
        return Chart(title, AXES[axis], y, empty="No trial has a score yet.")
    place: dict[Axis, Callable[[Scored], float]] = {
        "trials": lambda item: float(item.trial.number),
        "steps": lambda item: item.steps,
        "work": lambda item: item.work,
    }
    xs = [place[axis](item) for item in items]
    best = list(accumulate((item.objective for item in items), max))
    series = [Points("best so far", *_stairs(xs, best), "line")]
    if base is not None:
        across = (min(0.0, xs[0]), max(xs))
        series.append(Points("base", across, (base, base), "faint"))
        if found.noise is not None:
            series.append(Points("noise floor", across, (found.noise, found.noise), "faint"))
    newest = items[-DOTS:]
    series.append(Points("a trial", tuple(xs[-DOTS:]), tuple(item.objective for item in newest), "dots"))
    rows = tuple(
        (
            str(item.trial.number),
            str(item.trial.model),
            f"{item.objective:.3f}",
            f"{top:.3f}",
            duration(item.steps),
            duration(item.work),
        )
        for item, top in zip(items[-TABLE_ROWS:], best[-TABLE_ROWS:], strict=True)
    )
    header = ("trial", "model", "objective", "best so far", "steps", "run")
    told = "— best so far   o a trial" + (f"   ┄ base {base:.3f}" if base is not None else "")
    told += f"   ┄ noise floor {found.noise:.3f}: below it a gain may be chance" if found.noise is not None else ""
    told += f"   (the newest {DOTS})" if len(items) > DOTS else ""
    return Chart(f"{title} by {axis}", AXES[axis], y, tuple(series), header, rows, told)


def _stairs(xs: Sequence[float], ys: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A line that goes up where something better came: not before."""
    across: list[float] = []
    up: list[float] = []
    for x, y in zip(xs, ys, strict=True):
        better = not up or y != up[-1]
        if up and better:
            across.append(x)
            up.append(up[-1])
        if better:
            across.append(x)
            up.append(y)
    return (*across, xs[-1]), (*up, ys[-1])


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, score) that no other beats in both: the cheapest first."""
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    found: list[int] = []
    for place in order:
        if not found or points[place][1] > points[found[-1]][1]:
            found.append(place)
    return found


def cost_chart(found: Results) -> Chart:
    """Objective against what the model's pipeline took to train; the Pareto points are those no cheaper model beats."""
    title, x, y = "score against cost", "seconds of the pipeline's steps", "objective (search split)"
    items = [item for item in found.items if item.trial.model in found.costs]
    if not items:
        return Chart(title, x, y, empty="No model has a score yet.")
    names = [str(item.trial.model) for item in items]
    points = [(found.costs[name], item.objective) for name, item in zip(names, items, strict=True)]
    if found.base is not None:
        names, points = ["base", *names], [(0.0, found.base), *points]
    front = pareto(points)
    best = set(front)
    rest = [place for place in range(len(points)) if place not in best]
    shown = rest[-DOTS:]
    series = (
        Points("a model", tuple(points[place][0] for place in shown), tuple(points[place][1] for place in shown), "dots"),
        Points("Pareto", tuple(points[place][0] for place in front), tuple(points[place][1] for place in front), "marks"),
    )
    ordered = [*front, *sorted(rest, key=lambda place: points[place][0])][:TABLE_ROWS]
    rows = tuple(
        ("◆ yes" if place in best else "no", names[place], f"{points[place][1]:.3f}", duration(points[place][0]))
        for place in ordered
    )
    told = "◆ nothing cheaper is better: " + ", ".join(
        f"{names[place]} {number(round(points[place][1], 3))}" for place in front
    )
    return Chart(title, x, y, series, ("Pareto", "model", "objective", "cost"), rows, f"{told}   o others")


def ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes: all points with a little air, never empty."""
    xs = [x for series in chart.series for x in series.xs]
    ys = [y for series in chart.series for y in series.ys]
    return _limits(xs, 0.02), _limits(ys, 0.08)


def _limits(values: Sequence[float], air: float) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * air or max(abs(high) * 0.1, 1e-9)
    return low - pad, high + pad


def table_lines(chart: Chart) -> list[str]:
    """The chart's numbers as aligned text: for screen readers, and where a chart has no room."""
    if not chart.rows:
        return [chart.empty]
    cells = [chart.header, *chart.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(chart.header))]
    return ["  ".join(text.ljust(wide) for text, wide in zip(row, widths, strict=True)).rstrip() for row in cells]


def described(value: Any) -> str:
    """A tick: plain digits where they are few."""
    size = abs(value)
    if size >= 10_000:
        for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
            if size >= limit:
                return f"{value / limit:.4g}{unit}"
    return f"{value:.3g}" if size < 1 else f"{value:.4g}"
