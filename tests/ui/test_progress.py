"""The progress screen: curves, charts and their tables, ledgers, panels at every size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bench.bigrun import BigRun
from lamdatui.domain.budget import Ledger
from lamdatui.domain.events import Event
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import corrected
from lamdatui.ui.card.card import ApprovalCard
from lamdatui.ui.progress.chart import ChartPanel
from lamdatui.ui.progress.charts import (
    Axis,
    Chart,
    Points,
    best_chart,
    cost_chart,
    described,
    loss_chart,
    pareto,
    ranges,
    rate_chart,
    reward_chart,
    reward_metrics,
    table_lines,
    thinned,
)
from lamdatui.ui.progress.results import Results, Tally, results
from lamdatui.ui.progress.screen import NAMES, ProgressScreen
from lamdatui.ui.progress.text import ledger_bar, ledger_lines, overview_lines
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.training import CURVE_POINTS, Curve, Progress
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

LEDGERS = (
    Ledger("trials", 6, 0, 12, "trials"),
    Ledger("wall", 406.0, 30.0, 7200.0, "s"),
    Ledger("step time", 96.0, 30.0, None, "s"),
    Ledger("planner tokens", 12_300, 0, None, "tokens"),
    Ledger("disk", 5.2e8, 0, None, "bytes"),
)


def metrics(steps: int, **extra: Any) -> list[dict[str, Any]]:
    return [
        {"step": step, "max_steps": 120, "loss": 2.0 / step, "learning_rate": 1e-4 / step, "seconds": 0.5 * step,
         "epoch": step / 60, "epochs": 2, **{name: value * step for name, value in extra.items()}}
        for step in range(1, steps + 1)
    ]  # fmt: skip


def played(engine: FakeEngine) -> ViewState:
    view = ViewState()
    for event in engine.events:
        reduce(view, {"type": "event", "event": event.to_json()})
    for frame in engine.extra:
        reduce(view, frame)
    return view


@pytest.fixture
def running(engine: FakeEngine, run_dir: Path) -> ViewState:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    return played(engine)


# --- curves ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20_000))
def test_a_curve_of_any_length_is_bounded_and_keeps_its_ends_and_its_mean(count: int) -> None:
    curve = Curve()
    for x in range(count):
        curve.add(float(x), 2.0 * x)
    assert len(curve.xs) == len(curve.ys) < CURVE_POINTS
    assert curve.xs == sorted(curve.xs)
    assert all(y == pytest.approx(2 * x) for x, y in zip(curve.xs, curve.ys, strict=True))
    if count >= curve.stride:
        assert curve.xs[0] <= curve.stride and curve.xs[-1] >= count - 2 * curve.stride


def test_values_that_are_no_numbers_are_left_out() -> None:
    progress = Progress("1/1")
    for value in (None, "x", float("nan"), float("inf"), True, 1.5):
        progress.take({"step": progress.trained + 1, "max_steps": 9, "loss": value, "reward": value})
    assert progress.losses == [1.5] and progress.curves["reward"].ys == [1.5]


def test_an_evaluation_has_its_own_pace() -> None:
    progress = Progress("1/1")
    for metric in metrics(10):
        progress.take(metric)
    progress.take({"phase": "evaluate", "task": "tool_use", "done": 0, "total": 40, "seconds": 8.0})
    assert progress.eta is None
    progress.take({"phase": "evaluate", "task": "tool_use", "done": 10, "total": 40, "seconds": 12.0})
    assert progress.eta == pytest.approx(12.0)
    progress.take({"phase": "evaluate", "task": "tool_use", "done": 0, "total": 40, "seconds": 8.0})
    assert progress.done == 10, "a line that comes again changes nothing"


# --- charts ------------------------------------------------------------------------------------------------------


def test_the_charts_of_a_step_have_units_and_a_table(running: ViewState) -> None:
    chart = loss_chart(running)
    assert (chart.x, chart.y) == ("training step", "loss (mean over the batch)")
    assert len(chart.series[0].xs) == 80 and len(chart.rows) <= 40
    assert table_lines(chart)[0].split() == ["step", "loss"]
    assert rate_chart(running).empty and reward_chart(running).empty.startswith("This step reports no reward")


def test_every_value_that_a_step_reports_can_be_looked_at() -> None:
    view = ViewState()
    view.take_metrics("3/1", metrics(20, reward=0.01, kl=0.1, answers_cut=0.01))
    assert reward_metrics(view.progress) == ["reward", "kl", "answers_cut"]
    assert reward_chart(view).y == "mean reward"
    chart = reward_chart(view, "kl")
    assert "nats" in chart.y and "n: mean reward" in chart.note
    assert reward_chart(view, "no such").y == "mean reward"


def test_the_best_so_far_only_rises_and_starts_from_the_base(running: ViewState) -> None:
    base = results(running.run).base
    assert base == pytest.approx(0.27)
    for axis in ("trials", "steps", "work"):
        chart = best_chart(results(running.run), axis)
        best = next(series for series in chart.series if series.look == "line")
        assert list(best.ys) == sorted(best.ys) and best.ys[-1] == pytest.approx(0.405)
        assert list(best.xs) == sorted(best.xs)
        faint, noise = (series for series in chart.series if series.look == "faint")
        assert faint.ys == pytest.approx((0.27, 0.27))
        # A usual interval, widened for as many models as were scored: below it a gain may be chance.
        halves = [
            (high - low) / 2 for item in results(running.run).items for low, high in [corrected(item.trial.gain, 4) or (0, 0)]
        ]
        assert noise.label == "noise floor" and noise.ys[0] == pytest.approx(0.27 + sorted(halves)[2])
    assert best_chart(results(running.run), "steps").x.startswith("seconds of steps")
    assert [row[0] for row in best_chart(results(running.run)).rows] == ["1", "2", "5", "6"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_no_point_beats_a_pareto_point_and_every_other_is_beaten(pairs: list[tuple[int, int]]) -> None:
    points = [(float(cost), float(value)) for cost, value in pairs]
    front = pareto(points)
    for place, (cost, value) in enumerate(points):
        beaten = any(
            (c <= cost and v >= value and (c, v) != (cost, value))
            or (other in front and (c, v) == (cost, value) and other != place)
            for other, (c, v) in enumerate(points)
        )
        assert beaten != (place in front)


def test_score_against_cost_counts_the_whole_pipeline(running: ViewState) -> None:
    chart = cost_chart(results(running.run))
    cost = {row[1]: row[3] for row in chart.rows}
    # m6 merges m2 (after m1) and m5 (after m1): the step that made m1 is counted once.
    assert cost["m1"] == "12 s" and cost["m2"] == "24 s" and cost["m6"] == "48 s" and cost["base"] == "0.0 s"
    assert [row[1] for row in chart.rows if row[0].startswith("◆")] == ["base", "m1", "m2", "m6"]


def costs_by_lineage(run: RunState) -> dict[str, float]:
    """What `Results.costs` says, each from its whole lineage."""
    made = {name for name, item in run.pool.items.items() if item.trial is not None and not run.trials[item.trial].is_open}
    return {name: sum((trial.seconds or {}).get("execute", 0.0) for trial in lineage(run, name)) for name in made}


def test_results_that_follow_a_run_are_those_of_all_of_it() -> None:
    big, run, tally = BigRun(), RunState(), Tally()
    facts = [*big.start(60), *(fact for number in range(1, 61) for fact in big.trial(number))]
    for seq, (kind, data) in enumerate(facts, 1):
        run.apply(Event(seq, kind, float(seq), float(seq), data))
        found = tally.take(run)
        assert found == results(run)
        assert tally.take(run) is found, "nothing new"
    assert len(found.items) > 40
    assert {name: pytest.approx(found.costs[name]) for name in found.costs} == costs_by_lineage(run)
    other = RunState()
    assert tally.take(other) == results(other), "another run in its place"


def test_a_run_in_which_each_model_comes_from_the_one_before_has_its_costs() -> None:
    run, count = RunState(), 3000
    run.pool.add(model_object("m0", None))
    for number in range(1, count + 1):
        parents = [f"m{number - 1}", *([f"m{number // 2}"] if number % 3 == 0 else ())]
        run.trials[number] = Trial(
            number,
            "done",
            {"inputs": {"models": parents}},
            model=f"m{number}",
            objective=float(number),
            seconds={"execute": 2.0},
        )
        run.pool.add(model_object(f"m{number}", number))
    assert results(run).costs[f"m{count}"] == 2.0 * count


def model_object(name: str, trial: int | None) -> ModelObject:
    return ModelObject(id=name, digest=name, architecture="L", layout="l", weights="/w", adapters=(), parameters=1, trial=trial)


def test_a_run_without_scores_says_so_in_words(engine: FakeEngine) -> None:
    script.add_base(engine)
    view = played(engine)
    for chart in (
        best_chart(results(view.run)),
        cost_chart(results(view.run)),
        loss_chart(view),
        rate_chart(view),
        reward_chart(view),
    ):
        assert chart.series == () and chart.empty and table_lines(chart) == [chart.empty]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.integers(1, 10))
def test_axes_are_never_empty_and_hold_every_point(values: list[float], most: int) -> None:
    xs, ys = thinned([float(place) for place in range(len(values))], values, most)
    assert len(xs) == len(ys) <= max(most, 1)
    (left, right), (low, high) = ranges(Chart("t", "x", "y", (Points("p", xs, ys, "line"),)))
    assert left < right and low < high
    assert low <= min(ys) and max(ys) <= high and left <= xs[0] and xs[-1] <= right


def test_ticks_are_short() -> None:
    assert [described(value) for value in (0, 0.25, 3e-05, 120.0, 12_500.0, 3.2e6)] == [
        "0",
        "0.25",
        "3e-05",
        "120",
        "12.5k",
        "3.2M",
    ]


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(20, 201, 3))
def test_no_line_of_the_overview_is_wider_than_its_panel(running: ViewState, width: int) -> None:
    for line in overview_lines(running, LEDGERS, results(running.run), width):
        assert sum(cell_len(text) for text, _ in line) <= width


def test_the_overview_tells_step_run_and_budget(running: ViewState) -> None:
    told = "\n".join("".join(text for text, _ in line) for line in overview_lines(running, LEDGERS, results(running.run), 90))
    for part in ("7/1 sft(m6, tool-calls)", "80/120", "16 s left", "5.3k tok/s", "32 s so far; the estimate was",
                 "trial 7 of 12", "✓\u00a04\u00a0done", "✗\u00a01\u00a0failed", "best m6 0.41, +0.14 over the base", "found at trial 6",
                 "7 min of 2 h 00 min", "kept for the final evaluation", "12.3k", "520 MB"):  # fmt: skip
        assert part in told, part


def test_epochs_are_told_where_the_trainer_counts_them() -> None:
    view = ViewState()
    for kind, data in (("step.intended", {"step": "1/1", "purpose": "trial", "trial": None, "digest": "d"}),):
        view.run.apply(_event(kind, data))
    view.take_metrics("1/1", metrics(90))
    told = "\n".join("".join(text for text, _ in line) for line in overview_lines(view, (), results(view.run), 90))
    assert "epoch 1.5 of 2" in told


def _event(kind: str, data: dict[str, Any]):
    return Event(1, kind, 0.0, 0.0, data)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 1e6), st.integers(1, 80))
def test_a_ledger_bar_has_its_width_and_shows_a_reserve(used: float, reserved: float, limit: float, width: int) -> None:
    bar = ledger_bar(Ledger("x", used, reserved, limit, "s"), width)
    assert len(bar) == width and set(bar) <= set("█▒░")
    if reserved > 0 and "░" in bar:
        assert "▒" in bar


def test_a_ledger_without_a_limit_says_so() -> None:
    told = ["".join(text for text, _ in line) for line in ledger_lines(LEDGERS, 80)]
    assert any("disk" in line and "520 MB" in line and "no limit" in line for line in told)


# --- the screen --------------------------------------------------------------------------------------------------


async def progress(console: Console) -> ProgressScreen:
    await console.pilot.press("C")
    await console.until(lambda: isinstance(console.app.screen, ProgressScreen), "the screen")
    screen = console.app.screen
    assert isinstance(screen, ProgressScreen)
    return screen


def drawn(screen: ProgressScreen) -> set[str]:
    return {str(panel.id).removeprefix("progress-") for panel in screen.query(ChartPanel) if panel.display and panel.has_chart}


@pytest.mark.parametrize(("size", "panels"), [((80, 24), 1), ((120, 40), 3), ((200, 60), 6)])
async def test_as_many_panels_as_have_room(engine: FakeEngine, run_dir: Path, size: tuple[int, int], panels: int) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, size) as console:
        screen = await progress(console)
        await console.until(lambda: "80/120" in console.text(), "the overview")
        shown = [panel for panel in screen.query(".progress-pane") if panel.display]
        assert len(shown) == panels
        if panels > 1:
            await console.until(lambda: drawn(screen) >= {"loss", "best"}, "the charts")
            assert "training step" in console.text() and "loss (mean over the batch)" in console.text()


async def test_every_panel_is_reached_by_keys_and_charts_turn_into_tables(engine: FakeEngine, run_dir: Path) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, (80, 24)) as console:
        screen = await progress(console)
        seen = [screen.active]
        for _ in range(len(NAMES)):
            await console.pilot.press("right")
            seen.append(screen.active)
        assert seen == [*NAMES, "overview"]
        await console.pilot.press("left")
        await console.until(lambda: drawn(screen) == {"cost"}, "the cost chart")
        assert "seconds of the pipeline's steps" in console.text()
        await console.pilot.press("t")
        await console.until(lambda: "48 s" in console.text() and not drawn(screen), "the table")
        await console.pilot.press("t", "x")
        await console.until(lambda: drawn(screen) == {"best"} and "seconds of steps" in console.text(), "the other axis")


async def test_charts_follow_the_step_the_size_and_the_theme(engine: FakeEngine, run_dir: Path) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, (120, 40)) as console:
        screen = await progress(console)
        await console.until(lambda: drawn(screen) == {"loss", "best"}, "the charts")
        metric = {"step": 100, "max_steps": 120, "loss": 9.0, "seconds": 60.0}
        engine.send({"type": "metric", "step": "7/1", "metric": metric})
        await console.until(lambda: "100/120" in console.text() and "8 ┫" in console.text(), "the new point")
        for theme in ("lamdatui-light", "ansi-dark", "textual-dark"):
            console.app.theme = theme
            await console.settle()
        for width, height in ((80, 24), (40, 10), (20, 5), (200, 60), (120, 40)):
            await console.pilot.resize_terminal(width, height)
            await console.settle()
        await console.until(lambda: drawn(screen) == {"loss", "best"}, "the charts again")


async def test_charts_of_the_run_are_drawn_again_only_when_a_trial_was_scored(
    engine: FakeEngine, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: list[int] = []

    def counted(found: Results, axis: Axis = "trials") -> Chart:
        drawings.append(len(found.items))
        return best_chart(found, axis)

    monkeypatch.setattr("lamdatui.ui.progress.screen.best_chart", counted)
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, (200, 60)) as console:
        screen = await progress(console)
        await console.until(lambda: "best" in drawn(screen), "the chart")
        for detail in ("trial 7: sft", "trial 7: scores"):
            engine.emit("phase.changed", phase="running", detail=detail)
            await console.until(lambda said=detail: said in console.text(), "what happens in words")
        assert drawings == [4]
        closing = {"number": 7, "status": "done", "model": "m6", "dataset": None, "scores": {}, "objective": 0.93}
        engine.emit("trial.closed", **closing, gain=None, cached=False, seconds={"execute": 1.0}, error=None)
        await console.until(lambda: "0.93" in console.text(), "the newest result")
        assert drawings == [4, 5]


async def test_charts_need_no_colour(engine: FakeEngine, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, (200, 60)) as console:
        screen = await progress(console)
        await console.until(lambda: drawn(screen) >= {"loss", "best", "cost"}, "the charts")
        text = console.text()
        assert "┄" in text and "◆" in text and " o" in text


async def test_a_chart_without_room_is_a_table(engine: FakeEngine, run_dir: Path) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    async with opened(engine, (40, 10)) as console:
        screen = await progress(console)
        await console.pilot.press("left", "left")
        await console.until(lambda: "0.405" in console.text() or "0.390" in console.text(), "the table")
        assert drawn(screen) == set()


async def test_a_step_that_ended_before_still_has_its_curve(engine: FakeEngine, run_dir: Path) -> None:
    import json

    script.add_history(engine)
    folder = run_dir / "steps" / "6/1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics(30, reward=0.1, kl=0.2))))
    async with opened(engine, (200, 60)) as console:
        screen = await progress(console)
        await console.until(lambda: drawn(screen) == {"loss", "reward", "rate", "best", "cost"}, "the charts")
        await console.pilot.press("n")
        await console.until(lambda: "distance to the reference (KL)" in console.text(), "the next metric")


async def test_review_leads_back_to_the_card_and_late_keys_decide_nothing(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        await console.answer()
        await progress_from_card(console)
        await console.pilot.press("escape", "a")
        await console.settle()
        assert engine.sent("decide") == []
        card = console.app.console_screen.query_one(ApprovalCard)
        assert card.has_focus_within


async def progress_from_card(console: Console) -> None:
    """Open the screen while the card has the focus."""
    await console.pilot.press("f11")
    await console.until(lambda: isinstance(console.app.screen, ProgressScreen), "the screen")


def test_the_console_starts_without_the_plotting_library() -> None:
    code = (
        "import sys, lamdatui.ui.app.consoleapp, lamdatui.ui.__main__; "
        "assert not {'textual_plot', 'numpy', 'lamdatui.ui.progress.charts', 'lamdatui.ui.progress.screen'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_nothing_is_said_of_trials_before_they_were_read(
    engine: FakeEngine, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first paint said that no trial has a score, beside empty axes, of a run with scored trials."""
    script.add_history(engine)
    update = ProgressScreen._update
    monkeypatch.setattr(ProgressScreen, "_update", lambda self: None)
    async with opened(engine, (200, 60)) as console:
        await console.pilot.press("f11")
        await console.until(lambda: isinstance(console.app.screen, ProgressScreen), "the screen")
        await console.pilot.resize_terminal(180, 50)
        await console.settle()
        assert "reading the trials" in console.text() and "no trial has a score" not in console.text()
        panels = [panel for panel in console.app.screen.query(ChartPanel) if panel.display]
        assert panels and not any(panel.has_chart for panel in panels) and console.text().count("reading…") == len(panels)
        monkeypatch.setattr(ProgressScreen, "_update", update)
        await console.until(lambda: "★ best" in console.text() and "reading" not in console.text(), "the trials")
