"""The pipeline pane: its rows, that changes one by one give the same rows as all at once, and its keys and mouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.ui.lineage.forest import ORDERS, Forest, TreeRow
from lamdatui.ui.lineage.pane import FilterInput, LineageTree
from lamdatui.ui.lineage.rows import brief_seconds, columns, header, row_line
from lamdatui.ui.node.screen import NodeScreen
from lamdatui.ui.view.reduce import reduce
from lamdatui.ui.view.state import ViewState
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

Json = dict[str, Any]


@pytest.fixture
def history(engine: FakeEngine) -> FakeEngine:
    """Six trials: done, failed, vetoed, a merge that is the best."""
    script.add_history(engine)
    return engine


def play(engine: FakeEngine) -> ViewState:
    """The view after the whole journal."""
    view = ViewState()
    for event in engine.events:
        reduce(view, {"type": "event", "event": event.to_json()})
    return view


def taken(view: ViewState) -> Forest:
    """A pipeline of it."""
    pipeline = Forest()
    pipeline.take(view)
    return pipeline


def shape(pipeline: Forest) -> list[tuple[int, str]]:
    """Depths and keys of the rows."""
    return [(row.depth, row.key) for row in pipeline.rows]


def lines(pipeline: Forest, width: int = 100) -> list[str]:
    """The rows as text."""
    found = columns(pipeline.tasks, width, pipeline.depth)
    return ["".join(text for text, _ in row_line(row, pipeline, found, width)) for row in pipeline.rows]


def test_children_stand_below_their_parent_and_a_merge_is_referred_to_below_the_others(history: FakeEngine) -> None:
    assert shape(taken(play(history))) == [
        (0, "model:base"), (1, "trial:1"), (2, "trial:2"), (3, "trial:3"), (3, "trial:6"), (2, "trial:5"),
        (3, "trial:6@trial:5"), (1, "trial:4"),
    ]  # fmt: skip


def test_rows_show_state_parents_scores_gain_interval_cost_and_the_best_path(history: FakeEngine) -> None:
    shown = lines(taken(play(history)))
    assert [line[1] for line in shown] == ["┃", "┃", "┃", " ", "★", "┃", " ", " "]
    assert "m6 merge_ties m2+m5 best" in shown[4] and "= m6" in shown[4] and "cached" in shown[4]
    assert "+0.14 [+0.07, +0.20]" in shown[4] and "19s" in shown[4] and "0.44" in shown[4]
    assert "✗ 3 sft tool-calls  failed: oom-train" in shown[3]
    assert "↳ m6 (merge)" in shown[6]
    assert "⊘ 4 sft tool-calls  vetoed: too slow for now" in shown[7]
    assert "  done" in shown[1]


@pytest.mark.parametrize("width", [20, 34, 46, 58, 78, 120])
@pytest.mark.parametrize("order", ORDERS)
def test_rows_and_header_fill_their_width_exactly(history: FakeEngine, width: int, order: Any) -> None:
    pipeline = taken(play(history))
    pipeline.arrange(order=order)
    assert {cell_len(line) for line in lines(pipeline, width)} == {width}
    assert len(header(columns(pipeline.tasks, width, pipeline.depth), width, "by objective · /x: 1 of 12")) == width


def test_a_deep_row_counts_the_levels_that_have_no_room() -> None:
    view = run_of([[index] for index in range(30)])
    pipeline = taken(view)
    found = columns(pipeline.tasks, 40, pipeline.depth)
    deep = "".join(text for text, _ in row_line(pipeline.rows[-1], pipeline, found, 40))
    assert "30›" in deep and "m30" in deep and cell_len(deep) == 40


def run_of(parents: list[list[int]]) -> ViewState:
    """A run whose trial n has these trials (0 is the base) as parents."""
    view = ViewState()
    view.run.pool.add(ModelObject("base", "base", "Llama", "x", "/w"))
    for index, numbers in enumerate(parents, 1):
        add(view, index, numbers)
    return view


def name(number: int) -> str:
    """Model of a trial."""
    return f"m{number}" if number else "base"


def add(view: ViewState, number: int, numbers: list[int]) -> None:
    """A trial as it is when it is over."""
    view.run.trials[number] = Trial(number, "done", action(numbers), model=name(number), objective=number / 100)
    view.run.pool.add(ModelObject(name(number), name(number), "Llama", "x", "/w", trial=number))


def action(numbers: list[int]) -> Json:
    """An action with these parents."""
    return {"type": "merge" if len(numbers) > 1 else "sft", "inputs": {"models": [name(number) for number in numbers]}}


@st.composite
def histories(draw: st.DrawFn) -> list[list[int]]:
    """Parents of each trial, among those before it."""
    size = draw(st.integers(1, 14))
    return [draw(st.lists(st.integers(0, index), min_size=1, max_size=3, unique=True)) for index in range(size)]


@given(histories(), st.lists(st.integers(0, 14), max_size=4))
@settings(max_examples=120, deadline=None)
def test_changes_one_by_one_give_the_rows_of_a_fresh_layout(parents: list[list[int]], folds: list[int]) -> None:
    view = run_of([])
    pipeline = taken(view)
    for number, numbers in enumerate(parents, 1):
        # As it goes live: it is opened, proposed with an action, and has a model in the end.
        view.run.trials[number] = Trial(number)
        view.touched.add(("trial", str(number)))
        pipeline.take(view)
        view.run.trials[number].action = action(numbers)
        view.touched.add(("trial", str(number)))
        pipeline.take(view)
        add(view, number, numbers)
        pipeline.nodes[f"trial:{number}"].trial = view.run.trials[number]
        view.touched.add(("trial", str(number)))
        pipeline.take(view)
        if number in folds:
            pipeline.toggle(f"trial:{numbers[0]}" if numbers[0] else "model:base", fold=True)
    live = [(row.depth, row.key, pipeline.lasts(row)) for row in pipeline.rows]
    pipeline.lay_out()
    assert live == [(row.depth, row.key, pipeline.lasts(row)) for row in pipeline.rows]
    whole = taken(run_of(parents))
    assert set(whole.nodes) == set(pipeline.nodes)
    pipeline.fold_all(False)
    assert shape(whole) == shape(pipeline)


@given(histories(), st.sampled_from(["sft", "merge", "m1", "base", "nothing"]))
@settings(max_examples=60, deadline=None)
def test_a_filter_shows_what_matches_and_what_leads_to_it(parents: list[list[int]], query: str) -> None:
    pipeline = taken(run_of(parents))
    pipeline.arrange(query=query)
    shown = {row.node.key for row in pipeline.rows}
    wanted = {key for key, node in pipeline.nodes.items() if query in node.facts.text}
    assert wanted <= shown
    for row in pipeline.rows:
        assert row.node.key in wanted or any(child.key in shown for child in row.node.children)
        assert len(pipeline.lasts(row)) == row.depth
    pipeline.arrange(query="")
    assert len({row.node.key for row in pipeline.rows}) == len(pipeline.nodes)


def test_orders_list_the_best_first_and_name_the_parents(history: FakeEngine) -> None:
    pipeline = taken(play(history))
    pipeline.arrange(order="objective")
    assert [row.node.number for row in pipeline.rows][:4] == [6, 2, 5, 1]
    assert "m2 dpo m1 preferences" in lines(pipeline)[1]
    pipeline.arrange(order="cost")
    assert pipeline.rows[0].node.facts.cost == 19.0
    pipeline.arrange(order="number", query="failed oom")
    assert [row.node.number for row in pipeline.rows] == [-1, 1, 2, 3]


def test_another_run_in_the_same_place_is_read_anew(history: FakeEngine) -> None:
    view = play(history)
    pipeline = taken(view)
    view.run = RunState()
    assert pipeline.take(view).rows and pipeline.rows == list[TreeRow]() and pipeline.best is None


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (0.44, "0.4s"), (38, "38s"), (600, "10m"), (11000, "3.1h")])
def test_costs_are_brief(seconds: float | None, text: str) -> None:
    assert brief_seconds(seconds) == text and len(text) <= 5


def tree_of(console: Console) -> LineageTree:
    """The pane's rows."""
    return console.app.console_screen.query_one(LineageTree)


async def test_folds_cursor_and_scroll_survive_new_trials(history: FakeEngine) -> None:
    async with opened(history) as console:
        tree = tree_of(console)
        await console.pilot.press("down", "down", "space")
        assert tree.selected is not None and tree.selected.key == "trial:2"
        assert "+2" in console.text() and "▸" in console.text()
        script.emit_proposal(history, 7, script.sft("m2"))
        await console.until(lambda: "trial:7" in tree.pipeline.nodes, "the trial")
        await console.settle()
        assert tree.selected.key == "trial:2" and "trial:2" in tree.pipeline.folded
        assert "+3" in console.text()
        await console.pilot.press("right", "right")
        assert tree.selected.key == "trial:3"
        await console.pilot.press("left")
        assert tree.selected.key == "trial:2"


async def test_what_is_read_stays_in_place_when_rows_come_above_it(engine: FakeEngine) -> None:
    script.add_base(engine)
    for number in range(1, 60):
        script.add_trial(engine, number, script.sft(), "why", "done", script.scores(0.3, 0.3), objective=0.3)
    async with opened(engine, (80, 24)) as console:
        tree = tree_of(console)
        await console.pilot.press("end", "up", "up")
        before, key = console.text().splitlines(), tree.selected
        script.emit_proposal(engine, 60, script.sft("m1"))
        # Decided within the same batch of frames, so that no card takes rows from the pane.
        engine.emit("trial.decided", number=60, verdict="approve", by="rule", reason="", action=script.sft("m1"))
        await console.until(lambda: tree.pipeline.place("trial:60") == 2, "the trial below m1")
        await console.settle()
        after = console.text().splitlines()
        row = next(place for place, line in enumerate(before) if "m57" in line)
        assert tree.selected is key and "m57" in after[row]


async def test_a_click_on_the_sign_folds_and_a_second_click_on_a_row_opens_it(history: FakeEngine) -> None:
    async with opened(history) as console:
        tree = tree_of(console)
        await console.pilot.click(tree, offset=(5, 2))
        assert tree.pipeline.folded == {"trial:2"}
        await console.pilot.click(tree, offset=(12, 1))
        assert tree.selected is not None and tree.selected.key == "trial:1"
        await console.pilot.click(tree, offset=(12, 1))
        await console.until(lambda: isinstance(console.app.screen, NodeScreen), "the node screen")


async def test_y_copies_the_whole_row_whatever_the_width(history: FakeEngine) -> None:
    async with opened(history, (60, 16)) as console:
        await console.pilot.press("b")
        copied = tree_of(console).copy_text()
        assert "m6 merge_ties m2+m5 best" in copied and "[+0.07, +0.20] 19s" in copied


async def test_the_filter_is_typed_kept_and_taken_away(history: FakeEngine) -> None:
    async with opened(history) as console:
        tree = tree_of(console)
        await console.pilot.press("slash", *"failed")
        await console.until(lambda: len(tree.pipeline.rows) == 4, "the filtered rows")
        await console.pilot.press("enter")
        assert tree.has_focus and "/failed: 1 of 7" in console.text()
        await console.pilot.press("escape")
        await console.until(lambda: len(tree.pipeline.rows) == 8, "all rows")
        assert not console.app.console_screen.query_one(FilterInput).display


async def test_s_goes_through_the_orders_and_b_finds_the_best(history: FakeEngine) -> None:
    async with opened(history) as console:
        tree = tree_of(console)
        for order in ("objective", "gain", "cost"):
            await console.pilot.press("s")
            await console.settle()
            assert f"by {order}" in console.text()
        await console.pilot.press("s", "minus")
        assert len(tree.pipeline.rows) == 1
        await console.pilot.press("b")
        assert tree.selected is not None and tree.selected.key == "trial:6"
        await console.pilot.press("plus")
        assert len(tree.pipeline.rows) == 8


async def test_one_changed_trial_draws_one_line(history: FakeEngine, run_dir: Path) -> None:
    async with opened(history) as console:
        tree = tree_of(console)
        drawn: list[int] = []
        render = tree.render_line
        tree.render_line = lambda y: (drawn.append(y), render(y))[1]  # type: ignore[method-assign]
        history.emit("evaluation.recorded", model="m5", task="tool_use", split="search", key="k", score=script.score(0.99))
        await console.until(lambda: drawn, "the change")
        await console.settle()
        assert set(drawn) == {5}
