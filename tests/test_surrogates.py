"""A lone surrogate, which JSON may bring and UTF-8 can't hold, ends nothing and stays what it was where it is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lamdatui.base.jsonio import canonical, digest, read_json, write_json
from lamdatui.base.surrogates import escaped, without
from lamdatui.store.journal import Journal
from lamdatui.wire.client import Client
from lamdatui.wire.protocol import decode, encode
from lamdatui.wire.snapshot import Snapshots
from tests.test_journal import fill
from tests.test_server import _drain, served

__all__ = ["served"]
VALUES = ["\ud800", "a\udfffb\\ud800", "\ud83d \U0001f600", {"\udc80": ["ä\ud800"]}]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_written_can_be_read(value: object, tmp_path: Path) -> None:
    assert decode(encode({"type": "x", "value": value})) == {"type": "x", "value": value}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads(canonical(value).encode()) == value
    assert digest(value) != digest(without(value))


def test_text_that_looks_like_an_escape_is_another_text() -> None:
    assert digest("\ud800") != digest("\\ud800")
    assert escaped('"\\\\ud800"') == '"\\\\ud800"'
    assert without({"\ud800": ["a\udfff", 1, None]}) == {"\ufffd": ["a\ufffd", 1, None]}


def test_the_journal_and_its_snapshots_take_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.db")
    fill(journal)
    journal.append(("problem.noted", {"where": "\ud800", "message": "a\udfff"}))
    journal.append(("hint.added", {"id": "h\ud800", "text": "\udc9b", "by": "person", "trial": None}))
    again = Journal(tmp_path / "run.db")
    assert again.state == journal.state
    assert again.state.hints["h\ud800"]["text"] == "\udc9b"
    assert b"".join(Snapshots().write(Snapshots().take(again.state, set()))).decode()


async def test_a_command_that_brings_one_is_taken_without_it(served) -> None:
    folder, _, _, asked = served
    client = await Client.connect(folder)
    reading = asyncio.create_task(_drain(client))
    await client.command("attach", role="console")
    assert await client.command("hint", text="a\ud800b") == "done"
    assert asked.commands == [("hint", {"text": "a\ufffdb"}, "console")]
    reading.cancel()
    await client.close()
