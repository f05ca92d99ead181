"""Keys that a person chose: what is refused, and that the chosen ones work, are shown and leave a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Footer

from lamdatui.base.errors import LamdatuiError
from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.keys.keymap import checked, rows
from lamdatui.ui.keys.table import shown
from lamdatui.ui.kit.hanging import Hanging
from tests.ui import script
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine


@pytest.mark.parametrize(
    ("keymap", "what"),
    [
        ({"puase": "w"}, "no key id 'puase'"),
        ({"pause": "flurb"}, "no key is called 'flurb'"),
        ({"pause": "ctlr+w"}, "no key is called 'ctlr+w'"),
        ({"pause": "tab"}, "tab always moves the focus"),
        ({"pause": "ctrl+c"}, "ctrl+c always copies"),
        ({"pause": "ctrl+q"}, "ctrl+q always quits"),
        ({"pause": "m"}, "m is also mode"),
        ({"card-approve": "d"}, "d is also card-veto"),
        ({"help": "h"}, "'h' could not be typed any more"),
        ({"pause": "f7,,"}, "no key is called ''"),
    ],
)
def test_a_keymap_that_is_wrong_is_refused(keymap: dict[str, str], what: str) -> None:
    with pytest.raises(LamdatuiError) as caught:
        checked(keymap, "config.toml")
    assert what in caught.value.what and caught.value.fix and "[keymap]" in caught.value.where


def test_keys_are_spelled_as_the_toolkit_does() -> None:
    found = checked({"pause": "F7, ;", "mode": "ctrl+Right"}, "config.toml")
    assert found == {"pause": "f7,semicolon", "mode": "ctrl+right"}


def test_two_keys_can_be_swapped() -> None:
    found = checked({"card-approve": "d", "card-veto": "a"}, "config.toml")
    assert not any(row.conflict for row in rows(found))


def test_there_is_always_a_way_out() -> None:
    assert checked({"quit": "ctrl+x"}, "config.toml")["quit"] == "ctrl+x,ctrl+q"


def settings(home: Path, text: str) -> None:
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config" / "config.toml").write_text(text)


async def test_chosen_keys_work_and_are_shown(engine: FakeEngine, home: Path) -> None:
    settings(home, '[keymap]\npause = "f12,Q"\nreview = "f13,Z"\ncard-approve = "d"\ncard-veto = "a"\n')
    script.add_history(engine)
    script.add_waiting(engine)
    async with opened(engine) as console:
        await console.pilot.press("p")
        await console.settle()
        assert not engine.sent("pause"), "the old key must be free"
        await console.pilot.press("Q")
        await console.until(lambda: engine.sent("pause"), "pause by its new key")
        assert shown("review", 2) == "F13 or Z"
        assert "f12" in " ".join(str(key) for key in console.app.screen.active_bindings)
        assert any("f12" in str(key.key) for key in console.app.screen.query_one(Footer).query("FooterKey"))
        await console.pilot.press("f1")
        await console.until(lambda: isinstance(console.app.screen, HelpScreen), "help")
        await console.settle()
        lines = ["".join(text for text, _ in line) for line in console.app.screen.query_one(Hanging)._lines]
        assert any(" ".join(line.split()).startswith("F12 Q Pause") for line in lines)
        await console.pilot.press("escape", "Z")
        await console.until(lambda: console.card.has_focus_within, "the card")
        console.now += 1
        await console.pilot.press("d")
        await console.until(lambda: engine.sent("decide"), "the decision")
        assert engine.sent("decide")[0]["verdict"] == "approve"


async def test_a_broken_file_is_a_toast_and_the_defaults_hold(engine: FakeEngine, home: Path) -> None:
    settings(home, '[keymap]\npuase = "w"\n')
    script.add_history(engine)
    async with opened(engine) as console:
        [told] = [note for note in console.app._notifications if "settings" in note.title]
        assert "no key id 'puase'" in told.message and "'pause'" in told.message and "Defaults" in told.message
        await console.pilot.press("p")
        await console.until(lambda: engine.sent("pause"), "pause by its default key")


async def test_quitting_works_whatever_the_file_says(engine: FakeEngine, home: Path) -> None:
    settings(home, '[keymap]\nquit = "ctrl+x"\nquit-letter = "Q"\n')
    script.add_history(engine)
    async with opened(engine) as console:
        await console.pilot.press("ctrl+q")
        await console.until(lambda: console.app.screen.has_class("choice-screen"), "the question")
