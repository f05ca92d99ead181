"""Every way from a proposal to a decision: alternatives, own actions, forms, an editor, questions before what can't be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual import events

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.state import RunState
from lamdatui.ui.card.controller import Deciding
from lamdatui.ui.card.edit import EditScreen
from lamdatui.ui.card.text import decided_text, facts, queue_lines
from lamdatui.ui.kit import commandline, editor
from lamdatui.ui.kit.actionform import ActionScreen
from lamdatui.ui.kit.dialogs import ChoiceScreen
from lamdatui.ui.planner.screen import PlannerScreen
from lamdatui.ui.view.format import Line
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine

DPO = script.action("dpo", {"model": ["m2"], "dataset": ["preferences"]}, {"beta": 0.1})
FAR = (160, 50)


@pytest.fixture
def waiting(engine: FakeEngine) -> FakeEngine:
    script.add_choices(engine)
    offered = script.add_weighed(engine, 5)
    offered["alternatives"][1] |= {name: DPO[name] for name in ("type", "inputs", "params", "digest")}
    script.answer_orders(engine)
    return engine


def plain(lines: list[Line]) -> str:
    """Lines as text."""
    return "\n".join("".join(text for text, _ in line) for line in lines).replace("\xa0", " ")


def words(console: Console) -> str:
    """The screen on one line, without borders."""
    return " ".join(console.text().replace("\xa0", " ").replace("┃", " ").replace("│", " ").split())


def toasts(console: Console) -> str:
    """What was said in toasts."""
    return " ".join(f"{toast.title}: {toast.message}" for toast in console.app._notifications)


async def press(console: Console, *keys: str) -> None:
    """Press keys as a person does: one, look, the next."""
    for key in keys:
        await console.pilot.press(key)
        await console.settle()
        console.now += 1


# what the card says


def test_the_forecast_has_an_interval_and_is_held_against_the_best_so_far(waiting: FakeEngine) -> None:
    state = RunState()
    for event in waiting.events:
        state.apply(event)
    proposal = state.trials[5].proposal
    assert proposal is not None
    shown = plain(facts(state, proposal, None))
    assert "about 38 s · 2.0 GB memory · unknown disk" in shown
    assert "objective 0.372, 95% from 0.311 to 0.433 · best so far 0.380 (m2): -0.008" in shown
    proposal["details"] = {}
    assert "objective unknown · best so far 0.380 (m2)" in plain(facts(state, proposal, None))
    proposal["details"], proposal["estimate"] = {"expected": 0.4}, {}
    shown = plain(facts(state, proposal, None))
    assert "objective 0.400, interval unknown" in shown and "unknown time · unknown memory · unknown disk" in shown


def test_what_people_queued_is_on_the_card(engine: FakeEngine) -> None:
    state = RunState()
    assert queue_lines(state) == []
    for name, act in (("q1", DPO), ("q2", script.sft("m1"))):
        state.queue[name] = {"id": name, "action": act, "note": "", "by": "person"}
    assert plain(queue_lines(state)).split() == [
        "then",
        "2",
        "queued",
        "by",
        "people:",
        "dpo(m2,",
        "preferences)",
        "·",
        "sft(m1,",
        "tool-calls)",
    ]


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 40), (200, 60)])
async def test_the_mode_and_the_keys_are_always_in_sight(waiting: FakeEngine, size: tuple[int, int]) -> None:
    async with opened(waiting, size) as console:
        assert " ASK " in console.text()
        await console.answer()
        await console.settle()
        shown = console.text()
        assert " ASK " in shown and "a approve" in shown and "esc back" in shown and "sft" in shown


# nothing that is approved is cut


@pytest.mark.parametrize("key", ["a", "A"])
async def test_what_was_not_on_the_screen_can_not_be_approved(engine: FakeEngine, key: str) -> None:
    script.add_base(engine)
    engine.add("trial.opened", number=1)
    engine.add("trial.proposed", number=1, proposal=script.proposal(1, script.sft(), "a long reason " * 200))
    async with opened(engine, (80, 24)) as console:
        await console.answer()
        await press(console, key)
        assert console.card.has_class("-full")
        assert "Nothing is approved yet" in console.text()
        for _ in range(12):
            assert not engine.sent("decide")
            if "more line" not in console.text():
                break
            await press(console, key)
        await press(console, key, *(["enter"] if key == "A" else []))
        await console.until(lambda: engine.sent("decide"))
        assert engine.sent("decide")[0]["verdict"] == "approve"


async def test_the_key_that_opened_the_full_view_does_not_approve_as_well(engine: FakeEngine) -> None:
    script.add_base(engine)
    engine.add("trial.opened", number=1)
    engine.add("trial.proposed", number=1, proposal=script.proposal(1, script.sft(), "a long reason " * 20))
    async with opened(engine, (80, 24)) as console:
        await console.answer()
        await console.pilot.press(*"aaaaaaaa")
        await console.settle()
        assert not engine.sent("decide") and console.card.has_class("-full")


async def test_what_does_not_run_needs_no_reading(engine: FakeEngine) -> None:
    script.add_base(engine)
    engine.add("trial.opened", number=1)
    engine.add("trial.proposed", number=1, proposal=script.proposal(1, script.sft(), "a long reason " * 200))
    async with opened(engine, (80, 24)) as console:
        await console.answer()
        await press(console, "s")
        assert engine.sent("decide")[0]["verdict"] == "skip"


# another action instead


async def test_an_alternative_comes_onto_the_card_and_runs_only_when_approved(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "o")
        assert isinstance(console.app.screen, ChoiceScreen)
        assert "dpo(m2, preferences; beta=0.1) 31%, 0.391 ± 0.031" in words(console)
        await press(console, "down", "enter")
        await console.until(lambda: console.card.tried, "the engine's word")
        await console.settle()
        shown = words(console)
        assert "sft → dpo" in shown and "proposed sft(m2, tool-calls; learning_rate=0.0003" in shown
        assert "objective 0.410, 95% from 0.351 to 0.469" in shown
        assert not waiting.sent("decide")
        console.now += 1
        await press(console, "a")
        [args] = waiting.sent("decide")
        assert args["verdict"] == "edit"
        assert args["action"] == {name: DPO[name] for name in ("type", "inputs", "params")}


async def test_the_proposed_one_can_be_taken_back(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "o", "down", "enter")
        assert console.card.edited
        await press(console, "o", "escape")
        assert console.card.edited, "leaving the list changes nothing"
        await press(console, "o", "enter")
        assert console.card.edited is None
        await press(console, "a")
        assert waiting.sent("decide")[0]["verdict"] == "approve"


async def test_an_engine_that_does_not_say_how_to_run_alternatives(engine: FakeEngine) -> None:
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        await console.answer()
        await press(console, "o")
        assert "does not say how to run them" in words(console)


async def test_an_action_of_ones_own_comes_onto_the_card(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "w")
        assert isinstance(console.app.screen, ActionScreen)
        await console.until(lambda: waiting.sent("actions"))
        await console.settle()
        await press(console, "tab", "tab", "tab", *["backspace"] * 8, *"0.005")
        await press(console, "enter")
        await console.until(lambda: console.card.edited, "the action on the card")
        assert console.card.edited["params"]["learning_rate"] == 0.005
        assert not waiting.sent("decide") and not waiting.sent("propose")


async def test_an_action_that_can_not_run_is_not_sent(waiting: FakeEngine) -> None:
    script.answer_orders(waiting, ["dpo needs two models of one architecture"])
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "o", "down", "enter")
        await console.until(lambda: console.card.tried)
        console.now += 1
        await press(console, "a")
        assert "dpo needs two models of one architecture" in words(console)
        assert not waiting.sent("decide")


async def test_an_engine_that_can_not_try_says_unknown(waiting: FakeEngine) -> None:
    waiting.refusals["try_action"] = "unknown command"
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "o", "down", "enter")
        await console.until(lambda: console.card.tried)
        await console.settle()
        assert "unknown for the changed action: unknown command" in words(console)
        console.now += 1
        await press(console, "a")
        assert waiting.sent("decide"), "the engine checks it again anyway"


# questions before a decision


async def test_one_stray_key_does_not_stop_the_run(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await console.pilot.press("x", "enter", "x", "enter")
        await console.settle()
        assert not waiting.sent("decide")
        assert "Stop the run? Trial 5 does not run" in words(console)
        console.now += 1
        await press(console, "escape")
        await press(console, "x", "enter")
        assert [args["verdict"] for args in waiting.sent("decide")] == ["stop"]


async def test_a_veto_says_what_is_in_force_and_where_to_take_it_back(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "d", *"slow", "enter")
        act = console.app.view.run.trials[5].action
        waiting.emit("trial.decided", number=5, verdict="veto", by="person", reason="slow", action=act)
        waiting.emit("constraint.added", id="c5", text="never sft on m2, tool-calls: slow", match={}, by="person", trial=5)
        await console.until(lambda: "Constraint c5: never sft on m2, tool-calls: slow." in toasts(console), "the toast")
        assert "Take it back on the planner's screen" in toasts(console)
        assert "another console" not in toasts(console)


async def test_the_card_leads_to_what_is_in_force(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "r")
        assert isinstance(console.app.screen, PlannerScreen)
        assert console.app.focused is not None and console.app.focused.id == "planner-said"
        await press(console, "x")
        assert waiting.sent("revoke")
        await console.pilot.press("escape", "a", "s")
        await console.settle()
        assert not waiting.sent("decide"), "keys of the other screen"


async def test_a_decision_made_in_another_console_is_told(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        act = console.app.view.run.trials[5].action
        waiting.emit("trial.decided", number=5, verdict="veto", by="person", reason="no time", action=act)
        await console.until(lambda: not console.card.display)
        await console.settle()
        assert "Trial 5 was vetoed by person in another console: no time" in toasts(console)


async def test_who_was_faster_is_told_when_both_decide(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        act = console.app.view.run.trials[5].action

        async def too_late(command: str, **args: Any) -> Any:
            waiting.emit("trial.decided", number=5, verdict="skip", by="person", reason="", action=act)
            await console.until(lambda: not console.card.display)
            raise LamdatuiError("no proposal is waiting for a decision")

        console.app.console_screen.query_one(Deciding)._request = too_late
        await console.pilot.press("a")
        await console.until(lambda: "Trial 5 was skipped by person in another console" in toasts(console), "the toast")
        assert "no proposal is waiting for a decision" in toasts(console)


def test_a_rules_decision_names_the_rule() -> None:
    state = RunState()
    from lamdatui.domain.trials import Trial

    trial = Trial(3, decision={"verdict": "approve", "by": "rule r2", "reason": ""})
    assert decided_text(trial) == "Trial 3 was approved by rule r2"
    assert state.trials == {}


# the editor


def edited(monkeypatch: pytest.MonkeyPatch, *versions: Any) -> list[str]:
    """Have the editor answer with these functions of its text; the texts that it was given."""
    given: list[str] = []
    left = list(versions)

    def edit(app: object, text: str, name: str) -> str:
        assert name.endswith(".yaml")
        given.append(text)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(text)

    monkeypatch.setattr(editor, "edit", edit)
    return given


async def test_what_the_editor_leaves_comes_back_to_the_card(waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(monkeypatch, lambda text: text.replace("epochs: 1", "epochs: 3"))
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "ctrl+e")
        await console.until(lambda: console.card.edited)
        await console.settle()
        assert "epochs 1 → 3" in words(console)
        await console.until(lambda: console.card.tried)
        console.now += 1
        await press(console, "a")
        [args] = waiting.sent("decide")
        assert args["action"]["params"]["epochs"] == 3 and args["action"]["type"] == "sft"


async def test_errors_have_lines_and_the_text_is_not_lost(waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = edited(
        monkeypatch,
        lambda text: text.replace("epochs: 1", "epochs: 99"),
        lambda text: text.replace("epochs: 99", "epochs: 2"),
    )
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "ctrl+e")
        await console.until(lambda: isinstance(console.app.screen, ChoiceScreen))
        line = 1 + given[0].split("epochs: 1")[0].count("\n")
        assert f"line {line}: epochs is at most 20, not 99" in words(console)
        await press(console, "enter")
        await console.until(lambda: console.card.edited)
        assert "epochs: 99" in given[1]
        assert console.card.edited["params"]["epochs"] == 2


async def test_dropped_and_unchanged_text_change_nothing(waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(monkeypatch, lambda text: text, lambda _: "", lambda _: "nonsense: 1")
    async with opened(waiting, FAR) as console:
        await console.answer()
        for _ in range(2):
            await press(console, "ctrl+e")
            assert "Nothing was changed." in toasts(console)
        await press(console, "ctrl+e")
        await press(console, "down", "enter")
        assert console.card.edited is None and console.card.has_focus
        assert not waiting.sent("decide")


async def test_the_form_goes_on_in_the_editor(waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = edited(monkeypatch, lambda text: text.replace("epochs: 1", "epochs: 2"))
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "e")
        assert isinstance(console.app.screen, EditScreen)
        await press(console, *["backspace"] * 8, *"0.005", "ctrl+e")
        await console.until(lambda: console.card.edited)
        assert "learning_rate: 0.005" in given[0]
        assert (console.card.edited["params"]["learning_rate"], console.card.edited["params"]["epochs"]) == (0.005, 2)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "no editor is set (set EDITOR, say to nano, before the console starts)"),
        ({"EDITOR": "no-such-editor-here"}, "EDITOR names 'no-such-editor-here', which is not there"),
        ({"VISUAL": "'"}, "VISUAL can't be read"),
    ],
)
async def test_where_there_is_no_editor_it_says_so(
    waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, "ctrl+e")
        assert said in toasts(console)
        assert console.card.has_focus


def test_an_editor_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Suspendable:
        def suspend(self):
            from contextlib import nullcontext

            return nullcontext()

    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(LamdatuiError, match="the editor ended with code 1; nothing was changed"):
        editor.edit(Suspendable(), "text", "x.yaml")  # type: ignore[arg-type]
    program = tmp_path / "broken"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(program))
    with pytest.raises(LamdatuiError, match="the editor did not start"):
        editor.edit(Suspendable(), "text", "x.yaml")  # type: ignore[arg-type]


# screens, focus, sizes


async def test_keys_for_a_window_that_comes_back_decide_nothing(waiting: FakeEngine) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        console.app.post_message(events.AppBlur())
        await console.pilot.pause()
        console.app.post_message(events.AppFocus())
        await console.pilot.press("a")
        await console.settle()
        assert not waiting.sent("decide")


@pytest.mark.parametrize("opening", ["e", "w", "o", "r", "f10"])
async def test_hold_works_on_every_screen_and_in_every_input(waiting: FakeEngine, opening: str) -> None:
    async with opened(waiting, FAR) as console:
        await console.answer()
        await press(console, opening)
        assert console.app.screen is not console.app.console_screen
        await press(console, "f9", "ctrl+g")
        assert waiting.sent("mode") == [{"mode": "ask"}] * 2
        assert " ASK " in console.text()


@pytest.mark.parametrize("opening", [None, "e"])
async def test_resizing_keeps_the_focus_and_the_keys_in_sight(waiting: FakeEngine, opening: str | None) -> None:
    async with opened(waiting, (200, 60)) as console:
        await console.answer()
        if opening:
            await press(console, opening)
        focused = console.app.focused
        for size in ((80, 24), (120, 40), (60, 16), (200, 60)):
            await console.pilot.resize_terminal(*size)
            await console.settle()
            assert console.app.focused is focused and focused is not None
            assert ("enter uses these values" if opening else "a approve") in console.text()


async def test_rows_of_what_waits_are_shown_as_they_will_be_trained(
    waiting: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(*arguments: str, said: Any = None) -> commandline.Ended:
        ran.append(arguments)
        return commandline.Ended(0, f"row {arguments[-1]} of {arguments[3]}\n--- completion, trained", ())

    monkeypatch.setattr(commandline, "run", run)
    async with opened(waiting, FAR) as console:
        await press(console, "V")
        shown = words(console)
        names = {arguments[3] for arguments in ran}
        assert all(arguments[:2] == ("data", "show") and arguments[2].endswith("profile.yaml") for arguments in ran)
        assert names, "the proposal that waits takes a dataset"
        assert all(f"row {row} of {name}" in shown for name in names for row in (1, 2))
