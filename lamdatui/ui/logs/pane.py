"""The logs pane: the log of any step, the engine, the planner or the step host, with search and the cause of a failure."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key
from textual.widgets import Input, Static

from lamdatui.ui.logs.sources import NEWEST, LogSource, beside, cause, source
from lamdatui.ui.view.state import ViewState

if TYPE_CHECKING:
    from lamdatui.ui.logs.model import LogModel
    from lamdatui.ui.logs.view import LogView

EMPTY = "No step has run."


class LogsPane(Vertical):
    """A line that says why the step failed, the view of the log, and the search line while one is typed."""

    def __init__(self, view: ViewState, run_dir: Path) -> None:
        super().__init__(id="logs", classes="pane")
        self._view = view
        self._run_dir = run_dir
        self._key = NEWEST
        self._shown: LogSource | None = None
        self._origin = 0
        self._said = ("", "")
        self._why = ""
        # A narrow pane has no border to say it on.
        self._head = Static(markup=False, id="log-head")
        self._cause = Static(markup=False, id="log-cause")
        self._cause.display = False

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._cause

    def on_mount(self) -> None:
        self._say()

    @cached_property
    def log_view(self) -> LogView:
        """The view of the log; imported and made after the first paint, which does without it."""
        from lamdatui.ui.logs.view import LogView

        return LogView()

    async def fill(self) -> None:
        """Show the log."""
        await self.mount(self.log_view)
        self.update_view()

    @property
    def key(self) -> str:
        """What was chosen: see `logsources.Source`."""
        return self._key

    @property
    def source(self) -> LogSource:
        """The log that is shown."""
        return source(self._key, self._view, self._run_dir)

    def choose(self, key: str) -> None:
        """Show another log."""
        self._key = key
        self.update_view()

    def beside(self, by: int) -> None:
        """Show the log of the step after or before."""
        self.choose(beside(self._key, by, self._view))

    def show_error(self, step: str) -> None:
        """Show the log of a step at its error."""
        self.choose(f"step:{step}")
        self.log_view.action_error()

    def update_view(self) -> None:
        """Open the log that should be shown; the same one again changes nothing but what is said of it."""
        if not self.log_view.is_attached:
            return
        now = self.source
        if self._shown is None or now.path != self._shown.path:
            self._close_search()
            self.log_view.open(now.path)
        self._shown = now
        if (why := cause(now.step)) != self._why:
            self._why = why
            self._cause.display = bool(why)
            self._cause.update(f"✗ {why}")
        self._say()

    async def on_log_view_asked(self, message: LogView.Asked) -> None:
        if message.what == "search":
            await self.begin_search()
        elif message.what == "pager":
            self.open_pager()
        else:
            self.beside(1 if message.what == "after" else -1)

    def open_pager(self) -> None:
        """Hand the terminal to the person's pager until it ends."""
        from lamdatui.ui.kit.opening import open_pager

        now, view = self.source, self.log_view
        if now.path is None:
            self.notify(EMPTY)
        else:
            open_pager(self, now.path, line=view.place + 1, follow=view.following and now.grows)

    def on_log_view_changed(self, message: LogView.Changed) -> None:
        if message.new:
            self._view.unread["logs"] = self._view.unread.get("logs", 0) + message.new
        self._say()

    # --- search --------------------------------------------------------------------------------------------------

    async def begin_search(self) -> None:
        """Open the search line; what is typed is searched for at once."""
        if self.query("#log-search"):
            self.query_one("#log-search").focus()
            return
        self._origin = self.log_view.place
        model = self.log_view.model
        line = SearchLine(model.search.needle if model and model.search else "")
        await self.mount(line)
        line.focus()

    @on(Input.Changed, "#log-search")
    def _typed(self, event: Input.Changed) -> None:
        self.log_view.search(event.value, self._origin)

    @on(Input.Submitted, "#log-search")
    def _submitted(self) -> None:
        self._close_search()

    def cancel_search(self) -> None:
        """Leave the search line as if nothing had been searched for."""
        self.log_view.search("", 0)
        self._close_search()

    def _close_search(self) -> None:
        for line in self.query(SearchLine):
            if line.has_focus:
                self.log_view.focus()
            line.remove()

    # --- what it says of itself ----------------------------------------------------------------------------------

    def _say(self) -> None:
        shown = self._shown
        model = self.log_view.model if shown else None
        title = f"{shown.name if shown else 'step'}{' · problems only' if shown and self.log_view.only_problems else ''}"
        place = " · ".join([*self._search_says(model), self._place_says(model)]) if model else EMPTY
        if (title, place) != self._said:
            self._said = (title, place)
            self.border_title, self.border_subtitle = Content(f"3 Logs · {title}"), Content(place)
            # Its height never changes: no reason to lay the screen out again, fifteen times a second.
            self._head.update(f"{title} · {place}", layout=False)

    def _search_says(self, model: LogModel) -> list[str]:
        search = model.search
        if search is None:
            return []
        place = search.place(model.mark) if model.mark is not None else None
        at = f"{place + 1:,} of " if place is not None else ""
        going = "" if search.is_done else f", {search.progress:.0%} searched"
        return [f"{at}{len(search.hits):,} hits{going}"]

    def _place_says(self, model: LogModel) -> str:
        view = self.log_view
        if model.index.is_behind:
            return f"reading {model.index.size / max(1, model.index.file_size):.0%}"
        if view.only_problems and not model.levels.is_done:
            return f"reading {model.levels.progress:.0%}"
        if view.behind and not view.following:
            return f"↓ {view.behind:,} new, End follows"
        if not model.rows:
            return "no warning or error" if view.only_problems and model.index.count else "empty so far"
        if not view.following:
            return f"line {view.place + 1:,} of {model.index.count:,}"
        return "following" if self._shown and self._shown.grows else f"{model.index.count:,} lines"


class SearchLine(Input):
    """The line that a search is typed into."""

    def __init__(self, value: str) -> None:
        super().__init__(value, placeholder="search; enter keeps it, n and N go on, esc leaves it", id="log-search",
                         compact=True)  # fmt: skip

    def on_key(self, event: Key) -> None:
        pane = self.parent
        if not isinstance(pane, LogsPane):
            return
        if event.key == "escape":
            event.stop()
            pane.cancel_search()
        elif event.key in ("up", "down"):
            event.stop()
            pane.log_view.action_find(1 if event.key == "down" else -1)
