"""One run as one JSON object. The names are a contract that scripts may rely on: see docs/show.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamdatui.base.collector import uncollected
from lamdatui.base.output import complain, say, say_json
from lamdatui.domain.baselines import NAMES, board, missing, standing
from lamdatui.domain.budget import ledgers
from lamdatui.domain.planner_report import PlannerChoice, chooser, details, proposer, told, worth
from lamdatui.domain.rates import most_per_hour, rates, step_seconds
from lamdatui.domain.replicates import spreads
from lamdatui.domain.replicates import told as told_seeds
from lamdatui.domain.scores import front, is_per_hour
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import gain_text, losses
from lamdatui.store.journal import read_run, read_state, told_newer
from lamdatui.wire import rundir
from lamdatui.wire.lastwords import last_words

TRIAL_FIELDS = (
    "number",
    "status",
    "action",
    "proposed_by",
    "reason",
    "decision",
    "model",
    "dataset",
    "scores",
    "objective",
    "gain",
    "cached",
    "seconds",
    "error",
)


def _model(state: RunState, model_id: str | None) -> dict[str, Any] | None:
    if model_id is None:
        return None
    return {"model": model_id, "digest": state.pool.model(model_id).digest, "scores": state.scores.get(model_id, {})}


def _models(state: RunState, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each model of the pool with what led to it has taken, and its gain per hour of that."""
    gains = rates(state, seconds)
    return [(_model(state, name) or {}) | {"seconds": took, "per_hour": gains.get(name)} for name, took in seconds.items()]


def _trial(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in TRIAL_FIELDS} | {"details": details(trial), "shadows": trial.shadows}


def describe(state: RunState, alive: bool) -> dict[str, Any]:
    """The object that `lamdatui show --json` prints."""
    base = next((model.id for model in state.pool.models if model.trial is None), None)
    seconds = step_seconds(state)
    return {
        "run": state.name,
        "status": _status(state, alive),
        "reason": state.reason,
        "mode": state.mode,
        "profile": state.profile,
        "forked_from": state.forked_from,
        "newer": state.newer,
        "base": _model(state, base),
        "winner": _model(state, state.winner),
        "beats_base": state.beats_base,
        "gain": state.gain,
        "losses": losses(state),
        "front": front(state, seconds if is_per_hour(state.profile) else None),
        "sealed_looks": len(state.sealed_looks),
        "baselines": {name: state.baselines.get(name) for name in NAMES},
        "baselines_missing": missing(state),
        "replicates": state.replicates,
        "replicates_missing": state.replicates_missing,
        "trials": [_trial(state.trials[number]) for number in sorted(state.trials)],
        "models": _models(state, seconds),
        "constraints": list(state.constraints.values()),
        "rules": list(state.rules.values()),
        "memory": state.memory,
        "memory_by": state.memory_by,
        "problems": state.problems,
        "hints": list(state.hints.values()),
        "queue": list(state.queue.values()),
        "ledgers": [ledger.to_json() for ledger in ledgers(state)],
        "policy": state.policy,
        "planner": worth(state).to_json(),
        "engine": {"pid": state.engine_pid if alive else None, **state.device},
        "network": state.network or None,
        "paused": {"by": state.paused_by, "reason": state.paused_reason} if state.paused else None,
        "lost": state.lost,
        "dropped": sorted(state.dropped),
    }


def print_run(run: str, runs_dir: Path, *, planner: bool, as_json: bool) -> None:
    """The command: a run as a table, as JSON, or what its planner did. Raises LamdatuiError where there is none."""
    run_dir = rundir.find_run(run, runs_dir)
    with uncollected():
        state = read_state(run_dir / "run.db")
        if state.newer:
            complain(told_newer(state))
        if planner and not as_json:
            say(planner_table(state))
            return
        found = _shown(state, run_dir, rundir.is_alive(run_dir))
        say_json(found) if as_json else say(table(found, state))


def show(run_dir: Path, alive: bool) -> dict[str, Any]:
    """`describe` of a run directory. Raises LamdatuiError when it is not one."""
    return _shown(read_state(run_dir / "run.db"), run_dir, alive)


def _shown(state: RunState, run_dir: Path, alive: bool) -> dict[str, Any]:
    found = describe(state, alive)
    if found["status"] == "interrupted" and not found["reason"] and (words := last_words(run_dir)):
        found["reason"] = words.what
    return found


def summary(run_dir: Path, alive: bool) -> dict[str, Any]:
    """What `lamdatui runs --json` says of a run, without reading its history. Raises LamdatuiError when it is not a run."""
    state, trials = read_run(run_dir / "run.db")
    return {
        "run": run_dir.name,
        "status": _status(state, alive),
        "trials": trials,
        "max_trials": state.max_trials,
        "mode": state.mode,
        "profile": state.profile.get("name", ""),
        "winner": state.winner,
        "beats_base": state.beats_base,
        "engine": state.engine_pid if alive else None,
        "path": str(run_dir),
    }


def _status(state: RunState, alive: bool) -> str:
    """The run's status; one whose engine is gone is interrupted."""
    return "interrupted" if state.status == "running" and not alive else state.status


def comparison(state: RunState) -> list[str]:
    """The winner beside the baselines, a line each; empty where the sealed split was not opened."""
    rows = board(state)
    if not rows:
        return []

    lines = ["sealed rows, gain of the objective over the base; the winner's over each:"]
    lines += [
        f"  {row.name:16} {gain_text(row.gain) if row.gain else '-':24} {gain_text(row.behind) if row.behind else '':24} {row.missing or row.what}".rstrip()
        for row in rows
    ]
    spread = [f"  {one.name:16} {gain_text(one.gain):24} {'':24} {told_seeds(one)}" for one in spreads(state)]
    if spread:
        lines += ["sealed rows, the best pipelines done with several seeds; intervals over rows and seeds:", *spread]
    lines += [f"  no more seeds of {model}: {why}" for model, why in state.replicates_missing.items()]
    return [*lines, *filter(None, [standing(state)])]


def table(found: dict[str, Any], state: RunState | None = None) -> str:
    """The same for people: a few lines and a row a trial."""
    lines = [f"{found['run']}: {found['status']}" + (f" ({found['reason']})" if found["reason"] else "")]
    if found["paused"]:
        lines.append(f"paused by {found['paused']['by'] or 'a person'} {found['paused']['reason']}".rstrip())
    if origin := found["forked_from"]:
        lines.append(f"forked from {origin['run']} at trial {origin['at']}")
    lines += [f"lost: {name}: {reason}" for name, reason in found["lost"].items()]
    lines.append("used: " + ", ".join(spent(ledger) for ledger in found["ledgers"]))
    lines += [f"queued: {item['action']['type']} by {item['by']}  {item['note']}".rstrip() for item in found["queue"]]
    for label in ("base", "winner"):
        model = found[label]
        if model:
            scores = "  ".join(
                f"{task}.{split} {value['mean']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}] n={value['n']}"
                for task, splits in model["scores"].items()
                for split, value in splits.items()
            )
            lines.append(f"{label:7} {model['model']}: {scores}")
    for split, report in (found["gain"] or {}).items():
        parts = {"objective": report["objective"], **report["tasks"]}
        told = "  ".join(f"{k} {gain_text(v)}" for k, v in parts.items())
        lines.append(f"gain of the winner over the base, {split}: {told}")
    lines += [f"the winner is {loss}" for loss in losses(state)] if state and state.winner else []
    per_hour = bool(state) and is_per_hour(state.profile)
    lines += [_fastest(found, state)] if state and per_hour and state.winner else []
    if len(better := found["front"]) > 1:
        lines.append(
            f"no model is better on every task (search rows){' and took less' if per_hour else ''} than: {', '.join(better)}"
        )
    lines += comparison(state) if state else []
    for trial in found["trials"]:
        action = trial["action"]
        what = f"{action['type']} " + " ".join("+".join(ids) for ids in action["inputs"].values() if ids) if action else "-"
        value = f"{trial['objective']:.3f}" if trial["objective"] is not None else trial["dataset"] or "-"
        note = (trial["error"] or {}).get("message", "") or ("cached" if trial["cached"] else "")
        seconds = f"{trial['seconds'].get('total', 0):.1f} s" if trial["seconds"] else ""
        lines.append(
            f"{trial['number']:3}  {trial['status']:9} {what:40} {value:>7} {seconds:>9}  {trial['proposed_by'][:20]:20} {note}"
        )
    return "\n".join(lines)


def _fastest(found: dict[str, Any], state: RunState) -> str:
    """What the winner's gain took, where the gain per hour was looked for."""
    winner = next(model for model in found["models"] if model["model"] == state.winner)
    rate = winner["per_hour"]
    told = f"{winner['seconds']:.1f} s of steps led to it" + (
        f", {gain_text(rate)} per hour of them (search rows)" if rate else ""
    )
    how = (
        "the highest gain per hour"
        if most_per_hour(state) == state.winner
        else "the best score: none is told to gain over the base"
    )
    return f"the winner has {how}; {told}"


def spent(ledger: dict[str, Any]) -> str:
    """`wall 95 s of 600 s (4 s reserved)`."""
    scale, unit = (2**20, "MiB") if ledger["unit"] == "bytes" else (1, ledger["unit"])

    def told(value: float) -> str:
        number = f"{value / scale:.1f}" if unit in ("MiB", "s") else f"{value:.0f}"
        return number if unit == ledger["name"] or unit == "tokens" else f"{number} {unit}"

    limit = f" of {told(ledger['limit'])}" if ledger["limit"] is not None else ""
    kept = f" ({told(ledger['reserved'])} reserved)" if ledger["reserved"] else ""
    return f"{ledger['name']} {told(ledger['used'])}{limit}{kept}"


def planner_report(run_dir: Path) -> str:
    """Who proposed what, and whether the planner was worth its tokens. Raises LamdatuiError when it is not a run."""
    return planner_table(read_state(run_dir / "run.db"))


def planner_table(state: RunState) -> str:
    """The report on the planner for people: its lines, then a row a trial."""
    report = worth(state)
    planner = state.profile.get("planner") or {}
    model = str(planner.get("model") or planner.get("url") or "none").rsplit("/", 1)[-1]
    lines = [f"{state.name}: policy {state.policy}, planner {model}"]
    lines += [f"{label:11}{text}" for label, text in told(report)]
    choices = {choice.trial: choice for choice in report.choices}
    for number in sorted(state.trials):
        trial = state.trials[number]
        chose = chooser(trial)
        who = proposer(trial) if chose in ("", proposer(trial)) else f"{proposer(trial)}: {chose}"
        value = f"{trial.objective:.3f}" if trial.objective is not None else "-"
        action = trial.action or {}
        what = f"{action.get('type', '-')} " + " ".join("+".join(ids) for ids in action.get("inputs", {}).values() if ids)
        note = _against(choices[number]) if number in choices else ""
        lines.append(f"{number:3}  {trial.status:9} {who[:20]:20} {what:40} {value:>7}  {note}".rstrip())
    return "\n".join(lines)


def _against(choice: PlannerChoice) -> str:
    """`lost -0.020 to dpo(m1, preferences), expected 0.431`."""
    if choice.rival is None or choice.rival.value is None:
        return choice.outcome
    known = "expected" if choice.rival.objective is None else "measured"
    by = f" {choice.difference:+.3f}" if choice.difference is not None else ""
    return f"{choice.outcome}{by} against {choice.rival.action}, {known} {choice.rival.value:.3f}"
