"""JSONL datasets in the usual shapes, read row by row with the row number in every complaint.

Shapes: `{"messages": [...]}`, `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}` and
`{"chosen", "rejected"}` whose messages begin with the same prompt. Prompts and answers are strings or lists of messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.errors import LamdatuiError
from lamdatui.jsonio import file_digest
from lamdatui.objects import DatasetFormat

Message = dict[str, str]
ROW_BYTES = 4 * 1024 * 1024
COLUMNS = "messages | prompt+completion | prompt+chosen+rejected | chosen+rejected"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a look at a dataset file tells."""

    format: DatasetFormat
    rows: int
    digest: str


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} is text or a list of messages, not {type(value).__name__}")
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("role"), str) or not isinstance(item.get("content"), str):
            raise ValueError(f'{column}: a message is {{"role": text, "content": text}}')
    return [{"role": item["role"], "content": item["content"]} for item in value]


def _turn(value: Any, column: str, role: str) -> list[Message]:
    if isinstance(value, str):
        if not value:
            raise ValueError(f"{column} is empty")
        return [{"role": role, "content": value}]
    return _messages(value, column)


def normalise(row: Any) -> dict[str, list[Message]]:
    """A row as messages: `{"prompt", "completion"}` or `{"prompt", "chosen", "rejected"}`.

    Raises ValueError that says which column is wrong and how.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is a JSON object, not {type(row).__name__}")
    columns = set(row)
    if {"chosen", "rejected"} <= columns:
        chosen, rejected = (_turn(row[name], name, "assistant") for name in ("chosen", "rejected"))
        if "prompt" in columns:
            return {"prompt": _turn(row["prompt"], "prompt", "user"), "chosen": chosen, "rejected": rejected}
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if not shared:
            raise ValueError("chosen and rejected share no prompt; add a prompt column")
        return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    if {"prompt", "completion"} <= columns:
        return {
            "prompt": _turn(row["prompt"], "prompt", "user"),
            "completion": _turn(row["completion"], "completion", "assistant"),
        }
    if "messages" in columns:
        messages = _messages(row["messages"], "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise ValueError("messages end with the assistant's answer and begin with a prompt")
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    raise ValueError(f"columns {', '.join(sorted(columns)) or 'none'}; a dataset has {COLUMNS}")


def read_dataset(path: Path) -> list[dict[str, list[Message]]]:
    """All rows of a dataset as messages. Raises LamdatuiError that names the file and the row."""
    rows: list[dict[str, list[Message]]] = []
    kind: tuple[str, ...] = ()
    for number, value in _lines(path):
        try:
            row = normalise(value)
        except ValueError as error:
            raise LamdatuiError(str(error), where=f"{path}, row {number}", fix=f"columns: {COLUMNS}") from error
        if rows and tuple(row) != kind:
            raise LamdatuiError(
                "this row has another shape than the first one", where=f"{path}, row {number}", fix="one shape per file"
            )
        kind = tuple(row)
        rows.append(row)
    if not rows:
        raise LamdatuiError("the dataset is empty", where=str(path))
    return rows


def _lines(path: Path) -> list[tuple[int, Any]]:
    found = []
    try:
        with path.open("rb") as handle:
            number = 0
            while line := handle.readline(ROW_BYTES + 1):
                number += 1
                if len(line) > ROW_BYTES:
                    raise LamdatuiError(f"a row longer than {ROW_BYTES} bytes", where=f"{path}, row {number}")
                if line.strip():
                    found.append((number, _parse(line, path, number)))
    except OSError as error:
        raise LamdatuiError(f"can't read the file: {error.strerror}", where=str(path)) from error
    return found


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LamdatuiError(f"not UTF-8 at byte {error.start} of the row", where=f"{path}, row {number}") from error
    except (ValueError, RecursionError) as error:
        raise LamdatuiError(f"not JSON: {error}", where=f"{path}, row {number}", fix="one JSON object a line") from error


def inspect_dataset(path: Path) -> DatasetInfo:
    """Read a whole dataset once and tell its format, rows and digest. Raises LamdatuiError."""
    rows = read_dataset(path)
    return DatasetInfo("preference" if "chosen" in rows[0] else "sft", len(rows), file_digest(path))


def read_task_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a task file: `id`, `split` (search | sealed), `messages`, `reference`. Raises LamdatuiError."""
    rows = []
    seen: set[str] = set()
    for number, value in _lines(path):
        where = f"{path}, row {number}"
        missing = {"id", "split", "messages", "reference"} - set(value if isinstance(value, dict) else ())
        if missing:
            raise LamdatuiError(f"a task row lacks {', '.join(sorted(missing))}", where=where)
        if value["split"] not in ("search", "sealed"):
            raise LamdatuiError(f"split is search or sealed, not {value['split']!r}", where=where)
        if value["id"] in seen:
            raise LamdatuiError(f"the id {value['id']!r} is there twice", where=where)
        try:
            _messages(value["messages"], "messages")
        except ValueError as error:
            raise LamdatuiError(str(error), where=where) from error
        seen.add(value["id"])
        rows.append(value)
    return rows
