"""`lamdatui step`: one trial's step again, in this process, in a scratch directory with a scratch store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lamdatui.actions import make_action
from lamdatui.errors import EXIT_DONE, EXIT_FAILED, LamdatuiError
from lamdatui.jsonio import read_json, write_json
from lamdatui.profile import load_profile
from lamdatui.state import RunState
from lamdatui.step.files import METRICS, REQUEST, read_outcome
from lamdatui.store.journal import read_state
from lamdatui.workspace import bind_types


def _request(state: RunState, run_dir: Path, number: int, overrides: list[str]) -> dict[str, Any]:
    key = state.trials[number].step if number in state.trials else None
    if key is None:
        ran = [str(n) for n, trial in state.trials.items() if trial.step]
        raise LamdatuiError(
            f"trial {number} has no step to run again", where=str(run_dir), fix=f"trials with a step: {', '.join(ran)}"
        )
    request = read_json(run_dir / "steps" / key / REQUEST)
    changes = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise LamdatuiError(f"--set takes PARAM=VALUE, not {text!r}")
        changes[name] = value
    types, _ = bind_types(load_profile(run_dir / "profile.yaml"))
    action = request["action"]
    inputs = {slot: tuple(ids) for slot, ids in action["inputs"].items()}
    params = {**action["params"], **changes}
    made = make_action(types[action["type"]], inputs, params, state.pool, seed=action["seed"], dtype=request["dtype"])
    problems = types[action["type"]].problems(made.inputs, made.params, state.pool, request["device"])
    if problems:
        raise LamdatuiError("; ".join(problems), where=f"action {action['type']}")
    return {**request, "action": made.to_json(), "digest": made.digest}


def rerun(run_dir: Path, number: int, overrides: list[str], scratch: Path) -> int:
    """Run it with its log on this terminal; the exit code. The run's records and its store are only read.

    Raises LamdatuiError when the trial has no step or a hyperparameter is not legal.
    """
    state = read_state(run_dir / "run.db")
    request = _request(state, run_dir, number, overrides)
    parents = run_dir.parent / "store"
    store = scratch / "store"
    request["store"] = str(store)
    (store / "objects").mkdir(parents=True)
    for published in (parents / "objects").iterdir():
        # What the step builds on is read where it is; its own result is made again.
        if published.name != request["digest"]:
            (store / "objects" / published.name).symlink_to(published)
    write_json(scratch / REQUEST, request)
    from lamdatui.resources import load_registry
    from lamdatui.step.child import run_step

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    code = run_step(scratch, load_registry())
    outcome = read_outcome(scratch) or {}
    print(f"{outcome.get('status')}: {outcome.get('seconds')}; metrics in {scratch / METRICS}")
    return EXIT_DONE if code == 0 else EXIT_FAILED
