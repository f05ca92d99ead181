"""`lamdatui step`: one trial's step again, in this process, in a scratch directory with a scratch store."""

from __future__ import annotations

import io
import os
import pdb
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamdatui.base.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, LamdatuiError
from lamdatui.base.jsonio import Damaged, read_json, read_record
from lamdatui.base.paths import private
from lamdatui.domain.actions import make_action
from lamdatui.domain.schemes import GENERATORS
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.inputs import trust
from lamdatui.inputs.profile import MOST_MINUTES, load_profile
from lamdatui.inputs.workspace import bind_types
from lamdatui.step.files import DATA, METRICS, OLDER_REQUEST, REQUEST, ROWS, attempt_directory, read_outcome, write_request
from lamdatui.step.request import generator_of, is_bare, reference
from lamdatui.step.warm import import_everything
from lamdatui.store.artifacts import MANIFEST
from lamdatui.store.journal import newer_run, read_state


def request_again(state: RunState, run_dir: Path, number: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a trial's step was asked to do, with other hyperparameters. Raises LamdatuiError when the trial has no step or one is not legal."""
    trial = state.trials.get(number)
    if trial is None or trial.step is None:
        ran = ", ".join(str(n) for n, other in state.trials.items() if other.step)
        raise LamdatuiError(
            f"trial {number} has no step to run again: {_why_not(trial)}",
            where=str(run_dir),
            fix=f"trials with a step: {ran}" if ran else "no trial of this run has a step yet",
        )
    folder = attempt_directory(run_dir, trial.step)
    try:
        request = read_record(folder / REQUEST, OLDER_REQUEST)
    except (OSError, Damaged) as error:
        raise LamdatuiError(f"the step's request can't be read: {error}", where=str(folder)) from error
    changes = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise LamdatuiError(f"--set takes PARAM=VALUE, not {text!r}")
        changes[name] = value
    profile = load_profile(run_dir / "profile.yaml")
    types, _ = bind_types(profile)
    if generator_of(request) != GENERATORS[0]:
        # What an action.json names is not run: the profile's program is, once it is confirmed.
        trust.require(profile, str(run_dir / "profile.yaml"))
        request["generation"] = {**request["generation"], **profile.generation.model_dump(mode="json", exclude={"backend"})}
    action = request["action"]
    bound = types[action["type"]]
    inputs = {slot: tuple(ids) for slot, ids in action["inputs"].items()}
    if gone := [name for name in action["params"] if name not in bound.defaults()]:
        print(f"{bound.name} has changed since: it has no hyperparameter {', '.join(gone)} any more", file=sys.stderr)
    params = {name: value for name, value in action["params"].items() if name not in gone} | changes
    if params.get("epochs") or params.get("minutes"):
        raise LamdatuiError(
            "a step that is run again is so many steps long", where="--set", fix="give max_steps in place of epochs or minutes"
        )
    known = {"generator": state.device.get("generator", GENERATORS[0]), "scheme": state.scheme}
    made = make_action(bound, inputs, params, state.pool, seed=action["seed"], dtype=request["dtype"], **known)
    problems = bound.problems(made.inputs, made.params, state.pool, request["device"])
    if problems:
        raise LamdatuiError("; ".join(problems), where=f"action {action['type']}")
    return {**promised(request, state), "action": made.to_json(), "digest": made.digest}


def promised(request: dict[str, Any], state: RunState) -> dict[str, Any]:
    """A request with what its inputs have to be; those of the first version did not say it."""
    models = {
        slot: [reference(state.pool.model(each["id"]), state.pool) for each in found]
        for slot, found in request["models"].items()
    }
    tasks = [task if isinstance(task, dict) else {"path": task, "digest": ""} for task in request["tasks"]]
    digests = {task["path"]: task["digest"] for task in state.tasks.values()}
    tasks = [{**task, "digest": task["digest"] or digests.get(task["path"], "")} for task in tasks]
    return {**request, "models": models, "tasks": tasks, "always": request.get("always", False)}


def _why_not(trial: Trial | None) -> str:
    """Why a trial never ran, in words."""
    if trial is None:
        return "there is no such trial"
    if trial.cached:
        return "its result was in the store already"
    if trial.error:
        return trial.error["message"]
    if trial.is_open:
        return f"it is still {trial.status}"
    decision = trial.decision or {}
    reason = f" ({decision['reason']})" if decision.get("reason") else ""
    by = f" by {decision['by']}" if decision.get("by") else ""
    return f"it was {trial.status}{by}{reason}"


class _Errors:
    """What a failing step comes to: it notes an interruption, and opens the debugger where one is wanted."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self.interrupted = False

    def __call__(self, error: BaseException) -> None:
        from lamdatui.step.errors import StepError

        if isinstance(error, KeyboardInterrupt):
            self.interrupted = True
            return
        if self.debug:
            # A StepError that classifies another error is raised far from where that one happened.
            while isinstance(error, StepError) and error.__cause__ is not None:
                error = error.__cause__
            # Without a start-up file: one of the current folder would be executed.
            debugger = pdb.Pdb(readrc=False)
            debugger.reset()
            debugger.interaction(None, error.__traceback__)


def rerun(run_dir: Path, number: int, overrides: list[str], *, dry_run: bool = False, debug: bool = False) -> int:
    """Run it with its log on this terminal; the exit code. The run's records and its store are only read.

    Raises LamdatuiError when the trial has no step or a hyperparameter is not legal.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not fail the step.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with private():
        return _rerun(run_dir, number, overrides, dry_run=dry_run, debug=debug)


def _rerun(run_dir: Path, number: int, overrides: list[str], *, dry_run: bool, debug: bool) -> int:
    state = read_state(run_dir / "run.db")
    if state.newer:
        raise newer_run(run_dir, state.newer)
    request = request_again(state, run_dir, number, overrides)
    if request["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    scratch = Path(tempfile.mkdtemp(prefix="lamdatui-step-"))
    store = scratch / "store"
    request["store"] = str(store)
    # Nobody would go on from its checkpoints.
    request["checkpoint_minutes"] = MOST_MINUTES
    try:
        (store / "objects").mkdir(parents=True)
        for published in (run_dir.parent / "store" / "objects").iterdir():
            # What the step builds on is read where it is; its own result is made again.
            if published.name != request["digest"]:
                (store / "objects" / published.name).symlink_to(published)
        write_request(scratch, request)
        from lamdatui.config.resources import load_registry
        from lamdatui.step.child import run_step

        if not is_bare(request):
            import_everything()
        errors = _Errors(debug)
        code = run_step(scratch, load_registry(), dry_run=dry_run, on_error=errors)
        if errors.interrupted:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        print(_told(scratch, request["digest"]))
        if dry_run and (read_outcome(scratch) or {}).get("status") == "ok":
            print("no dry run: the action ran to its end without step.train or step.configured", file=sys.stderr)
            return EXIT_FAILED
        return EXIT_DONE if code == 0 else EXIT_FAILED
    finally:
        shutil.rmtree(store, ignore_errors=True)
        print(f"records of this try: {scratch}", file=sys.stderr)


def _told(scratch: Path, digest: str) -> str:
    """How it ended, in words. A dataset that was made is moved out of the scratch store, which does not stay."""
    outcome = read_outcome(scratch)
    if outcome is None:
        return "ended without an outcome"
    if outcome["error"]:
        return f"{outcome['status']}: {outcome['error']['class']}: {outcome['error']['message']}"
    if outcome["status"] == "dry-run":
        rows = f"; the rows that the trainer would get: {scratch / ROWS}" if (scratch / ROWS).exists() else ""
        return f"dry run: nothing was trained or stored{rows}"
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome["seconds"].items())
    lines = [f"{outcome['status']}: {spent}; metrics in {scratch / METRICS}"]
    made = scratch / "store" / "objects" / digest
    manifest = read_json(made / MANIFEST)
    if manifest["kind"] == "dataset":
        made.rename(scratch / "result")
        lines.append(f"made a dataset of {manifest['rows']} rows ({manifest['format']}): {scratch / 'result' / DATA}")
    return "\n".join(lines)
