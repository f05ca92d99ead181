"""Enumeration: only legal, untried, allowed actions; the opening; sampling that is bounded and repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lamdatui.actionkit.timings import FORMULA, Measurement, Timings
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import make_action
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.candidates import LIMIT, TOO_LONG, enumerate_all, grid_of, opening
from lamdatui.engine.judging import Known, tried_digests
from lamdatui.engine.machine import Machine

MACHINE = Machine("cpu", "float32", 16 * 2**30)
TYPES = {name: load_registry().get(name) for name in ("sft", "dpo", "merge_ties", "merge_linear")}


def model(name: str, layout: str = "l", trial: int | None = None, parameters: int = 1000) -> ModelObject:
    return ModelObject(name, f"digest-{name}", layout, layout, f"/{name}", (), parameters, trial)


def pool(*items: ModelObject) -> RunState:
    state = RunState(seed=1)
    data = [DatasetObject("calls", "d1", "sft", 9, "/c"), DatasetObject("pairs", "d2", "preference", 9, "/p")]
    state.pool = ObjectPool({item.id: item for item in [*items, *data]})
    return state


def test_every_candidate_is_legal_and_none_is_there_twice() -> None:
    state = pool(model("base"), model("other", "k"), model("m1", trial=1), model("m2", trial=2))
    candidates, counts = enumerate_all(TYPES, state, MACHINE, 1)
    assert set(candidates) == set(TYPES)
    for name, found in candidates.items():
        assert len({candidate.action.digest for candidate in found}) == len(found) <= LIMIT
        assert counts[name]["offered"] == len(found) <= counts[name]["combinations"]
        for candidate in found:
            assert TYPES[name].problems(candidate.action.inputs, candidate.action.params, state.pool) == []
    merged = [c.action.inputs["models"] for c in candidates["merge_ties"]]
    assert all("other" not in ids and "base" not in ids for ids in merged)


def test_models_of_different_architecture_are_refused_with_a_reason() -> None:
    state = pool(model("llama", "llama"), model("phi", "phi"))
    problems = TYPES["merge_linear"].problems({"models": ("llama", "phi")}, {"weight": 0.5}, state.pool)
    assert problems == ["different architectures can't be merged: llama is llama, phi is phi"]


def test_a_dataset_of_the_wrong_format_is_refused() -> None:
    problems = TYPES["sft"].problems(
        {"model": ("base",), "dataset": ("pairs",)}, TYPES["sft"].defaults(), pool(model("base")).pool
    )
    assert problems == ["pairs is a dataset of format preference; dataset takes sft, text"]


def test_tried_vetoed_and_too_large_actions_are_not_offered() -> None:
    state = pool(model("base"), model("huge", "h", parameters=10**12))
    candidates, _ = enumerate_all(TYPES, state, MACHINE, 1)
    assert all(c.action.inputs["model"] == ("base",) for c in candidates["sft"])
    tried = candidates["sft"][0].action
    state.trials[1] = Trial(1, "done", action=tried.to_json())
    assert tried_digests(state) == {tried.digest}
    again, _ = enumerate_all(TYPES, state, MACHINE, 2)
    assert tried.digest not in {c.action.digest for c in again["sft"]}
    inputs = {slot: list(ids) for slot, ids in tried.inputs.items()}
    state.constraints["c1"] = {"text": "no", "match": {"type": "sft", "inputs": inputs}}
    assert "sft" not in enumerate_all(TYPES, state, MACHINE, 3)[0]


def test_what_takes_longer_than_the_run_has_left_is_not_offered() -> None:
    state = pool(model("base"))
    state.wall_seconds = 100.0
    sft = TYPES["sft"]
    call = MACHINE.call(sft, {"model": ["base"], "dataset": ["calls"]}, sft.defaults(), state.pool)
    takes = MACHINE.estimate(sft, call).seconds
    assert takes

    def offered(left: float, machine: Machine) -> bool:
        state.used_seconds = 100.0 - left
        candidates, counts = enumerate_all({"sft": sft}, state, machine, 1)
        found = any(one.action.params == sft.defaults() for one in candidates.get("sft", ()))
        assert found or TOO_LONG in counts["sft"]["refused"]
        return found

    # Formulas alone may be far off: only what takes three times as long is not tried.
    assert offered(takes / 2, MACHINE) and not offered(takes / 4, MACHINE)
    measured = Measurement("sft", "supervised", "cpu", MACHINE.dtype, 3, takes, takes, None, None, FORMULA)
    known = replace(MACHINE, timings=Timings(items=[measured]))
    assert offered(takes * 1.1, known) and not offered(takes / 2, known)


def test_what_was_cut_off_or_asked_of_nobody_may_come_again() -> None:
    state = pool(model("base"))
    first = opening(TYPES, state, MACHINE, {"base": 0.5})
    assert first is not None
    for status, again in (("stopped", True), ("rejected", True), ("vetoed", False), ("failed", False)):
        state.trials[1] = Trial(1, status, action=first.action.to_json())
        assert (first.action.digest not in tried_digests(state)) is again
        assert (opening(TYPES, state, MACHINE, {"base": 0.5}) == first) is again
    state.mode = "read-only"
    state.trials[1] = Trial(1, "rejected", action=first.action.to_json())
    assert first.action.digest in tried_digests(state)
    # What was cut off hides nothing that comes after it.
    other = {**first.action.to_json(), "digest": "other"}
    state.trials = {1: Trial(1, "stopped", action=first.action.to_json()), 2: Trial(2, "done", action=other)}
    assert tried_digests(state) == {"other"}


def test_the_hyperparameters_of_every_trial_are_on_record() -> None:
    state = pool(model("base"))
    first = opening(TYPES, state, MACHINE, {"base": 0.5})
    assert first is not None
    proposed, ran, queued = ({**first.action.to_json(), "digest": name, "params": {"of": name}} for name in "pqr")
    state.trials[1] = Trial(1, "done", action=ran, proposal={"action": proposed})
    state.trials[2] = Trial(2)
    state.queue["q1"] = {"action": queued}
    assert tried_digests(state) == {"p", "q", "r"}
    records = Known.of(state, MACHINE).records
    assert [records(name) for name in ("p", "q", "r", "none")] == [{"of": "p"}, {"of": "q"}, {"of": "r"}, None]


def test_sampling_is_the_same_for_the_same_seed_and_round() -> None:
    state = pool(model("base"), *(model(f"m{i}", trial=i) for i in range(1, 30)))

    def digests(round_: int) -> list[str]:
        return [c.action.digest for c in enumerate_all(TYPES, state, MACHINE, round_)[0]["merge_ties"]]

    assert len(digests(1)) == LIMIT
    assert digests(1) == digests(1)
    assert digests(1) != digests(2)


def test_the_opening_takes_each_family_once_at_its_defaults() -> None:
    state = pool(model("base"))
    first = opening(TYPES, state, MACHINE, {"base": 0.5})
    assert first is not None
    assert first.action.type == "sft"
    assert first.action.params == TYPES["sft"].defaults()
    state.trials[1] = Trial(1, "done", action=first.action.to_json())
    state.pool.add(model("m1", trial=1))
    second = opening(TYPES, state, MACHINE, {"base": 0.5, "m1": 0.6})
    assert second is not None
    assert (second.action.type, second.action.inputs["model"]) == ("dpo", ("m1",))
    state.trials[2] = Trial(2, "failed", action=second.action.to_json())
    assert opening(TYPES, state, MACHINE, {"base": 0.5, "m1": 0.6}) is None
    state.pool.add(model("m3", trial=3))
    third = opening(TYPES, state, MACHINE, {"base": 0.5, "m1": 0.6, "m3": 0.7})
    assert third is not None
    assert third.action.inputs == {"base": ("base",), "models": ("m3", "m1")}
    state.trials[4] = Trial(4, "done", action=third.action.to_json())
    assert opening(TYPES, state, MACHINE, {"base": 0.5, "m1": 0.6, "m3": 0.7}) is None


def test_a_digest_tells_apart_whatever_makes_other_work() -> None:
    state = pool(model("base"))
    inputs = {"model": ("base",), "dataset": ("calls",)}

    def digest(**changes) -> str:
        made = {"seed": 1, "dtype": "float32", "params": {}} | changes
        return make_action(TYPES["sft"], inputs, made["params"], state.pool, seed=made["seed"], dtype=made["dtype"]).digest

    variants = [digest(), digest(seed=2), digest(dtype="bfloat16"), digest(params={"max_steps": 7})]
    assert len(set(variants)) == 4
    assert digest() == digest(params=TYPES["sft"].defaults())


@pytest.mark.parametrize(
    ("value", "words"), [("-1", "at least"), ("many", "a number"), ("nan", "a number"), ("1e9", "at most"), ("inf", "a number")]
)
def test_a_hyperparameter_is_refused_in_plain_words(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TYPES["sft"].param("learning_rate").parse(value)


def test_training_gets_longer_where_the_best_model_has_reached_the_end_of_the_grid() -> None:
    state = pool(model("base"), model("m1", trial=1), model("m2", trial=2))
    sft = TYPES["sft"].narrow("max_steps", 20, [20, 40])

    def tried(number: int, parent: str, steps: int) -> None:
        params = {**sft.defaults(), "max_steps": steps}
        action = make_action(sft, {"model": (parent,), "dataset": ("calls",)}, params, state.pool, seed=1, dtype="float32")
        state.trials[number] = Trial(number, "done", action=action.to_json(), model=f"m{number}", objective=0.1 * number)

    def offered() -> list[int]:
        return list(grid_of(sft.param("max_steps"), sft, state))  # type: ignore[arg-type]

    tried(1, "base", 40)
    tried(2, "m1", 20)
    state.best = 2
    assert offered() == [20, 40], "the profile does not say so"
    state.profile = {"policy": {"longer": True}}
    assert offered() == [20, 40, 80], "m2 stands on m1, which trained as long as the grid lets it"
    tried(2, "base", 20)
    assert offered() == [20, 40]
    tried(2, "base", 80)
    assert offered() == [20, 40, 80, 160]
    assert list(grid_of(sft.param("learning_rate"), sft, state)) == list(sft.param("learning_rate").choices)
    listed = {c.action.params["max_steps"] for c in enumerate_all({"sft": sft}, state, MACHINE, 3)[0]["sft"]}
    assert listed <= {20, 40, 80, 160} and 160 in listed
