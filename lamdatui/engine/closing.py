"""How a trial and a run end: what the event `trial.closed` says, the winner, and its gain over the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lamdatui.domain.baselines import best_model
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.rates import most_per_hour
from lamdatui.domain.scores import is_per_hour
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import beats_base
from lamdatui.engine.integrity import Lost
from lamdatui.engine.scoring import Scoring
from lamdatui.engine.upkeep import SearchEnded, Upkeep


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a trial. `seconds` are those of its step (`execute`, `evaluate`), `remembering` those of the policy's memory."""

    status: str
    model: str | None = None
    dataset: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    objective: float | None = None
    gain: Mapping[str, Any] | None = None
    cached: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    remembering: float = 0.0

    def to_json(self, trial: Trial, now: float) -> dict[str, Any]:
        """The fields of `trial.closed`; `now` is on the clock of the trial's stamps."""
        fields = asdict(self)
        del fields["remembering"]
        return {"number": trial.number, **fields, "seconds": _seconds(trial, self.seconds, self.remembering, now)}


def lost(reason: Lost) -> Closing:
    """The end of a trial for which an object is lost."""
    return Closing("failed", error={"class": "lost", "message": str(reason)})


def _seconds(trial: Trial, measured: Mapping[str, float], remembering: float, now: float) -> dict[str, float]:
    """Where the trial's time went: `overhead` is what neither planning, waiting, executing nor evaluating explains."""
    stamps = trial.stamps
    total = max(0.0, now - stamps["opened"])
    plan = (trial.proposal or {}).get("seconds", 0.0) + remembering
    wait = max(0.0, stamps.get("decided", 0.0) - stamps.get("proposed", 0.0)) if "decided" in stamps else 0.0
    execute, evaluate = measured.get("execute", 0.0), measured.get("evaluate", 0.0)
    overhead = max(0.0, total - plan - wait - execute - evaluate)
    parts = {"total": total, "plan": plan, "wait": wait, "execute": execute, "evaluate": evaluate, "overhead": overhead}
    return {key: round(value, 3) for key, value in parts.items()}


async def ending(end: SearchEnded, state: RunState, base: ModelObject, scoring: Scoring, upkeep: Upkeep) -> dict[str, Any]:
    """The fields of `run.ended`: the winner and its report, on the sealed split, too, when the search ran to its end."""
    ended: dict[str, Any] = {"status": end.status, "reason": end.reason, "winner": None, "beats_base": None, "gain": None}
    while (winner := _best(state, scoring)) is not None:
        ended["winner"] = winner
        try:
            model = state.pool.model(winner)
            ended["gain"] = await _report(model, base, scoring, upkeep, sealed=end.status == "done")
            ended["beats_base"] = beats_base(ended["gain"], len({*state.sealed_looks, winner}))
        except Lost:
            ended["winner"] = None
            continue
        except SearchEnded as failure:
            ended["status"], ended["reason"] = failure.status, failure.reason
        break
    return ended


def _best(state: RunState, scoring: Scoring) -> str | None:
    """The model that is looked for: with the best objective, or the one that gained it fastest, where any is told to have gained."""
    fastest = most_per_hour(state) if is_per_hour(state.profile) else None
    return fastest or best_model(state, scoring.objectives(state))


async def _report(winner: ModelObject, base: ModelObject, scoring: Scoring, upkeep: Upkeep, *, sealed: bool) -> dict[str, Any]:
    """The winner's gain over the base: split → the objective's and each task's. Raises Lost, SearchEnded."""
    report = {}
    for split in ("search", "sealed") if sealed else ("search",):
        for model in (base, winner):
            await upkeep.evaluate(model, split, f"{split}-{model.id}")
        report[split] = scoring.report(winner.digest, base.digest, split)
    return report
