"""The settings file: strict, with the nearest word in each error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lamdatui.base.errors import LamdatuiError
from lamdatui.config.settings import UiSettings, load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that config.toml is read from."""
    monkeypatch.setenv("LAMDATUI_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    return tmp_path / "config"


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)


def test_without_a_file_everything_is_at_its_default(home: Path) -> None:
    found = load_settings()
    assert found.ui == UiSettings() and found.keymap == {} and found.path == home / "config.toml"


def test_a_whole_file(home: Path) -> None:
    write(
        home,
        '[ui]\ntheme = "light"\nascii = true\nnotifications = "bell"\nanimation = false\n'
        '[keymap]\npause = "f7,w"\nquit = ["ctrl+x", "f12"]\n',
    )
    found = load_settings()
    assert found.ui == UiSettings("light", True, "bell", False)
    assert found.keymap == {"pause": "f7,w", "quit": "ctrl+x,f12"}


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("[iu]\n", "no section 'iu'", "'ui'"),
        ('[ui]\nthem = "dark"\n', "no setting 'them'", "'theme'"),
        ("[ui]\nascii = 1\n", "ascii is true or false", ""),
        ("[ui]\ntheme = true\n", "theme is text in quotes", ""),
        ('[ui]\nnotifications = "bel"\n', "no notifications 'bel'", "'bell'"),
        ("[keymap]\npause = 7\n", "pause needs keys", '"f7,p"'),
        ("[keymap]\npause = []\n", "pause needs keys", ""),
        ('ui = "dark"\n', "ui is a section", "[ui]"),
        ("[ui\n", "not TOML", ""),
    ],
)
def test_what_is_wrong_is_said_with_the_nearest_word(home: Path, text: str, what: str, fix: str) -> None:
    write(home, text)
    with pytest.raises(LamdatuiError) as caught:
        load_settings()
    assert what in caught.value.what and fix in caught.value.fix
    assert "config.toml" in caught.value.where and caught.value.exit_code == 2


def test_a_file_that_is_no_text_is_an_error_too(home: Path) -> None:
    (home / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LamdatuiError, match="UTF-8"):
        load_settings()


def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lamdatui", "keys", *arguments], capture_output=True, text=True)


def test_the_command_lists_ids_changes_and_defaults(home: Path) -> None:
    write(home, '[keymap]\npause = "f12"\n')
    found = keys("--json")
    assert found.returncode == 0, found.stderr
    rows = {row["id"]: row for row in json.loads(found.stdout)}
    assert rows["pause"]["keys"] == ["f12"] and rows["pause"]["default"] == ["f7", "p"] and rows["pause"]["changed"]
    assert not rows["help"]["changed"] and all(row["conflict"] is None for row in rows.values())
    shown = keys()
    assert "* pause " in shown.stdout and "  help " in shown.stdout


def test_the_command_marks_conflicts_and_says_so(home: Path) -> None:
    write(home, '[keymap]\ncard-approve = "d"\n')
    found = keys()
    assert found.returncode == 2
    assert "CONFLICT: d is also card-veto" in found.stdout and "card-approve" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_command_refuses_an_unknown_id_in_three_lines(home: Path) -> None:
    write(home, '[keymap]\npuase = "w"\n')
    found = keys()
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.splitlines()[0] == "error: no key id 'puase'" and "'pause'" in found.stderr
    assert len(found.stderr.splitlines()) == 3
