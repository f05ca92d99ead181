"""`lamdatui baselines RUN`: make the baselines and replicates that a run which has ended does not have, and print all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lamdatui.base.errors import EXIT_DONE, EXIT_FAILED, LamdatuiError
from lamdatui.base.output import complain, say, say_json
from lamdatui.cli.commands import release
from lamdatui.cli.headless import Headless, interrupted_once
from lamdatui.cli.show import comparison
from lamdatui.domain.baselines import NAMES, best_merge, best_single_step, is_partial, missing
from lamdatui.domain.replicates import SEEDS, finalists
from lamdatui.domain.scores import objectives, weights_of
from lamdatui.domain.state import RunState
from lamdatui.domain.verdicts import winner_gain
from lamdatui.inputs.profile import load_profile
from lamdatui.inputs.trust import ask
from lamdatui.store.journal import newer_run, read_state, told_newer
from lamdatui.wire import rundir


def compare(run: str, runs_dir: Path, *, as_json: bool, trust: bool) -> int:
    """The command; its exit code. Raises LamdatuiError where the run is at work, or has nothing to compare."""
    run_dir = rundir.find_run(run, runs_dir)
    state = read_state(run_dir / "run.db")
    code = EXIT_DONE
    if state.newer:
        complain(told_newer(state))
    if not _is_whole(state):
        if state.newer:
            raise newer_run(run_dir, state.newer)
        if not state.has_ended and not state.finishing:
            fix = (
                "it makes what fits into its time when its search is over"
                if rundir.is_alive(run_dir)
                else f"lamdatui attach {run}"
            )
            raise LamdatuiError("the run has not ended", where=str(run_dir), fix=fix, exit_code=EXIT_FAILED)
        if not any(trial.status == "done" and trial.model for trial in state.trials.values()):
            raise LamdatuiError("no trial of the run made a model", where=str(run_dir), exit_code=EXIT_FAILED)
        ask(load_profile(rundir.profile_of(run_dir)), str(run_dir), trust=trust, can_ask=True)
        interrupted_once()
        release(run_dir)
        with rundir.held_engine(run_dir, rundir.StartOptions(headless=True, baselines=not state.finishing)):
            code = asyncio.run(Headless(run_dir, as_json=False, after=state.last_seq).follow())
        state = read_state(run_dir / "run.db")
    if as_json:
        say_json(
            {
                "baselines": {name: state.baselines.get(name) for name in NAMES},
                "baselines_missing": missing(state),
                "replicates": state.replicates,
                "replicates_missing": state.replicates_missing,
            }
        )
    else:
        say("\n".join(comparison(state)))
    return code


def _is_whole(state: RunState) -> bool:
    """Whether there is no baseline and no replicate left to make."""
    split = (winner_gain(state) or ("",))[0]
    made, best = state.baselines, objectives(state, weights_of(state.profile))
    # Of what the search did not do there can be none.
    never = {"best_single_step"} if best_single_step(state, best) is None else set()
    never |= {"best_merge"} if best_merge(state, best) is None else set()
    whole = made.keys() >= set(NAMES) - never and not any(map(is_partial, made.values()))
    seeds = all(len(state.replicates.get(name, {}).get("made", ())) >= SEEDS - 1 for name in finalists(state, best))
    return state.has_ended and split == "sealed" and whole and seeds
