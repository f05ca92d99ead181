"""The node screen, the comparison of two nodes, and actions that start from a node."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.widgets import OptionList, Static

from lamdatui.domain.state import RunState
from lamdatui.ui.byhand.queue import QueueScreen
from lamdatui.ui.kit.actionform import ActionScreen
from lamdatui.ui.kit.section import curves
from lamdatui.ui.node.compare_screen import CompareScreen
from lamdatui.ui.node.compare_text import cost_rows, made_lines, score_rows
from lamdatui.ui.node.evidence import gather, places
from lamdatui.ui.node.screen import SECTIONS, NodeScreen
from lamdatui.ui.node.text import action_lines, lineage_lines, score_lines, story_lines
from lamdatui.ui.view.activityrows import rows
from lamdatui.ui.view.subject import subject
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine
from tests.ui.offer import offer
from tests.ui.script import text_of

Json = dict[str, Any]


@pytest.fixture
def history(engine: FakeEngine) -> FakeEngine:
    """Six trials, and an engine that answers about actions."""
    script.add_history(engine)
    script.answer_orders(engine)
    return engine


def the(state: RunState, key: str) -> Any:
    """A subject that is there."""
    found = subject(state, key)
    assert found is not None
    return found


def test_changed_hyperparameters_are_marked_with_their_default(history: FakeEngine) -> None:
    said = text_of(action_lines(history.state, the(history.state, "trial:5")))
    assert "0.0003 *  default 0.001" in said and "rank                   8\n" in said


def test_lineage_is_a_tree_that_shows_a_shared_ancestor_once(history: FakeEngine) -> None:
    state = history.state
    assert text_of(lineage_lines(state, the(state, "trial:6"))).splitlines() == [
        "m6  merge_ties(m2+m5)  0.41",
        "├ m2  dpo(m1, preferences)  0.39",
        "│ └ m1  sft(base, tool-calls)  0.33",
        "│   └ base  base",
        "└ m5  sft(m1, tool-calls)  0.36",
        "  └ m1  sft(base, tool-calls)  0.33  as above",
    ]
    assert "used by    m2 dpo, m5 sft" in text_of(lineage_lines(state, the(state, "trial:1")))


def test_scores_stand_beside_the_base_with_intervals(history: FakeEngine) -> None:
    state = history.state
    said = text_of(score_lines(state, the(state, "trial:6")))
    assert "tool_use" in said and "0.21 [0.10, 0.32]" in said and "0.44 [0.33, 0.55]" in said
    assert "+0.23" in said and "+0.04" in said and "won" not in said
    told = text_of(score_lines(state, the(state, "trial:6"), [script.flips("tool_use", "search")]))
    assert "+0.23 [+0.10, +0.36] 12 won 3 lost, p 0.035" in told
    history.add("evaluation.recorded", model="m6", task="tool_use", split="sealed", key="s", score=script.score(0.4))
    state = history.state
    assert "sealed" in text_of(score_lines(state, the(state, "trial:6")))
    assert "did not end" not in text_of(score_lines(state, the(state, "trial:6")))
    cut = {**script.score(0.4), "unfinished": 30, "empty": 2}
    history.add("evaluation.recorded", model="m6", task="tool_use", split="sealed", key="s", score=cut)
    state = history.state
    said = text_of(score_lines(state, the(state, "trial:6")))
    assert f"! tool_use, sealed: 30 of {cut['n']} answers did not end, 2 are empty" in said
    (row,) = rows(history.events[-1], state)
    assert row.text.endswith(f"; 30 of {cut['n']} answers did not end, 2 are empty")


def test_proposed_decided_and_ran_are_side_by_side_with_what_differs_marked(history: FakeEngine) -> None:
    offered = script.sft("m6", learning_rate=0.0003)
    ran = script.sft("m6", learning_rate=0.0001)
    history.add("trial.opened", number=7)
    history.add("trial.proposed", number=7, proposal=script.proposal(7, offered, "why"))
    history.add("trial.decided", number=7, verdict="edit", by="console", reason="slower", action=ran)
    state = history.state
    said = text_of(story_lines(state, the(state, "trial:7"), ran))
    [rate] = [line for line in said.splitlines() if "learning_rate" in line]
    assert rate.split() == ["≠", "learning_rate", "0.0003", "0.0001", "0.0001"]
    assert "edited and approved by console: slower" in said
    vetoed = text_of(story_lines(state, the(state, "trial:4"), None))
    assert "vetoed by console: too slow for now" in vetoed and "decided:" not in vetoed


def test_a_comparison_says_what_differs_and_by_how_much(history: FakeEngine) -> None:
    state = history.state
    one, other = the(state, "trial:1"), the(state, "trial:5")
    made = text_of(made_lines(state, one, other))
    assert "≠  learning_rate  0.001" in made and "=  epochs" in made and "differences" in made
    assert "≠  lineage  ● base → sft(tool-calls)\n            ○ base → sft(tool-calls) → sft(tool-calls)" in made
    assert made.endswith("3 differences · * not the default")
    assert "=  lineage  ◉ base → " in text_of(made_lines(state, one, one))
    scores = text_of(score_rows(state, one, other))
    assert "+0.02" in scores and "+0.03" in scores
    assert "execute" in text_of(cost_rows(one, other)) and "1.00" in text_of(cost_rows(one, other))
    base = the(state, "model:base")
    assert "neither cost" in text_of(cost_rows(base, base))


@given(
    st.lists(st.floats(-1e3, 1e3), max_size=50),
    st.lists(st.floats(-1e3, 1e3), max_size=50),
    st.integers(1, 90),
    st.integers(1, 12),
)
def test_curves_fit_their_box_and_show_both(one: list[float], other: list[float], width: int, height: int) -> None:
    shown = curves([("a", one), ("b", other)], width, height)
    if not (one or other) or width < 12 or height < 2:
        assert text_of(shown) == "no losses were written"
        return
    plot = text_of(shown[:-1])
    assert len(shown) == height + 1
    assert all(cell_len(line) <= width for line in plot.splitlines())
    assert bool(one) == any(glyph in plot for glyph in "●◉") and bool(other) == any(glyph in plot for glyph in "○◉")


def write_step(run_dir: Path, key: str, losses: list[float], action: Json | None = None) -> None:
    """What a step leaves in its folder."""
    folder = run_dir / "steps" / key
    folder.mkdir(parents=True)
    metrics = [json.dumps({"step": place, "loss": loss}) for place, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("\n".join(metrics) + "\n")
    (folder / "log.txt").write_text("loading base\nepoch 1\x1b[2J done\n")
    (folder / "action.json").write_text(json.dumps({"action": action}))


def test_evidence_is_read_from_the_newest_attempt_and_cleaned(history: FakeEngine, run_dir: Path) -> None:
    write_step(run_dir, "1/1", [2.0, 1.5, 1.0], script.sft())
    state = history.state
    found = gather(places(state, the(state, "trial:1"), run_dir))
    assert found.losses == [2.0, 1.5, 1.0] and found.ran == script.sft()
    assert found.log[0] == "loading base" and "\x1b" not in "".join(found.log)
    assert {path.name for path, _ in found.files} == {"metrics.jsonl", "log.txt", "action.json"}
    nothing = gather(places(state, the(state, "trial:4"), run_dir))
    assert (nothing.ran, nothing.losses, nothing.log, nothing.files) == (None, [], [], [])


def test_the_store_is_never_left(history: FakeEngine, run_dir: Path) -> None:
    state = history.state
    state.pool.add(replace(state.pool.model("m1"), weights="store:../../etc"))
    assert places(state, the(state, "trial:1"), run_dir).objects == ()


async def open_node(console: Console, *keys: str) -> NodeScreen:
    """The node screen of the row that these keys lead to."""
    await console.pilot.press(*keys, "enter")
    await console.until(lambda: isinstance(console.app.screen, NodeScreen), "the node screen")
    screen = console.app.screen
    assert isinstance(screen, NodeScreen)
    await console.settle()
    return screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (40, 10)])
async def test_a_node_shows_all_sections_at_every_size(history: FakeEngine, run_dir: Path, size: tuple[int, int]) -> None:
    write_step(run_dir, "1/1", [2.0, 1.5, 1.0])
    async with opened(history, size) as console:
        screen = await open_node(console, "down")
        assert "m1" in console.text() and "sft(base, tool-calls)" in console.text()
        for place, name in enumerate(SECTIONS, 1):
            await console.pilot.press(str(place))
            await console.settle()
            section = screen.query_one(f"#node-{name}")
            assert section.region.intersection(screen.query_one("#node-body").region).height > 0, name
        assert screen.query_one("#node-loss").region.height > 2


async def test_a_node_follows_its_trial(history: FakeEngine, run_dir: Path) -> None:
    act = script.sft("m6")
    script.add_waiting(history, 7)
    async with opened(history) as console:
        await console.pilot.press("end", "up")
        console.app.console_screen.query_one("#lineage").select("trial:7")  # type: ignore[attr-defined]
        screen = await open_node(console)
        assert "? awaiting you" in str(screen.query_one("#node-head", Static).content)
        history.emit("trial.decided", number=7, verdict="approve", by="console", reason="", action=act)
        await console.until(lambda: "approved" in str(screen.query_one("#node-head", Static).content), "the decision")


@pytest.mark.parametrize("gone", ["#node-head", "#node-loss", "#node-log"])
async def test_a_node_that_is_being_left_shows_nothing_more(history: FakeEngine, gone: str) -> None:
    async with opened(history) as console:
        screen = await open_node(console)
        await screen.query_one(gone).remove()
        screen.update_view()


async def test_back_and_review_lead_to_the_console(history: FakeEngine) -> None:
    script.add_waiting(history)
    async with opened(history) as console:
        await open_node(console, "down")
        await console.pilot.press("escape")
        await console.until(lambda: console.app.screen is console.app.console_screen, "the console")
        assert console.app.focused is not None and console.app.focused.id == "lineage"
        await open_node(console)
        await console.pilot.press("f2")
        await console.until(lambda: console.card.has_focus_within, "the card")
        await console.pilot.press("a")
        await console.settle()
        assert history.sent("decide") == []


async def test_two_nodes_are_marked_and_compared(history: FakeEngine, run_dir: Path) -> None:
    write_step(run_dir, "1/1", [2.0, 1.5, 1.0])
    write_step(run_dir, "5/1", [1.9, 1.2])
    async with opened(history) as console:
        await console.pilot.press("down", "c")
        await console.until(lambda: "◆" in console.text(), "the mark")
        console.app.console_screen.query_one("#lineage").select("trial:5")  # type: ignore[attr-defined]
        await console.pilot.press("c")
        await console.until(lambda: isinstance(console.app.screen, CompareScreen), "the comparison")
        await console.until(lambda: "● m1  against  ○ m5" in console.text(), "both")
        await console.until(lambda: "12 won 3 lost, p 0.035" in console.text(), "the rows")
        assert "≠" in console.text() and history.sent("answers") == [{"model": "m5", "against": "m1"}]
        await console.pilot.press("end")
        await console.until(lambda: "○ m5: 2 steps, last 1.200" in console.text(), "both curves")
        await console.pilot.press("x")
        await console.until(lambda: "● m5  against  ○ m1" in console.text(), "them swapped")
        await console.pilot.press("escape")
        await console.until(lambda: console.app.screen is console.app.console_screen, "the console")
        await console.pilot.press("home", "down", "c")
        assert "◆" not in console.text()


@pytest.mark.parametrize(("key", "title", "inputs"), [
    ("e", "Go on from m1", {"model": ["m1"], "dataset": ["tool-calls"]}),
    ("f", "Fork m1", {"model": ["base"], "dataset": ["tool-calls"]}),
    ("r", "Run m1 again", {"model": ["base"], "dataset": ["tool-calls"]}),
])  # fmt: skip
async def test_a_node_is_gone_on_from_forked_and_run_again(history: FakeEngine, key: str, title: str, inputs: Json) -> None:
    async with opened(history) as console:
        await console.pilot.press("down", key)
        await console.until(lambda: isinstance(console.app.screen, ActionScreen), "the form")
        await console.until(lambda: "legal" in console.text(), "the verdict")
        assert title in console.text()
        await console.pilot.press("ctrl+o")
        await console.until(lambda: history.sent("propose"), "the action")
        [sent] = history.sent("propose")
        assert (sent["type"], sent["inputs"], sent["seed"]) == ("sft", inputs, None)
        await console.until(lambda: "it is the next trial" in console.text(), "the toast")
        assert console.app.view.run.queue["q1"]["action"]["type"] == "sft"


async def test_what_made_nothing_is_not_gone_on_from(history: FakeEngine) -> None:
    async with opened(history) as console:
        console.app.console_screen.query_one("#lineage").select("trial:3")  # type: ignore[attr-defined]
        await console.pilot.press("e")
        await console.until(lambda: "made nothing to go on from" in console.text(), "the reason")
        await console.pilot.press("home", "f")
        await console.until(lambda: "comes from no action" in console.text(), "the reason")
        assert console.app.screen is console.app.console_screen


async def test_a_queued_action_is_withdrawn(history: FakeEngine) -> None:
    for number in (1, 2):
        history.add("action.queued", id=f"q{number}", action=script.sft(f"m{number}"), note="try it", by="person")
    async with opened(history) as console:
        await console.pilot.press("u")
        await console.until(lambda: isinstance(console.app.screen, QueueScreen), "the queue")
        await console.until(lambda: "sft(m2, tool-calls)" in console.text() and "try it" in console.text(), "the actions")
        await console.pilot.press("down", "x")
        await console.until(lambda: history.sent("withdraw") == [{"id": "q2"}], "the command")
        await console.until(lambda: console.app.screen.query_one(OptionList).option_count == 1, "its end")
        await console.pilot.press("x")
        await console.until(lambda: "No action waits" in console.text(), "the empty list")


async def test_read_only_queues_nothing(history: FakeEngine) -> None:
    offer(history)
    history.add("mode.changed", mode="read-only", by="person")
    async with opened(history) as console:
        await console.pilot.press("down", "e")
        await console.until(lambda: "legal" in console.text(), "the verdict")
        await console.pilot.press("ctrl+o")
        await console.until(lambda: "read-only: nothing runs" in console.text(), "the reason")
        assert history.sent("propose") == []


async def test_answers_are_read_row_by_row(history: FakeEngine) -> None:
    async with opened(history) as console:
        await open_node(console, "down")
        await console.pilot.press("w")
        await console.until(lambda: "all: 3 rows" in console.text(), "the rows")
        assert "against base: +0.23" in console.text() and "12 won 3 lost" in console.text()
        await console.until(lambda: "m1 says row-0" in console.text(), "the first row")
        assert "base says row-0" in console.text() and "second line" in console.text()
        await console.pilot.press("down")
        await console.until(lambda: "m1 says row-1" in console.text(), "the second row")
        await console.pilot.press("f")
        await console.until(lambda: "lost: 1 row" in console.text(), "the lost rows")
        assert "row-1" in console.text() and "unfinished" in console.text() and "row-2" not in console.text()
        # No row is empty: that filter is left out.
        for kind in ("won", "wrong", "unfinished", "all"):
            await console.pilot.press("f")
            await console.until(lambda kind=kind: f"{kind}: " in console.text(), kind)
        await console.pilot.press("t")
        await console.until(lambda: "the store has lost the answers" in console.text(), "the next task")
        await console.pilot.press("escape")
        await console.until(lambda: isinstance(console.app.screen, NodeScreen), "the node")


async def test_the_base_has_nothing_to_be_compared_with(history: FakeEngine) -> None:
    async with opened(history) as console:
        await open_node(console)
        await console.pilot.press("w")
        await console.until(lambda: bool(history.sent("answers")), "the question")
        assert history.sent("answers")[0]["against"] == ""
