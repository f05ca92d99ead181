"""What commands print: nothing that others wrote acts on the terminal, and no text ends a command."""

from __future__ import annotations

import json
import os
import select

import pexpect

from lamdatui.base.output import json_text
from lamdatui.base.text import FORBIDDEN
from tests.conftest import Commands
from tests.hostile import strings
from tests.tty import acting, tokens

NAMES = ("a\x1b[31mred", "b\x9b2J", "c\u202e", "d\rover", "e\x1b]0;title\x07")


def on_a_terminal(cli: Commands, *words: str) -> bytes:
    """All that a command writes to a terminal."""
    line = cli.line(*words)
    child = pexpect.spawn(line[0], line[1:], cwd=str(cli.folder), env=dict(os.environ), dimensions=(40, 120))
    data = b""
    while select.select([child.child_fd], [], [], 60)[0]:
        try:
            data += os.read(child.child_fd, 1 << 16)
        except OSError:
            break
    child.close(force=True)
    return data


def test_names_of_runs_and_messages_do_not_act_on_a_terminal(cli: Commands) -> None:
    for name in NAMES:
        (cli.runs / name).mkdir(parents=True)
        (cli.runs / name / "run.db").write_text("no database")
    (cli.runs / os.fsdecode(b"f\xff\x9b2J")).mkdir()
    (cli.runs / os.fsdecode(b"f\xff\x9b2J") / "run.db").write_text("no database")
    for words in (
        ("runs",),
        ("runs", "--json"),
        ("show", NAMES[0]),
        ("show", "no\x1b[31mred\x9b2J"),
        ("check", "x\x1b]0;t\x07"),
    ):
        written = on_a_terminal(cli, *words)
        found = list(tokens(written))
        assert [token for token in found if token.kind != "text" and token.raw not in (b"\r", b"\n", b"\t")] == [], words
        assert [name for token in found if token.kind == "text" for name in acting(token.raw)] == [], words
        assert b"Traceback" not in written
        assert written.strip(), words


def test_other_programs_get_names_as_they_are_and_sound_json(cli: Commands) -> None:
    for name in NAMES:
        (cli.runs / name).mkdir(parents=True)
        (cli.runs / name / "run.db").write_text("no database")
    listed = cli("runs", "--json")
    assert {row["run"] for row in json.loads(listed.stdout)} == set(NAMES)
    assert FORBIDDEN.search(listed.stdout) is None
    assert NAMES[1] in cli("runs").stdout


def test_json_keeps_its_value() -> None:
    value = list(strings(600))
    text = json_text(value)
    assert FORBIDDEN.search(text.replace("\n", "")) is None
    assert json.loads(text) == value


def test_a_name_that_is_no_text_ends_no_command(cli: Commands) -> None:
    folder = cli.runs / os.fsdecode(b"run\xff")
    folder.mkdir(parents=True)
    (folder / "run.db").write_text("no database")
    done = cli("runs", PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert "run\\udcff" in done.stdout
