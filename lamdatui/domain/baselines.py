"""What a winner is compared with on the sealed rows, so that its gain can be believed. Pure.

A search is worth its compute only against what somebody would have done without it: examples in the prompt (`few_shot`), one plain
fine-tuning for as long as the whole search has trained (`sft_all`), the best single training step and the best merge of the run. The paper
that the method is from compares with the last three (arXiv 2505.21963).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamdatui.domain.budget import worked
from lamdatui.domain.objects import ObjectPool
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import direction, winner_gain

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
        expected = ((trial.proposal or {}).get("estimate") or {}).get("seconds")
        total += expected or 0.0 if trial.cached else trial.seconds.get("execute", 0.0)
    return total


def family(state: RunState, action: Mapping[str, Any]) -> str:
    """Of an action's type, as the engine declared it."""
    return str((state.types.get(action["type"]) or {}).get("family", ""))


def best_single_step(state: RunState, objectives: Mapping[str, float]) -> str | None:
    """The best model that one training action made of what the profile names."""
    return _best(state, objectives, lambda action: family(state, action) in TRAINS and _is_first(action, state.pool))


def best_merge(state: RunState, objectives: Mapping[str, float]) -> str | None:
    """The best model that a merge made."""
    return _best(state, objectives, lambda action: family(state, action) == "merge")


def _is_first(action: Mapping[str, Any], pool: ObjectPool) -> bool:
    used = [pool.items.get(name) for ids in action["inputs"].values() for name in ids]
    return all(item is not None and item.trial is None for item in used)


def _best(state: RunState, objectives: Mapping[str, float], fits: Any) -> str | None:
    made: list[Trial] = [
        trial
        for trial in state.trials.values()
        if trial.status == "done" and trial.model in objectives and trial.model not in state.lost and fits(trial.action)
    ]
    best = max(made, key=lambda trial: (objectives[trial.model or ""], -trial.number), default=None)
    return best.model if best else None


def share(state: RunState) -> float:
    """Of the search's time, what baselines may take after it; 0 in runs that began before there were any."""
    return float((state.profile.get("budget") or {}).get("baselines") or 0.0)


def seconds_left(state: RunState, now: float | None = None) -> float:
    """Seconds that baselines may still take, once the search is over; infinite where somebody asked for them."""
    if state.finishing:
        return math.inf
    if state.searched is None:
        return 0.0
    searched = state.searched["seconds"]
    limit = min(state.wall_seconds or math.inf, searched * (1 + share(state)))
    return max(0.0, limit - worked(state, now))


def is_partial(baseline: Mapping[str, Any]) -> bool:
    """Whether there was no time for all of a baseline: not each setting was tried, or it trained for less long than the search."""
    return baseline.get("tried", 0) < baseline.get("of", 0) or baseline.get("length", 1.0) < 1.0


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
    missing: str = ""


def board(state: RunState) -> list[Row]:
    """The baselines, then the winner; empty where the sealed split was not opened."""
    found = winner_gain(state)
    if state.winner is None or found is None or found[0] != "sealed":
        return []
    why = missing(state)
    rows = []
    for name in NAMES:
        one = state.baselines.get(name)
        if one is None:
            rows.append(Row(name, "", missing=why[name]))
        else:
            rows.append(Row(name, told(one), (one.get("gain") or {}).get("objective"), one.get("winner_gain")))
    return [*rows, Row("winner", state.winner, found[1])]


def standing(state: RunState) -> str:
    """What the winner is better than, worse than, and not told from, on the sealed rows, in a sentence; empty where there is nothing."""
    names: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    for row in board(state):
        if row.behind:
            names[direction(row.behind, 1)].append(row.name)
    words = {-1: "worse than", 0: "not told from", 1: "better than"}
    parts = [f"{text} {', '.join(names[sign])}" for sign, text in words.items() if names[sign]]
    return f"the winner is {'; '.join(parts)}" if parts else ""


def missing(state: RunState) -> dict[str, str]:
    """Name → why there is no such baseline."""
    if state.searched is None and not state.has_ended:
        usual = "the search is not over"
    elif state.status in ("new", "running", "interrupted"):
        usual = "it is not made yet"
    elif state.winner is None:
        usual = "there is no winner"
    elif not share(state) or not state.searched:
        usual = f"this run made none; lamdatui baselines {state.name} does"
    else:
        usual = "it is not made yet"
    return {name: state.baselines_missing.get(name, usual) for name in NAMES if name not in state.baselines}
