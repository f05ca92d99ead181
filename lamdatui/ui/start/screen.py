"""The start screen: runs of a folder, profiles, this machine. It paints at once; what is slow fills in when it is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.config.resources import files, profile_summary, replaced, untrusted
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit import commandline
from lamdatui.ui.kit.footer import KeyFooter
from lamdatui.ui.kit.paint import paint_lines
from lamdatui.ui.kit.stack import open_over
from lamdatui.ui.start.text import (
    FETCH,
    NO_RUNS,
    ProfileChoice,
    RunRow,
    finding_lines,
    profile_line,
    run_line,
    runs_of,
    shown_findings,
)
from lamdatui.ui.view.format import Line

if TYPE_CHECKING:
    from lamdatui.ui.start.busy import BusyScreen

Json = dict[str, Any]
Item = TypeVar("Item")


class Rows(OptionList, Generic[Item]):
    """Items as lines that are laid out for the width that the pane has; the cursor stays on its item."""

    BINDINGS = [*bindings("pane")]

    def __init__(self, name: str, title: str, lay_out: Callable[[Item, int], list[Line]], empty: str) -> None:
        super().__init__(id=name, classes="start-pane", markup=False)
        self.border_title = Content(title)
        self.items: list[Item] = []
        self._lay_out = lay_out
        self._empty = empty

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def show(self, items: list[Item], empty: str = "") -> None:
        """Replace the items; `empty` is said when there are none."""
        self.items, self._empty = items, empty or self._empty
        self._draw()

    @property
    def selected(self) -> Item | None:
        """The item under the cursor."""
        return self.items[self.highlighted] if self.items and self.highlighted is not None else None

    def _draw(self) -> None:
        place = self.highlighted or 0
        width = max(16, self.scrollable_content_region.width - 1)
        self.set_options([Option(paint_lines(self._lay_out(item, width))) for item in self.items])
        if not self.items:
            self.add_option(Option(Content(self._empty), disabled=True))
        else:
            self.highlighted = min(place, len(self.items) - 1)


class StartScreen(Screen[None]):
    """Three panes; enter does what the pane is for."""

    AUTO_FOCUS = "#start-profiles"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (30, "-tall")]
    BINDINGS = [*bindings("start")]

    def __init__(self, runs_dir: Path) -> None:
        super().__init__(id="start")
        self._runs_dir = runs_dir
        self._runs: Rows[RunRow] = Rows("start-runs", "Runs", lambda run, width: [run_line(run, width)], "looking for runs…")
        self._profiles: Rows[ProfileChoice] = Rows(
            "start-profiles", "Profiles", lambda item, width: [profile_line(item, width)], "No profile can be found."
        )
        self._machine: Rows[Json] = Rows("start-machine", "This machine", finding_lines, "looking at this machine…")

    def compose(self) -> ComposeResult:
        yield Static(self._heading(), markup=False, id="start-head")
        yield Static(markup=False, id="start-note")
        with Container(id="start-panes"):
            with Vertical(id="start-left"):
                yield self._runs
                yield self._profiles
            yield self._machine

    def on_mount(self) -> None:
        self._look_for_profiles()
        self.call_after_refresh(self._mount_rest)

    async def _mount_rest(self) -> None:
        """What the first paint does without; nothing where that came too late: the screen was left already."""
        if not self.is_attached:
            return
        await self.mount(KeyFooter())
        self.refresh_bindings()
        self.action_refresh()

    def _heading(self) -> str:
        return f" lamdatui · runs in {one_line(self._runs_dir)}"

    def _look_for_profiles(self) -> None:
        self._profiles.show(profiles())
        note = self.query_one("#start-note", Static)
        note.update(one_line(text := untrusted()))
        note.display = bool(text)

    def action_refresh(self) -> None:
        self._look_for_profiles()
        self._look_for_runs()
        self._look_at_machine()

    @work(group="runs", exclusive=True)
    async def _look_for_runs(self) -> None:
        try:
            found = runs_of(await commandline.ask("runs", "--runs-dir", str(self._runs_dir)))
        except (LamdatuiError, KeyError, TypeError) as error:
            self._runs.show([], f"can't list the runs: {one_line(error)}")
            return
        first = not self._runs.items
        self._runs.show(found, NO_RUNS)
        going = sum(run.is_going for run in found)
        self._runs.border_subtitle = Content(f"{going} going" if going else "")
        # In a browser nothing has the focus until its page has.
        if first and found and self.focused in (None, self._profiles) and self._profiles.highlighted == 0:
            self._runs.focus()

    @work(group="machine", exclusive=True)
    async def _look_at_machine(self) -> None:
        self._machine.border_subtitle = "looking…"
        try:
            found = shown_findings(await commandline.ask("doctor"))
        except (LamdatuiError, KeyError, TypeError) as error:
            self._machine.show([], f"can't look at this machine: {one_line(error)}")
            return
        finally:
            self._machine.border_subtitle = ""
        self._machine.show(found)
        wrong = sum(item["status"] not in ("ok", "info") for item in found)
        self._machine.border_subtitle = Content(f"{wrong} to look at" if wrong else "nothing missing")

    @on(OptionList.OptionSelected, "#start-runs")
    def _run_chosen(self) -> None:
        if run := self._runs.selected:
            self._open(f"Opening {run.name}", ["attach", run.path, "--no-console"])

    @on(OptionList.OptionSelected, "#start-profiles")
    def action_new_run(self) -> None:
        from lamdatui.ui.start.newrun import NewRunScreen

        if profile := self._profiles.selected:
            summary = f"In place of lamdatui's own: {profile.summary}" if profile.replaces else profile.summary
            open_over(self, NewRunScreen(profile.name, summary, self._runs_dir), self._run_wanted)

    def action_new_profile(self) -> None:
        from lamdatui.ui.start.newprofile import NewProfileScreen

        open_over(self, NewProfileScreen(), self._profile_wanted)

    def _profile_wanted(self, arguments: list[str] | None) -> None:
        if arguments is not None:
            from lamdatui.ui.start.busy import BusyScreen

            self._open_busy(BusyScreen("Looking at your model and data", arguments), self._profile_made)

    def _profile_made(self, output: str | None) -> None:
        self._look_for_profiles()
        if output:
            from lamdatui.ui.kit.dialogs import TextScreen

            lines: list[Line] = [((line, "plain"),) for line in output.splitlines()]
            open_over(self, TextScreen("What was seen, and the profile that was made", lines, 2))

    def _run_wanted(self, arguments: list[str] | None) -> None:
        if arguments is not None:
            self._open(f"Starting a run of {arguments[0]}", ["run", *arguments, "--no-console"])

    def _open(self, title: str, arguments: list[str]) -> None:
        from lamdatui.ui.start.busy import BusyScreen

        self._open_busy(BusyScreen(title, [*arguments, "--runs-dir", str(self._runs_dir)]), self._opened)

    def _open_busy(self, screen: BusyScreen, ended: Callable[[str | None], None]) -> None:
        if not open_over(self, screen, ended):
            self.notify("Another screen was opened meanwhile; nothing was started.", severity="warning")

    def _opened(self, output: str | None) -> None:
        if output and (lines := output.split("\n")):
            self.app.exit(Path(lines[-1]))
        else:
            self._look_for_runs()

    @on(OptionList.OptionSelected, "#start-machine")
    def _finding_chosen(self) -> None:
        item = self._machine.selected
        if item is None:
            return
        from lamdatui.ui.kit.dialogs import ChoiceScreen, TextScreen

        fix = str(item.get("fix") or "")
        if not fix.startswith(FETCH):
            lines = finding_lines(item, 400)
            open_over(self, TextScreen(one_line(item["subject"]), lines, 2))
            return
        choices = {"": "Not now", "run": f"Run it now: {fix}"}
        text = f"{item['detail']}. The fix needs the network."
        open_over(self, ChoiceScreen(one_line(item["subject"]), text, choices), partial(self._fix_chosen, fix))

    def _fix_chosen(self, fix: str, choice: str | None) -> None:
        if choice:
            from lamdatui.ui.start.busy import BusyScreen

            arguments = ["models", "fetch", fix.removeprefix(FETCH)]
            self._open_busy(BusyScreen(fix, arguments), self._fixed)

    def _fixed(self, output: str | None) -> None:
        self._look_at_machine()

    def action_stop_run(self) -> None:
        run = self._runs.selected
        if run is None or not run.is_going:
            self.notify("No going run is selected.")
            return
        from lamdatui.ui.kit.dialogs import ChoiceScreen

        choices = {"": "Leave it running", "stop": "Stop after its step"}
        text = f"It can go on later: enter on it, or {shown('start-new')} for a new one."
        open_over(self, ChoiceScreen(f"Stop {run.name}?", text, choices), partial(self._stop_chosen, run))

    def _stop_chosen(self, run: RunRow, choice: str | None) -> None:
        if choice:
            self._stop(run)

    @work(group="stop")
    async def _stop(self, run: RunRow) -> None:
        ended = await commandline.run("stop", run.path)
        if ended.code:
            self.notify(one_line(" ".join(ended.errors)), title=f"{run.name} was not stopped", severity="error", markup=False)
        else:
            self.notify(f"{run.name} stops after its step.", markup=False)
        self._look_for_runs()


def profiles() -> list[ProfileChoice]:
    """What can be run by name; the project's and the user's own come first."""
    hidden = replaced("profiles")
    found = [
        ProfileChoice(one_line(name), one_line(origin), one_line(profile_summary(path)), name in hidden)
        for name, (origin, path) in sorted(files("profiles").items())
    ]
    return sorted(found, key=lambda profile: profile.origin == "builtin")
