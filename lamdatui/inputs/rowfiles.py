"""Files of rows: JSON lines, a JSON array, CSV and TSV, each also gzip or zstd; Parquet and Arrow. Told by what they hold, not by their names.

A source is one such file, a folder of them (`save_to_disk` of datasets, shards) or a pattern. Every reader gives the rows one after the other,
each with its place, and at the end the sha256 of the very bytes that they were read from.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed, hashes
from lamdatui.base.jsonio import parse_json, read_json, regular

ROW_BYTES = 2**30
"""A longer line is no row: a file without line ends would fill the memory."""
BATCH_ROWS = 4096
"""Rows of a columnar file that are turned into objects at a time."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How a file begins → how it is compressed."""
_PARQUET, _ARROW, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_CELLS = ("messages", "conversations", "history", "prompt", "completion", "chosen", "rejected")
"""Columns of a table of text that may hold JSON: a list of messages."""
_DATA = re.compile(r"^[^.].*\.(jsonl|ndjson|json|csv|tsv|parquet|arrow)(\.(gz|zst))?$", re.IGNORECASE)
_OPEN = frozenset(("tools", "functions", "chat_template_kwargs"))
_CALLING = frozenset(("tool_calls", "function_call"))
"""Columns, and keys of messages, whose objects have keys of their own in each row."""
_BESIDE = ("dataset_info.json", "dataset_infos.json", "state.json", "config.json")
"""Files beside rows that hold none."""
_SPLIT = re.compile(r"(?:^|[-_.])(train|test|valid(?:ation)?|dev|eval)(?![a-z])", re.IGNORECASE)
Numbered = Iterable[tuple[int, Any]]


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


class RowSource:
    """The rows of a file, a folder or a pattern: iterate over `(place, value)`, then ask for `sha256`. Raises LamdatuiError with the place."""

    def __init__(self, path: Path) -> None:
        self.files = source_files(path)
        self._found: list[tuple[Path, str]] = []

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._found.clear()
        for file in self.files:
            for number, value in self._rows(file):
                yield f"{file}, row {number}", value

    @property
    def sha256(self) -> str:
        """Of the bytes that were read: known once all rows were."""
        return _together(self._found)

    def _rows(self, path: Path) -> Numbered:
        try:
            with regular(path).open("rb") as handle:
                start = handle.read(8)
                handle.seek(0)
                if start.startswith((_PARQUET, _ARROW, _ARROW_STREAM)):
                    self._found.append((path, hashlib.file_digest(handle, "sha256").hexdigest()))  # type: ignore[arg-type]
                    yield from _columns(handle, path, start)
                else:
                    source = _Hashed(handle)
                    yield from _text(source, path, start)
                    self._found.append((path, source.finish()))
        except OSError as error:
            raise LamdatuiError(f"can't read the file: {error.strerror or error}", where=str(path)) from error


def source_digest(path: Path, *, always: bool = False) -> str:
    """`RowSource.sha256` without reading the rows; `always` as in `fingerprint.hashes`. Raises OSError, LamdatuiError."""
    return _together(list(hashes(source_files(path), always=always).items()))


def source_bytes(path: Path) -> int:
    """The size of a source's files together. Raises OSError, LamdatuiError."""
    return sum(file.stat().st_size for file in source_files(path))


def _together(found: Sequence[tuple[Path, str]]) -> str:
    """One file's own sha256; several ones' with their names, and with their folders where names are there twice."""
    if len(found) == 1:
        return found[0][1]
    names = [file.name for file, _ in found]
    if len(set(names)) < len(names):
        root = os.path.commonpath([file.parent for file, _ in found])
        names = [os.path.relpath(file, root) for file, _ in found]
    return hashlib.sha256(
        "".join(f"{name} {sha256}\n" for name, (_, sha256) in zip(names, found, strict=True)).encode()
    ).hexdigest()


def is_pattern(path: Path) -> bool:
    """Whether a path that does not exist is meant as a pattern of files."""
    return any(sign in str(path) for sign in "*?[") and not path.exists()


def source_files(path: Path) -> list[Path]:
    """The files of a source in their order. Raises LamdatuiError when a folder or a pattern holds none, or more than one split."""
    if is_pattern(path):
        found = [file for file in map(Path, sorted(glob.glob(str(path), recursive=True))) if file.is_file()]
        if not found:
            raise LamdatuiError(
                "no file is called so", where=str(path), fix="check the pattern; relative ones start at the profile's folder"
            )
        return found
    if not path.is_dir():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = sorted(part.name for part in path.iterdir() if (part / "state.json").exists())
        raise LamdatuiError(
            f"the folder holds the splits {', '.join(splits)}",
            where=str(path),
            fix=f"name one of them: {path}/{splits[0] if splits else 'train'}",
        )
    if (path / "state.json").exists():
        return _saved(path)
    found = sorted(file for file in path.iterdir() if _DATA.search(file.name) and file.name not in _BESIDE and file.is_file())
    if not found and (path / "data").is_dir():
        return source_files(path / "data")
    if not found:
        raise LamdatuiError(
            "the folder holds no file of rows",
            where=str(path),
            fix="files of rows end in .jsonl, .json, .csv, .tsv, .parquet or .arrow, also .gz or .zst",
        )
    splits = sorted({split[1] for file in found if (split := _SPLIT.search(file.name))})
    if len(splits) > 1:
        raise LamdatuiError(
            f"the folder holds the splits {', '.join(splits)}", where=str(path), fix=f"name one: {path}/*{splits[0]}*"
        )
    return found


def _saved(path: Path) -> list[Path]:
    """The files of a folder that `save_to_disk` of datasets wrote. Raises LamdatuiError."""
    where = path / "state.json"
    try:
        return [path / file["filename"] for file in read_json(where)["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LamdatuiError(f"not a folder of save_to_disk: {error}", where=str(where)) from error


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
    text = stream.read(ROW_BYTES + 1)
    if len(text) > ROW_BYTES:
        raise LamdatuiError(f"a JSON array longer than {ROW_BYTES} bytes", where=str(path), fix="write one object a line")
    try:
        found = parse_json(text.decode("utf-8-sig"))
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


def _columns(handle: BinaryIO, path: Path, start: bytes) -> Numbered:
    """A columnar file, which is read at many places: it must not have changed since it was digested."""
    import pyarrow
    from pyarrow import ipc, parquet

    before = os.fstat(handle.fileno())
    handle.seek(0)
    number = 0
    try:
        if start.startswith(_PARQUET):
            batches = parquet.ParquetFile(handle).iter_batches(batch_size=BATCH_ROWS)
        else:
            batches = _batches(ipc.open_file(handle)) if start.startswith(_ARROW) else ipc.open_stream(handle)
        for batch in batches:
            # Offsets and lengths of a damaged file are believed from here on.
            batch.validate(full=True)
            odd = [field.name for field in batch.schema if not _is_json(field.type)]
            for value in batch.to_pylist():
                number += 1
                yield number, _without_invented(value | {name: _as_json(value[name]) for name in odd})
    except (pyarrow.ArrowException, ValueError, OverflowError, MemoryError) as error:
        # A damaged length asks for more memory than there is.
        raise LamdatuiError(
            f"can't be read as {'Parquet' if start.startswith(_PARQUET) else 'Arrow'}: {str(error) or type(error).__name__}",
            where=str(path),
        ) from error
    after = os.fstat(handle.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Changed("the file changes while it is read", where=str(path), fix="wait until it is written, then try again")


def _is_json(kind: Any) -> bool:
    """Whether a column's values are JSON: text, numbers, truth values, nothing, and lists and objects of them."""
    from pyarrow import types

    if types.is_nested(kind):
        return not (types.is_map(kind) or types.is_union(kind)) and all(
            _is_json(kind.field(index).type) for index in range(kind.num_fields)
        )
    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_null)
    return any(each(kind) for each in plain)


def _as_json(value: Any) -> Any:
    """What JSON has for a value: a date, a time and a decimal number as they are written, bytes as an object, so that nobody takes them for text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _without_invented(row: Any) -> Any:
    """A row without the nulls that one type for a whole column puts into tools, calls and arguments: every row has there the keys of all others.

    What a null in them meant is lost with that; as JSON text they keep theirs.
    """
    for name, value in row.items():
        if name in _OPEN:
            row[name] = _pruned(value)
        elif isinstance(value, list):
            for message in value:
                if isinstance(message, dict):
                    message.update((key, _pruned(message[key])) for key in _CALLING & message.keys())
    return row


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _batches(reader: Any) -> Iterator[Any]:
    for index in range(reader.num_record_batches):
        whole = reader.get_batch(index)
        yield from (whole.slice(at, BATCH_ROWS) for at in range(0, whole.num_rows, BATCH_ROWS))
