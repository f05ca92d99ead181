"""What people do at the console, against an engine on a real socket."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from textual.events import Key

from lamdatui.domain.decisions import MODES
from lamdatui.ui.card.edit import EditScreen
from lamdatui.ui.card.grace import GRACE_SECONDS
from lamdatui.ui.console import screen
from lamdatui.ui.console.activity import ActivityPane
from lamdatui.ui.kit.dialogs import ChoiceScreen
from lamdatui.ui.node.screen import NodeScreen
from lamdatui.ui.view.link import who
from tests.ui import script
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine

MASHED = [*"aAedsxyn 1234jkgG", "enter", "tab", "shift+tab", "f2", "ctrl+r", "escape", "up", "down", "left", "right"]


@pytest.fixture
def waiting(engine: FakeEngine) -> FakeEngine:
    script.add_history(engine)
    script.add_waiting(engine)
    return engine


async def test_it_attaches_as_a_console(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine):
        assert engine.sent("attach") == [{"role": "console", "name": who(), "after": 0}]


@pytest.mark.parametrize(("key", "verdict"), [("a", "approve"), ("s", "skip")])
async def test_one_key_decides_about_the_action_that_is_shown(waiting: FakeEngine, key: str, verdict: str) -> None:
    async with opened(waiting) as console:
        digest = console.app.view.waiting.proposal["action"]["digest"]
        await console.answer()
        await console.pilot.press(key)
        await console.until(lambda: waiting.sent("decide"))
        assert waiting.sent("decide") == [{"number": 7, "digest": digest, "verdict": verdict, "reason": "", "remember": False}]


async def test_a_veto_carries_its_reason(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("d", *"too slow")
        console.now += 1
        await console.pilot.press("enter")
        await console.until(lambda: waiting.sent("decide"))
        [args] = waiting.sent("decide")
        assert (args["verdict"], args["reason"], "action" in args) == ("veto", "too slow", False)


async def test_a_veto_needs_no_reason(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("d", "enter")
        await console.settle()
        assert not waiting.sent("decide"), "enter came as a reflex"
        console.now += 1
        await console.pilot.press("enter")
        await console.until(lambda: waiting.sent("decide"))
        assert waiting.sent("decide")[0]["reason"] == ""


async def test_the_letters_of_a_reason_decide_nothing(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("d", *"axes pqm", "escape")
        await console.settle()
        assert not waiting.sent("decide") and not waiting.sent("pause") and not waiting.sent("mode")
        assert console.card.has_focus


async def test_a_rule_is_shown_before_it_is_remembered(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("A")
        assert "always sft on m6, tool-calls" in console.text()
        await console.pilot.press("enter")
        await console.settle()
        assert not waiting.sent("decide"), "enter came as a reflex"
        console.now += 1
        await console.pilot.press("enter")
        await console.until(lambda: waiting.sent("decide"))
        [args] = waiting.sent("decide")
        assert (args["verdict"], args["remember"]) == ("approve", True)


async def test_the_rule_can_be_declined(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("A")
        for key in ("escape", "enter"):
            console.now += 1
            await console.pilot.press(key)
        await console.settle()
        assert not waiting.sent("decide")
        assert console.card.has_focus


async def test_an_edit_is_shown_on_the_card_and_runs_only_when_approved(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("e")
        await console.pilot.press(*["backspace"] * 8, *"0.005", "enter")
        await console.until(lambda: console.card.edited and console.card.has_focus)
        assert not waiting.sent("decide")
        assert "0.0003\xa0→\xa00.005" in console.text()
        console.now += 1
        await console.pilot.press("a")
        await console.until(lambda: waiting.sent("decide"))
        [args] = waiting.sent("decide")
        assert args["verdict"] == "edit"
        assert args["action"]["params"] == {
            "learning_rate": 0.005, "epochs": 1, "rank": 16, "schedule": "cosine", "packing": False,
        }  # fmt: skip


@pytest.mark.parametrize("typed", ["abc", "-1", "1e9", "", "nan"])
async def test_an_invalid_edit_sends_nothing_and_says_why(waiting: FakeEngine, typed: str) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("e", *["backspace"] * 8, *typed, "enter")
        await console.settle()
        assert isinstance(console.app.screen, EditScreen)
        assert "learning_rate is" in console.text()
        await console.pilot.press("escape")
        await console.settle()
        assert not waiting.sent("decide")
        assert console.card.edited is None


async def test_an_edit_that_changes_nothing_is_no_edit(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("e", "enter")
        await console.until(lambda: console.card.has_focus)
        console.now += 1
        await console.pilot.press("a")
        await console.until(lambda: waiting.sent("decide"))
        assert (waiting.sent("decide")[0]["verdict"], "action" in waiting.sent("decide")[0]) == ("approve", False)


async def test_a_refused_decision_leaves_the_card_and_shows_the_reason(waiting: FakeEngine) -> None:
    waiting.refusals["decide"] = "disk budget of 3 GB is used up"
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("a")
        await console.until(lambda: "disk budget of 3 GB is used up" in console.text(), "the toast")
        assert console.card.display
        waiting.refusals.clear()
        console.now += 1
        await console.pilot.press("a")
        await console.until(lambda: len(waiting.sent("decide")) == 2)


async def test_a_decision_is_sent_once(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("a", "a", "a", "s", "x")
        await console.settle()
        assert len(waiting.sent("decide")) == 1


async def test_the_card_goes_when_another_console_decides(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        action = console.app.view.waiting.proposal["action"]
        waiting.emit("trial.decided", number=7, verdict="approve", by="another console", reason="", action=action)
        await console.until(lambda: not console.card.display, "the card to go")
        await console.pilot.press("a", "s", "x")
        await console.settle()
        assert not waiting.sent("decide")
        assert console.app.focused is not None and console.app.focused.id == "lineage"


async def test_the_card_never_takes_the_focus(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        await console.pilot.press("2")
        before = console.app.focused
        script.emit_proposal(engine, 7, script.sft("m6"))
        await console.until(lambda: console.card.display, "the card")
        assert console.app.focused is before
        for _ in range(8):
            await console.pilot.press("tab")
            assert not console.card.has_focus_within


@pytest.mark.parametrize("seed", range(8))
async def test_mashing_keys_while_a_proposal_arrives_decides_nothing(engine: FakeEngine, seed: int) -> None:
    script.add_history(engine)
    dice = random.Random(seed)
    keys = [dice.choice(MASHED) for _ in range(40)]
    async with opened(engine, (80, 24)) as console:
        for place, key in enumerate(keys):
            if place == 10:
                script.emit_proposal(engine, 7, script.sft("m6"))
            if place == 25:
                script.emit_proposal(engine, 8, script.sft("m5"))
            await console.pilot.press(key)
            console.now += dice.uniform(0.0, GRACE_SECONDS * 0.9)
        await console.settle()
        assert not engine.sent("decide")


async def test_keys_in_the_grace_period_are_swallowed_and_prolong_it(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("f2")
        await console.until(lambda: console.card.has_focus)
        for _ in range(10):
            console.now += GRACE_SECONDS * 0.8
            await console.pilot.press("a")
        assert not waiting.sent("decide")
        console.now += GRACE_SECONDS * 1.1
        await console.pilot.press("a")
        await console.until(lambda: waiting.sent("decide"))


@pytest.mark.parametrize("way", ["to the card", "to where the focus was"])
async def test_a_key_that_came_before_the_card_was_asked_for_decides_nothing(waiting: FakeEngine, way: str) -> None:
    async with opened(waiting) as console:
        await console.answer()
        # A console that was busy for five seconds: the key waited all the time.
        key = Key("a", "a")
        key.time -= 5
        (console.card if way == "to the card" else console.app.console_screen).post_message(key)
        await console.settle()
        assert not waiting.sent("decide")
        console.now += 1
        await console.pilot.press("a")
        await console.until(lambda: waiting.sent("decide"))


async def test_a_proposal_that_replaces_the_shown_one_starts_the_grace_again(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        first = console.card.digest
        offered = script.proposal(7, script.sft("m5"), "another idea")
        waiting.emit("trial.proposed", number=7, proposal=offered)
        await console.until(lambda: console.card.digest != first, "the new proposal")
        await console.pilot.press("a")
        await console.settle()
        assert not waiting.sent("decide")
        console.now += 1
        await console.pilot.press("a")
        await console.until(lambda: waiting.sent("decide"))
        assert waiting.sent("decide")[0]["digest"] == offered["action"]["digest"]


async def test_an_edit_form_closes_when_its_proposal_is_gone(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.answer()
        await console.pilot.press("e", *"55")
        waiting.emit("trial.proposed", number=7, proposal=script.proposal(7, script.sft("m5"), "another idea"))
        await console.until(lambda: not isinstance(console.app.screen, EditScreen), "the form to close")
        assert console.card.edited is None
        assert not waiting.sent("decide")


async def test_a_long_card_says_how_much_is_below(engine: FakeEngine) -> None:
    script.add_base(engine)
    engine.add("trial.opened", number=1)
    engine.add("trial.proposed", number=1, proposal=script.proposal(1, script.sft(), "a long reason " * 60))
    async with opened(engine, (80, 24)) as console:
        assert "more lines" in console.text()
        await console.answer()
        await console.pilot.press(*["pagedown"] * 12)
        await console.settle()
        assert "more line" not in console.text()
        assert "a approve  A always…" in console.text()


async def test_hostile_text_reaches_no_widget(engine: FakeEngine) -> None:
    script.add_base(engine)
    nasty = "[bold]\x1b[2J\x1b]0;owned\x07\u202eevil[/bold] [@click=app.quit]x[/]"
    engine.add("trial.opened", number=1)
    engine.add("trial.proposed", number=1, proposal=script.proposal(1, script.sft(), nasty, by=nasty))
    async with opened(engine) as console:
        await console.until(lambda: "[@click=app.quit]x[/]" in console.text())
        shown = console.text()
        assert "\x1b" not in shown and "\u202e" not in shown and "\x07" not in shown
        assert "[bold]␛[2J" in shown and "[@click=app.quit]x[/]" in shown


async def test_pause_resume_and_hold(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("p")
        await console.until(lambda: waiting.sent("pause"))
        waiting.emit("run.paused", by="console")
        await console.until(lambda: console.app.view.run.paused)
        await console.pilot.press("f7")
        await console.until(lambda: waiting.sent("resume"))
        await console.answer()
        await console.pilot.press("d", *"half a reas", "f9")
        await console.until(lambda: waiting.sent("mode") == [{"mode": "ask"}])
        await console.pilot.press("ctrl+g")
        await console.until(lambda: len(waiting.sent("mode")) == 2)
        assert not waiting.sent("decide")


async def test_m_goes_through_the_modes_and_auto_needs_a_yes(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        for mode in ("ask-risky",):
            await console.pilot.press("m")
            await console.until(lambda: waiting.sent("mode"))
            assert waiting.sent("mode")[-1] == {"mode": mode}
            waiting.emit("mode.changed", mode=mode, by="console")
            await console.until(lambda mode=mode: console.app.view.run.mode == mode)
        await console.pilot.press("m")
        assert isinstance(console.app.screen, ChoiceScreen)
        await console.pilot.press("enter")
        await console.settle()
        assert len(waiting.sent("mode")) == 1, "the default answer is no"
        await console.pilot.press("m", "down", "enter")
        await console.until(lambda: waiting.sent("mode")[-1] == {"mode": "auto"})
        assert MODES[-1] == "auto"


async def test_in_auto_no_card_flashes_for_a_proposal_that_is_decided_at_once(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for a busy machine to decide first.
    monkeypatch.setattr(screen, "AUTO_CARD_SECONDS", 3.0)
    script.add_history(engine)
    engine.add("mode.changed", mode="auto", by="console")
    async with opened(engine) as console:
        act = script.emit_proposal(engine, 7, script.sft("m6"))["action"]
        await console.until(lambda: console.app.view.waiting)
        await console.settle()
        assert not console.card.display
        engine.emit("trial.decided", number=7, verdict="approve", by="mode auto", reason="", action=act)
        await console.pilot.pause(3.2)
        assert not console.card.display


async def test_quitting_leaves_it_running_by_default(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("q")
        assert "Leave it running" in console.text()
        await console.pilot.press("enter")
        await console.until(lambda: console.app.return_code is not None or not console.app.is_running)
        assert not waiting.sent("stop")
        assert console.app.return_value == 0


@pytest.mark.parametrize(("downs", "when"), [(1, "after-step"), (2, "now")])
async def test_quitting_can_stop_the_run(waiting: FakeEngine, downs: int, when: str) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("ctrl+q", *["down"] * downs, "enter")
        await console.until(lambda: waiting.sent("stop") == [{"when": when}])
        await console.until(lambda: console.app.return_value == 0)


async def test_cancelled_quit_stays(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("ctrl+c", "escape")
        await console.settle()
        assert console.app.is_running and not waiting.sent("stop")


async def test_a_refused_stop_does_not_quit(waiting: FakeEngine) -> None:
    waiting.refusals["stop"] = "nothing to stop"
    async with opened(waiting) as console:
        await console.pilot.press("q", "down", "enter")
        await console.until(lambda: "nothing to stop" in console.text())
        assert console.app.return_value is None


async def test_it_says_that_the_engine_is_gone_and_comes_back(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        assert console.card.display
        await waiting.stop()
        await console.until(lambda: "engine gone" in console.text(), "the banner")
        assert not console.card.display, "nobody could take the answer"
        waiting.emit("memory.updated", text="written while nobody watched", by="lamdagent")
        await waiting.start()
        await console.until(lambda: console.app.view.connection == "live", "the reconnection")
        await console.until(lambda: console.card.display)
        assert console.app.view.run.memory == "written while nobody watched"


async def test_losses_from_before_the_attach_are_read_from_the_file(engine: FakeEngine, run_dir: Path) -> None:
    script.add_history(engine)
    script.add_running(engine, run_dir)
    engine.extra.clear()
    metrics = run_dir / "steps/7/1/metrics.jsonl"
    metrics.write_text('{"step": 1, "max_steps": 9, "loss": 2.0}\nbroken\n{"step": 2, "max_steps": 9, "loss": 1.5}\n')
    async with opened(engine) as console:
        assert console.app.view.progress.losses == [2.0, 1.5]
        engine.send({"type": "metric", "step": "7/1", "metric": {"step": 3, "max_steps": 9, "loss": 1.0}})
        await console.until(lambda: console.app.view.progress.losses == [2.0, 1.5, 1.0])


async def test_no_gpu_is_explained_in_words(engine: FakeEngine) -> None:
    script.add_history(engine)
    engine.extra.append(script.hardware(0))
    async with opened(engine) as console:
        assert "NVML library not found" in console.text()


async def test_a_narrow_terminal_shows_one_pane_and_counts_what_is_unread(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine, (80, 24)) as console:
        assert "1 Pipeline" in console.text()
        engine.emit("memory.updated", text="something new", by="lamdagent")
        await console.until(lambda: "2 Activity 1 new" in console.text(), "the unread count")
        await console.pilot.press("2")
        await console.until(lambda: "something new" in console.text())
        await console.settle()
        assert "1 new" not in console.text()


async def test_activity_stays_where_the_reader_is(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        pane = console.app.console_screen.query_one(ActivityPane)
        await console.pilot.press("2", "home")
        engine.emit("memory.updated", text="something new", by="lamdagent")
        await console.settle()
        assert pane.highlighted == 0
        await console.pilot.press("end")
        engine.emit("memory.updated", text="something newer", by="lamdagent")
        await console.until(lambda: pane.highlighted == pane.option_count - 1)
        await console.settle()
        assert pane.highlighted == pane.option_count - 1


async def test_enter_shows_the_whole_story_of_a_trial(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        await console.pilot.press("down", "enter")
        await console.until(lambda: isinstance(console.app.screen, NodeScreen))
        await console.pilot.press("6")
        await console.until(lambda: "Supervised tuning on tool calls" in console.text(), "the reason")
        await console.pilot.press("escape")


async def test_resizing_keeps_the_card_and_its_focus(waiting: FakeEngine) -> None:
    async with opened(waiting, (200, 60)) as console:
        await console.answer()
        for size in ((80, 24), (60, 16), (120, 40), (200, 60)):
            await console.pilot.resize_terminal(*size)
            await console.settle()
            assert console.card.has_focus
            assert "a approve" in console.text()


async def test_a_screenshot_is_saved(waiting: FakeEngine, home: Path) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("S")
        await console.until(lambda: list((home / "state" / "screenshots").glob("*.svg")))


async def test_zoom_shows_one_pane_alone(waiting: FakeEngine) -> None:
    async with opened(waiting) as console:
        await console.pilot.press("2", "z")
        await console.settle()
        assert "tool_use" not in console.text()
        await console.pilot.press("escape")
        await console.settle()
        assert "tool_use" in console.text()
