"""The app of the start screen. It gives the run directory whose console is to be opened, or None."""

from __future__ import annotations

import gc
from pathlib import Path

from textual.screen import Screen

from lamdatui.ui.app.shell import ShellApp
from lamdatui.ui.start.screen import StartScreen


class StartApp(ShellApp[Path]):
    """Opens no socket and reads no journal: everything it shows comes from lamdatui's own commands."""

    # A default screen's own CSS_PATH is not read by Textual.
    CSS_PATH = Path(__file__).parent.parent / "start" / "start.tcss"

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self.runs_dir = runs_dir

    def get_default_screen(self) -> Screen[None]:
        return StartScreen(self.runs_dir)

    def on_mount(self) -> None:
        self.call_after_refresh(gc.enable)

    def action_help_quit(self) -> None:
        """Ctrl+c without a selection: nothing is lost by leaving."""
        self.exit()
