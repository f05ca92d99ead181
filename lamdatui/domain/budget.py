"""What a run has used of what it may use, and what its end still needs. Pure: from the state that the events add up to."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import ModelObject, stored
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial

MEASURED = ("trial", "search")
"""Purposes of steps that score one model on the search split."""
LONGER = 2.0
"""A question with examples before it is expected to take so many times as long to answer."""
GRACE = 0.03
"""Share of a time limit by which a trial that is at work may overrun it."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """`used` and `reserved` (for the final evaluation, baselines and replicates) of `limit` (None: there is none), in `unit`."""

    name: str
    used: float
    reserved: float
    limit: float | None
    unit: str

    @property
    def is_spent(self) -> bool:
        """Whether its limit is reached, with room for what is reserved."""
        return self.limit is not None and self.used + self.reserved >= self.limit

    def limit_text(self) -> str:
        """The limit in words, as the reason of a search's end: `12 trials`, `10 minutes`."""
        limit = self.limit or 0
        match self.unit:
            case "s":
                return f"{limit / 60:g} minutes" + ("" if self.name == "wall" else f" of {self.name}")
            case "bytes":
                return f"{limit / 2**30:g} GiB on the disk"
        return f"{limit:g} {self.name}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, numbers rounded to thousandths."""
        numbers = {"used": self.used, "reserved": self.reserved, "limit": self.limit}
        rounded = {name: round(value, 3) if value is not None else None for name, value in numbers.items()}
        return {"name": self.name, **rounded, "unit": self.unit}


def ledgers(state: RunState, now: float | None = None) -> tuple[Ledger, ...]:
    """Trials, seconds of work, seconds of steps, planner tokens, bytes. `now`, on the clock `state.meter`, is the last event's time unless given."""
    needed = reserve(state)
    budget: dict[str, Any] = state.profile.get("budget") or {}
    shares = [] if state.has_ended or state.searched else _shares(state)

    def kept(limit: float | None) -> float:
        # The search leaves baselines and replicates their share of its own time, where the least of them fits into it: else it would be lost.
        limit, whole = limit or 0.0, 1 + sum(share for share, _ in shares)
        left = sum(share for share, least in shares if least <= limit * share / whole)
        return needed + limit * left / (1 + left)

    def limit(name: str, scale: float) -> float | None:
        return budget[name] * scale if budget.get(name) else None

    on_gpu = str(state.device.get("device", "")).startswith("cuda")
    return (
        Ledger("trials", state.counted, 0, state.max_trials, "trials"),
        Ledger("wall", worked(state, now), kept(state.wall_seconds), state.wall_seconds, "s"),
        Ledger(
            "GPU time" if on_gpu else "step time",
            step_seconds(state),
            kept(limit("step_minutes", 60)),
            limit("step_minutes", 60),
            "s",
        ),
        Ledger("planner tokens", state.planner_tokens, 0, limit("planner_tokens", 1), "tokens"),
        Ledger("disk", written(state), 0, limit("disk_gib", 2**30), "bytes"),
    )


def baselines_share(state: RunState) -> float:
    """Of the search's time, what baselines may take after it; 0 in runs that began before there were any."""
    return float((state.profile.get("budget") or {}).get("baselines") or 0.0)


def replicates_share(state: RunState) -> float:
    """The same for replicates of the best pipelines."""
    return float((state.profile.get("budget") or {}).get("replicates") or 0.0)


def _shares(state: RunState) -> list[tuple[float, float]]:
    """For baselines and for replicates: their share of the search's time, and what the least of them takes as far as this run has seen."""
    best = state.trials.get(state.best) if state.best is not None else None
    once = evaluation_seconds(state) + sealed_seconds(state)
    seed = pipeline_seconds(state, best.model) + once if best and best.model else 0.0
    return [(baselines_share(state), few_shot_seconds(state)), (replicates_share(state), seed)]


def seconds_left(state: RunState, now: float | None = None) -> float:
    """Seconds of work that trials may still take, with room for what is reserved; infinite without a limit."""
    limited = [one for one in ledgers(state, now) if one.unit == "s" and one.limit is not None]
    return max(0.0, min((one.limit - one.used - one.reserved for one in limited if one.limit is not None), default=math.inf))


def grace_seconds(state: RunState) -> float:
    """Seconds by which a trial that is at work may overrun `seconds_left` before it is ended; infinite without a limit."""
    limits = [one.limit for one in ledgers(state) if one.unit == "s" and one.limit is not None]
    return GRACE * min(limits, default=math.inf)


def worked(state: RunState, now: float | None = None) -> float:
    """Seconds of work over all engines of the run; waiting for a person is not counted."""
    until = state.metered_until if now is None else now
    return state.used_seconds + (max(0.0, until - state.engine_since) if state.engine_since is not None else 0.0)


def step_seconds(state: RunState) -> float:
    """Seconds that steps have worked, evaluations included."""
    return sum(step.seconds.get(part, 0.0) for step in state.steps.values() for part in ("execute", "evaluate"))


def written(state: RunState) -> int:
    """Bytes of the models and datasets that this run made and keeps; what came from the store was there before."""
    made = [item for item in state.pool.items.values() if item.trial is not None and item.id not in state.dropped]
    return sum(item.bytes for item in made if (trial := state.trials.get(item.trial or 0)) is None or _wrote(state, trial))


def _wrote(state: RunState, trial: Trial) -> bool:
    """Whether what a trial made is this run's: it was not in the store before, and is not of the run that this one begins with."""
    return not trial.cached and (state.forked_from is None or trial.number > state.forked_from["at"])


def droppable(state: RunState, keep: Collection[str] = ()) -> list[str]:
    """Models whose weights can go, because a merge makes them again in little time, the worst first; not the best one, nor those of `keep`,
    nor what these stand on."""
    merges = {name for name, told in state.types.items() if told.get("family") == "merge"}
    best = state.trials.get(state.best) if state.best is not None else None
    kept = {*keep, *state.dropped, *state.lost, best.model if best else None}
    needed = {digest for name in kept if name in state.pool.items for digest in stored(state.pool.items[name])}
    found = []
    for trial in state.trials.values():
        model = state.pool.items.get(trial.model or "")
        # One that came from the store is not this run's to remove; an adapter is small.
        mine = trial.status == "done" and trial.action and trial.action["type"] in merges and _wrote(state, trial)
        if mine and isinstance(model, ModelObject) and stored(model) == [model.digest] and model.digest not in needed:
            found.append(trial)
    return [trial.model or "" for trial in sorted(found, key=lambda trial: (trial.objective or 0.0, trial.number))]


def evaluation_seconds(state: RunState) -> float:
    """Mean seconds that scoring one model on the search split has taken in this run; 0 before there is one."""
    seen = [seconds for _, seconds in _evaluated(state)]
    return sum(seen) / len(seen) if seen else 0.0


def sealed_seconds(state: RunState) -> float:
    """The same for the sealed split."""
    return evaluation_seconds(state) * _rows_ratio(state)


def few_shot_seconds(state: RunState) -> float:
    """What asking the base after the examples of one dataset is expected to take, on both splits."""
    return LONGER * (evaluation_seconds(state) + sealed_seconds(state))


def seconds_of(trial: Trial) -> float:
    """What a trial's step took; for a result of the store, what it was expected to take."""
    expected = ((trial.proposal or {}).get("estimate") or {}).get("seconds")
    return expected or 0.0 if trial.cached else trial.seconds.get("execute", 0.0)


def pipeline_seconds(state: RunState, model: str) -> float:
    """What a model's pipeline took, step by step, as `seconds_of` counts."""
    return sum(seconds_of(trial) for trial in lineage(state, model))


def _evaluated(state: RunState) -> list[tuple[str | None, float]]:
    """Of each step that scored a model on the search split: the model's digest, the seconds."""
    return [
        (step.digest, step.seconds["evaluate"])
        for step in state.steps.values()
        if step.purpose in MEASURED and step.status == "ok" and step.seconds.get("evaluate")
    ]


def reserve(state: RunState) -> float:
    """Seconds that scoring the base and the winner on the sealed split will take, as far as this run has seen.

    0 before the first trial and once the run has ended: there is nothing to score then.
    """
    if state.has_ended or not state.trials:
        return 0.0
    base = state.pool.base
    best = state.trials.get(state.best) if state.best is not None else None
    models = [base, best.model if best else None]
    own, usual = dict(_evaluated(state)), evaluation_seconds(state)
    digests = [
        state.pool.items[model].digest if model in state.pool.items else "" for model in models if not _is_sealed(state, model)
    ]
    # A base that goes on to its last token takes longer than what was trained to end: each counts as it was measured.
    return sum(own.get(digest, usual) for digest in digests) * _rows_ratio(state)


def _is_sealed(state: RunState, model: str | None) -> bool:
    scores = state.scores.get(model or "", {})
    return bool(scores) and all("sealed" in splits for splits in scores.values())


def _rows_ratio(state: RunState) -> float:
    """Rows of the sealed split for each one of the search split: as the profile counts them; as many where it doesn't."""
    search = sealed = 0
    for name, task in (state.profile.get("tasks") or {}).items():
        rows = task.get("rows") or {}
        scored = next((tasks[name]["search"]["n"] for tasks in state.scores.values() if "search" in tasks.get(name, {})), 0)
        one = rows.get("search") or scored
        search += one
        sealed += rows.get("sealed") or one
    return sealed / search if search else 1.0
