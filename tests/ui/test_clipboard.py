"""Where a copied text goes, and what is said of it."""

from __future__ import annotations

import base64
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamdatui.ui.app.clipboard import OSC_BYTES, copy, osc52, run_tool, told, tools

XTERM = {"TERM": "xterm-256color"}


def decoded(sequence: str) -> str:
    found = re.fullmatch(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert found, repr(sequence)
    return base64.b64decode(found.group(1)).decode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_the_terminal_gets_the_text(text: str) -> None:
    plain = osc52(text, XTERM)
    tmux = osc52(text, XTERM | {"TMUX": "/tmp/t,1,0"})
    screen = osc52(text, {"TERM": "screen", "STY": "1.x"})
    assert plain and tmux and screen
    assert decoded(plain) == text
    inside = re.fullmatch(r"\x1bPtmux;(.*)\x1b\\", tmux, re.S)
    assert inside and decoded(inside.group(1).replace("\x1b\x1b", "\x1b")) == text
    parts = re.findall(r"\x1bP(.*?)\x1b\\", screen, re.S)
    assert decoded("".join(parts)) == text and all(len(part) <= 250 for part in parts)


def test_a_text_that_is_too_long_or_a_terminal_that_cannot_gets_nothing() -> None:
    assert osc52("x" * OSC_BYTES, XTERM) is None
    assert osc52("x" * 50_000, XTERM)
    assert osc52("x", {"TERM": "linux"}) is None
    assert osc52("x", {}) is None
    assert osc52("x", XTERM | {"TERM_PROGRAM": "Apple_Terminal"}) is None


def test_a_tool_that_took_it_is_named_and_no_file_is_written(tmp_path: Path) -> None:
    ran: list[tuple[list[str], bytes]] = []
    wrote: list[str] = []
    file = tmp_path / "copied.txt"

    def run(words: list[str], data: bytes) -> bool:
        ran.append((words, data))
        return words[0] == "xsel"

    copied = copy("héllo", XTERM | {"DISPLAY": ":0"}, wrote.append, file, run)
    assert [words[0] for words, _ in ran] == ["xclip", "xsel"] and ran[0][1] == "héllo".encode()
    assert len(wrote) == 1 and not file.exists()
    assert told(copied, "héllo") == "5 characters copied to xsel and the terminal (OSC 52)"


def test_what_only_the_terminal_got_is_in_a_file_as_well(tmp_path: Path) -> None:
    wrote: list[str] = []
    file = tmp_path / "state" / "copied.txt"
    copied = copy("a\nb", XTERM, wrote.append, file, lambda *_: False)
    assert wrote and file.read_text() == "a\nb"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told(copied, "a\nb") == f"2 lines copied to the terminal (OSC 52); also in {file}"


def test_a_text_too_long_for_the_terminal_goes_to_a_file(tmp_path: Path) -> None:
    wrote: list[str] = []
    file = tmp_path / "copied.txt"
    text = "x" * 100_000
    copied = copy(text, XTERM, wrote.append, file, lambda *_: False)
    assert not wrote and file.read_text() == text
    assert told(copied, text) == f"100000 characters written to {file}"


def test_nowhere_to_copy_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    copied = copy("x", {}, None, tmp_path / "state" / "copied.txt", lambda *_: False)
    assert told(copied, "x").startswith("nothing took the text; ")


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ["pbcopy"]),
        ({"SSH_CONNECTION": "1"}, []),
        ({"WAYLAND_DISPLAY": "w", "SSH_CONNECTION": "1"}, ["wl-copy"]),
        ({"TMUX": "t", "SSH_CONNECTION": "1"}, ["tmux", "tmux"]),
    ],
)
def test_tools_are_those_of_the_place_one_is_at(env: dict[str, str], names: list[str]) -> None:
    assert [words[0] for words in tools(env)] == names


def test_a_tool_that_is_missing_or_fails_took_nothing() -> None:
    assert not run_tool(["no-such-tool-here"], b"x")
    assert not run_tool(["false"], b"x")
    assert run_tool(["cat"], b"x")
