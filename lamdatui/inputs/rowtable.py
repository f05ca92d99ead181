"""Rows of a large dataset as a file that is mapped, not as objects: what was read once is found again by what it was read from.

The file is lamdatui's own and can be made again at any time. Its content is hashed when it is opened: a damaged one is made anew.
"""

from __future__ import annotations

import bisect
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import psutil

from lamdatui.base import paths
from lamdatui.base.fingerprint import hashes
from lamdatui.base.jsonio import Damaged, digest, read_record, write_record

if TYPE_CHECKING:
    import numpy

Row = dict[str, Any]
LARGE_BYTES = 16 * 2**20
"""From this size of its files on, rows are kept in a table."""
BATCH_ROWS = 4096
VERSION = 2
"""Of how rows are read and kept: tables of another one are not used."""
KEPT = 8
"""As many tables stay; the ones not used for longest go."""
ROWS, ABOUT = "rows.arrow", "about.json"


def row_of(kept: Row, place: int) -> Row:
    """A row of what was kept: `{"turns", …context}` with the answer at `place`, or, below 0, the row itself."""
    if place < 0:
        return kept
    turns = kept["turns"]
    context = {name: value for name, value in kept.items() if name != "turns"}
    return {"prompt": turns[:place], "completion": [turns[place]], **context}


class RowTable(Sequence[Row]):
    """The rows of a table, each made when it is asked for."""

    def __init__(self, file: Path) -> None:
        import numpy
        import pyarrow
        from pyarrow import ipc

        self.file = file
        reader = ipc.open_file(pyarrow.memory_map(str(file)))
        self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        counts = [numpy.diff(batch.column("places").offsets.to_numpy()) for batch in self._batches]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        none = numpy.zeros(0, numpy.int64)
        self._record: numpy.ndarray = (
            numpy.repeat(numpy.arange(self._starts[-1]), numpy.concatenate(counts)) if counts else none
        )
        self._place = (
            numpy.concatenate([batch.column("places").values.to_numpy() for batch in self._batches]) if counts else none
        )

    def __len__(self) -> int:
        return len(self._record)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return row_of(self._kept(int(self._record[index])), int(self._place[index]))

    def __iter__(self) -> Iterator[Row]:
        for batch in self._batches:
            for text, places in zip(batch.column("row"), batch.column("places"), strict=True):
                kept = json.loads(text.as_py())
                yield from (row_of(kept, place) for place in places.as_py())

    def _kept(self, record: int) -> Row:
        at = bisect.bisect_right(self._starts, record) - 1
        return json.loads(self._batches[at].column("row")[record - self._starts[at]].as_py())

    @property
    def numbers(self) -> Any:
        """Which record of its files (from 1) each row is of: (rows,)."""
        return self._record + 1


class Writer:
    """Writes a table: `add` what was read, record by record, then `finish`."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        import pyarrow
        from pyarrow import ipc

        self._place = _place(key)
        self._place.mkdir(parents=True, exist_ok=True)
        self._schema = pyarrow.schema([("row", pyarrow.large_string()), ("places", pyarrow.list_(pyarrow.int32()))])
        self._partial = self._place / f"{ROWS}.{os.getpid()}"
        self._file = ipc.new_file(str(self._partial), self._schema)
        self._texts: list[str] = []
        self._places: list[list[int]] = []

    def add(self, kept: Row, places: list[int]) -> None:
        """A record and the places of its rows (`row_of`)."""
        self._texts.append(json.dumps(kept, ensure_ascii=False))
        self._places.append(places)
        if len(self._texts) == BATCH_ROWS:
            self._write()

    def _write(self) -> None:
        import pyarrow

        if self._texts:
            batch = pyarrow.record_batch(
                [pyarrow.array(self._texts, pyarrow.large_string()), self._places], schema=self._schema
            )
            self._file.write_batch(batch)
            self._texts, self._places = [], []

    def finish(self, about: Mapping[str, Any]) -> RowTable:
        """The table, with what else is known of its rows."""
        self._write()
        self._file.close()
        file = self._partial.rename(self._place / ROWS)
        write_record(self._place / ABOUT, {**about, "rows_sha256": hashes([file], always=True)[file]})
        _forget(self._place)
        return RowTable(file)

    def drop(self) -> None:
        """Leave nothing behind: the rows could not be read."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def find(key: Mapping[str, Any]) -> tuple[RowTable, dict[str, Any]] | None:
    """The table with a key and what is known of its rows; None when there is none, or a damaged one."""
    place = _place(key)
    try:
        about = read_record(place / ABOUT)
        if hashes([place / ROWS])[place / ROWS] == about["rows_sha256"]:
            (place / ABOUT).touch()
            return RowTable(place / ROWS), about
    except (OSError, Damaged, KeyError, ValueError):
        pass
    return None


def _place(key: Mapping[str, Any]) -> Path:
    return paths.cache_dir() / "datasets" / digest({"version": VERSION, **key})[:40]


def _forget(place: Path) -> None:
    """Remove the tables that were not used for longest, and what readers left that were killed."""
    for partial in place.parent.glob(f"*/{ROWS}.*"):
        if not psutil.pid_exists(int(partial.suffix[1:])):
            partial.unlink(missing_ok=True)
    known = [folder for folder in place.parent.iterdir() if (folder / ABOUT).exists()]
    for folder in sorted(known, key=lambda folder: -(folder / ABOUT).stat().st_mtime)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
