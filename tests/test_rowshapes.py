"""Rows in the shapes that people have: each is read as it is meant, or refused with a reason; nothing is left out in silence."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Changed
from lamdatui.inputs.datafiles import inspect_dataset, is_promised, normalise, read_dataset, read_noted
from lamdatui.inputs.rowshapes import read_row

Row = dict[str, Any]


def turn(role: str, content: Any = "x", **more: Any) -> Row:
    return {"role": role, "content": content, **more}


U, A, B, S = turn("user", "q"), turn("assistant", "a"), turn("assistant", "b"), turn("system", "s")
SFT = {"prompt": [U], "completion": [A]}
PAIR = {"prompt": [U], "chosen": [A], "rejected": [B]}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}
TAKEN: dict[str, tuple[Row, Row]] = {
    "TRL conversation": ({"messages": [U, A]}, SFT),
    "TRL prompt and completion": ({"prompt": "q", "completion": "a"}, SFT),
    "TRL preference": ({"prompt": "q", "chosen": "a", "rejected": "b"}, PAIR),
    "TRL preference of conversations": ({"prompt": [U], "chosen": [A], "rejected": [B]}, PAIR),
    "TRL implicit prompt": ({"chosen": [U, A], "rejected": [U, B]}, PAIR),
    "ultrafeedback_binarized": ({"prompt": "q", "chosen": [U, A], "rejected": [U, B], "messages": [U, A], "score_chosen": 9.5}, PAIR),
    "text prompt, answers as messages": ({"prompt": "q", "chosen": [A], "rejected": [B]}, PAIR),
    "TRL unpaired": ({"prompt": "q", "completion": "a", "label": True}, {**SFT, "label": True}),
    "label 0": ({"prompt": "q", "completion": "a", "label": 0}, {**SFT, "label": False}),
    "label of a table of text": ({"prompt": "q", "completion": "a", "label": "1.0"}, {**SFT, "label": True}),
    "conversation with a label": ({"messages": [U, A], "label": False}, {**SFT, "label": False}),
    "LLaMA-Factory KTO": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": True}, {**SFT, "label": True}),
    "nulls of a union": ({"messages": None, "prompt": "q", "completion": "a", "chosen": None, "rejected": None, "label": None}, SFT),
    "nulls of a union in messages": ({"messages": [{**U, "tool_calls": None, "name": None}, {**A, "tool_calls": []}], "tools": []}, SFT),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, SFT),
    "ShareGPT with a system column": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
        {"prompt": [S, U], "completion": [A]},
    ),
    "ShareGPT ranking": (
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
        PAIR,
    ),
    "conversations with roles": ({"conversations": [U, A]}, SFT),
    "OpenAI developer": ({"messages": [turn("developer", "s"), U, A]}, {"prompt": [S, U], "completion": [A]}),
    "OpenAI weight 1": ({"messages": [U, {**A, "weight": 1}]}, SFT),
    "an earlier answer of weight 0": ({"messages": [U, {**B, "weight": 0}, U, A]}, {"prompt": [U, B, U], "completion": [A]}),
    "text parts": ({"messages": [turn("user", [{"type": "text", "text": "q"}]), A]}, SFT),
    "Alpaca": ({"instruction": "q", "input": "", "output": "a", "text": "all of it"}, SFT),
    "Alpaca with input": ({"instruction": "q", "input": "i", "output": "a"}, {"prompt": [turn("user", "q\ni")], "completion": [A]}),
    "Alpaca with history and system": (
        {"instruction": "q", "output": "a", "system": "s", "history": [["q", "b"]]},
        {"prompt": [S, U, B, U], "completion": [A]},
    ),
    "Dolly": ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, {"prompt": [turn("user", "q\nc")], "completion": [A]}),
    "GSM8K": ({"question": "q", "answer": "a"}, SFT),
    "Orca preference": ({"system": "s", "question": "q", "chosen": "a", "rejected": "b"}, {**PAIR, "prompt": [S, U]}),
    "a row of weight 1": ({"prompt": "q", "completion": "a", "weight": 1.0}, SFT),
    "prompt and response": ({"prompt": "q", "response": "a"}, SFT),
    "Human and Assistant (hh-rlhf)": (
        {"chosen": "\n\nHuman: q\n\nAssistant: b\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b\n\nHuman: q\n\nAssistant: b"},
        {"prompt": [U, B, U], "chosen": [A], "rejected": [B]},
    ),
    "TRL prompt alone": ({"prompt": "q"}, {"prompt": [U]}),
    "TRL text": ({"text": "once upon"}, {"text": "once upon"}),
    "turns after a prompt": ({"prompt": "q", "completion": [A, U, B]}, {"prompt": [U, A, U], "completion": [B]}),
    "reasoning": ({"messages": [U, {**A, "thinking": "hm"}]}, {"prompt": [U], "completion": [{**A, "reasoning_content": "hm"}]}),
    "arguments of the template": (
        {"messages": [U, A], "chat_template_kwargs": '{"enable_thinking": false}'}, {**SFT, "chat_template_kwargs": {"enable_thinking": False}}
    ),
    "TRL tools": ({"messages": [U, CALLS], "tools": [TOOL]}, {"prompt": [U], "completion": [CALLS], "tools": [TOOL]}),
    "tools as JSON": ({"messages": [U, CALLS], "tools": json.dumps([TOOL])}, {"prompt": [U], "completion": [CALLS], "tools": [TOOL]}),
    "OpenAI calls": (
        {"messages": [U, {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
                      {"role": "tool", "tool_call_id": "c1", "content": "3"}, A], "tools": [TOOL]},
        {"prompt": [U, {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c1"}]}, {"role": "tool", "content": "3", "tool_call_id": "c1"}],
         "completion": [A], "tools": [TOOL]},
    ),
    "OpenAI functions": (
        {"messages": [U, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}], "functions": [TOOL["function"]]},
        {"prompt": [U], "completion": [CALLS], "tools": [TOOL]},
    ),
    "ShareGPT calls": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                           {"from": "observation", "value": "3"}, {"from": "gpt", "value": "a"}], "tools": json.dumps([TOOL["function"]])},
        {"prompt": [U, CALLS, turn("tool", "3")], "completion": [A], "tools": [TOOL]},
    ),
    "a result that is an object": ({"messages": [U, CALLS, turn("tool", {"a": 1}), A]}, {"prompt": [U, CALLS, turn("tool", '{"a": 1}')], "completion": [A]}),
    "a pair of calls": ({"prompt": "q", "chosen": [CALLS], "rejected": [A], "tools": [TOOL]}, {"prompt": [U], "chosen": [CALLS], "rejected": [A], "tools": [TOOL]}),
    "verifiable with tools": (
        {"prompt": "q", "scorer": "exact", "reference": "a", "tools": [TOOL]},
        {"prompt": [U], "scorer": "exact", "reference": "a", "tools": [TOOL]},
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[Row, str]] = {
    "tools of another shape": ({"messages": [U, A], "tools": {"f": 1}}, "tools is a list of functions, not dict"),
    "a tool without a name": ({"messages": [U, A], "tools": [{"type": "function", "function": {}}]}, "tools: a function is"),
    "arguments that are no JSON": ({"messages": [U, {**A, "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}]}, "the arguments of f as JSON"),
    "arguments that are a list": ({"messages": [U, {**A, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}]}, "are an object, not list"),
    "a call without a name": ({"messages": [U, {**A, "tool_calls": [{"function": {"arguments": {}}}]}]}, "a call is"),
    "a call by a user": ({"messages": [{**U, "tool_calls": [CALL]}, A]}, "a turn of the role user with tool_calls"),
    "a tool's turn at the end": ({"messages": [U, CALLS, turn("tool")]}, "end with the assistant's answer"),
    "nothing said and nothing called": ({"messages": [U, turn("assistant", None)]}, "a message is"),
    "arguments of the template that are none": ({"messages": [U, A], "chat_template_kwargs": [1]}, "chat_template_kwargs is an object"),
    "reasoning that is no text": ({"messages": [U, {**A, "reasoning_content": ["x"]}]}, "reasoning_content of messages is text"),
    "weight 0": ({"prompt": [U], "completion": [{**A, "weight": 0}]}, "marked not to be"),
    "train false": ({"messages": [U, {**A, "train": False}]}, "marked not to be"),
    "images": ({"messages": [U, A], "images": ["x.png"]}, "only text is trained"),
    "an image part": ({"messages": [turn("user", [{"type": "image"}]), A]}, "content of the type image"),
    "input_ids": ({"input_ids": [1, 2], "labels": [1, 2]}, "rendered with the model's own template"),
    "segments": ({"segments": [{"label": True, "text": "x"}]}, "rendered with the model's own template"),
    "a user's turn at the completion's end": ({"prompt": "q", "completion": [A, U]}, "completion holds a turn of the role user"),
    "a user's turn alone": ({"prompt": "q", "completion": [U]}, "completion holds a turn of the role user"),
    "a user's turn in chosen": ({"prompt": [U], "chosen": [A, U, A], "rejected": [B]}, "chosen holds a turn of the role user"),
    "the prompt twice": ({"prompt": [U], "chosen": [U, A], "rejected": [U, B]}, "drop one of the two"),
    "a prompt that ends with an answer": ({"prompt": [U, A], "completion": "a"}, "the prompt ends with an answer"),
    "a role nobody has": ({"messages": [turn("critic"), A]}, "the role is 'critic'; roles are"),
    "stepwise answers": ({"prompt": "q", "completions": ["a"], "labels": [True]}, "rendered with the model's own template"),
    "label of neither": ({"prompt": "q", "completion": "a", "label": 2}, "label is true or false, not 2"),
    "an empty question": ({"question": "", "answer": "a"}, "question is empty"),
    "history of another shape": ({"instruction": "q", "output": "a", "history": ["x"]}, "history is a list"),
    "history that is a number": ({"instruction": "q", "output": "a", "history": 1}, "history is a list"),
    "a weighted row": ({"prompt": "q", "completion": "a", "weight": 0.5}, "the column weight: rows are not weighted"),
    "a row that is not to be trained": ({"messages": [U, A], "train": False}, "the column train: rows are not weighted"),
    "a label beside a pair": ({"prompt": "q", "chosen": "a", "rejected": "b", "label": True}, "the column label: a label belongs"),
    "nothing": ({"id": 3}, "columns id; a dataset has"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "parts"), TAKEN.values(), ids=TAKEN)
def test_a_row_of_each_shape_is_read_as_it_is_meant(row: Row, parts: Row) -> None:
    assert normalise(row) == parts
    assert normalise(parts) == parts, "what a step writes is read back as it is"


@pytest.mark.parametrize(("row", "why"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_lost_or_trained_wrongly_is_refused(row: Row, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        normalise(row)


def test_columns_of_other_names_are_taken_as_the_profile_says(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"query_text": "q", "gold": "a", "prompt": "not this"}])
    columns = {"prompt": "query_text", "completion": "gold"}
    assert list(read_noted(path, columns=columns).rows) == [SFT]
    info = inspect_dataset(path, columns=columns)
    assert info.notes == ("not used: prompt (the file's own)",) and info.digest != hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_noted(path, info.digest, columns=columns).info == info
    assert is_promised(hashlib.sha256(path.read_bytes()).hexdigest(), info.digest, columns)
    chat = write(tmp_path / "c.jsonl", [{"dialog": [{"speaker": "user", "text": "q"}, {"speaker": "bot", "text": "a"}]}])
    assert list(read_noted(chat, columns={"messages": "dialog", "role": "speaker", "content": "text"}).rows) == [SFT]
    with pytest.raises(LamdatuiError, match="the row has no column nothing, which columns: names") as refused:
        inspect_dataset(path, columns={"prompt": "nothing"})
    assert "row 1" in refused.value.where


NAMES = st.sampled_from(["id", "source", "score", "meta", "name", "x"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(TAKEN.values())), st.dictionaries(NAMES, st.integers() | st.text(), max_size=3), st.booleans())
def test_what_is_not_used_is_named(taken: tuple[Row, Row], more: Row, within: bool) -> None:
    row, parts = taken
    usual = read_row(row).unused
    if (
        within
        and isinstance(row.get("messages"), list)
        and parts["prompt"][0] in row["messages"]
        and not {"tools", "chat_template_kwargs"} & row.keys()
    ):
        turns = [{**row["messages"][0], **more}, *row["messages"][1:]]
        found = read_row({**row, "messages": turns})
        named = {f"{name} (of a message)" for name in more} if "messages" not in usual else set()
    else:
        found = read_row({**row, **more})
        named = set(more)
    assert found.parts == parts
    assert found.unused == usual | named


KEYS = sorted(
    {key for row, _ in [*TAKEN.values(), *REFUSED.values()] for key in row} | {"role", "content", "from", "value", "type"}
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["user", "assistant", "gpt", "text", "", "x", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5) | JSON)
def test_any_json_is_a_row_or_one_reason(value: Any) -> None:
    try:
        found = read_row(value)
    except ValueError as error:
        assert str(error)
    else:
        assert normalise(json.loads(json.dumps(found.parts))) == found.parts


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_not_used_is_told_of_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"messages": [U, A], "id": 1}, {"messages": [U, A, U, A], "id": 2, "split": "x"}])
    info = inspect_dataset(path)
    assert (info.rows, info.read, info.notes) == (3, 2, ("not used: id, split (in 1 of 2 rows)",))
    last = inspect_dataset(path, answers="last")
    assert (last.rows, last.read) == (2, 2)
    assert last.notes[1:] == ("1 of 2 rows hold more answers than the last one, which alone is trained (answers: last)",)
    assert inspect_dataset(write(tmp_path / "e.jsonl", [{"messages": [U, A]}])).notes == ()


def test_every_answer_of_a_conversation_is_a_row_with_what_comes_before_it(tmp_path: Path) -> None:
    marked = {**B, "weight": 0}
    rows = [
        {"messages": [S, U, A, U, B]},
        {"messages": [U, marked, U, A]},
        {"messages": [U, A, U, marked]},
        {"messages": [U, marked]},
        {"instruction": "q", "output": "a", "history": [["q", "b"]]},
    ]
    path = write(tmp_path / "d.jsonl", rows)
    assert read_dataset(path) == [
        {"prompt": [S, U], "completion": [A]},
        {"prompt": [S, U, A, U], "completion": [B]},
        {"prompt": [U, B, U], "completion": [A]},
        {"prompt": [U], "completion": [A]},
        {"prompt": [U], "completion": [B]},
        {"prompt": [U, B, U], "completion": [A]},
    ]
    with pytest.raises(LamdatuiError, match="marked not to be") as refused:
        read_dataset(path, answers="last")
    assert "row 3" in refused.value.where
    # What is no conversation of its own keeps to what it says: a prompt's answers are part of the prompt.
    for row in (
        {"prompt": [U, B, U], "completion": [A]},
        {"messages": [U, B, U, A], "label": True},
        {"chosen": [U, B, U, A], "rejected": [U, B, U, B]},
    ):
        assert len(read_dataset(write(path, [row]))) == 1
    with pytest.raises(LamdatuiError, match="no answer of the dataset is to be trained"):
        read_dataset(write(path, [{"messages": [U, marked]}]))


def test_a_run_goes_on_with_rows_as_they_were_read_when_it_began(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"messages": [U, A, U, B]}, {"messages": [turn("human"), A, U, B]}])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    every, last = (inspect_dataset(path, answers=answers) for answers in ("all", "last"))
    assert (every.rows, last.rows) == (4, 2) and len({every.digest, last.digest, sha256}) == 3
    for info in (every, last):
        assert inspect_dataset(path, info.digest) == info == inspect_dataset(path, info.digest, "last")
        assert len(read_dataset(path, info.digest)) == info.rows and is_promised(sha256, info.digest)
    # Of the first version: the last answer alone, under the file's own digest.
    plain = write(path, [{"messages": [U, A, U, B]}])
    sha256 = hashlib.sha256(plain.read_bytes()).hexdigest()
    assert inspect_dataset(plain, sha256).rows == 1 and inspect_dataset(plain).rows == 2
    assert inspect_dataset(plain, sha256).digest == sha256 == inspect_dataset(plain, answers="last").digest
    assert inspect_dataset(plain, "another").digest == inspect_dataset(plain).digest, "a changed file is told as it is now"
    assert not is_promised(sha256, "another")


def test_rows_that_were_read_otherwise_before_have_another_digest(tmp_path: Path) -> None:
    usual = write(tmp_path / "d.jsonl", [{"messages": [U, A]}, {"prompt": "q", "completion": "a"}])
    sha256 = hashlib.sha256(usual.read_bytes()).hexdigest()
    assert inspect_dataset(usual).digest == sha256
    for row in ({"prompt": "q", "chosen": [U, A], "rejected": [U, B]}, {"messages": [U, A], "label": True}):
        path = write(tmp_path / "e.jsonl", [row])
        sha256, digest = hashlib.sha256(path.read_bytes()).hexdigest(), inspect_dataset(path).digest
        assert digest != sha256
        assert len(read_dataset(path, digest)) == 1
        with pytest.raises(Changed, match="read otherwise"):
            read_dataset(path, sha256)
    with pytest.raises(Changed, match="not the one"):
        read_dataset(usual, digest)


# --- files -----------------------------------------------------------------------------------------------------------

ROWS: list[Row] = [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(3)]
CHATS: list[Row] = [{"messages": [turn("user", f"q{number}"), turn("assistant", 'a, "b"\nc')]} for number in range(3)]


def packed(path: Path, data: bytes) -> Path:
    with pyarrow.output_stream(path, compression="zstd") as stream:
        stream.write(data)
    return path


def table(path: Path, rows: list[Row], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return path


def files(folder: Path, rows: list[Row]) -> list[Path]:
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    columns = pyarrow.Table.from_pylist(rows)
    made = {"d.jsonl": lines, "bom.jsonl": b"\xef\xbb\xbf" + lines, "d.json": json.dumps(rows, indent=2).encode()}
    made |= {"d.jsonl.gz": gzip.compress(lines), "d.json.gz": gzip.compress(json.dumps(rows).encode())}
    for name, data in made.items():
        (folder / name).write_bytes(data)
    parquet.write_table(columns, folder / "d.parquet", row_group_size=2)
    with ipc.new_file(folder / "d.arrow", columns.schema) as writer:
        writer.write_table(columns)
    with ipc.new_stream(folder / "stream.arrow", columns.schema) as writer:
        writer.write_table(columns)
    found = [folder / name for name in (*made, "d.parquet", "d.arrow", "stream.arrow")]
    found += [packed(folder / "d.jsonl.zst", lines), table(folder / "d.csv", rows), table(folder / "d.tsv", rows, "\t")]
    return [*found, packed(folder / "t.csv.zst", (folder / "d.csv").read_bytes())]


@pytest.mark.parametrize("rows", [ROWS, CHATS], ids=["text", "messages"])
def test_every_format_gives_the_same_rows_and_the_digest_of_its_bytes(tmp_path: Path, rows: list[Row]) -> None:
    wanted = [normalise(row) for row in rows]
    for path in files(tmp_path, rows):
        assert read_dataset(path) == wanted, path.name
        digest = inspect_dataset(path).digest
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest(), path.name
        path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(LamdatuiError):
            read_dataset(path, digest)


def test_a_damaged_file_is_one_error_with_its_place(tmp_path: Path) -> None:
    for path in files(tmp_path, ROWS):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        try:
            rows = read_dataset(path)
        except LamdatuiError as error:
            assert str(path) in error.where and error.exit_code == 2
        else:
            assert path.suffix in (".csv", ".tsv") and len(rows) < 3, path.name


def test_a_table_of_text_has_one_cell_for_each_column(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,completion,label\nq,a,1\nq,,0\n")
    with pytest.raises(LamdatuiError, match="columns label, prompt") as refused:
        read_dataset(path)
    assert "row 2" in refused.value.where
    path.write_text("prompt,completion\nq,a,more\n")
    with pytest.raises(LamdatuiError, match="more cells than the header"):
        read_dataset(path)
    path.write_text("prompt,completion,label\nq,a,1\nq,b,0\n")
    assert [row["label"] for row in read_dataset(path)] == [True, False]


STARTS = (
    b"",
    b"[",
    b"{",
    b"PAR1",
    b"ARROW1",
    b"\xff\xff\xff\xff",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"prompt,completion\n",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["d.jsonl", "d.json", "d.csv", "d.tsv", "d.parquet", "d.csv.gz"]),
    st.sampled_from(STARTS),
    st.binary(max_size=200),
)
def test_any_bytes_under_any_name_are_rows_or_one_error(tmp_path: Path, name: str, start: bytes, rest: bytes) -> None:
    (tmp_path / name).write_bytes(start + rest)
    try:
        read_dataset(tmp_path / name)
    except LamdatuiError as error:
        assert error.exit_code == 2 and str(tmp_path / name) in error.where


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-16")
    with pytest.raises(LamdatuiError, match="not UTF-8") as refused:
        read_dataset(tmp_path / "d.jsonl")
    assert refused.value.fix == "convert it to UTF-8"
