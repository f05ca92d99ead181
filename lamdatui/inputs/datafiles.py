"""JSONL datasets in the usual shapes, read row by row with the row number in every complaint.

Shapes: `{"messages": [...]}`, `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}`,
`{"chosen", "rejected"}` whose messages begin with the same prompt, `{"prompt", "completion", "label"}` (true: wanted) and
`{"prompt", "scorer", "reference"}` (answers are made and judged later). Prompts and answers are strings or lists of messages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.base.jsonio import canonical, parse_json, regular
from lamdatui.base.surrogates import has_lone
from lamdatui.domain.objects import DatasetFormat

Message = dict[str, str]
ROW_BYTES = 4 * 1024 * 1024
COLUMNS = "messages | prompt+completion | prompt+chosen+rejected | chosen+rejected | prompt+completion+label | prompt+scorer+reference"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a look at a dataset file tells."""

    format: DatasetFormat
    rows: int
    digest: str
    chars: int
    """Mean characters of a row, prompt and answers."""


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} is text or a list of messages, not {type(value).__name__}")
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("role"), str) or not isinstance(item.get("content"), str):
            raise ValueError(f'{column}: a message is {{"role": text, "content": text}}')
        if has_lone(item["role"] + item["content"]):
            raise ValueError(f"{column} holds half of a surrogate pair")
    return [{"role": item["role"], "content": item["content"]} for item in value]


def _turn(value: Any, column: str, role: str) -> list[Message]:
    if isinstance(value, str):
        if not value:
            raise ValueError(f"{column} is empty")
        if has_lone(value):
            raise ValueError(f"{column} holds half of a surrogate pair")
        return [{"role": role, "content": value}]
    return _messages(value, column)


def normalise(row: Any) -> dict[str, Any]:
    """A row with its prompt and answers as messages: `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}`,
    `{"prompt", "completion", "label"}` or `{"prompt", "scorer", "reference"}`.

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
        found: dict[str, Any] = {
            "prompt": _turn(row["prompt"], "prompt", "user"),
            "completion": _turn(row["completion"], "completion", "assistant"),
        }
        if "label" in columns:
            if not isinstance(row["label"], bool):
                raise ValueError(f"label is true or false, not {row['label']!r}")
            found["label"] = row["label"]
        return found
    if {"prompt", "scorer", "reference"} <= columns:
        return {"prompt": _turn(row["prompt"], "prompt", "user"), **_judged(row["scorer"], row["reference"])}
    if "messages" in columns:
        messages = _messages(row["messages"], "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise ValueError("messages end with the assistant's answer and begin with a prompt")
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    raise ValueError(f"columns {', '.join(sorted(columns)) or 'none'}; a dataset has {COLUMNS}")


def _judged(scorer: Any, reference: Any) -> dict[str, Any]:
    """Scorer and reference of a verifiable row, once they are known to fit each other."""
    from lamdatui.tasks.scorers import SCORERS, problem

    if not isinstance(scorer, str) or scorer not in SCORERS:
        raise ValueError(f"no scorer named {scorer!r}; scorers: {', '.join(SCORERS)}")
    if wrong := problem(scorer, reference):
        raise ValueError(f"the reference does not suit the scorer {scorer}: {wrong}")
    canonical(reference)  # no NaN: it goes into JSON that can't hold one
    return {"scorer": scorer, "reference": reference}


def dataset_format(row: dict[str, Any]) -> DatasetFormat:
    """The format of a normalised row."""
    for column, found in _TELLING.items():
        if column in row:
            return found
    return "sft"


_TELLING: dict[str, DatasetFormat] = {"chosen": "preference", "label": "unpaired", "scorer": "verifiable"}


PARTS = ("prompt", "completion", "chosen", "rejected")


def row_chars(row: dict[str, Any]) -> int:
    """Characters of a normalised row's messages."""
    return sum(len(message["content"]) for name in PARTS for message in row.get(name, ()))


def read_dataset(path: Path, promised: str = "") -> list[dict[str, Any]]:
    """All rows of a dataset, normalised; `promised` is the sha256 of the file's bytes.

    Raises LamdatuiError that names the file and the row, Changed when these are not the bytes that were promised.
    """
    return _dataset(path, promised)[0]


def _dataset(path: Path, promised: str = "") -> tuple[list[dict[str, Any]], str]:
    """The rows and the sha256 of the very bytes that they were read from."""
    rows: list[dict[str, Any]] = []
    kind: tuple[str, ...] = ()
    lines, digest = _lines(path, promised)
    for number, value in lines:
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
    return rows, digest


def _lines(path: Path, promised: str = "") -> tuple[list[tuple[int, Any]], str]:
    found = []
    digest = hashlib.sha256()
    try:
        with regular(path).open("rb") as handle:
            number = 0
            while line := handle.readline(ROW_BYTES + 1):
                number += 1
                digest.update(line)
                if len(line) > ROW_BYTES:
                    raise LamdatuiError(f"a row longer than {ROW_BYTES} bytes", where=f"{path}, row {number}")
                if line.strip():
                    found.append((number, _parse(line, path, number)))
    except OSError as error:
        raise LamdatuiError(f"can't read the file: {error.strerror}", where=str(path)) from error
    if promised and digest.hexdigest() != promised:
        raise Changed(f"the file is not the one that the run began with (sha256 {promised[:12]}…)", where=str(path))
    return found, digest.hexdigest()


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        return parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LamdatuiError(f"not UTF-8 at byte {error.start} of the row", where=f"{path}, row {number}") from error
    except ValueError as error:
        raise LamdatuiError(f"not JSON: {error}", where=f"{path}, row {number}", fix="one JSON object a line") from error


def inspect_dataset(path: Path) -> DatasetInfo:
    """Read a whole dataset once and tell its format, rows and digest. Raises LamdatuiError."""
    rows, digest = _dataset(path)
    chars = sum(map(row_chars, rows)) // len(rows)
    return DatasetInfo(dataset_format(rows[0]), len(rows), digest, chars)


def read_task_rows(path: Path, promised: str = "") -> list[dict[str, Any]]:
    """Rows of a task file: `id`, `split` (search | sealed), `messages`, `reference`; `promised` as in `read_dataset`.

    Raises LamdatuiError, Changed.
    """
    return read_task(path, promised)[0]


def read_task(path: Path, promised: str = "") -> tuple[list[dict[str, Any]], str]:
    """The same, with the sha256 of the bytes that they were read from."""
    rows = []
    seen: set[str | int] = set()
    kind: type | None = None
    lines, digest = _lines(path, promised)
    for number, value in lines:
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
            _messages(value["messages"], "messages")
            canonical(value)  # no NaN: the rows have a digest
        except ValueError as error:
            raise LamdatuiError(str(error), where=where) from error
        seen.add(value["id"])
        rows.append(value)
    return rows, digest
