"""What a winner is compared with on the sealed rows, so that its gain can be believed. Pure.

A search is worth its compute only against what somebody would have done without it: examples in the prompt (`few_shot`), one plain
fine-tuning for as long as the whole search has trained (`sft_all`), the best single training step and the best merge of the run. The paper
that the method is from compares with the last three (arXiv 2505.21963).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lamdatui.domain.budget import GRACE, baselines_share, ledgers, seconds_of, worked
from lamdatui.domain.objects import ModelObject, ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.domain.verdicts import direction, keeps, winner_gain

NAMES = ("few_shot", "sft_all", "best_single_step", "best_merge")
TRAINS = ("supervised", "preference", "reinforcement", "distillation")
"""Families of actions that train."""
ALL_ROWS, SFT_ALL = "all_rows", "sft_all"
"""Ids of what is made for a baseline and is not in the run's pool."""
PURPOSE = "baseline"
"""Of a step that is done for a baseline alone."""


def training_seconds(state: RunState) -> float:
    """Seconds that the search's trials have trained; for a result of the store, what it was expected to take."""
    total = 0.0
    for trial in state.trials.values():
        if trial.action is None or family(state, trial.action) not in TRAINS or trial.decision is None:
            continue
        total += seconds_of(trial)
    return total


def family(state: RunState, action: Mapping[str, Any]) -> str:
    """Of an action's type, as the engine declared it."""
    return str((state.types.get(action["type"]) or {}).get("family", ""))


def best_single_step(state: RunState, objectives: Mapping[str, float]) -> str | None:
    """The best model that one training action made of the base."""
    return best_model(state, objectives, lambda action: family(state, action) in TRAINS and _is_first(action, state.pool))


def best_merge(state: RunState, objectives: Mapping[str, float]) -> str | None:
    """The best model that a merge made."""
    return best_model(state, objectives, lambda action: family(state, action) == "merge")


def _is_first(action: Mapping[str, Any], pool: ObjectPool) -> bool:
    used = [pool.items.get(name) for ids in action["inputs"].values() for name in ids]
    models = [item.id for item in used if isinstance(item, ModelObject)]
    return pool.base in models and all(item is not None and item.trial is None for item in used)


def best_model(
    state: RunState, objectives: Mapping[str, float], fits: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> str | None:
    """The model with the best objective, the older one of equals, of those whose action fits; not one that is lost."""
    made = [
        trial
        for trial in state.trials.values()
        if trial.status == "done" and trial.model in objectives and trial.model not in state.lost and fits(trial.action or {})
    ]
    best = max(made, key=lambda trial: (objectives[trial.model or ""], -trial.number), default=None)
    return best.model if best else None


def seconds_left(state: RunState, now: float | None = None) -> float:
    """Seconds that baselines may still take, once the search is over; infinite where somebody asked for them."""
    if state.finishing:
        return math.inf
    if state.searched is None:
        return 0.0
    replicated = state.replicate_seconds - state.searched.get("replicated", 0.0)
    spent = worked(state, now) - state.searched["seconds"] - replicated
    limits = [one.limit - one.used for one in ledgers(state, now) if one.unit == "s" and one.limit is not None]
    return max(0.0, min([allowed(state) - spent, *limits]))


def allowed(state: RunState) -> float:
    """Seconds that baselines may take in all: the share of the whole search, also of what it did before it was extended."""
    return baselines_share(state) * ((state.searched or {}).get("seconds", 0.0) + state.earlier_seconds)


def is_partial(baseline: Mapping[str, Any]) -> bool:
    """Whether there was no time for all of a baseline: not each setting was tried, or it trained for less long than the search."""
    return baseline.get("tried", 0) < baseline.get("of", 0) or baseline.get("length", 1.0) < 1.0


def until(state: RunState, now: float | None = None) -> float:
    """Seconds after which a baseline's training that begins now is ended: a little more than it may take."""
    return seconds_left(state, now) + GRACE * (allowed(state) + ((state.searched or {}).get("seconds", 0.0)))


def told(baseline: Mapping[str, Any]) -> str:
    """How a baseline came to be, in words."""
    found = str(baseline.get("what") or "")
    if (tried := baseline.get("tried", 0)) < (of := baseline.get("of", 0)):
        found += f"; {tried} of {of} settings tried"
    if (length := baseline.get("length", 1.0)) < 1.0:
        found += f"; trained for {length:.0%} of the search's training time"
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison on the sealed rows: gains of the objective, `{mean, interval}`, or why there are none."""

    name: str
    what: str
    gain: Mapping[str, Any] | None = None
    """Over the base."""
    behind: Mapping[str, Any] | None = None
    """The winner's over it."""
    sign: int = 0
    """1 where the winner is better than it, -1 where it is worse, after as many comparisons as there are."""
    missing: str = ""


def board(state: RunState) -> list[Row]:
    """The baselines, then the winner; empty where the sealed split was not opened."""
    found = winner_gain(state)
    if state.winner is None or found is None or found[0] != "sealed":
        return []
    why = missing(state)
    others = [one for one in state.baselines.values() if one["model"] != state.winner]
    rows = []
    for name in NAMES:
        one = state.baselines.get(name)
        if one is None:
            rows.append(Row(name, "", missing=why[name]))
        elif one["model"] == state.winner:
            rows.append(Row(name, "the winner itself", one["gain"]["objective"]))
        else:
            behind = one.get("winner_gain")
            broken = keeps(one["gain"], state.profile)
            what = told(one) + (f"; does not keep {', '.join(broken)}" if broken else "")
            rows.append(Row(name, what, one["gain"]["objective"], behind, direction(behind, len(others))))
    return [*rows, Row("winner", state.winner, found[1])]


def standing(state: RunState) -> str:
    """What the winner is better than, worse than, and not told from, on the sealed rows, in a sentence, with how to take a better one that was made for the comparison;
    empty where there is nothing."""
    names: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    for row in board(state):
        if row.behind:
            names[row.sign].append(row.name)
    words = {-1: "worse than", 0: "not told from", 1: "better than"}
    parts = [f"{text} {', '.join(names[sign])}" for sign, text in words.items() if names[sign]]
    better = [name for name in names[-1] if (one := state.baselines.get(name)) and one.get("object")]
    take = f" (lamdatui export {state.name} --model {better[0]})" if better else ""
    return f"the winner is {'; '.join(parts)}{take}" if parts else ""


def missing(state: RunState) -> dict[str, str]:
    """Name → why there is no such baseline."""
    if state.searched is None and not state.has_ended:
        usual = "the search is not over"
    elif not state.has_ended:
        usual = "it is not made yet"
    elif state.winner is None:
        usual = "there is no winner"
    else:
        usual = f"this run made none; lamdatui baselines {state.name} does"
    return {name: state.baselines_missing.get(name, usual) for name in NAMES if name not in state.baselines}
