"""JSON with one spelling, numbers that are numbers, records that are what was written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.jsonio import (
    MOST_NESTED,
    Damaged,
    canonical,
    digest,
    file_digest,
    finite,
    parse_json,
    read_json,
    read_jsonl,
    read_record,
    regular,
    sealed,
    unsealed,
    write_json,
    write_record,
)


def test_a_value_has_one_spelling_and_one_digest() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "ü"}) == '{"a":"ü","b":[1,2.5,null]}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()
    assert digest({"a": 1}) != digest({"a": 1.0}) != digest({"a": "1"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": math.inf}])
def test_what_is_no_json_number_is_never_digested_or_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical(value)
    for write in (write_json, lambda path, value: write_record(path, {"a": value})):
        with pytest.raises(ValueError, match="Out of range"):
            write(tmp_path / "f.json", value)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        (0, 0.0),
        (True, None),
        ("1", None),
        (None, None),
        (math.nan, None),
        (-math.inf, None),
        (10**400, None),
    ],
)
def test_a_number_is_finite_or_none(value: Any, number: float | None) -> None:
    assert finite(value) == number
    assert type(finite(value)) is type(number)


@pytest.mark.parametrize("shape", ["[{}]", '{{"a":{}}}', '[1,{},"x"]'])
def test_depth_ends_at_its_limit(shape: str) -> None:
    text = "1"
    for _ in range(MOST_NESTED):
        text = shape.format(text)
    assert parse_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(shape.format(text))
    for opening in "[", '{"a":':
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(opening * 100_000)
    # Many brackets are no depth, and brackets in text are none.
    assert len(parse_json("[" + "[],{}," * MOST_NESTED + "1]")) == 2 * MOST_NESTED + 1
    assert parse_json(json.dumps("[" * 200)) == "[" * 200


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null"), tmp_path / "a\0b"):
        for read in (regular, file_digest, read_json, lambda path: list(read_jsonl(path))):
            with pytest.raises(OSError, match=r"not a (regular file|path)") as refused:
                read(path)
            assert refused.value.filename == str(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing")


def test_lines_have_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n[2]\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, [2])]
    path.write_text("1\n\nx\n")
    with pytest.raises(ValueError, match=r"^line 3: "):
        list(read_jsonl(path))


def test_a_record_is_what_was_written_or_damage(tmp_path: Path) -> None:
    path, record = tmp_path / "r.json", {"a": 1, "b": "ü"}
    write_record(path, record)
    assert read_record(path) == record
    assert list(read_json(path)) == ["a", "b", "seal"] and path.read_text(encoding="utf-8").endswith('"\n}\n')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "ü" in path.read_text(encoding="utf-8")
    for damaged in ({**sealed(record), "a": 2}, {**sealed(record), "c": 1}, {"a": 1, "seal": sealed(record)["seal"]}):
        with pytest.raises(Damaged, match="seal does not fit"):
            unsealed(damaged, frozenset("abc"))
    for text in ("[1]", "1", "{", '{"a": 1}', "{}"):
        path.write_text(text)
        with pytest.raises(Damaged):
            read_record(path)
    path.write_bytes(b"\xff")
    with pytest.raises(Damaged, match="UnicodeDecodeError"):
        read_record(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_record(path)


def test_a_record_without_a_seal_has_the_fields_of_the_first_version_only() -> None:
    assert unsealed({"a": 1}, frozenset("ab")) == {"a": 1}
    for record in ({"a": 1, "c": 2}, {}):
        with pytest.raises(Damaged, match="without its seal"):
            unsealed(record, frozenset("ab"))
    with pytest.raises(Damaged, match="a record is a JSON object, not list"):
        unsealed([])
