"""Datasets and task files: read row by row (`rowfiles`, `rowshapes`), with the row's number in every complaint."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import canonical
from lamdatui.domain.objects import DatasetFormat
from lamdatui.inputs.rowfiles import read_rows
from lamdatui.inputs.rowshapes import COLUMNS, PARTS, Message, check_question, dataset_format, normalise, read_row, row_chars

__all__ = [
    "COLUMNS",
    "PARTS",
    "DatasetInfo",
    "Message",
    "dataset_format",
    "info_of",
    "inspect_dataset",
    "is_promised",
    "normalise",
    "read_dataset",
    "read_noted",
    "read_task",
    "read_task_rows",
    "row_chars",
]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a look at a dataset file tells."""

    format: DatasetFormat
    rows: int
    digest: str
    chars: int
    """Mean characters of a row, prompt and answers."""
    notes: tuple[str, ...] = ()
    """What of the rows is not used, a sentence each."""


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """The rows of a dataset, their digest, and what of them is not used."""

    rows: list[dict[str, Any]]
    digest: str
    notes: tuple[str, ...]


def read_dataset(path: Path, promised: str = "") -> list[dict[str, Any]]:
    """All rows of a dataset, normalised (`lamdatui.inputs.rowshapes.ReadRow.parts`); `promised` is its digest.

    Raises LamdatuiError that names the file and the row, Changed when these are not the rows that were promised.
    """
    return read_noted(path, promised).rows


def read_noted(path: Path, promised: str = "") -> DatasetRows:
    """The same with what is not used. The digest is of the file's bytes, and of how they are read where an older version read them otherwise."""
    rows: list[dict[str, Any]] = []
    unused: Counter[str] = Counter()
    earlier, second = 0, False
    found, sha256 = read_rows(path)
    _promised(path, sha256, promised)
    for number, value in found:
        try:
            row = read_row(value)
        except ValueError as error:
            raise LamdatuiError(str(error), where=f"{path}, row {number}", fix=f"columns: {COLUMNS}") from error
        if rows and row.parts.keys() != rows[0].keys():
            raise LamdatuiError(
                "this row has another shape than the first one", where=f"{path}, row {number}", fix="one shape per file"
            )
        unused.update(row.unused)
        earlier += row.earlier_answers
        second |= row.second_reading
        rows.append(row.parts)
    if not rows:
        raise LamdatuiError("the dataset is empty", where=str(path))
    digest = _second(sha256) if second else sha256
    if promised and digest != promised:
        raise Changed("its rows are read otherwise than by the version that the run began with", where=str(path))
    return DatasetRows(rows, digest, tuple(_notes(unused, earlier, len(rows))))


def _second(sha256: str) -> str:
    """The digest of rows that the first version of lamdatui read otherwise from the same bytes."""
    return hashlib.sha256(f"{sha256} second reading".encode()).hexdigest()


def is_promised(sha256: str, promised: str) -> bool:
    """Whether bytes with this sha256 may be the dataset with this digest: rows are not read for it."""
    return promised in (sha256, _second(sha256))


def _promised(path: Path, sha256: str, promised: str) -> None:
    if promised and not is_promised(sha256, promised):
        raise Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))


def _notes(unused: Counter[str], earlier: int, rows: int) -> list[str]:
    """What of a dataset's rows is not used."""
    found = []
    if unused:
        names = [
            f"{name}{'' if count == rows else f' (in {count:,} of {rows:,} rows)'}" for name, count in sorted(unused.items())
        ]
        found.append(f"not used: {', '.join(names[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}")
    if earlier:
        which = "all rows hold" if earlier == rows else f"{earlier:,} of {rows:,} rows hold"
        found.append(f"{which} more answers than the last one; only the last answer of a row is trained")
    return found


def inspect_dataset(path: Path) -> DatasetInfo:
    """Read a whole dataset once and tell its format, rows and digest. Raises LamdatuiError."""
    return info_of(read_noted(path))


def info_of(found: DatasetRows) -> DatasetInfo:
    """The same of rows that were read."""
    chars = sum(map(row_chars, found.rows)) // len(found.rows)
    return DatasetInfo(dataset_format(found.rows[0]), len(found.rows), found.digest, chars, found.notes)


def read_task_rows(path: Path, promised: str = "") -> list[dict[str, Any]]:
    """Rows of a task file: `id`, `split` (search | sealed), `messages`, `reference`; `promised` is the sha256 of the file's bytes.

    Raises LamdatuiError, Changed.
    """
    return read_task(path, promised)[0]


def read_task(path: Path, promised: str = "") -> tuple[list[dict[str, Any]], str]:
    """The same, with the sha256 of the bytes that they were read from."""
    rows = []
    seen: set[str | int] = set()
    kind: type | None = None
    found, digest = read_rows(path)
    if promised and digest != promised:
        raise Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))
    for number, value in found:
        where = f"{path}, row {number}"
        missing = {"id", "split", "messages", "reference"} - set(value if isinstance(value, dict) else ())
        if missing:
            raise LamdatuiError(f"a task row lacks {', '.join(sorted(missing))}", where=where)
        if value["split"] not in ("search", "sealed"):
            raise LamdatuiError(f"split is search or sealed, not {value['split']!r}", where=where)
        if type(value["id"]) not in (str, int) or type(value["id"]) is not (kind or type(value["id"])):
            raise LamdatuiError("ids are all text or all whole numbers", where=where)
        kind = type(value["id"])
        if value["id"] in seen:
            raise LamdatuiError(f"the id {value['id']!r} is there twice", where=where)
        try:
            check_question(value["messages"])
            canonical(value)  # no NaN: the rows have a digest
        except ValueError as error:
            raise LamdatuiError(str(error), where=where) from error
        seen.add(value["id"])
        rows.append(value)
    return rows, digest
