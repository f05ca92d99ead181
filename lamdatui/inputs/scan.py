"""One pass over a dataset's rows for all that is looked for in them: tasks' rows that stand in them, and what each chat template makes of them.

Of a large dataset the pass is shared among the cores, and what it found is kept: the same rows are not looked at twice.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from lamdatui.base import paths
from lamdatui.base.fingerprint import Say
from lamdatui.base.jsonio import Damaged, digest, read_record, write_record
from lamdatui.inputs.datafiles import DatasetRows
from lamdatui.inputs.overlap import Overlap, Shared
from lamdatui.inputs.rowtable import RowTable
from lamdatui.inputs.templatechecks import Look, Note
from lamdatui.inputs.templates import ChatTemplate

SHARED_ROWS = 100_000
"""From so many rows on the pass is shared among the cores, and kept."""
VERSION = 1
"""Of what is looked for: results of another one are not used."""
KINDS = ("exact", "near", "ngram")


@dataclass(frozen=True, slots=True)
class Scanned:
    """Task → split → rows that the split holds too; model → what is to know of the rows with its template."""

    exact: dict[str, dict[str, Shared]] = field(default_factory=dict)
    near: dict[str, dict[str, Shared]] = field(default_factory=dict)
    ngram: dict[str, dict[str, Shared]] = field(default_factory=dict)
    notes: dict[str, list[Note]] = field(default_factory=dict)


def scan(
    data: DatasetRows, tasks: Mapping[str, Mapping[str, Any]], templates: Mapping[str, ChatTemplate], say: Say | None = None
) -> Scanned:
    """Look at every row; `tasks` are the splits of each task, `say` hears of what takes long."""
    if not isinstance(data.rows, RowTable) or len(data.rows) < SHARED_ROWS:
        return _found(data, *_part(data.rows, 0, len(data.rows), tasks, templates))
    base = {"version": VERSION, "data": data.info.digest}
    splits = {task: {split: digest(list(rows)) for split, rows in held.items()} for task, held in tasks.items()}
    of_tasks = _place({**base, "tasks": splits})
    of_models = {name: _place({**base, "template": each.identity()}) for name, each in templates.items()}
    # What a run's start wants of the tasks, `check` has looked for, and a base that comes later is looked at alone.
    shared, notes = _kept(of_tasks), {name: _kept(place) for name, place in of_models.items()}
    wanted = {name: templates[name] for name, found in notes.items() if found is None}
    if wanted or (tasks and shared is None):
        if say is not None:
            say(f"looking at {len(data.rows):,} rows with {len(wanted)} chat templates: once, until they change")
        found = _found(data, *_together(data.rows, tasks if shared is None else {}, wanted))
        told = asdict(found)
        if shared is None:
            shared = {kind: told[kind] for kind in KINDS}
            _keep(of_tasks, shared)
        for name in wanted:
            notes[name] = {"notes": found.notes[name]}
            _keep(of_models[name], {"notes": found.notes[name]})
    exact, near, ngram = (
        {task: {split: Shared(**seen) for split, seen in each.items()} for task, each in (shared or {}).get(kind, {}).items()}
        for kind in KINDS
    )
    return Scanned(
        exact, near, ngram, {name: [Note(*note) for note in (found or {})["notes"]] for name, found in notes.items()}
    )


def _place(key: Mapping[str, Any]) -> Path:
    return paths.cache_dir() / "scans" / f"{digest(dict(key))[:40]}.json"


def _kept(place: Path) -> dict[str, Any] | None:
    """What an earlier pass found; None where there was none, or its record is damaged."""
    try:
        return read_record(place)
    except (OSError, Damaged):
        return None


def _keep(place: Path, found: Mapping[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_record(place, found)


def _together(
    rows: RowTable, tasks: Mapping[str, Any], templates: Mapping[str, ChatTemplate]
) -> tuple[dict[str, Overlap], dict[str, Look]]:
    workers = min(8, len(os.sched_getaffinity(0)))
    bounds = [len(rows) * at // workers for at in range(workers + 1)]
    # Not forked: Arrow has threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(_of_table, rows.file, start, stop, tasks, templates) for start, stop in pairwise(bounds)]
        (overlaps, looks), *others = (part.result() for part in parts)
    for more_overlaps, more_looks in others:
        for name, overlap in more_overlaps.items():
            overlaps[name].merge(overlap)
        for name, look in more_looks.items():
            looks[name].merge(look)
    return overlaps, looks


def _of_table(file: Any, start: int, stop: int, tasks: Any, templates: Any) -> tuple[dict[str, Overlap], dict[str, Look]]:
    return _part(RowTable(file), start, stop, tasks, templates)


def _part(
    rows: Any, start: int, stop: int, tasks: Mapping[str, Any], templates: Mapping[str, ChatTemplate]
) -> tuple[dict[str, Overlap], dict[str, Look]]:
    overlaps = {task: Overlap(splits, rows=start) for task, splits in tasks.items()}
    looks = {model: Look(template, rows=start) for model, template in templates.items()}
    each = (*overlaps.values(), *looks.values())
    for at in range(start, stop):
        row = rows[at]
        for one in each:
            one.add(row)
    return overlaps, looks


def _found(data: DatasetRows, overlaps: Mapping[str, Overlap], looks: Mapping[str, Look]) -> Scanned:
    return Scanned(
        {task: overlap.exact for task, overlap in overlaps.items()},
        {task: overlap.near for task, overlap in overlaps.items()},
        {task: overlap.ngram for task, overlap in overlaps.items()},
        {model: look.notes(data.numbers) for model, look in looks.items()},
    )
