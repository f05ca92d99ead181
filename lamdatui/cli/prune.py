"""`lamdatui prune`: what the store of a runs directory holds that no run needs, and its removal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.output import complain, say, say_json
from lamdatui.domain.objects import ModelObject, object_from_json
from lamdatui.domain.state import RunState
from lamdatui.store.artifacts import REFERENCE, Store
from lamdatui.store.journal import newer_run, read_state
from lamdatui.wire import rundir


@dataclass(frozen=True, slots=True)
class Spare:
    """A folder that no run needs."""

    path: Path
    what: str
    bytes: int


def spare(runs_dir: Path) -> list[Spare]:
    """What can go, the largest first. Raises LamdatuiError when a run can't be read: what it needs is not known then."""
    if not (runs_dir / "store").is_dir():
        return []
    store = Store(runs_dir / "store")
    for folder in runs_dir.iterdir():
        if (folder / "steps").is_dir() and not (folder / "run.db").is_file():
            raise LamdatuiError(
                "a run without its run.db: nobody can tell what it needs",
                where=str(folder),
                fix="restore the file, or remove the folder",
            )
    needed, open_works = set[str](), set[str]()
    for run_dir in rundir.list_runs(runs_dir):
        if rundir.is_alive(run_dir):
            raise LamdatuiError(
                "an engine is at work on this run", where=str(run_dir), fix="wait for its end, or lamdatui stop"
            )
        state = read_state(run_dir / "run.db")
        if state.newer:
            # What it needs is not known.
            raise newer_run(run_dir, state.newer)
        needed |= set(_needed(state))
        if not state.has_ended:
            open_works |= {action["digest"] for plan in state.planned.values() for action in plan["actions"]}
        open_works |= {t.action["digest"] for t in state.trials.values() if t.action and t.status not in ("done", "failed")}
    found = [_spare(path, "no run names it") for path in _folders(store.root / "objects") if path.name not in needed]
    for path in _folders(store.root / "checkpoints"):
        # A trial that was stopped goes on from its own; one that failed is not done again.
        if store.find(path.name) is not None or path.name not in open_works:
            found.append(_spare(path, "checkpoints of work that is over"))
    found += [_spare(path, "damaged, and put aside") for path in _folders(store.root / "damaged")]
    return sorted(found, key=lambda item: -item.bytes)


def prune_store(runs_dir: Path, *, yes: bool, as_json: bool) -> None:
    """The command: print what can go, and remove it where that is wanted. Raises LamdatuiError as `spare` and `prune` do."""
    found = spare(runs_dir)
    if as_json:
        say_json([{"path": str(item.path), "what": item.what, "bytes": item.bytes} for item in found])
    else:
        say("\n".join(lines(found)))
    if yes:
        complain(f"{prune(found) / 2**20:,.1f} MiB freed")
    elif found:
        complain("nothing was removed; lamdatui prune --yes removes it")


def prune(found: list[Spare]) -> int:
    """Remove it; bytes that are free now. Raises LamdatuiError for what can't be removed."""
    freed = 0
    for item in found:
        try:
            shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
        except OSError as error:
            raise LamdatuiError(f"can't remove it: {error.strerror}", where=str(item.path)) from error
        freed += item.bytes
    return freed


def lines(found: list[Spare]) -> list[str]:
    """A line each, and the sum."""
    told = [f"{item.bytes / 2**20:10,.1f} MiB  {item.path.parent.name}/{item.path.name[:16]}  {item.what}" for item in found]
    return [*told, f"{sum(item.bytes for item in found) / 2**20:10,.1f} MiB in all"]


def _needed(state: RunState) -> Iterator[str]:
    """Digests of the store's objects that a run has made, or makes now."""
    for trial in state.trials.values():
        if trial.action:
            yield trial.action["digest"]
    made = [object_from_json(one["object"]) for one in state.baselines.values() if "object" in one]
    for item in [*state.pool.items.values(), *made]:
        names = (item.weights, *item.adapters) if isinstance(item, ModelObject) else (item.path,)
        # Profiles may name a folder of the store by its path.
        for name in names:
            yield from Path(name.removeprefix(REFERENCE)).parts


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _spare(path: Path, what: str) -> Spare:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return Spare(path, what, sum(file.stat().st_size for file in files))
