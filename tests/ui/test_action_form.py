"""The action form: what fits, what the engine says of a draft, and what is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, OptionList, Static

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.actions import Slot
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState
from lamdatui.ui.kit.actionform import ActionScreen, PickRow
from lamdatui.ui.kit.pick import PickScreen
from lamdatui.ui.view.drafts import Draft, declared_types, draft_of, first_type, fitted, fitting, verdict_lines
from tests.ui import script
from tests.ui.conftest import Console, opened
from tests.ui.fake_engine import FakeEngine
from tests.ui.offer import TYPES, offer, tried
from tests.ui.script import slot, text_of

Json = dict[str, Any]
SPECS = declared_types({"types": TYPES})


@pytest.fixture
def offering(engine: FakeEngine) -> FakeEngine:
    """A run with six trials, and an engine that answers about actions."""
    script.add_history(engine)
    offer(engine)
    return engine


def test_the_best_models_come_first_and_datasets_fit_by_format(offering: FakeEngine) -> None:
    state = offering.state
    assert fitting(state, SPECS["sft"].slots[0]) == ["m6", "m2", "m5", "m1", "base"]
    assert fitting(state, SPECS["sft"].slots[1]) == ["tool-calls"]
    assert fitting(state, SPECS["dpo"].slots[1]) == ["preferences"]


def test_another_type_keeps_what_fits_of_inputs_and_values(offering: FakeEngine) -> None:
    state = offering.state
    draft = draft_of(script.sft("m2", learning_rate=0.003, epochs=2))
    as_dpo = fitted(draft, SPECS["dpo"], state)
    assert as_dpo.inputs == {"model": ("m2",), "dataset": ("preferences",)}
    assert as_dpo.params == {"learning_rate": 0.003}
    assert fitted(draft, SPECS["merge_ties"], state).inputs == {"models": ("m2",)}


def test_a_form_without_a_type_begins_with_one_that_takes_what_is_given(offering: FakeEngine) -> None:
    state = offering.state
    backwards = dict(reversed(SPECS.items()))
    assert first_type(Draft(inputs={"model": ("m2",)}), backwards, state).name == "sft"
    assert first_type(Draft(inputs={"dataset": ("preferences",)}), SPECS, state).name == "dpo"
    assert first_type(Draft("merge_ties"), SPECS, state).name == "merge_ties"


@given(
    st.dictionaries(st.sampled_from(["model", "dataset", "models", "x"]), st.lists(st.sampled_from(["m1", "base", "mix", "?"])))
)
def test_a_fitted_draft_only_names_what_fits(inputs: dict[str, list[str]]) -> None:
    state = RunState()
    for name in ("m1", "base"):
        state.pool.add(ModelObject(name, name, "Llama", "x", "/w"))
    state.pool.add(DatasetObject("mix", "mix", "sft", 10, "/d"))
    draft = fitted(Draft("x", {name: tuple(ids) for name, ids in inputs.items()}), SPECS["sft"], state)
    assert all(name in state.pool.items for ids in draft.inputs.values() for name in ids)
    assert draft.params == SPECS["sft"].defaults()


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {"types": 3},
        {"types": {"x": {**TYPES["sft"], "slots": [{"kind": "model"}]}}},
        {"types": {"x": {**TYPES["sft"], "params": [{**script.SFT_PARAMS[0], "type": "tensor"}]}}},
        {"types": {**TYPES, "y": {"slots": []}}},
    ],
)
def test_types_of_another_shape_are_an_error(reply: Any) -> None:
    with pytest.raises(LamdatuiError, match="can't be read"):
        declared_types(reply)


def test_the_verdict_says_cost_prediction_and_what_was_tried() -> None:
    draft = draft_of(script.sft())
    said = text_of(verdict_lines(tried(draft.args()), draft))
    assert "about 41 s" in said and "3 measured steps" in said and "0.412\xa0±\xa00.030" in said
    assert "trial 1 did exactly this; with another seed it runs again" in said
    assert text_of(verdict_lines({"problems": ["no"]}, draft)) == "✗ no"
    assert "unknown time" in text_of(verdict_lines(None, draft))


def test_slots_say_what_they_take() -> None:
    said = slot("a", "model"), slot("a", "models", 2, 4), slot("a", "dataset", 0, 1, ("sft", "preference"))
    texts = [item.describe() for item in declared_types({"types": {"t": {**TYPES["sft"], "slots": list(said)}}})["t"].slots]
    assert texts == ["one model", "2 to 4 models", "one dataset of format sft or preference, optional"]


def verdict(screen: ActionScreen) -> str:
    """What stands at the bottom of the form."""
    return str(screen.query_one("#action-verdict", Static).content)


async def open_form(console: Console, draft: Draft, refuse: str = "") -> tuple[ActionScreen, list[Draft], list[Any]]:
    """The form on top of the console; what it hands over, and what it was closed with."""
    used, closed = list[Draft](), list[Any]()

    async def use(given: Draft) -> None:
        if refuse:
            raise LamdatuiError(refuse)
        used.append(given)

    screen = ActionScreen("Next trial by hand", draft, console.app.view, console.app.console_screen.ask, use)
    console.app.push_screen(screen, closed.append)
    await console.until(lambda: screen.is_mounted and "asking" not in verdict(screen), "the engine's verdict")
    await console.settle()
    return screen, used, closed


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 10)])
async def test_the_form_shows_the_draft_and_the_verdict(offering: FakeEngine, size: tuple[int, int]) -> None:
    async with opened(offering, size) as console:
        await open_form(console, draft_of(script.sft("m2", epochs=3)))
        text = console.text()
        if size[1] > 10:
            assert "sft ▾" in text and "m2 ▾" in text and "tool-calls ▾" in text and "learning_rate" in text
            assert "about 41 s" in text and "predicted objective" in text


async def test_enter_in_a_field_hands_the_checked_draft_over(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        screen, used, closed = await open_form(console, draft_of(script.sft("m2")))
        rank = screen.query_one("#edit-2", Input)
        rank.focus()
        rank.value = "16"
        screen.query_one("#action-note", Input).value = "a larger  rank"
        await console.pilot.press("enter")
        await console.until(lambda: closed, "the end of the form")
        [draft] = used
        assert closed == [draft]
        assert draft.args() == {
            "type": "sft", "inputs": {"model": ["m2"], "dataset": ["tool-calls"]}, "seed": None,
            "params": {"learning_rate": 0.001, "epochs": 1, "rank": 16, "schedule": "cosine", "packing": False},
        }  # fmt: skip
        assert draft.note == "a larger rank"


@pytest.mark.parametrize(("field", "typed", "said"), [
    ("#edit-2", "many", "rank is a whole number"), ("#action-seed", "-3", "seed is a whole number"),
])  # fmt: skip
async def test_what_cant_be_used_is_said_and_not_sent(offering: FakeEngine, field: str, typed: str, said: str) -> None:
    async with opened(offering) as console:
        screen, used, closed = await open_form(console, draft_of(script.sft("m2")))
        screen.query_one(field, Input).focus()
        screen.query_one(field, Input).value = typed
        await console.pilot.press("enter")
        await console.until(lambda: said in console.text(), "the problem")
        assert (used, closed) == ([], [])


async def test_an_illegal_action_is_not_handed_over(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        draft = Draft("merge_ties", {"models": ("m2",)}, {"density": 0.5, "weight": 1.0})
        _, used, closed = await open_form(console, draft)
        assert "models takes 2 to 4 objects, not 1" in console.text()
        await console.pilot.press("ctrl+o")
        await console.settle()
        assert (used, closed) == ([], [])


async def test_a_refusal_keeps_the_form_open_with_its_reason(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        screen, _, closed = await open_form(console, draft_of(script.sft("m2")), refuse="the budget is used up")
        await console.pilot.press("ctrl+o")
        await console.until(lambda: "the budget is used up" in console.text(), "the reason")
        assert console.app.screen is screen and closed == []


def test_a_slot_for_a_base_takes_only_what_the_profile_names(engine: FakeEngine) -> None:
    """A merge's base was offered produced models, which the engine refuses."""
    script.add_history(engine)
    state = RunState()
    for event in engine.events:
        state.apply(event)
    only = Slot("base", "model", "what all descend from", base_only=True)
    assert fitting(state, only) == ["base"]
    assert only.describe() == "one base model"
    assert len(fitting(state, replace(only, base_only=False))) > 1


async def test_another_dataset_and_another_type_are_picked_from_lists(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        screen, used, _ = await open_form(console, draft_of(script.sft("m2", learning_rate=0.003)))
        await console.pilot.press("enter")
        await console.until(lambda: isinstance(console.app.screen, PickScreen), "the list of types")
        await console.pilot.press(*"dpo", "enter")
        await console.until(lambda: "preferences ▾" in console.text(), "the fields of dpo")
        await console.until(lambda: offering.sent("try_action")[-1]["type"] == "dpo", "the check")
        await console.pilot.press("ctrl+o")
        await console.until(lambda: used, "the draft")
        assert used[0].args()["inputs"] == {"model": ["m2"], "dataset": ["preferences"]}
        assert used[0].params == {"learning_rate": 0.003}
        assert not screen.is_current


async def test_several_models_are_picked_in_order_and_escape_keeps_them(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        screen, used, _ = await open_form(console, Draft("merge_ties", {"models": ("m2",)}, {}))
        row = next(row for row in screen.query(PickRow) if row.slot)
        row.focus()
        await console.pilot.press("space")
        await console.until(lambda: isinstance(console.app.screen, PickScreen), "the list of models")
        await console.pilot.press(*"m1", "enter")
        await console.until(lambda: "picked: m2+m1" in console.text(), "both")
        assert console.app.screen.query_one(OptionList).option_count >= 1
        await console.pilot.press("escape")
        await console.until(lambda: "m2+m1 ▾" in console.text() and "legal" in console.text(), "the merge")
        await console.pilot.press("ctrl+o")
        await console.until(lambda: used, "the draft")
        assert used[0].inputs == {"models": ("m2", "m1")}


async def test_typing_asks_the_engine_once_it_pauses(offering: FakeEngine) -> None:
    async with opened(offering) as console:
        screen, _, _ = await open_form(console, draft_of(script.sft("m2")))
        before = len(offering.sent("try_action"))
        screen.query_one("#edit-1", Input).focus()
        await console.pilot.press("1", "2")
        await console.until(lambda: len(offering.sent("try_action")) > before, "the check")
        await console.settle()
        assert len(offering.sent("try_action")) <= before + 2


async def test_an_engine_that_knows_no_actions_is_told(offering: FakeEngine) -> None:
    offering.refusals["actions"] = "unknown command actions\x1b[2J"
    async with opened(offering) as console:
        await open_form(console, draft_of(script.sft("m2")))
        assert "unknown command" in console.text() and "\x1b" not in console.text()
        await console.pilot.press("escape")
        await console.until(lambda: console.app.screen is console.app.console_screen, "the console")
