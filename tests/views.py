"""Views to choose from: runs told trial by trial, runs made up at random from the real action types, and a client of no server."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import digest
from lamdatui.config.resources import load_registry
from lamdatui.domain.actions import Action, BoundType, Estimate, Value
from lamdatui.domain.choice import Candidate, View, parents_of
from lamdatui.domain.objects import DatasetObject, ModelObject, ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.engine.candidates import enumerate_all, enumerate_type, legal
from lamdatui.engine.judging import Known
from lamdatui.engine.machine import Machine
from lamdatui.planner.client import Answer, TokenChoice
from lamdatui.planner.prompts import folder_loader
from lamdatui.planner.settings import PlannerSettings

PROMPTS = folder_loader(Path(__file__).parent.parent / "prompts")
SUMMARIES = {
    "sft": "supervised fine-tuning with a LoRA adapter",
    "dpo": "learning from preferences",
    "merge_ties": "TIES merge of several models",
    "mix": "mix datasets",
}


def action(kind: str, inputs: Mapping[str, str | tuple[str, ...]], **params: Value) -> Action:
    """An action with a digest of its own; an id stands for a tuple of one."""
    named = {slot: (ids,) if isinstance(ids, str) else ids for slot, ids in inputs.items()}
    return Action(kind, named, dict(params), 1, digest([kind, {slot: list(ids) for slot, ids in named.items()}, params]))


def candidate(kind: str, inputs: Mapping[str, str | tuple[str, ...]], *facts: str, **params: Value) -> Candidate:
    """A candidate of that action."""
    return Candidate(action(kind, inputs, **params), Estimate(), facts)


def sft(model: str, data: str, **params: Value) -> Candidate:
    """Fine-tuning of a model on a dataset."""
    return candidate("sft", {"model": model, "dataset": data}, **params)


def listed(*items: Candidate) -> dict[str, tuple[Candidate, ...]]:
    """Candidates as a view has them: by type."""
    found: dict[str, tuple[Candidate, ...]] = {}
    for item in items:
        found[item.action.type] = (*found.get(item.action.type, ()), item)
    return found


@dataclass
class Story:
    """A run on one base, told trial by trial; `view` is what a policy sees after it."""

    base: Mapping[str, float] = field(default_factory=lambda: {"tools": 0.4, "chat": 0.4})
    datasets: Sequence[str] = ("A", "B")
    seed: int = 7

    def __post_init__(self) -> None:
        self.pool = ObjectPool()
        self.pool.add(ModelObject("base", "d0", "llama", "l", "w"))
        for name in self.datasets:
            self.pool.add(DatasetObject(name, f"d-{name}", "sft", 900, "p"))
        self.scores = {"base": dict(self.base)}
        self.trials: list[Trial] = []
        self.weights = dict.fromkeys(self.base, 1.0)

    def tell(self, item: Candidate, change: float | Mapping[str, float] | None = None, **fields: Any) -> str:
        """One trial, which changed its best parent's scores by `change` (failed without one); the id of what it made."""
        number = len(self.trials) + 1
        parents = [name for name in parents_of(self.view(), item.action.inputs) if name in self.scores]
        parent = max(parents, key=self.objective)
        given = {"action": item.action.to_json(), "proposed_by": "test", **fields}
        if change is None:
            self.trials.append(Trial(number, **{"status": "failed", **given}))
            return ""
        name = f"m{number}"
        changes = change if isinstance(change, Mapping) else dict.fromkeys(self.base, change)
        self.scores[name] = {task: score + changes.get(task, 0.0) for task, score in self.scores[parent].items()}
        self.pool.add(ModelObject(name, f"d-{name}", "llama", "l", "w", trial=number))
        self.trials.append(Trial(number, **{"status": "done", "model": name, "objective": self.objective(name), **given}))
        return name

    def objective(self, model: str) -> float:
        """The weighted sum of a model's scores."""
        return sum(self.weights[task] * score for task, score in self.scores[model].items())

    def view(self, *items: Candidate, **changes: Any) -> View:
        """The view before the next trial, with these candidates."""
        made = View(
            number=len(self.trials) + 1,
            seed=self.seed,
            pool=self.pool,
            trials=tuple(self.trials),
            candidates=listed(*items),
            summaries=SUMMARIES,
            objective="maximise tools + chat",
            scores={name: dict(scores) for name, scores in self.scores.items()},
            objectives={name: self.objective(name) for name in self.scores},
            trials_left=9,
            weights=self.weights,
        )
        return replace(made, **changes)


def view(number: int = 4, seed: int = 7) -> View:
    """A run of `number` - 1 closed trials on one base, with SFT and merges as legal candidates."""
    draw = random.Random(number)
    story = Story(datasets=("tools", "chat"), base={"tool_use": 0.1, "instructions": 0.3}, seed=seed)
    for turn in range(1, number):
        parent, data = draw.choice(sorted(story.scores)), draw.choice(["tools", "chat"])
        done = sft(parent, data, learning_rate=draw.choice([1e-4, 1e-3]), lora_rank=16, max_steps=turn)
        if turn % 5 == 2:
            story.tell(done, error={"class": "oom-train", "message": "x"})
        else:
            story.tell(done, draw.random() / 20)
    models = sorted(story.scores)
    tunes = [sft(m, d, learning_rate=r, lora_rank=16) for m in models for d in ("tools", "chat") for r in (3e-4, 3e-3)]
    pairs = [(a, b) for a in models for b in models if a < b]
    merges = [candidate("merge_ties", {"base": "base", "models": pair}, density=0.5) for pair in pairs]
    return story.view(*tunes, *merges, memory="SFT on tools helps.", memory_by="lamdagent")


# --- runs that nobody thought up ---------------------------------------------------------------------------------------

MACHINE = Machine("cpu", "float32", 2**34)
WORLDS = 40


@functools.cache
def _types() -> dict[str, BoundType]:
    registry = load_registry()
    found = {name: registry.get(name) for name in ("sft", "dpo", "merge_ties", "merge_linear", "mix", "filter")}
    found["sft"] = found["sft"].narrow("data_fraction", 0.25, [0.25, 0.5, 1.0]).narrow("packing", False, [False, True])
    found["sft"] = found["sft"].narrow("method", "lora", ["lora", "full"]).narrow("replay_fraction", 0.0, [0.0])
    return found


@functools.cache
def _world(index: int) -> tuple[RunState, dict[str, BoundType], dict[str, dict[str, float]]]:
    """A made-up run: its state, the action types that it may use, and the scores of its models."""
    rng = random.Random(index)
    types = {name: _types()[name] for name in sorted(rng.sample(sorted(_types()), rng.randint(1, len(_types()))))}
    state, scores = RunState(seed=index), {}
    for place in range(rng.randint(1, 2)):
        name, layout = f"base{place}", rng.choice(["l", "k"])
        state.pool.add(ModelObject(name, f"digest-{name}", layout, layout, f"/{name}", (), 1000))
        scores[name] = {task: rng.random() for task in ("tools", "chat")}
    for name, kind in (("a", "sft"), ("b", "sft"), ("c", "sft"), ("pairs", "preference"))[: rng.randint(1, 4)]:
        state.pool.add(DatasetObject(name, f"digest-{name}", kind, 900, f"/{name}", chars=40))  # type: ignore[arg-type]
    for number in range(1, rng.randint(0, 12) + 1):
        name = rng.choice(sorted(types))
        listing = enumerate_type(types[name], state, MACHINE, Known.of(state, MACHINE), number)
        if listing.candidates:
            _take(state, scores, rng, number, rng.choice(listing.candidates).action, types[name].type.output == "model")
    return state, types, scores


def _take(state: RunState, scores: dict, rng: random.Random, number: int, chosen: Action, model: bool) -> None:
    status = rng.choices(["done", "failed", "vetoed", "skipped", "stopped"], [8, 1, 1, 1, 1])[0]
    trial = state.trials[number] = Trial(number, status, chosen.to_json(), "test", proposal={"action": chosen.to_json()})
    if status != "done":
        return
    parents = [name for ids in chosen.inputs.values() for name in ids]
    if not model:
        trial.dataset = f"d{number}"
        kind = state.pool.dataset(parents[0]).format
        state.pool.add(DatasetObject(trial.dataset, f"digest-{number}", kind, 500, "/d", number, 40))
        return
    trial.model = f"m{number}"
    layout = next(state.pool.model(name).layout for name in parents if name in scores)
    state.pool.add(ModelObject(trial.model, f"digest-{number}", layout, layout, f"/m{number}", (), 1000, number))
    start = max((scores[name] for name in parents if name in scores), key=lambda one: sum(one.values()))
    scores[trial.model] = {task: min(1.0, max(0.0, score + rng.gauss(0, 0.1))) for task, score in start.items()}
    trial.objective = sum(scores[trial.model].values())


def made_up(index: int, seed: int = 1, number: int | None = None) -> View:
    """What a policy sees of one of the `WORLDS` made-up runs: real candidates of real action types after real rules."""
    state, types, scores = _world(index)
    number = number or max(state.trials, default=0) + 1
    candidates, _ = enumerate_all(types, state, MACHINE, number)
    return View(
        number=number,
        seed=seed,
        pool=state.pool,
        trials=tuple(state.trials.values()),
        candidates=candidates,
        summaries={name: bound.type.summary for name, bound in types.items()},
        objective="maximise tools + 0.5 × chat",
        scores=scores,
        objectives={name: found["tools"] + 0.5 * found["chat"] for name, found in scores.items()},
        trials_left=9,
        weights={"tools": 1.0, "chat": 0.5},
        makes_data=frozenset(name for name, bound in types.items() if bound.type.output == "dataset"),
        candidate=lambda kind, inputs, params: legal(types, kind, inputs, params, state, MACHINE),
    )


def turned(shown: View) -> View:
    """The same view with everything listed the other way round."""
    candidates = {kind: tuple(reversed(group)) for kind, group in reversed(list(shown.candidates.items()))}
    return replace(shown, candidates=candidates)


def tried(shown: View) -> set[str]:
    """Digests of what the view's trials ran or what people decided against; what a stop cut off may come again."""
    return {trial.action["digest"] for trial in shown.trials if trial.action and trial.status != "stopped"}


def all_of(shown: View) -> list[Candidate]:
    """Every candidate of a view."""
    return [item for group in shown.candidates.values() for item in group]


# --- a planner without a server ----------------------------------------------------------------------------------------


def logprobs(weights: Mapping[str, float]) -> tuple[TokenChoice, ...]:
    """An answer's first token, with the log-probability of each token shown, as a server tells it."""
    ranked = sorted(weights.items(), key=lambda item: -item[1])
    return (TokenChoice(ranked[0][0], tuple((name, math.log(weight)) for name, weight in ranked)),)


def answer(text: str = "", weights: Mapping[str, float] | None = None, reasoning: str = "") -> Answer:
    """A planner's answer of 100 tokens and 0.1 seconds; with `weights`, the likeliest of them, with log-probabilities."""
    choices = logprobs(weights) if weights else ()
    return Answer(text or (choices[0].text if choices else ""), 100, 0.1, choices, reasoning)


class FakeClient:
    """Stands where the client stands: answers by `reply` (a question → an answer, or raises) and keeps what it was asked."""

    def __init__(self, reply: Callable[[dict[str, Any]], Answer]) -> None:
        self.reply = reply
        self.asked: list[dict[str, Any]] = []

    async def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> Answer:
        question = {"system": messages[0]["content"], "user": messages[1]["content"], **options}
        self.asked.append(question)
        return self.reply(question)

    async def close(self) -> None:
        """Nothing to close."""


def external(**changes: Any) -> PlannerSettings:
    """Settings of somebody's server, which is never started or looked at."""
    return PlannerSettings(backend="openai", url="http://127.0.0.1:1", model="planner", **changes)
