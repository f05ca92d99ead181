"""Datasets and task files: read row by row (`rowfiles`, `rowshapes`), with the row's place in every complaint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed, Say
from lamdatui.base.jsonio import canonical, digest
from lamdatui.domain.objects import DatasetFormat
from lamdatui.inputs import rowtable
from lamdatui.inputs.asking import read_asking
from lamdatui.inputs.messages import Message, read_arguments, read_tools, said
from lamdatui.inputs.rowfiles import RowSource, source_bytes, source_digest
from lamdatui.inputs.rowshapes import (
    COLUMNS,
    CONTEXT,
    PARTS,
    UNTRAINED,
    ReadRow,
    dataset_format,
    normalise,
    question_parts,
    read_question,
    read_row,
    row_chars,
)

__all__ = [
    "COLUMNS",
    "CONTEXT",
    "PARTS",
    "DatasetInfo",
    "Message",
    "dataset_format",
    "inspect_dataset",
    "is_promised",
    "normalise",
    "question_parts",
    "read_dataset",
    "read_noted",
    "read_task",
    "read_task_rows",
    "row_chars",
    "said",
]

Answers = Literal["all", "last"]
Columns = Mapping[str, str]


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
    longest: int = 0
    """Characters of the longest row."""


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """The rows of a dataset (`lamdatui.inputs.rowshapes.ReadRow.parts`), and what is known of them together."""

    rows: Sequence[dict[str, Any]]
    numbers: Sequence[int]
    """Of each row, which one of the file it is of (from 1): a conversation may give more than one."""
    info: DatasetInfo


@dataclass(slots=True)
class _Pass:
    """What is known after each row of a dataset; `answers` as in `read_noted`."""

    answers: Answers
    keys: frozenset[str] = frozenset()
    form: DatasetFormat = "sft"
    read: int = 0
    rows: int = 0
    chars: int = 0
    longest: int = 0
    several: int = 0
    """Conversations with more answers than one."""
    other: bool = False
    """Whether a record gave other rows than its last answer."""
    second: bool = False
    unused: Counter[str] = field(default_factory=Counter)

    def take(self, row: ReadRow) -> tuple[dict[str, Any], list[int]]:
        """The record as a table keeps it, and the places of its rows (`rowtable.row_of`). Raises ValueError."""
        if row.untrained and self.answers == "last":
            raise ValueError(UNTRAINED)
        keys = frozenset(row.parts.keys() - set(CONTEXT))
        if self.read and keys != self.keys:
            raise ValueError("this row has another shape than the first one; one shape a dataset")
        self.keys, self.form = keys, dataset_format(row.parts)
        self.read += 1
        self.unused.update(row.unused)
        self.several += len(row.answers) > 1
        self.second |= row.second_reading
        taken = row.answers if self.answers == "all" else (row.parts,)
        self.other |= taken != (row.parts,)
        self.rows += len(taken)
        lengths = list(map(row_chars, taken))
        self.chars += sum(lengths)
        self.longest = max(self.longest, *lengths, 0)
        if taken == (row.parts,) or not taken:
            return row.parts, [-1] * len(taken)
        last = taken[-1]
        context = {name: last[name] for name in CONTEXT if name in last}
        return {"turns": [*last["prompt"], *last["completion"]], **context}, [len(each["prompt"]) for each in taken]

    def info(self, sha256: str, columns: Columns) -> DatasetInfo:
        """What the whole is, once all rows were taken. Raises ValueError when nothing is left."""
        if not self.rows:
            raise ValueError("no answer of the dataset is to be trained" if self.read else "the dataset is empty")
        found = _digest(sha256, Reading(self.second, "all" if self.other else "last"), columns)
        notes = _notes(self.unused, self.several if self.answers == "last" else 0, self.read)
        return DatasetInfo(self.form, self.rows, found, self.chars // self.rows, self.read, tuple(notes), self.longest)


def read_dataset(path: Path, promised: str = "", answers: Answers = "all") -> list[dict[str, Any]]:
    """All rows of a dataset, normalised (`lamdatui.inputs.rowshapes.ReadRow.parts`); the arguments are those of `read_noted`.

    Raises LamdatuiError that names the file and the row, Changed when these are not the rows that were promised.
    """
    return list(read_noted(path, promised, answers).rows)


def read_noted(
    path: Path, promised: str = "", answers: Answers = "all", columns: Columns | None = None, say: Say | None = None
) -> DatasetRows:
    """The same with what is known of them. Of large files the rows are in a table on disk (`rowtable`), and read but once.

    `answers`: whether each answer of a conversation is a row, with what comes before it as its prompt, or the last one alone.
    `promised` is the digest of rows that were read before: it tells how they were read. `columns`: names that are known here → the file's.
    `say` hears of what takes long.
    """
    columns = dict(columns or {})
    is_large = _size(path) >= rowtable.LARGE_BYTES
    sha256 = _source_digest(path) if promised or is_large else ""
    if promised:
        how = _readings(sha256, columns).get(promised)
        if how is None:
            raise Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))
        answers = how.answers
    key = {"sha256": sha256, "answers": answers, "columns": columns}
    if is_large and (kept := rowtable.find(key)):
        table, about = kept
        info = DatasetInfo(
            **{name: about[name] for name in DatasetInfo.__dataclass_fields__ if name != "notes"}, notes=tuple(about["notes"])
        )
        found = DatasetRows(table, table.numbers, info)
    else:
        if is_large and say is not None:
            say(f"reading the rows of {path.name} ({_size(path) / 2**20:,.0f} MiB): once, until it changes")
        found = _read(path, answers, columns, sha256, rowtable.Writer(key) if is_large else None)
    if promised and found.info.digest != promised:
        raise Changed("its rows are read otherwise than by the version that the run began with", where=str(path))
    return found


def _size(path: Path) -> int:
    with _readable(path):
        return source_bytes(path)


def _source_digest(path: Path) -> str:
    with _readable(path):
        return source_digest(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises LamdatuiError for an OSError."""
    try:
        yield
    except OSError as error:
        raise LamdatuiError(f"can't read the file: {error.strerror or error}", where=str(error.filename or path)) from error


def _read(path: Path, answers: Answers, columns: Columns, sha256: str, writer: rowtable.Writer | None) -> DatasetRows:
    """Read every row; into a table, where there is a writer. `sha256`: of the source, where it was looked at before. Raises LamdatuiError."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []

    def keep(kept: dict[str, Any], places: list[int], number: int) -> None:
        rows.extend(rowtable.row_of(kept, place) for place in places)
        numbers.extend([number] * len(places))

    if writer is None:
        return DatasetRows(rows, numbers, _pass(path, answers, columns, sha256, keep))
    try:
        info = _pass(path, answers, columns, sha256, lambda kept, places, _: writer.add(kept, places))
        table = writer.finish(asdict(info))
    except BaseException:
        writer.drop()
        raise
    return DatasetRows(table, table.numbers, info)


def _pass(
    path: Path, answers: Answers, columns: Columns, sha256: str, keep: Callable[[dict[str, Any], list[int], int], None]
) -> DatasetInfo:
    """Read every row; `keep` gets each record, the places of its rows, and its number (from 1). Raises LamdatuiError."""
    source, seen, where = RowSource(path), _Pass(answers), str(path)
    try:
        for place, value in source:
            where = place
            kept, places = seen.take(read_row(value, columns))
            keep(kept, places, seen.read)
        if sha256 and source.sha256 != sha256:
            raise Changed("the file changes while it is read", where=str(path), fix="wait until it is written, then try again")
        where = where if seen.rows else str(path)
        return seen.info(source.sha256, columns)
    except ValueError as error:
        raise LamdatuiError(str(error), where=where, fix=f"columns: {COLUMNS}") from error


class Reading(NamedTuple):
    """How rows were made of a file, where that can differ: `second` when a shape was read otherwise than by the first version of
    lamdatui, `answers` when conversations gave more rows than one."""

    second: bool
    answers: Answers


def _digest(sha256: str, how: Reading, columns: Columns) -> str:
    """The identity of rows: the file's, where the first version would have read the same."""
    told = ["second reading"] * how.second + ["every answer"] * (how.answers == "all")
    told += [f"columns {digest(dict(columns))}"] * bool(columns)
    return hashlib.sha256(f"{sha256} {', '.join(told)}".encode()).hexdigest() if told else sha256


def _readings(sha256: str, columns: Columns) -> dict[str, Reading]:
    """Digest → how rows of a file with that sha256 were read."""
    every = [Reading(second, answers) for second in (False, True) for answers in get_args(Answers)]
    return {_digest(sha256, how, columns): how for how in every}


def is_promised(sha256: str, promised: str, columns: Columns | None = None) -> bool:
    """Whether bytes with this sha256 may be the dataset with this digest: rows are not read for it."""
    return promised in _readings(sha256, columns or {})


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


def read_known(
    path: Path, promised: str = "", answers: Answers = "all", columns: Columns | None = None, say: Say | None = None
) -> DatasetRows:
    """`read_noted`, but what is not the promised file is read as it is now. Raises LamdatuiError."""
    try:
        return read_noted(path, promised, answers, columns, say)
    except Changed:
        return read_noted(path, "", answers, columns, say)


def inspect_dataset(
    path: Path, promised: str = "", answers: Answers = "all", columns: Columns | None = None, say: Say | None = None
) -> DatasetInfo:
    """Read a whole dataset once and tell its format, rows and digest: `read_known` without the rows."""
    return read_known(path, promised, answers, columns, say).info


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
    changed = Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))
    if promised and _source_digest(path) != promised:
        raise changed
    source = RowSource(path)
    for where, value in source:
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
            asked(value)
            canonical(value)  # no NaN: the rows have a digest
        except ValueError as error:
            raise LamdatuiError(str(error), where=where) from error
        seen.add(value["id"])
        rows.append(value)
    if promised and source.sha256 != promised:
        raise changed
    return rows, source.sha256


def asked(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a task's row asks: `prompt`, and what it has of `CONTEXT` and of `lamdatui.inputs.asking`. Raises ValueError when that can't be asked."""
    found: dict[str, Any] = {"prompt": read_question(row["messages"]), **read_asking(row)}
    if row.get("tools"):
        found["tools"] = read_tools(row["tools"], "tools")
    if row.get("chat_template_kwargs"):
        found["chat_template_kwargs"] = read_arguments(row["chat_template_kwargs"], "chat_template_kwargs")
    return found
