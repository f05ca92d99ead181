"""The planner's screen, against an engine on a real socket: what it shows, and which commands its keys really send."""

from __future__ import annotations

import re

import pytest
from textual.widgets import Input, OptionList, TextArea

from lamdatui.domain.policies import SUMMARIES
from lamdatui.engine import people
from lamdatui.planner.grammar import MEMORY_CHARS as ENGINE_MEMORY_CHARS
from lamdatui.ui.kit.dialogs import ChoiceScreen, TextScreen
from lamdatui.ui.kit.write import LineScreen, PageScreen
from lamdatui.ui.planner import screen as screens
from lamdatui.ui.planner.screen import PlannerScreen
from lamdatui.ui.view.state import EXCHANGES
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

SIZES = [(80, 24), (120, 40), (200, 60)]
FAR = (200, 60)


@pytest.fixture
def chosen(engine: FakeEngine) -> FakeEngine:
    """A hybrid that has asked its planner some times, with a proposal that waits."""
    script.add_choices(engine)
    script.add_weighed(engine, 5)
    return engine


async def enter(console: Console, key: str = "P") -> PlannerScreen:
    """Open the screen."""
    await console.pilot.press(key)
    await console.until(lambda: isinstance(console.app.screen, PlannerScreen), "the planner's screen")
    await console.settle()
    screen = console.app.screen
    assert isinstance(screen, PlannerScreen)
    return screen


def words(console: Console, pane: str = "") -> str:
    """The words on the screen or in one of its panes, without frames and line ends."""
    lines = console.text().splitlines()
    if pane:
        place = console.app.screen.query_one(f"#planner-{pane}").region
        lines = [line[place.x : place.right] for line in lines[place.y : place.bottom]]
    return re.sub(r"[\s│┃╭╮╰╯─━]+", " ", "\n".join(lines))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_size_shows_who_proposes_and_how_each_pane_begins(chosen: FakeEngine, size: tuple[int, int]) -> None:
    async with opened(chosen, size) as console:
        await enter(console)
        shown = words(console)
        for text in (
            "hybrid, asks the planner on 24% of the trials",
            "SmolLM2-135M-Instruct (llama.cpp)",
            "explain, trial 5",
            "m2 has not seen a larger rank.",
            "31%",
            "the preference data is what we",
            "Helped: sft on tool-calls",
            "too few choices to tell (n=3)",
            "yes-no: A 0.45",
            "waiting for you",
        ):
            assert text in shown, text


async def test_the_whole_of_every_pane_is_there_where_there_is_room(chosen: FakeEngine) -> None:
    async with opened(chosen, FAR) as console:
        await enter(console)
        for pane, texts in {
            "choice": (
                "sft(m2, tool-calls) by hybrid (its planner SmolLM2-135M-Instruct chose, share 24%)",
                "expects objective 0.372 ± 0.031",
                "› 45% 0.372 ± 0.031 sft(m2, tool-calls;",
                "31% 0.391 ± 0.031 dpo(m2, preferences; beta=0.1) · the surrogate's favourite",
            ),
            "said": ("h41 hint: the preference data", "c3 constraint: never sft on base", "r2 rule: always sft on m1"),
            "memory": ("Promising: go on from m1. written by code, from what was measured",),
            "worth": ("won 1, lost 2, open 1", "3,740 tokens", "tpe: the same action 0 of 3 times"),
            "exchanges": ("5 explain m2 has not seen a larger rank. 5 action yes-no: A 0.45",),
        }.items():
            for text in texts:
                assert text in words(console, pane), text


async def test_f10_opens_it_and_escape_goes_back_to_where_one_was(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await console.pilot.press("2")
        before = console.app.focused
        await enter(console, "f10")
        await console.pilot.press("escape")
        await console.until(lambda: console.app.screen is console.app.console_screen)
        await console.settle()
        assert console.app.focused is before
        assert [name for name, _ in chosen.commands] == ["attach"]


async def test_in_a_narrow_terminal_the_pane_with_the_focus_has_the_room(chosen: FakeEngine) -> None:
    async with opened(chosen, (80, 24)) as console:
        screen = await enter(console)
        for pane in ("planner-said", "planner-memory", "planner-worth", "planner-exchanges", "planner-choice"):
            await console.pilot.press("tab")
            await console.settle()
            heights = {node.id: node.size.height for node in screen.query(".planner-pane")}
            assert console.app.focused is not None and console.app.focused.id == pane
            assert heights[pane] > 6 and all(height == 2 for name, height in heights.items() if name != pane)


async def test_a_hint_is_sent_as_it_was_typed(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("h")
        assert isinstance(console.app.screen, LineScreen)
        await console.pilot.press(*"try dpo, exp 2", "enter")
        await console.until(lambda: chosen.sent("hint"))
        assert chosen.sent("hint") == [{"text": "try dpo, exp 2"}]
        chosen.emit("hint.added", id="h77", text="try dpo, exp 2", by="person", trial=5)
        await console.until(lambda: "h77 hint: try dpo, exp 2" in words(console, "said"), "the hint in the list")
        assert len(chosen.commands) == 2, "no letter of the hint was a key"


async def test_an_empty_hint_and_one_that_was_left_send_nothing(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("h", "space", "enter")
        await console.settle()
        assert isinstance(console.app.screen, LineScreen)
        await console.pilot.press(*"abc", "escape")
        await console.settle()
        assert isinstance(console.app.screen, PlannerScreen)
        assert not chosen.sent("hint")


async def test_what_was_written_is_not_lost_when_the_engine_refuses_it(chosen: FakeEngine) -> None:
    chosen.refusals |= {"hint": "not now", "memory": "not now either"}
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("h", *"keep me", "enter")
        await console.until(lambda: "not now" in console.text(), "the toast")
        await console.until(lambda: isinstance(console.app.screen, LineScreen), "the dialog again")
        await console.settle()
        assert console.app.screen.query_one(Input).value == "keep me"
        await console.pilot.press("escape", "e", *" and me", "ctrl+o")
        await console.until(lambda: chosen.sent("memory"))
        await console.until(lambda: isinstance(console.app.screen, PageScreen), "the editor again")
        await console.settle()
        assert console.app.screen.query_one(TextArea).text.endswith("m1. and me")


async def test_the_memory_is_edited_and_saved(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("e")
        assert isinstance(console.app.screen, PageScreen)
        await console.pilot.press("enter", *"Never xhp.", "ctrl+o")
        await console.until(lambda: chosen.sent("memory"))
        [args] = chosen.sent("memory")
        assert args == {"text": "Helped: sft on tool-calls +0.060. Promising: go on from m1. Never xhp."}
        chosen.emit("memory.updated", text=args["text"], by="person")
        await console.until(lambda: "written by person" in words(console, "memory"))


async def test_a_memory_that_was_left_is_not_sent(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("e", *"xyz", "escape")
        await console.settle()
        assert isinstance(console.app.screen, PlannerScreen)
        assert not chosen.sent("memory")


async def test_a_memory_that_is_too_long_is_kept_in_the_editor(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("e")
        console.app.screen.query_one(TextArea).text = "a" * (screens.MEMORY_CHARS + 1)
        await console.settle()
        assert "481 of 480 characters · ✗ 1 too many" in words(console)
        await console.pilot.press("ctrl+o")
        await console.settle()
        assert isinstance(console.app.screen, PageScreen) and not chosen.sent("memory")


async def test_the_editor_says_that_the_memory_changed_under_it(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("e", "x")
        chosen.emit("memory.updated", text="something else", by="hybrid (SmolLM2)")
        await console.until(lambda: "hybrid (SmolLM2) rewrote the memory while you edited it" in words(console), "the warning")
        assert console.app.screen.query_one(TextArea).text.endswith("m1.x"), "what was typed stays"


async def test_another_policy_is_chosen_and_the_first_answer_changes_nothing(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("p")
        screen = console.app.screen
        assert isinstance(screen, ChoiceScreen)
        assert screen.query_one(OptionList).option_count == len(SUMMARIES)
        assert "hybrid (now)" in console.text()
        await console.pilot.press("enter")
        await console.settle()
        assert not chosen.sent("policy")
        await console.pilot.press("p", "j", "j", "j", "enter")
        await console.until(lambda: chosen.sent("policy"))
        assert chosen.sent("policy") == [{"name": "tpe"}]
        chosen.emit("policy.changed", name="tpe", by="person")
        await console.until(lambda: "policy tpe" in words(console, "choice"))
        assert not chosen.sent("pause"), "p is the console's key for another thing"


@pytest.mark.parametrize("key", ["x", "delete"])
async def test_what_is_selected_is_revoked(chosen: FakeEngine, key: str) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("tab", "down", key)
        await console.until(lambda: chosen.sent("revoke"))
        assert chosen.sent("revoke") == [{"id": "c3"}]
        chosen.emit("constraint.revoked", id="c3", by="person")
        await console.until(lambda: "c3 constraint" not in words(console, "said"))
        await console.pilot.press(key)
        await console.until(lambda: len(chosen.sent("revoke")) == 2)
        assert chosen.sent("revoke")[1] == {"id": "r2"}, "the cursor went to the next one"


async def test_revoking_from_another_pane_only_goes_to_the_list(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("x")
        await console.settle()
        assert not chosen.sent("revoke")
        await console.pilot.press("x")
        await console.until(lambda: chosen.sent("revoke") == [{"id": "h41"}])


async def test_the_cursor_stays_on_its_item_when_others_come(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("tab", "down", "down")
        chosen.emit("hint.added", id="h90", text="another", by="person", trial=5)
        await console.until(lambda: "h90 hint" in words(console, "said"))
        await console.pilot.press("x")
        await console.until(lambda: chosen.sent("revoke") == [{"id": "r2"}])


async def test_enter_shows_an_item_in_full(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("tab", "enter")
        await console.until(lambda: isinstance(console.app.screen, TextScreen))
        await console.until(lambda: "the preference data is what we have most of" in console.text(), "the hint on one line")
        await console.pilot.press("escape", "shift+tab", "shift+tab", "enter")
        await console.until(lambda: isinstance(console.app.screen, TextScreen))
        await console.until(lambda: re.search(r"call +explain .*\n.*answer +m2 has not seen", console.text()), "the exchange")


async def test_new_events_change_what_is_shown_and_take_no_focus(chosen: FakeEngine) -> None:
    async with opened(chosen, FAR) as console:
        await enter(console)
        await console.pilot.press("tab", "tab")
        before = console.app.focused
        chosen.emit("planner.answered", number=6, call="type", answer="letters: A 0.90 B 0.10", tokens=1000, seconds=9.0)
        chosen.emit("hint.added", id="h91", text="focus stays", by="person", trial=6)
        script.emit_proposal(chosen, 6, script.sft("m5"))
        await console.until(lambda: "trial 6 sft(m5, tool-calls)" in words(console, "choice"), "the new proposal")
        assert "letters: A 0.90 B 0.10" in words(console, "choice") and "4,740 tokens" in words(console, "worth")
        assert console.app.focused is before


async def test_only_the_newest_exchanges_are_kept(chosen: FakeEngine) -> None:
    for number in range(30):
        chosen.add("planner.answered", number=number, call="action", answer=f"answer {number}", tokens=1, seconds=0.1)
    async with opened(chosen) as console:
        kept = [exchange.answer for exchange in console.app.view.exchanges]
        assert kept == [f"answer {number}" for number in range(30 - EXCHANGES, 30)]


async def test_f2_goes_to_the_card_and_keys_that_come_late_decide_nothing(chosen: FakeEngine) -> None:
    async with opened(chosen) as console:
        await enter(console)
        await console.pilot.press("f2")
        await console.until(lambda: console.app.screen is console.app.console_screen and console.card.has_focus)
        await console.pilot.press("x", "a")
        await console.settle()
        assert not chosen.sent("decide")
        console.now += 1
        await console.pilot.press("P")
        await console.until(lambda: isinstance(console.app.screen, PlannerScreen))
        await console.pilot.press("escape")
        await console.until(lambda: console.card.has_focus)
        await console.pilot.press("x")
        await console.settle()
        assert not chosen.sent("decide"), "the grace starts again"


async def test_an_ended_run_is_only_looked_at(chosen: FakeEngine) -> None:
    chosen.add("run.ended", status="done", reason="5 trials", winner=None, beats_base=None, gain=None)
    async with opened(chosen) as console:
        await enter(console)
        for key in ("h", "e", "p", "x"):
            await console.pilot.press(key)
            await console.settle()
            assert isinstance(console.app.screen, PlannerScreen)
        assert "it can only be looked at" in words(console)
        assert [name for name, _ in chosen.commands] == ["attach"]


async def test_a_run_without_planner_hints_and_memory_says_so(engine: FakeEngine) -> None:
    script.add_base(engine)
    async with opened(engine) as console:
        await enter(console)
        shown = words(console)
        assert "Nothing is in force; h gives a hint." in shown
        assert "no planner has chosen in this run" in shown and "Nothing yet; e writes one." in shown
        await console.pilot.press("x", "tab", "x", "enter")
        await console.settle()
        assert not engine.sent("revoke")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_hostile_text_steers_nothing(engine: FakeEngine, size: tuple[int, int]) -> None:
    nasty = "[bold]\x1b[2J\x1b]0;owned\x07\u202eevil[/bold]\n[@click=app.quit]x[/]"
    script.add_choices(engine)
    engine.add("planner.answered", number=5, call=nasty, answer=nasty, tokens=1, seconds=0.1)
    for kind in ("constraint", "rule"):
        engine.add(f"{kind}.added", id=nasty, text=nasty, match={}, by=nasty, trial=1)
    engine.add("hint.added", id=nasty, text=nasty, by=nasty, trial=1)
    engine.add("memory.updated", text=nasty, by=nasty)
    engine.add("trial.opened", number=5)
    option = {"action": nasty, "digest": nasty, "probability": "high", "expected": nasty, "std": None}
    told = {"chooser": "planner", "planner": nasty, "share": nasty, "rival": option}
    shown = script.proposal(5, script.sft(), nasty, by=nasty, alternatives=[option], details=told)
    engine.add("trial.proposed", number=5, proposal=shown)
    engine.add("shadows.recorded", number=5, shadows=[{"policy": nasty, "action": nasty, "digest": nasty}])
    async with opened(engine, size) as console:
        await enter(console)
        for _ in range(5):
            await console.pilot.press("tab")
            await console.settle()
            text = console.text()
            assert not {"\x1b", "\x07", "\u202e"} & set(text)
        await console.pilot.press("e")
        assert "\x1b" not in console.app.screen.query_one(TextArea).text


async def test_details_of_another_shape_do_not_end_the_screen(engine: FakeEngine) -> None:
    script.add_base(engine)
    engine.add("trial.opened", number=1)
    shown = script.proposal(1, script.sft(), "why", alternatives=["x", 3], details="none")
    engine.add("trial.proposed", number=1, proposal=shown)
    async with opened(engine) as console:
        await enter(console)
        assert "policy lamdagent" in words(console, "choice")


def test_the_limits_are_the_engines() -> None:
    assert (screens.HINT_CHARS, screens.MEMORY_CHARS) == (people.HINT_CHARS, ENGINE_MEMORY_CHARS)


async def test_the_card_says_what_is_expected_and_how_likely_each_was(chosen: FakeEngine) -> None:
    async with opened(chosen, (120, 50)) as console:
        await console.answer()
        await console.pilot.press("space")
        await console.settle()
        shown = words(console)
        assert "hybrid (its planner SmolLM2-135M-Instruct chose, share 24%), in 2.4 s" in shown
        assert "objective 0.372, 95% from 0.311 to 0.433" in shown and "the planner gave it 45%" in shown
        assert "dpo(m2, preferences; beta=0.1) 31%, 0.391 ± 0.031" in shown
