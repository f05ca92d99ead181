"""The logs pane: the tail of the step's, the engine's or the planner's log."""

from __future__ import annotations

from pathlib import Path

from textual.events import Resize
from textual.widgets import Log

from lamdatui.ui.keys import bindings
from lamdatui.ui.state import ViewState
from lamdatui.ui.tail import Tail, step_folder

SOURCES = ("step", "engine", "planner")
MAX_LINES = 5000
POLL_SECONDS = 0.25
EMPTY = "No step has run."


class LogsPane(Log):
    """Follows the end while the reader is there. `MAX_LINES` are kept; the file on disk is complete."""

    BINDINGS = [*bindings("logs")]

    def __init__(self, view: ViewState, run_dir: Path) -> None:
        super().__init__(id="logs", classes="pane", max_lines=MAX_LINES)
        self._view = view
        self._run_dir = run_dir
        self._source = 0
        self._tail: Tail | None = None
        self._behind = 0
        self._following = True

    def on_mount(self) -> None:
        self.update_view()
        self.set_interval(POLL_SECONDS, self.poll)

    @property
    def source(self) -> str:
        """`step`, `engine` or `planner`."""
        return SOURCES[self._source]

    def next_source(self) -> None:
        """Switch to the next log."""
        self._source = (self._source + 1) % len(SOURCES)
        self.update_view()

    def update_view(self) -> None:
        """Open the log that should be shown; the same one again changes nothing."""
        path = self._path()
        if path != (self._tail.path if self._tail else None):
            self._tail = Tail(path) if path else None
            self._behind = 0
            self._following = True
            self.clear()
        self.poll()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._resume_at_end()

    def release_anchor(self) -> None:
        """Textual calls it for scrolling that a person does, and only that may end the following."""
        super().release_anchor()
        self._following = False

    def _resume_at_end(self) -> None:
        # The target too: an animated scroll that has only begun is still at the end.
        if min(self.scroll_y, self.scroll_target_y) >= self.max_scroll_y:
            self._following, self._behind = True, 0

    def on_resize(self, event: Resize) -> None:
        if self._following:
            self.scroll_end(animate=False, x_axis=False)

    def poll(self) -> None:
        """Show the lines that are new."""
        self._resume_at_end()
        lines = self._tail.read() if self._tail else []
        if lines:
            self.write_lines((line or " " for line in lines), scroll_end=False)
            self._view.unread["logs"] = self._view.unread.get("logs", 0) + len(lines)
            if self._following:
                self.scroll_end(animate=False, x_axis=False)
            else:
                self._behind += len(lines)
        self._title()

    def _path(self) -> Path | None:
        if self.source != "step":
            return self._run_dir / f"{self.source}.log"
        step = self._view.shown_step
        folder = step_folder(self._run_dir, step.key) if step else None
        return folder / "log.txt" if folder else None

    def _title(self) -> None:
        step = self._view.shown_step
        what = f"step {step.key}, {step.purpose}" if self.source == "step" and step else self.source
        self.border_title = f"3 Logs · {what}"
        if self._behind:
            self.border_subtitle = f"↓ {self._behind} new, End follows"
        elif not self.line_count:
            self.border_subtitle = EMPTY if self._tail is None else "empty so far"
        else:
            self.border_subtitle = "following · l next log"
