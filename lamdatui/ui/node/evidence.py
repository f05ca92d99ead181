"""What a trial left on disk: the action that ran, losses, the end of its log, its files. Slow disks are for a thread. No textual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import read_json, regular, unsealed
from lamdatui.base.text import clean_json
from lamdatui.domain.state import RunState
from lamdatui.ui.view.loglines import log_line
from lamdatui.ui.view.stepfiles import read_metrics, step_folder
from lamdatui.ui.view.subject import Subject

Json = dict[str, Any]
LOG_LINES, LOG_BYTES = 40, 64 * 1024
FILES = 60


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it; empty where there is nothing. `log_path` is the newest attempt's log."""

    ran: Json | None = None
    losses: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    log_path: Path | None = None
    files: list[tuple[Path, int | None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look, taken from the state so that a thread needs only this."""

    steps: tuple[Path, ...] = ()
    objects: tuple[Path, ...] = ()


def places(state: RunState, item: Subject, run_dir: Path) -> Places:
    """Folders of a trial's attempts, the newest last, and of what it put into the store."""
    number = item.trial.number if item.trial else None
    keys = [step.key for step in state.steps.values() if number is not None and step.trial == number]
    folders = tuple(folder for key in keys if (folder := step_folder(run_dir, key)))
    made = state.pool.items.get(item.model or (item.trial.dataset if item.trial else None) or "")
    if made is None:
        return Places(folders)
    own = made.path if made.kind == "dataset" else (made.adapters or (made.weights,))[-1]
    store = run_dir.parent / "store" / "objects"
    name = own.removeprefix("store:")
    if own.startswith("store:") and not {"/", "\\", ".."} & {name, *name}:
        return Places(folders, (store / name,))
    return Places(folders, () if own.startswith("store:") else (Path(own),))


def gather(found: Places) -> Evidence:
    """Read it. What is not there, or not readable, is left out."""
    files = [pair for folder in (*found.steps, *found.objects) for pair in _files(folder)]
    if not found.steps:
        return Evidence(files=files)
    newest = found.steps[-1]
    values = [metric.get("loss") for metric in read_metrics(newest / "metrics.jsonl")]
    losses = [float(value) for value in values if isinstance(value, int | float) and abs(value) < float("inf")]
    return Evidence(_ran(newest), losses, _log(newest / "log.txt"), newest / "log.txt", files)


def losses_of(found: Places) -> list[float]:
    """Only the losses of the newest attempt."""
    return gather(Places(found.steps[-1:])).losses


def _log(path: Path) -> list[str]:
    try:
        with regular(path).open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - LOG_BYTES))
            data = handle.read(LOG_BYTES)
    except OSError:
        return []
    return [log_line(line) for line in data.rstrip(b"\n").split(b"\n")[-LOG_LINES:]] if data else []


def _ran(folder: Path) -> Json | None:
    try:
        request = read_json(folder / "action.json")
        request = unsealed(request, frozenset(request))
    except (OSError, ValueError, TypeError):
        return None
    action = request.get("action") if isinstance(request, dict) else None
    return clean_json(action) if isinstance(action, dict) else None


def _files(folder: Path) -> Sequence[tuple[Path, int | None]]:
    """The folder's files, or the folder's own size where it holds more than a screen of them."""
    try:
        found = [(path, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    except OSError:
        return []
    if len(found) > FILES:
        return [(folder, sum(count for _, count in found))]
    return [(Path(clean_json(str(path))), count) for path, count in found]
