"""The start screen's form for a profile of one's own: real files, the real command behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from lamdatui.base.paths import config_dir
from lamdatui.ui.kit.dialogs import TextScreen
from lamdatui.ui.start.busy import BusyScreen
from lamdatui.ui.start.newprofile import NewProfileScreen
from tests.ui.test_start import started

ROWS = [{"prompt": f"copy:{number:03d}=", "completion": f"{number:03d}"} for number in range(80)]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_profile_is_made_from_a_folder_and_a_file(tmp_path: Path, lab: Path, size: tuple[int, int]) -> None:
    data = tmp_path / "my rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    async with started(tmp_path, size) as on:
        pilot = on.pilot
        await pilot.press("i")
        screen = pilot.app.screen
        assert isinstance(screen, NewProfileScreen)
        verdict = screen.query_one("#newrun-verdict", Static)
        for field, text, told in (
            ("name", "my own", "a name has letters"),
            ("name", "mine", "model is empty"),
            ("model", str(lab / "llama"), "data is empty"),
            ("data", f"'{data}", "data: no closing quotation"),
        ):
            screen.query_one(f"#newprofile-{field}", Input).value = text
            await pilot.press("enter")
            await pilot.pause()
            assert told in str(verdict.render()) and pilot.app.screen is screen
        screen.query_one("#newprofile-data", Input).value = f"'{data}'"
        await pilot.press("enter")
        await on.until(lambda: isinstance(pilot.app.screen, BusyScreen), "the command")
        await on.until(lambda: isinstance(pilot.app.screen, TextScreen), "the profile", 60)
        made = config_dir() / "profiles" / "mine.yaml"
        assert "my_rows" in made.read_text()
        await pilot.press("escape")
        names = [item.name for item in pilot.app.screen.query_one("#start-profiles").items]  # type: ignore[attr-defined]
        assert names[0] == "mine"


async def test_what_is_wrong_is_told_and_nothing_is_left(tmp_path: Path, lab: Path) -> None:
    async with started(tmp_path) as on:
        pilot = on.pilot
        await pilot.press("i")
        for field, text in (("name", "mine"), ("model", str(lab / "nothing")), ("data", "x.jsonl")):
            pilot.app.screen.query_one(f"#newprofile-{field}", Input).value = text
        await pilot.press("enter")
        await on.until(lambda: "failed" in str(pilot.app.screen.query_one(".dialog").border_title), "the error", 60)
        assert "no such file" in str(pilot.app.screen.query_one("#busy-text", Static).render())
        assert not (config_dir() / "profiles").exists()
        await pilot.press("escape")
        await pilot.press("i")
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, NewProfileScreen)
