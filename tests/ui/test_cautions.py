"""What the card says is to mind of the data and models of a proposal."""

from __future__ import annotations

from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.domain.state import RunState
from lamdatui.ui.card.text import facts
from tests.ui.test_deciding import plain


def test_the_card_says_what_is_to_mind_of_data_and_models() -> None:
    state = RunState()
    for name, chat in (("one", "a"), ("two", "b")):
        state.pool.add(ModelObject(name, name, "Llama", "x", "/w", chat=chat))
    state.pool.add(
        DatasetObject("d", "d", "sft", 3, "/d.jsonl", notes=("not used: source", "2 of 3 rows ask what a sealed row asks"))
    )
    proposal = {"action": {"type": "merge", "inputs": {"models": ["one", "two"], "dataset": ["d"]}, "params": {}}}
    said = plain(facts(state, proposal, None))
    assert "! d: not used: source" in said and "! d: 2 of 3 rows ask" in said
    assert "one and two have different chat templates; the result has the first one's" in said
    state.pool.add(ModelObject("two", "two", "Llama", "x", "/w", chat="a"))
    assert "different chat templates" not in plain(facts(state, proposal, None))


def test_the_card_says_when_there_is_too_little_time() -> None:
    state = RunState(wall_seconds=600.0, used_seconds=500.0)
    proposal = {"action": {"type": "sft", "inputs": {}, "params": {}}, "estimate": {"seconds": 99.0}}
    assert "it would be ended then" not in plain(facts(state, proposal, None))
    proposal["estimate"] = {"seconds": 101.0}
    assert "! the run has 100 s left for it: it would be ended then, with a checkpoint" in plain(facts(state, proposal, None))


def test_the_card_of_a_merge_says_what_comes_from_the_first_model_only() -> None:
    state = RunState()
    for name, theta, rows in (("one", 10000, 99), ("two", 500000, 128)):
        traits = f"rope: theta {theta}\nrows of embeddings: {rows}"
        state.pool.add(ModelObject(name, name, "Llama", "x", "/w", chat="a", tokenizer=name, traits=traits))
    action = {"type": "merge_linear", "inputs": {"models": ["one", "two"]}, "params": {}}
    told = {"summary": "", "output": "model", "slots": [], "params": []}
    proposal = {"action": action, "declaration": {**told, "family": "merge"}}
    said = " ".join(plain(facts(state, proposal, None)).split())
    assert "one and two have different tokens; the result knows all of them" in said
    assert "different rope (theta 10000 and theta 500000); the result has the first one's" in said
    assert "different rows of embeddings (99 and 128); the result has a row for each token" in said
    proposal["declaration"] = {**told, "family": "distillation"}
    assert "have different" not in plain(facts(state, proposal, None))
