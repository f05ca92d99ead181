"""The dataset that an action makes: its rows and where they come from. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.base.jsonio import write_json
from lamdatui.base.surrogates import escaped
from lamdatui.inputs.datafiles import dataset_format, normalise, read_task_rows, row_chars
from lamdatui.inputs.overlap import shared_rows
from lamdatui.step.errors import StepError
from lamdatui.step.files import DATA, PROVENANCE
from lamdatui.step.plain import to_plain

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext


def write_dataset(
    step: StepContext, rows: Sequence[dict[str, Any]], form: str, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Write normalised rows to `step.staged`; what the manifest says of them. Raises StepError(data) when there are none or one is malformed."""
    if not rows:
        raise StepError("data", f"no row is left: {json.dumps(to_plain(provenance))[:400]}")
    try:
        clean = [normalise(row) for row in rows]
    except ValueError as error:
        raise StepError("data", f"a row that was made is malformed: {error}") from error
    if {dataset_format(row) for row in clean} != {form}:
        raise StepError("bug", f"the rows are not of format {form}")
    with (step.staged / DATA).open("w", encoding="utf-8") as handle:
        for row in clean:
            handle.write(escaped(json.dumps(row, ensure_ascii=False)) + "\n")
    about = {
        **to_plain(provenance),
        "in tasks": _shared_with_tasks(step, clean),
        "seed": step.seed,
        "action": step.request["action"],
    }
    write_json(step.staged / PROVENANCE, about)
    lengths = list(map(row_chars, clean))
    told = {"rows": len(clean), "chars": sum(lengths) // len(clean), "longest": max(lengths)}
    step.say(f"{len(clean)} rows; {escaped(json.dumps(to_plain(provenance), ensure_ascii=False))[:500]}")
    return {"kind": "dataset", "format": form, **told}


def _shared_with_tasks(step: StepContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows of a new dataset ask what a task's row asks, and how many others share a run of words with one; said in the log."""
    held = [row for task in step.request["tasks"] for row in read_task_rows(Path(task["path"]), task["digest"])]
    found = shared_rows(rows, held)
    for count, words in found.values():
        step.say(f"{count:,} of {len(rows):,} rows {words.format('row of a task')}")
    return {what: count for what, (count, _) in found.items()}
