"""Datasets and task files: read row by row (`rowfiles`, `rowshapes`), with the row's number in every complaint."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import canonical
from lamdatui.domain.objects import DatasetFormat
from lamdatui.inputs.rowfiles import read_rows
from lamdatui.inputs.rowshapes import (
    COLUMNS,
    PARTS,
    UNTRAINED,
    Message,
    check_question,
    dataset_format,
    normalise,
    read_row,
    row_chars,
)

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


Answers = Literal["all", "last"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a look at a dataset file tells."""

    format: DatasetFormat
    rows: int
    digest: str
    chars: int
    """Mean characters of a row, prompt and answers."""
    read: int
    """Rows of the file: a conversation may give more than one."""
    notes: tuple[str, ...] = ()
    """What of the rows is not used, a sentence each."""


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """The rows of a dataset, their digest, and what of them is not used."""

    rows: list[dict[str, Any]]
    digest: str
    numbers: list[int]
    """Of each row, which one of the file it is of (from 1): a conversation may give more than one."""
    read: int
    """Rows of the file."""
    notes: tuple[str, ...]


def read_dataset(path: Path, promised: str = "", answers: Answers = "all") -> list[dict[str, Any]]:
    """All rows of a dataset, normalised (`lamdatui.inputs.rowshapes.ReadRow.parts`); the arguments are those of `read_noted`.

    Raises LamdatuiError that names the file and the row, Changed when these are not the rows that were promised.
    """
    return read_noted(path, promised, answers).rows


def read_noted(path: Path, promised: str = "", answers: Answers = "all") -> DatasetRows:
    """The same with what is not used.

    `answers`: whether each answer of a conversation is a row, with what comes before it as its prompt, or the last one alone.
    `promised` is the digest of rows that were read before: it tells how they were read.
    """
    found, sha256 = read_rows(path)
    if promised:
        how = _readings(sha256).get(promised)
        if how is None:
            raise Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))
        answers = how.answers
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    unused: Counter[str] = Counter()
    several, other, second = 0, False, False
    for number, value in found:
        where = f"{path}, row {number}"
        try:
            row = read_row(value)
            if row.untrained and answers == "last":
                raise ValueError(UNTRAINED)
        except ValueError as error:
            raise LamdatuiError(str(error), where=where, fix=f"columns: {COLUMNS}") from error
        if rows and row.parts.keys() != rows[0].keys():
            raise LamdatuiError("this row has another shape than the first one", where=where, fix="one shape per file")
        unused.update(row.unused)
        several += len(row.answers) > 1
        second |= row.second_reading
        taken = row.answers if answers == "all" else (row.parts,)
        other |= taken != (row.parts,)
        rows += taken
        numbers += [number] * len(taken)
    if not rows:
        raise LamdatuiError(
            "the dataset is empty" if not found else "no answer of the dataset is to be trained", where=str(path)
        )
    digest = _digest(sha256, Reading(second, "all" if other else "last"))
    if promised and digest != promised:
        raise Changed("its rows are read otherwise than by the version that the run began with", where=str(path))
    return DatasetRows(
        rows, digest, numbers, len(found), tuple(_notes(unused, several if answers == "last" else 0, len(found)))
    )


class Reading(NamedTuple):
    """How rows were made of a file, where that can differ: `second` when a shape was read otherwise than by the first version of
    lamdatui, `answers` when conversations gave more rows than one."""

    second: bool
    answers: Answers


def _digest(sha256: str, how: Reading) -> str:
    """The identity of rows: the file's, where the first version would have read the same."""
    told = ["second reading"] * how.second + ["every answer"] * (how.answers == "all")
    return hashlib.sha256(f"{sha256} {', '.join(told)}".encode()).hexdigest() if told else sha256


def _readings(sha256: str) -> dict[str, Reading]:
    """Digest → how rows of a file with that sha256 were read."""
    every = [Reading(second, answers) for second in (False, True) for answers in get_args(Answers)]
    return {_digest(sha256, how): how for how in every}


def is_promised(sha256: str, promised: str) -> bool:
    """Whether bytes with this sha256 may be the dataset with this digest: rows are not read for it."""
    return promised in _readings(sha256)


def _notes(unused: Counter[str], several: int, rows: int) -> list[str]:
    """What of a dataset's rows is not used."""
    found = []
    if unused:
        names = [
            f"{name}{'' if count == rows else f' (in {count:,} of {rows:,} rows)'}" for name, count in sorted(unused.items())
        ]
        found.append(f"not used: {', '.join(names[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}")
    if several:
        which = "all rows hold" if several == rows else f"{several:,} of {rows:,} rows hold"
        found.append(f"{which} more answers than the last one, which alone is trained (answers: last)")
    return found


def inspect_dataset(path: Path, promised: str = "", answers: Answers = "all") -> DatasetInfo:
    """Read a whole dataset once and tell its format, rows and digest; `promised` and `answers` as in `read_noted`.

    A file that is not the promised one is told as it is now. Raises LamdatuiError.
    """
    try:
        return info_of(read_noted(path, promised, answers))
    except Changed:
        return info_of(read_noted(path, "", answers))


def info_of(found: DatasetRows) -> DatasetInfo:
    """The same of rows that were read."""
    chars = sum(map(row_chars, found.rows)) // len(found.rows)
    return DatasetInfo(dataset_format(found.rows[0]), len(found.rows), found.digest, chars, found.read, found.notes)


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
