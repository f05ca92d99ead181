"""An action as text for an editor: what is written comes back, what is wrong is told with its line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.domain.events import Event
from lamdatui.domain.state import RunState
from lamdatui.ui.card.actionyaml import Types, read, text_of, types_of
from lamdatui.ui.view.drafts import declared_types
from tests.ui import script
from tests.ui.fake_engine import FakeEngine

SFT = script.sft("m2", learning_rate=0.0003)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> RunState:
    engine = FakeEngine(tmp_path_factory.mktemp("run"))
    script.add_history(engine)
    state = RunState()
    for event in engine.events:
        assert isinstance(event, Event)
        state.apply(event)
    return state


@pytest.fixture(scope="module")
def types(state: RunState) -> Types:
    return types_of(declared_types({"types": script.ACTION_TYPES}), script.proposal(7, SFT, ""), state)


def changed(state: RunState, types: Types, *changes: tuple[str, str]) -> tuple[Any, list[str]]:
    """What comes back when these texts are replaced."""
    text = text_of("Trial 7: sft", SFT, types, state)
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    action, problems = read(text, SFT, types, state)
    return action, [str(problem) for problem in problems]


def test_unchanged_text_gives_the_same_action(state: RunState, types: Types) -> None:
    action, problems = changed(state, types)
    assert problems == []
    assert action == {name: SFT[name] for name in ("type", "inputs", "params")}


def test_the_text_says_what_may_be_written(state: RunState, types: Types) -> None:
    text = text_of("Trial 7: sft", SFT, types, state)
    assert "# one of merge_ties, sft" in text
    assert "  # one model: m6, m2, m5, m1, base" in text
    assert "  # one dataset of format sft: tool-calls" in text
    assert "  # peak learning rate · default 0.001 · 1e-06 to 0.1 · search uses 0.0003, 0.001, 0.003" in text


def test_values_inputs_and_type_can_be_changed(state: RunState, types: Types) -> None:
    action, problems = changed(state, types, ("learning_rate: 0.0003", "learning_rate: 5e-3"), ("[m2]", "m6"))
    assert problems == []
    assert action["params"]["learning_rate"] == 0.005 and action["inputs"]["model"] == ["m6"]
    text = "type: merge_ties\ninputs: {models: [m2, m5]}\nparams:\n  density: 0.8\n"
    action, found = read(text, SFT, types, state)
    assert not found
    assert action == {"type": "merge_ties", "inputs": {"models": ["m2", "m5"]}, "params": {"density": 0.8, "weight": 1.0}}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("learning_rate: 0.0003", "learning_rate: 5", "learning_rate is at most 0.1, not 5"),
        ("learning_rate: 0.0003", "learning_rate: [1, 2]", "learning_rate is one value, not a list"),
        ("learning_rate: 0.0003", "learnin_rate: 0.001", "did you mean 'learning_rate'?"),
        ("epochs: 1", "epochs: 1.5", "epochs is a whole number"),
        ("epochs: 1", "epochs: 1\n  epochs: 2", "epochs is there twice"),
        ("[m2]", "[m22]", "no object 'm22' in the pool; did you mean"),
        ("[m2]", "[m2, m5]", "model takes one model, not 2"),
        ("[m2]", "[]", "model takes one model, not 0"),
        ("[tool-calls]", "[preferences]", "preferences is a dataset of format preference; dataset takes one dataset of format sft"),
        ("type: sft", "type: sfft", "no action type 'sfft'; did you mean 'sft'?"),
        ("type: sft", "tpye: sft", "unknown field 'tpye'; did you mean 'type'?"),
        ("epochs: 1", "epochs: 1: 2", "not YAML"),
        ("epochs: 1", "epochs: &x 1", "anchors and aliases"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(state: RunState, types: Types, before: str, after: str, said: str) -> None:
    line = 1 + text_of("Trial 7: sft", SFT, types, state).split(before)[0].count("\n") + after.count("\n")
    action, problems = changed(state, types, (before, after))
    assert action is None
    [told] = [problem for problem in problems if said in problem]
    if "anchors" not in said:
        assert told.startswith(f"line {line}: "), told


def test_what_is_missing_is_told(state: RunState, types: Types) -> None:
    for text, said in (
        ("type: sft\ninputs: {model: m2}\nparams: {}\n", "the input dataset is missing"),
        ("type: sft\nparams: {}\n", "inputs is missing"),
        ("just words\n", "the file is a list of `name: value` lines"),
    ):
        action, problems = read(text, SFT, types, state)
        assert action is None and any(said in str(problem) for problem in problems)


@pytest.mark.parametrize("text", ["", "\n\n", "# all of it is a comment\n"])
def test_empty_text_changes_nothing(state: RunState, types: Types, text: str) -> None:
    assert read(text, SFT, types, state) == (None, [])


def test_an_engine_that_names_no_types_leaves_the_proposals_own(state: RunState) -> None:
    own = types_of({}, script.proposal(7, SFT, ""), state)
    action, problems = changed(state, own, ("epochs: 1", "epochs: 3"))
    assert not problems and action["params"]["epochs"] == 3
    _, problems = changed(state, own, ("type: sft", "type: merge_ties"))
    assert "the engine does not say which others there are" in problems[0]


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("type: sft\ninputs[]{}#&*!|>-'\"\\m2,params%@`\t\x00\x1b"), max_size=80))
def test_no_text_raises(state: RunState, types: Types, text: str) -> None:
    action, problems = read(text, SFT, types, state)
    assert action is None or not problems
    assert all(problem.line >= 1 and "\x1b" not in problem.text for problem in problems)


@settings(max_examples=200, deadline=None)
@given(rate=st.floats(1e-6, 0.1), epochs=st.integers(1, 20), packing=st.booleans())
def test_every_legal_value_survives_the_way_there_and_back(
    state: RunState, types: Types, rate: float, epochs: int, packing: bool
) -> None:
    act = script.sft("m2", learning_rate=rate, epochs=epochs, packing=packing)
    action, problems = read(text_of("t", act, types, state), {"type": "other"}, types, state)
    assert not problems
    assert action["params"]["epochs"] == epochs and action["params"]["packing"] is packing
    assert math.isclose(action["params"]["learning_rate"], rate, rel_tol=1e-12)
