"""Large datasets: rows in a table on disk, read and looked at once; sources of several files."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.inputs import rowtable, scan
from lamdatui.inputs.datafiles import inspect_dataset, read_noted
from lamdatui.inputs.rowfiles import source_digest
from lamdatui.inputs.rowtable import RowTable
from lamdatui.inputs.templates import read_template

Row = dict[str, Any]


def chats(count: int) -> list[Row]:
    """Conversations of one to three answers; some with tools."""
    rng = random.Random(count)
    rows = []
    for number in range(count):
        turns = [
            turn
            for at in range(rng.randint(1, 3))
            for turn in ({"role": "user", "content": f"q{number}.{at}"}, {"role": "assistant", "content": f"a{number}"})
        ]
        tools = [{"type": "function", "function": {"name": f"f{number}", "parameters": {"p": number}}}]
        rows.append({"messages": turns, **({"tools": tools} if number % 3 == 0 else {})})
    return rows


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset is large."""
    monkeypatch.setattr(rowtable, "LARGE_BYTES", 1)
    monkeypatch.setattr(rowtable, "BATCH_ROWS", 7)
    monkeypatch.setattr(scan, "SHARED_ROWS", 1)


def test_a_table_holds_the_rows_that_the_file_does(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write(tmp_path / "d.jsonl", chats(60))
    plain = {how: read_noted(path, answers=how) for how in ("all", "last")}
    request.getfixturevalue("large")
    for how, wanted in plain.items():
        for _ in range(2):
            found = read_noted(path, answers=how)
            assert isinstance(found.rows, RowTable) and found.info == wanted.info
            assert list(found.rows) == list(wanted.rows) == [found.rows[at] for at in range(len(found.rows))]
            assert list(found.numbers) == wanted.numbers
            assert found.rows[-1] == wanted.rows[-1] and found.rows[3:9] == wanted.rows[3:9]
            with pytest.raises(IndexError):
                found.rows[len(found.rows)]
    assert read_noted(path, plain["last"].info.digest).info == plain["last"].info


def test_rows_are_read_once_and_again_when_the_table_or_the_file_is_not_what_it_was(tmp_path: Path, large: None) -> None:
    path, said = write(tmp_path / "d.jsonl", chats(30)), []
    wanted = list(read_noted(path, say=said.append).rows)
    read_noted(path, say=said.append)
    assert len(said) == 1 and "d.jsonl" in said[0]
    [table] = (paths.cache_dir() / "datasets").glob("*/rows.arrow")
    rng = random.Random(3)
    for _ in range(20):
        data = bytearray(table.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        table.write_bytes(data)
        said.clear()
        assert list(read_noted(path, say=said.append).rows) == wanted and len(said) == 1
    write(path, chats(31))
    assert list(read_noted(path, say=said.append).rows) != wanted and len(said) == 2
    with pytest.raises(LamdatuiError, match="a row is a JSON object"):
        read_noted(write(path, [*chats(30), 5]))  # type: ignore[list-item]
    assert not list((paths.cache_dir() / "datasets").glob("*/rows.arrow.*")), "nothing half is left"


def test_only_the_newest_tables_stay(tmp_path: Path, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowtable, "KEPT", 3)
    for number in range(6):
        read_noted(write(tmp_path / f"{number}.jsonl", chats(number + 1)))
    assert len(list((paths.cache_dir() / "datasets").iterdir())) == 3


def test_a_pass_that_is_shared_and_kept_finds_the_same(tmp_path: Path, lab: Path, request: pytest.FixtureRequest) -> None:
    asked = {"id": "1", "split": "sealed", "messages": [{"role": "user", "content": "q7.0"}], "reference": "a"}
    tasks = {"t": {"search": [], "sealed": [asked]}}
    templates = {"llama": read_template(lab / "llama")}
    templates["llama"].text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    path = write(tmp_path / "d.jsonl", chats(40))
    plain = scan.scan(read_noted(path), tasks, templates)
    request.getfixturevalue("large")
    said: list[str] = []
    shared = scan.scan(read_noted(path), tasks, templates, said.append)
    assert shared == plain == scan.scan(read_noted(path), tasks, templates, said.append) and len(said) == 1
    assert shared.exact["t"]["sealed"].example == "q7.0" and shared.exact["t"]["sealed"].count >= 1
    assert any("leaves out the functions" in note.detail for note in shared.notes["llama"])


# --- sources of several files ----------------------------------------------------------------------------------------


def test_folders_patterns_and_saved_datasets_are_their_files_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number}", "completion": "a"} for number in range(9)]
    shards = tmp_path / "shards"
    shards.mkdir()
    for at in range(3):
        write(shards / f"train-0000{at}-of-00003.jsonl", rows[3 * at : 3 * at + 3])
    (shards / "README.md").write_text("no rows")
    (shards / "dataset_info.json").write_text("{}")
    wanted = list(read_noted(write(tmp_path / "whole.jsonl", rows)).rows)
    saved = tmp_path / "saved"
    Dataset.from_list(rows).save_to_disk(str(saved), num_shards=2)
    (tmp_path / "hub").mkdir()
    shutil.copytree(shards, tmp_path / "hub" / "data")
    for source in (shards, shards / "train-*.jsonl", tmp_path / "hub", saved):
        found = read_noted(source)
        assert list(found.rows) == wanted and found.info.read == 9, source
        assert found.info.digest == source_digest(source) != source_digest(tmp_path / "whole.jsonl")
        assert inspect_dataset(source, found.info.digest) == found.info
    write(shards / "train-00002-of-00003.jsonl", [5])  # type: ignore[list-item]
    with pytest.raises(LamdatuiError, match="a row is a JSON object") as refused:
        read_noted(shards)
    assert refused.value.where == f"{shards}/train-00002-of-00003.jsonl, row 1"


def test_a_source_of_several_splits_or_of_nothing_is_refused_with_a_way_on(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        write(tmp_path / name, chats(1))
    with pytest.raises(LamdatuiError, match="the splits test, train") as refused:
        read_noted(tmp_path)
    assert refused.value.fix == f"name one: {tmp_path}/*test*"
    DatasetDict({"train": Dataset.from_list([{"prompt": "q", "completion": "a"}])}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(LamdatuiError, match="the splits train") as refused:
        read_noted(tmp_path / "both")
    assert len(read_noted(tmp_path / "both" / "train").rows) == 1 and refused.value.fix.endswith("both/train")
    (tmp_path / "empty").mkdir()
    for source, why in (("empty", "holds no file of rows"), ("*.parquet", "no file is called so")):
        with pytest.raises(LamdatuiError, match=why):
            read_noted(tmp_path / source)


def test_files_of_one_name_all_count_and_names_may_say_their_split_anywhere(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.jsonl", [{"prompt": folder, "completion": "1"}])
    source = tmp_path / "*" / "x.jsonl"
    before = source_digest(source)
    assert len(read_noted(source).rows) == 2 and read_noted(source).info.digest == before
    for folder in ("a", "b"):
        write(tmp_path / folder / "x.jsonl", [{"prompt": folder, "completion": "2"}])
        assert source_digest(source) != before
        before = source_digest(source)
    for name in ("alpaca_Train.jsonl", "alpaca-test.jsonl"):
        write(tmp_path / "a" / name, [{"prompt": name, "completion": "1"}])
    (tmp_path / "a" / "x.jsonl").unlink()
    with pytest.raises(LamdatuiError, match="the splits Train, test") as refused:
        read_noted(tmp_path / "a")
    assert refused.value.fix == f"name one: {tmp_path}/a/*Train*" and len(read_noted(tmp_path / "a" / "*Train*").rows) == 1


def test_what_one_type_for_a_column_invents_is_not_trained(tmp_path: Path) -> None:
    def row(name: str, **arguments: Any) -> Row:
        tool = {
            "type": "function",
            "function": {"name": name, "parameters": {"properties": {key: {"type": "string"} for key in arguments}}},
        }
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        return {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}],
            "tools": [tool],
        }

    rows = [row("weather", city="Bern"), row("add", a="1", b="2")]
    wanted = list(read_noted(write(tmp_path / "d.jsonl", rows)).rows)
    Dataset.from_list(rows).to_parquet(str(tmp_path / "d.parquet"))
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    for source in ("d.parquet", "saved"):
        assert list(read_noted(tmp_path / source).rows) == wanted, source


def test_what_a_killed_reader_left_goes_with_the_next_table(tmp_path: Path, large: None) -> None:
    left = paths.cache_dir() / "datasets" / "other" / "rows.arrow.999999999"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    read_noted(write(tmp_path / "d.jsonl", chats(3)))
    assert not left.exists()


def test_half_a_surrogate_pair_is_told_with_its_row_whatever_the_size(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    call = {"function": {"name": "f", "arguments": {"x": "\ud800"}}}
    tool = {"function": {"name": "f", "description": "\ud800"}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for row in (
        {"messages": [turns[0], {**turns[1], "tool_calls": [call]}]},
        {"messages": turns, "tools": [tool]},
        {"messages": turns, "chat_template_kwargs": {"x": "\ud800"}},
        {"prompt": "q", "scorer": "exact", "reference": "\ud800"},
    ):
        path = write(tmp_path / "d.jsonl", [row])
        with pytest.raises(LamdatuiError, match="half of a surrogate pair") as refused:
            read_noted(path)
        assert refused.value.where.endswith("row 1")
    with pytest.raises(LamdatuiError, match="continue_final_message, which is for the step to say"):
        read_noted(write(tmp_path / "d.jsonl", [{"messages": turns, "chat_template_kwargs": {"continue_final_message": True}}]))


def test_a_file_that_is_replaced_while_it_is_read_makes_no_table(
    tmp_path: Path, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "d.jsonl", chats(5))
    from lamdatui.inputs import datafiles

    kept = datafiles.source_digest

    def replaced(source: Path, **how: Any) -> str:
        found = kept(source, **how)
        write(path, chats(6))
        return found

    monkeypatch.setattr(datafiles, "source_digest", replaced)
    with pytest.raises(LamdatuiError, match="changes while it is read"):
        read_noted(path)
    assert not list((paths.cache_dir() / "datasets").glob("*/*"))
