"""A user's JSONL: the usual shapes by path alone; whatever is wrong is told with its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamdatui.base.errors import LamdatuiError
from lamdatui.inputs.datafiles import inspect_dataset, read_dataset, read_task_rows

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "form", "columns"),
    [
        ({"messages": [USER, ASSISTANT]}, "sft", ["prompt", "completion"]),
        ({"prompt": "q", "completion": "a"}, "sft", ["prompt", "completion"]),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "sft", ["prompt", "completion"]),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference", ["prompt", "chosen", "rejected"]),
        (
            {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "b"}]},
            "preference",
            ["prompt", "chosen", "rejected"],
        ),
    ],
)
def test_the_usual_shapes_are_read(tmp_path: Path, row: dict, form: str, columns: list[str]) -> None:
    path = write(tmp_path / "d.jsonl", row, row)
    info = inspect_dataset(path)
    assert (info.format, info.rows) == (form, 2)
    (first, _) = read_dataset(path)
    assert list(first) == columns
    assert first["prompt"] == [USER]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ('{"prompt": "a", "completion": "b"}\nnot json\n', "row 2"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "row 2"),
        ('{"prompt": "a", "completion": ""}\n', "completion is empty"),
        ("[1, 2]\n", "a row is a JSON object"),
        ('{"messages": [{"role": "user"}]}\n', "messages: a message is"),
        ('{"chosen": "a", "rejected": "b"}\n', "share no prompt"),
        ("[" * 100_000 + "\n", "not JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_row(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(LamdatuiError) as caught:
        read_dataset(path)
    assert words in str(caught.value)
    assert str(path) in caught.value.where


def test_bytes_that_are_not_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n')
    with pytest.raises(LamdatuiError, match="not UTF-8 at byte 12"):
        read_dataset(tmp_path / "d.jsonl")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_give_rows_or_one_clear_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(data)
    for read in (read_dataset, read_task_rows):
        try:
            read(tmp_path / "d.jsonl")
        except LamdatuiError as error:
            assert error.exit_code == 2
