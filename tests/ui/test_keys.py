"""The key table keeps its promises."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from textual.binding import Binding

from lamdatui.ui.app.consoleapp import ConsoleApp
from lamdatui.ui.app.help import HelpScreen
from lamdatui.ui.byhand.queue import QueueScreen
from lamdatui.ui.card.card import ApprovalCard
from lamdatui.ui.card.edit import EditScreen
from lamdatui.ui.card.legend import rows_of
from lamdatui.ui.console.activity import ActivityPane
from lamdatui.ui.console.screen import ConsoleScreen
from lamdatui.ui.hardware.pane import HardwarePane
from lamdatui.ui.keys.table import CHAINS, KEYS, shown
from lamdatui.ui.kit.actionform import ActionScreen, PickRow
from lamdatui.ui.kit.dialogs import ChoiceScreen, TextScreen
from lamdatui.ui.kit.legend import arranged
from lamdatui.ui.kit.pick import PickScreen
from lamdatui.ui.kit.write import LineScreen, PageScreen
from lamdatui.ui.lineage.pane import FilterInput, LineageTree
from lamdatui.ui.logs.view import LogView
from lamdatui.ui.node.compare_screen import CompareScreen
from lamdatui.ui.node.screen import NodeScreen
from lamdatui.ui.planner.screen import LinesPane, ListPane, PlannerScreen
from lamdatui.ui.progress.chart import ChartPanel
from lamdatui.ui.progress.screen import OverviewPanel, ProgressScreen
from tests.ui import script
from tests.ui.conftest import opened
from tests.ui.fake_engine import FakeEngine

OURS = (
    ConsoleApp, ConsoleScreen, ChoiceScreen, TextScreen, EditScreen, ActivityPane, ApprovalCard, LogView, LineageTree,
    PlannerScreen, LinesPane, ListPane, LineScreen, PageScreen, ActionScreen, PickRow, PickScreen, HelpScreen,
    HardwarePane, ProgressScreen, OverviewPanel, ChartPanel,
    NodeScreen, CompareScreen, QueueScreen, FilterInput,
)  # fmt: skip
MULTIPLEXERS = {f"ctrl+{letter}" for letter in "abshjkl"}


def test_every_binding_has_an_id_and_a_tooltip() -> None:
    for widget in OURS:
        for binding in widget.__dict__["BINDINGS"]:
            assert isinstance(binding, Binding)
            assert binding.id and binding.tooltip, f"{widget.__name__}: {binding}"


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(key.id for key in KEYS).items() if count > 1] == []


def test_no_key_means_two_things_in_one_place() -> None:
    """Escape goes back from the inner place first; nothing else is shared."""
    for chain in CHAINS:
        meanings: dict[str, set[str]] = {}
        for key in KEYS:
            if key.where in chain:
                for name in key.keys.split(","):
                    meanings.setdefault(name, set()).add(key.action)
        assert [name for name, actions in meanings.items() if len(actions) > 1 and name != "escape"] == []


def test_every_place_is_part_of_a_chain() -> None:
    assert {key.where for key in KEYS} <= {where for chain in CHAINS for where in chain}


def test_function_keys_never_stand_alone_and_multiplexer_keys_are_left_alone() -> None:
    for key in KEYS:
        names = key.keys.split(",")
        assert not MULTIPLEXERS & set(names), key.id
        if any(name.startswith("f") and name[1:].isdigit() for name in names):
            same = {name for other in KEYS if other.action == key.action for name in other.keys.split(",")}
            assert any(not (name.startswith("f") and name[1:].isdigit()) for name in same), key.id
            assert key.palette, f"{key.id} has no palette entry"


DIALOGS = ("page", "form", "pick", "pick-row", "newrun", "newprofile", "filter")
LOCAL = ("cursor_", "scroll_", "page_", "move(", "scroll(", "cancel", "dismiss", "back", "leave", "unzoom", "app.focus_")
"""Actions that only move inside a widget or close what is open: they need no name."""


def test_everything_else_has_a_palette_entry() -> None:
    named = {key.action for key in KEYS if key.palette} | {"app.command_palette"}
    missing = [
        key.id for key in KEYS if key.action not in named and not key.action.startswith(LOCAL) and key.where not in DIALOGS
    ]
    assert missing == []


@pytest.mark.parametrize("width", [34, 36, 56, 76, 116, 196])
@pytest.mark.parametrize("mode", ["show", "rule", "veto", "stop", "sending"])
def test_the_legend_is_never_cut(width: int, mode: str) -> None:
    rows = arranged(rows_of(mode, True, shown), width)
    assert all(len(row) <= width for row in rows)
    assert len(rows) <= (1 if width >= 116 else 2)
    assert ("a approve" in rows[0]) == (mode == "show")


def test_every_key_of_the_card_is_in_its_legend() -> None:
    legend = " ".join(arranged(rows_of("show", True, shown), 76)).split()
    for key in KEYS:
        if key.where == "card" and not key.action.startswith(("scroll", "page")):
            assert shown(key.id) in legend, key.id


async def test_every_palette_command_runs(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:
        for command in list(console.app.get_system_commands(console.app.screen)):
            if command.title in ("Theme", "Quit"):
                continue
            result = command.callback()
            if result is not None:
                await result
        await console.settle()
        assert engine.sent("pause") and engine.sent("mode")
        assert console.app.is_running


async def test_the_palette_offers_what_the_screen_can_do(engine: FakeEngine) -> None:
    script.add_history(engine)
    async with opened(engine) as console:

        def titles() -> list[str]:
            return [command.title for command in console.app.get_system_commands(console.app.screen)]

        assert "Pane: logs" in titles() and "Planner: give a hint" not in titles()
        await console.pilot.press("P")
        await console.until(lambda: isinstance(console.app.screen, PlannerScreen))
        assert "Pane: logs" not in titles() and "Quit" in titles()
        [hint] = [
            command
            for command in console.app.get_system_commands(console.app.screen)
            if command.title == "Planner: give a hint"
        ]
        result = hint.callback()
        if result is not None:
            await result
        await console.until(lambda: isinstance(console.app.screen, LineScreen), "the dialog")


def test_the_console_imports_nothing_heavy() -> None:
    code = (
        "import sys, lamdatui.ui.app.consoleapp, lamdatui.ui.__main__; "
        "heavy = {'torch', 'transformers', 'datasets', 'xllamacpp', 'numpy', 'trl', 'peft', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_reducer_imports_no_textual() -> None:
    code = (
        "import sys, lamdatui.ui.view.state, lamdatui.ui.lineage.forest, lamdatui.ui.card.text, lamdatui.ui.view.subject, lamdatui.ui.view.link, "
        "lamdatui.ui.view.stepfiles, lamdatui.ui.planner.text, lamdatui.ui.logs.model, lamdatui.ui.logs.sources, lamdatui.ui.kit.pager, "
        "lamdatui.ui.app.clipboard; assert 'textual' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
