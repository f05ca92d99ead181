"""Files of rows: JSON lines, a JSON array, CSV and TSV, each also gzip or zstd; Parquet and Arrow. Told by what they hold, not by their names.

Every reader gives the rows with their numbers (from 1), and the sha256 of the very bytes that they were read from.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import parse_json, regular

ROW_BYTES = 4 * 1024 * 1024
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How a file begins → how it is compressed."""
_PARQUET, _ARROW, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_CELLS = ("messages", "conversations", "history", "prompt", "completion", "chosen", "rejected")
"""Columns of a table of text that may hold JSON: a list of messages."""
Numbered = Iterator[tuple[int, Any]]


class _Hashed(io.RawIOBase):
    """Hands on what is read, and digests it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        """The sha256 of the whole file."""
        while chunk := self._raw.read(1 << 20):
            self._digest.update(chunk)
        return self._digest.hexdigest()


def read_rows(path: Path) -> tuple[list[tuple[int, Any]], str]:
    """All rows of a file and the sha256 of its bytes. Raises LamdatuiError with the row, where one is wrong."""
    try:
        with regular(path).open("rb") as handle:
            start = handle.read(8)
            handle.seek(0)
            if start.startswith((_PARQUET, _ARROW, _ARROW_STREAM)):
                return _columns(handle, path, start)
            source = _Hashed(handle)
            found = list(_text(source, path, start))
            return found, source.finish()
    except OSError as error:
        raise LamdatuiError(f"can't read the file: {error.strerror or error}", where=str(path)) from error


def _text(source: _Hashed, path: Path, start: bytes) -> Numbered:
    name = path.name
    stream: io.BufferedReader
    packed = next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), "")
    if packed:
        import pyarrow

        name = name.removesuffix(path.suffix)
        stream = io.BufferedReader(pyarrow.input_stream(source, compression=packed))  # type: ignore[arg-type]
    else:
        stream = io.BufferedReader(source, 1 << 20)
    if name.lower().endswith((".csv", ".tsv")):
        yield from _table(stream, path, "\t" if name.lower().endswith(".tsv") else ",")
    elif stream.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" and _is_array(stream):
        yield from _array(stream, path)
    else:
        yield from _lines(stream, path)


def _is_array(stream: io.BufferedReader) -> bool:
    """Whether the text is one JSON array of rows: lines that are arrays themselves are no rows."""
    first = stream.peek(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    return first[1:].lstrip()[:1] in (b"{", b"]", b"")


def _lines(stream: io.BufferedReader, path: Path) -> Numbered:
    number = 0
    while line := stream.readline(ROW_BYTES + 1):
        number += 1
        if len(line) > ROW_BYTES:
            raise LamdatuiError(f"a row longer than {ROW_BYTES} bytes", where=f"{path}, row {number}")
        if line.strip():
            yield number, _parse(line, path, number)


def _parse(line: bytes, path: Path, number: int) -> Any:
    where = f"{path}, row {number}"
    try:
        return parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        fix = (
            "convert it to UTF-8"
            if line[:2] in (b"\xff\xfe", b"\xfe\xff")
            else "a dataset is JSONL, JSON, CSV, TSV, Parquet or Arrow"
        )
        raise LamdatuiError(f"not UTF-8 at byte {error.start} of the row", where=where, fix=fix) from error
    except ValueError as error:
        raise LamdatuiError(f"not JSON: {error}", where=where, fix="one JSON object a line") from error


def _array(stream: io.BufferedReader, path: Path) -> Numbered:
    try:
        found = parse_json(stream.read().decode("utf-8-sig"))
    except ValueError as error:
        raise LamdatuiError(
            f"not a JSON array: {error}", where=str(path), fix="a JSON array of objects, or one object a line"
        ) from error
    yield from enumerate(found, 1)


def _table(stream: io.BufferedReader, path: Path, delimiter: str) -> Numbered:
    csv.field_size_limit(ROW_BYTES)
    number = 0
    try:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        for number, row in enumerate(csv.DictReader(text, delimiter=delimiter), 1):
            if None in row:
                raise LamdatuiError("the row has more cells than the header", where=f"{path}, row {number}")
            yield number, {name: _cell(name, value) for name, value in row.items()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise LamdatuiError(f"not a table of text: {error}", where=f"{path}, row {number + 1}") from error


def _cell(name: str, value: str | None) -> Any:
    """A cell's text, or the messages that it holds as JSON; an empty one is none."""
    if name in _CELLS and value and value.lstrip()[:1] == "[":
        with contextlib.suppress(ValueError):
            found = parse_json(value)
            if found and all(isinstance(item, dict | list) for item in found):
                return found
    return value or None


def _columns(handle: BinaryIO, path: Path, start: bytes) -> tuple[list[tuple[int, Any]], str]:
    """A columnar file, which is read at many places: it must not have changed since it was digested."""
    import pyarrow
    from pyarrow import ipc, parquet

    before, digest = os.fstat(handle.fileno()), hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    handle.seek(0)
    found: list[Any] = []
    try:
        if start.startswith(_PARQUET):
            for batch in parquet.ParquetFile(handle).iter_batches():
                found += batch.to_pylist()
        else:
            reader = ipc.open_file(handle) if start.startswith(_ARROW) else ipc.open_stream(handle)
            found = reader.read_all().to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise LamdatuiError(
            f"can't be read as {'Parquet' if start.startswith(_PARQUET) else 'Arrow'}: {error}", where=str(path)
        ) from error
    after = os.fstat(handle.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Changed("the file changes while it is read", where=str(path), fix="wait until it is written, then try again")
    return list(enumerate(found, 1)), digest
