"""Models of a run whose weights are not in the store any more, made again for whoever wants them outside a run."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.domain.objects import PoolObject, stored
from lamdatui.domain.state import RunState
from lamdatui.engine.integrity import inputs_of, maker
from lamdatui.step.files import read_outcome, write_request
from lamdatui.step.rerun import request_again
from lamdatui.store.artifacts import Store


def rebuild(run_dir: Path, state: RunState, item: PoolObject, store: Store, say: Callable[[str], None]) -> None:
    """See to it that the store has what an object consists of: what was dropped is made again. Raises LamdatuiError where that can't be."""
    for digest in stored(item):
        if store.find(digest) is None:
            _again(run_dir, state, digest, store, say)


def _again(run_dir: Path, state: RunState, digest: str, store: Store, say: Callable[[str], None]) -> None:
    from lamdatui.config.resources import load_registry
    from lamdatui.step.child import run_step

    trial = maker(state, digest)
    if trial is None:
        raise LamdatuiError(f"the store has lost {digest[:12]}, and no trial of this run made it", where=str(store.root))
    for name in inputs_of(trial):
        rebuild(run_dir, state, state.pool.items[name], store, say)
    say(f"making {trial.model or trial.dataset} (trial {trial.number}) again")
    request = request_again(state, run_dir, trial.number)
    if request["digest"] != digest:
        raise LamdatuiError(
            f"trial {trial.number} would make something else now: its action type has changed", where=str(run_dir)
        )
    request |= {"evaluations": [], "purpose": "remake", "store": str(store.root.absolute())}
    # Its log is not what the command prints.
    with tempfile.TemporaryDirectory(prefix="lamdatui-step-") as scratch, contextlib.redirect_stdout(sys.stderr):
        write_request(Path(scratch), request)
        if run_step(Path(scratch), load_registry()) != 0:
            error = (read_outcome(Path(scratch)) or {}).get("error") or {}
            told = error.get("message", "it left no outcome")
            raise LamdatuiError(f"trial {trial.number} could not be done again: {told}", where=str(run_dir))
