"""`lamdatui fork`: a run that begins as another one was when a trial had closed, and goes on from there on its own.

Its record is that of the other run up to there, as it stands, with the same hashes; then `run.forked` says what is different from there on. The other
run is only read. The store is shared: what was made is there, and nothing is done again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import fsync_dir, write_atomic
from lamdatui.base.output import complain
from lamdatui.base.paths import private
from lamdatui.cli.commands import check_start, go_on
from lamdatui.domain.events import Event
from lamdatui.domain.scripts import label
from lamdatui.domain.state import RunState
from lamdatui.engine.integrity import Fact, check_promises, promised
from lamdatui.inputs.profile import Profile, dump_profile, load_profile
from lamdatui.inputs.trust import ask
from lamdatui.inputs.workspace import open_workspace, planner_settings
from lamdatui.policy import known_policy
from lamdatui.step.files import BUSY, ROOM, attempt_directory
from lamdatui.store.journal import Journal, copy_events, newer_run, read_state, take
from lamdatui.wire import rundir

KEPT = ("tasks", "objective", "dtype")
"""Parts of a profile by which trials were scored: they stay."""
ADDED = ("models", "datasets")
"""To these, others may be added."""


@dataclass(slots=True)
class Cut:
    """A run as it was when trial `at` had closed (0: before its first trial). `upto`: the last event of that; `closed`: trials, until now."""

    at: int
    then: RunState = field(default_factory=RunState)
    now: RunState = field(default_factory=RunState)
    upto: int = 0
    is_whole: bool = False

    def seen(self, event: Event) -> None:
        """Take the next event of the run in."""
        self.is_whole = self.is_whole or (self.at == 0 and event.kind == "trial.opened")
        if self.is_whole:
            return
        take(self.then, event)
        self.upto = event.seq
        self.is_whole = event.kind == "trial.closed" and event.data["number"] == self.at


def cut(run_dir: Path, at: int) -> Cut:
    """Read a run, as of this moment, up to the end of trial `at`. Raises LamdatuiError where that has not closed, or can't be read."""
    found = Cut(at)
    found.now = read_state(run_dir / "run.db", found.seen)
    if found.now.newer:
        raise newer_run(run_dir, found.now.newer)
    if not found.upto:
        raise LamdatuiError("the run has not begun", where=str(run_dir), fix="fork it once its bases are scored")
    closed = [trial.number for trial in found.now.trials.values() if not trial.is_open]
    if at and not found.is_whole:
        raise LamdatuiError(
            f"trial {at} of {run_dir.name} has not closed: {len(closed)} have",
            where=str(run_dir),
            fix=f"--at 0 to {max(closed, default=0)}",
        )
    return found


def fork(
    run: str,
    runs_dir: Path,
    at: int,
    name: str,
    overrides: list[str],
    *,
    mode: str | None,
    headless: bool,
    as_json: bool,
    console: bool,
    trust: bool,
) -> int:
    """Make the run and go on with it; the exit code of that. Raises LamdatuiError, before anything is written where that can be known."""
    source = rundir.find_run(run, runs_dir)
    found = cut(source, at)
    target = _target(source, at, name)
    path = rundir.profile_of(source)
    then = found.then
    # As they were then: a person may have changed them since.
    as_then = [f"seed={then.seed}", f"policy.name={then.policy}", f"mode={then.mode}", f"budget.trials={then.max_trials}"]
    # Runs of older versions have none of them.
    as_then += [f"budget.{name}=0" for name in ("baselines", "replicates", "promotion") if name not in then.profile["budget"]]
    profile = load_profile(path, [*as_then, *overrides])
    _check_kept(load_profile(path), profile, at)
    if then.counted >= profile.budget.trials:
        what = f"nothing is left to do: {then.counted} trials are kept, and the run ends after {profile.budget.trials}"
        raise LamdatuiError(what, where=str(source), fix=f"--trials {then.counted + 10}")
    known_policy(profile.policy.name)
    check_start(mode, headless=headless, console=console)
    ask(profile, str(path), trust=trust, can_ask=not headless)
    check_promises(open_workspace(profile, complain, promised=promised(then)), then)
    planner_settings(profile, 1)
    _make(source, target, found, profile)
    complain(f"{target.name} goes on from trial {at} of {source.name}")
    return go_on(target, headless=headless, as_json=as_json, console=console)


def _target(source: Path, at: int, name: str) -> Path:
    """Where the run will be, beside the one that it comes from: they share their store. Raises LamdatuiError."""
    if name:
        rundir.check_name(name)
        if os.path.lexists(source.parent / name):
            raise _taken(source.parent / name)
        return source.parent / name
    number, first = 1, f"{source.name[:50]}-at-{at}"
    while os.path.lexists(target := source.parent / (first if number == 1 else f"{first}-{number}")):
        number += 1
    return target


def _taken(target: Path) -> LamdatuiError:
    return LamdatuiError(f"there is a {target.name!r} already", where=str(target), fix="choose another --name")


def _check_kept(was: Profile, now: Profile, at: int) -> None:
    """Raises LamdatuiError where an override changes what the trials that are kept stand on."""
    changed = [name for name in KEPT if getattr(was, name) != getattr(now, name)]
    for section in ADDED:
        changed += [
            f"{section}.{name}" for name, spec in getattr(was, section).items() if getattr(now, section).get(name) != spec
        ]
    if changed:
        raise LamdatuiError(
            f"{changed[0]} can't be changed: the bases and trials up to {at} were scored with it",
            where="--set",
            fix="start another run with `lamdatui run`: what is the same comes from the store",
        )


def _facts(source: Path, name: str, found: Cut, profile: Profile) -> list[Fact]:
    """What the run has to say of itself, after the record that it takes over."""
    then, now = found.then, found.now
    # A model of a later trial is called as one of this run's may be.
    looks = [model if model in then.pool.items or "/" in model else label(source.name, model) for model in now.sealed_looks]
    budget = profile.budget
    forked = {
        "name": name,
        "profile": profile.model_dump(mode="json"),
        "profile_digest": profile.search_digest(),
        "seed": profile.seed,
        "mode": profile.mode,
        "policy": profile.policy.name,
        "max_trials": budget.trials,
        "wall_seconds": budget.wall_minutes * 60 if budget.wall_minutes else None,
        "forked_from": {"run": source.name, "at": found.at},
        "looks": looks,
    }
    facts: list[Fact] = [("run.forked", forked)]
    # What the store has is as of now.
    dropped = {model: size for model, size in now.dropped.items() if model in then.pool.items}
    facts += [("object.dropped", {"id": model, "bytes": size}) for model, size in dropped.items() if model not in then.dropped]
    facts += [("object.restored", {"id": model}) for model in then.dropped if model not in dropped]
    return facts


def _make(source: Path, target: Path, found: Cut, profile: Profile) -> None:
    """The run's directory, whole or not at all. Raises LamdatuiError."""
    try:
        # Below a folder of its own nobody takes it for a run before it is one.
        with private(), tempfile.TemporaryDirectory(dir=target.parent, prefix=".fork-") as folder:
            made = Path(folder) / target.name
            made.mkdir()
            write_atomic(made / "profile.yaml", dump_profile(profile))
            copy_events(source / "run.db", made / "run.db", found.upto)
            journal = Journal(made / "run.db")
            try:
                journal.append(*_facts(source, target.name, found, profile))
            finally:
                journal.close()
            (made / "steps").mkdir()
            for key in found.then.steps:
                _copy(attempt_directory(source, key), attempt_directory(made, key))
            os.rename(made, target)
        fsync_dir(target.parent)
    except OSError as error:
        if os.path.lexists(target):
            raise _taken(target) from error
        raise LamdatuiError(f"can't write the run directory: {error.strerror}", where=str(target)) from error


def _copy(attempt: Path, to: Path) -> None:
    """The files of an attempt: its request, log, metrics and outcome. Weights and rows are in the store."""
    if not attempt.is_dir():
        return
    to.mkdir(parents=True)
    for file in attempt.iterdir():
        if file.is_file() and not file.is_symlink() and file.name not in (BUSY, ROOM):
            shutil.copyfile(file, to / file.name)
