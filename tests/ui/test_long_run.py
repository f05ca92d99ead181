"""A long run opens from a snapshot: the same screen, with what was left out fetched when it is looked at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lamdatui.domain.planner_report import told, worth
from lamdatui.ui.lineage.forest import TreeRow
from lamdatui.ui.lineage.pane import PipelinePane
from lamdatui.ui.node.compare_screen import CompareScreen
from lamdatui.ui.view import link
from lamdatui.wire import snapshot
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine


@pytest.fixture
def long_run(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """A run that is long enough for a snapshot, because the limit is low here."""
    monkeypatch.setattr(link, "SNAPSHOT_EVENTS", 20)
    monkeypatch.setattr(snapshot, "WHOLE", 0)
    script.add_history(engine)
    engine.answers["trial"] = lambda args: asdict(engine.state.trials[args["number"]])
    return engine


def shown(console: Console) -> Any:
    """What the view says: rows of what happened, rows of models, the best one."""
    view = console.app.view
    models = [(trial.number, trial.status, trial.action, trial.scores, trial.gain) for trial in view.run.trials.values()]
    best = view.best_trial()
    return list(view.activity), models, best and best.number, list(view.exchanges), view.run.scores


def rows(console: Console) -> list[TreeRow]:
    """The rows of the pipeline."""
    return console.app.console_screen.query_one(PipelinePane).pipeline.rows


def attached(engine: FakeEngine) -> list[dict[str, Any]]:
    """With what consoles have attached."""
    return [{key: value for key, value in args.items() if key != "name"} for args in engine.sent("attach")]


async def test_a_snapshot_shows_what_a_replay_shows(
    long_run: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(long_run) as console:
        assert attached(long_run) == [{"role": "console", "snapshot": True}]
        assert console.app.view.brief == {1, 2, 3, 4, 5, 6}
        found = shown(console)
    (tmp_path / "other").mkdir()
    other = FakeEngine(tmp_path / "other")
    script.add_history(other)
    monkeypatch.setattr(link, "SNAPSHOT_EVENTS", 10_000)
    async with opened(other) as console:
        assert attached(other) == [{"role": "console", "after": 0}]
        assert shown(console) == found


async def test_events_after_a_snapshot_are_taken_in(long_run: FakeEngine) -> None:
    async with opened(long_run) as console:
        script.emit_proposal(long_run, 7, script.sft("m6"))
        await console.until(lambda: console.card.display, "the card")
        assert 7 not in console.app.view.brief
        assert console.app.view.waiting is console.app.view.run.trials[7]


async def test_a_trial_that_is_looked_at_is_fetched_once(long_run: FakeEngine) -> None:
    async with opened(long_run) as console:
        console.app.console_screen._show_trial(2)
        await console.until(lambda: len(console.app.screen_stack) == 2, "the trial's screen")
        await console.settle()
        trial = console.app.view.run.trials[2]
        assert trial.proposal and trial.proposal["alternatives"] and 2 not in console.app.view.brief
        await console.pilot.press("escape")
        console.app.console_screen._show_trial(2)
        await console.until(lambda: len(console.app.screen_stack) == 2, "the trial's screen again")
        assert long_run.sent("trial") == [{"number": 2}]


async def compared(console: Console, *places: int) -> None:
    """Mark the first of two rows, and ask for the comparison on the other."""
    await console.pilot.press("home", *["down"] * places[0], "c", "home", *["down"] * places[1], "c")
    await console.until(lambda: isinstance(console.app.screen, CompareScreen), "the comparison")
    await console.settle()


async def test_both_trials_of_a_comparison_are_fetched(long_run: FakeEngine) -> None:
    script.add_trial(long_run, 7, script.sft("m2", rank=4), "a smaller rank", "done", script.scores(0.4, 0.3), objective=0.4)
    async with opened(long_run) as console:
        await compared(console, 1, [row.key for row in rows(console)].index("trial:7"))
        await console.until(lambda: not {1, 7} & console.app.view.brief, "both trials")
        await console.until(lambda: "4 *" in console.text(), "what the declaration tells")
        assert sorted(sent["number"] for sent in long_run.sent("trial")) == [1, 7]
        assert console.app.view.brief == {2, 3, 4, 5, 6}
        await console.pilot.press("escape")
        # Of a base and a trial that is known by now nothing is asked.
        await console.pilot.press("c")
        await compared(console, 0, 1)
        assert len(long_run.sent("trial")) == 2


async def test_a_comparison_shows_what_it_has_where_a_trial_can_not_be_fetched(long_run: FakeEngine) -> None:
    answer = long_run.answers["trial"]
    long_run.answers["trial"] = lambda args: None if args["number"] == 1 else answer(args)
    async with opened(long_run) as console:
        await compared(console, 1, 2)
        # The other toast says that a row is marked.
        await console.until(lambda: [note for note in console.app._notifications if note.title], "the toast")
        assert [note.title for note in console.app._notifications if note.title] == ["trial 1 is shown in brief"]
        assert console.app.view.brief == {1, 3, 4, 5, 6}
        assert "sft" in console.text() and "dpo" in console.text()


async def test_a_trial_that_can_not_be_fetched_is_shown_in_brief(long_run: FakeEngine) -> None:
    long_run.refusals["trial"] = "not now"
    async with opened(long_run) as console:
        console.app.console_screen._show_trial(2)
        await console.until(lambda: len(console.app.screen_stack) == 2, "the trial's screen")
        assert 2 in console.app.view.brief
        assert [note.title for note in console.app._notifications] == ["trial 2 is shown in brief"]


async def test_a_console_that_comes_back_asks_only_for_what_is_new(long_run: FakeEngine) -> None:
    async with opened(long_run) as console:
        known = len(long_run.events)
        await long_run.stop()
        await console.until(lambda: console.app.view.connection == "lost", "the loss")
        long_run.add("hint.added", id="h1", text="merge first", by="person", trial=None)
        await long_run.start()
        await console.until(lambda: "h1" in console.app.view.run.hints, "the hint")
        assert attached(long_run)[1:] == [{"role": "console", "after": known}]


async def test_the_report_on_the_planner_comes_from_the_engine(long_run: FakeEngine) -> None:
    report = worth(long_run.state)
    long_run.answers["worth"] = lambda args: {"lines": told(report), "sign": report.difference.sign}
    async with opened(long_run, (120, 50)) as console:
        console.app.console_screen.action_planner()
        await console.until(lambda: long_run.sent("worth"), "the question")
        await console.settle()
        assert report.verdict in console.text()


async def test_without_an_answer_the_report_says_so(long_run: FakeEngine) -> None:
    long_run.refusals["worth"] = "not now"
    async with opened(long_run, (120, 50)) as console:
        console.app.console_screen.action_planner()
        await console.until(lambda: "it does not answer" in console.text(), "the note")
