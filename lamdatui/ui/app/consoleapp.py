"""The console: a pure client of one engine. It holds no truth and may end at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from textual import events, on, work
from textual.app import SystemCommand
from textual.dom import DOMNode
from textual.screen import Screen

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.domain.decisions import MODES
from lamdatui.ui.app import garbage
from lamdatui.ui.app.attention import Attention
from lamdatui.ui.app.shell import ShellApp
from lamdatui.ui.console.screen import ConsoleScreen
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.stack import Asked, TrialAsked, attempt, send
from lamdatui.ui.view.link import EngineLink
from lamdatui.ui.view.state import Part, ViewState
from lamdatui.ui.view.stepfiles import read_metrics, step_folder

QUIT_CHOICES = {
    "leave": "Leave it running (come back with `lamdatui attach`)",
    "after-step": "Stop after this step",
    "now": "Stop now",
    "": "Cancel",
}


class ConsoleApp(ShellApp[int]):
    """Watches and steers the engine of one run directory."""

    # A default screen's own CSS_PATH is not read by Textual.
    CSS_PATH = Path(__file__).parent / "console.tcss"
    BINDINGS = [*bindings("run")]

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.view = ViewState()
        self.attention = Attention(clock, self.settings.ui.notifications)
        self._link = EngineLink(run_dir, self.receive, lambda: self.view.run.last_seq)
        self.console_screen = ConsoleScreen(self.view, run_dir, clock, self._link.command)

    def get_default_screen(self) -> Screen[None]:
        return self.console_screen

    def on_mount(self) -> None:
        self.set_interval(1.0, self.call_person)
        if self.own_process:
            self.set_interval(1.0, lambda: garbage.idle(self.attention.idle_seconds))
        self.call_after_refresh(self._painted)

    def _painted(self) -> None:
        """The first paint waits for nothing, and garbage is not collected before it."""
        self._collect_garbage()
        self._watch_engine()

    @work(group="link")
    async def _watch_engine(self) -> None:
        await self._link.run()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent):
            self.attention.touched()
        await super().on_event(event)

    def on_key(self, event: events.Key) -> None:
        # A key that no widget took is looked up where the focus is by now.
        self.console_screen.card.grace.came(event.time)

    def on_app_focus(self) -> None:
        self.attention.focus(True)

    def on_app_blur(self) -> None:
        self.attention.focus(False)

    def call_person(self) -> None:
        """Set the terminal's title, and call a person who looks elsewhere while a proposal waits."""
        trial = self.view.waiting
        action = trial.proposal["action"] if trial and trial.proposal else None
        waiting = (trial.number, str(action["digest"]), str(action["type"])) if trial and action else None
        if text := self.attention.due(waiting, self.view.run.name):
            self.write_terminal(text)

    def write_terminal(self, text: str) -> None:
        """Bytes for the terminal itself, where there is one."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(text)

    def action_notifications(self) -> None:
        self.attention.is_on = not self.attention.is_on
        self.notify(f"Notifications are {'on' if self.attention.is_on else 'off'} in this console.")

    @property
    def way_back(self) -> str:
        return f"the run goes on; come back with `lamdatui attach {self.run_dir}`"

    def receive(self, frames: list[dict[str, Any]]) -> None:
        """Take a batch of frames in and tell the screen once what changed."""
        # The first paint does without frames.
        from lamdatui.ui.view.reduce import reduce

        changed: set[Part] = set()
        was = self.view.connection
        for frame in frames:
            changed |= reduce(self.view, frame)
        if self.view.connection != was:
            self._collect_garbage()
        self._backfill()
        if self.view.connection == "catching-up":
            # The panes are painted once, when all of it is there.
            changed &= {"status"}
        if changed:
            self.console_screen.post_message(ConsoleScreen.ViewChanged(frozenset(changed)))

    def _collect_garbage(self) -> None:
        """Not while a history comes in."""
        if not self.own_process:
            return
        if self.view.connection == "catching-up":
            garbage.hold()
        else:
            garbage.settle()

    def _backfill(self) -> None:
        """The loss of a step that ran before this console attached is in its file, not in frames."""
        step, progress = self.view.running_step, self.view.progress
        if step is None or step.status != "running" or (progress and progress.step == step.key):
            return
        if folder := step_folder(self.run_dir, step.key):
            self.view.take_metrics(step.key, read_metrics(folder / "metrics.jsonl"))

    @on(TrialAsked)
    def _trial_asked(self, message: TrialAsked) -> None:
        self.fetch_trial(message.number, message.then)

    @work(group="trials")
    async def fetch_trial(self, number: int, then: Callable[[], object]) -> None:
        """Have the parts of a trial that a snapshot left out. Where they can't be had, what is known is shown."""
        try:
            found = await self._link.command("trial", number=number)
            self.view.complete(number, found)
        except LamdatuiError as error:
            self.notify(one_line(error.what), title=f"trial {number} is shown in brief", severity="warning", markup=False)
        except (KeyError, TypeError):
            self.notify("the engine's answer can't be read", title=f"trial {number} is shown in brief", severity="warning")
        then()

    @on(Asked)
    def _asked(self, message: Asked) -> None:
        self._ask_engine(message)

    @work(group="questions")
    async def _ask_engine(self, message: Asked) -> None:
        found = None
        try:
            found = await self._link.command(message.command, **message.args)
        except LamdatuiError as error:
            self.notify(one_line(error.what), title=f"no {message.command}", severity="warning", markup=False)
        attempt(self.console_screen, message.command, partial(message.then, found))

    def send(self, command: str, args: dict[str, Any], *, accepted: Callable[[], object] | None = None) -> None:
        """Send a command; a refusal is shown as a toast."""
        send(self, self._link.command, command, args, accepted=accepted)

    def action_help_quit(self) -> None:
        """Ctrl+c without a selection: people who press it want out, and the dialog is the way."""
        self.call_next(self.action_quit)

    async def action_quit(self) -> None:
        if self.screen.has_class("choice-screen"):
            return
        if self.view.is_over or self.view.connection in ("lost", "connecting"):
            self.exit(0)
            return
        step = self.view.running_step
        text = f"Step {step.key} ({step.purpose}) is running." if step else "No step is running right now."
        self._choose("Quit the console?", f"{text} Closing the console never stops it.", QUIT_CHOICES, self._quit_chosen)

    def _choose(self, title: str, text: str, choices: dict[str, str], chosen: Callable[[str | None], None]) -> None:
        # Imported when it is first asked for: the first paint does not wait for it.
        from lamdatui.ui.kit.dialogs import ChoiceScreen

        self.push_screen(ChoiceScreen(title, text, choices), chosen)

    def _quit_chosen(self, choice: str | None) -> None:
        if choice == "leave":
            self.exit(0)
        elif choice:
            self.send("stop", {"when": choice}, accepted=partial(self.exit, 0))

    def action_pause(self) -> None:
        self.send("resume" if self.view.run.paused else "pause", {})

    def action_cancel_trial(self) -> None:
        """Ask how, then end the step of the trial that is at work."""
        trial = self.view.run.open_trial
        if trial is None or trial.status != "running":
            self.notify("No trial is at work.")
            return
        choices = {"": "No, let it go on", "suspend": "Suspend it", "cancel": "Cancel it"}
        text = (
            "Suspended, it ends with a checkpoint and the run pauses: it goes on from there when the run does. "
            "Cancelled, the trial fails and the search goes on with the next one."
        )
        number = trial.number

        def chosen(choice: str | None) -> None:
            if choice == "cancel":
                self.send("cancel", {"number": number})
            elif choice:
                self.send("suspend", {})

        self._choose(f"End the step of trial {number}?", text, choices, chosen)

    def action_hold(self) -> None:
        self.send("mode", {"mode": "ask"}, accepted=partial(self.notify, "Mode ask: nothing more starts unasked."))

    def action_cycle_mode(self) -> None:
        now = self.view.run.mode
        mode = MODES[(MODES.index(now) + 1) % len(MODES)] if now in MODES else "ask"
        if mode != "auto":
            self.send("mode", {"mode": mode})
            return
        from lamdatui.ui.view.format import budget_text

        choices = {"": "No, go on asking", "auto": "Yes, run without asking"}
        text = f"In auto everything that is legal runs without asking: {budget_text(self.view.run)}. {shown('hold')} takes it back."
        self._choose("Switch to auto?", text, choices, self._auto_chosen)

    def _auto_chosen(self, choice: str | None) -> None:
        if choice == "auto":
            self.send("mode", {"mode": "auto"})

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        self.console_screen.card.listed()
        yield from super().get_system_commands(screen)
        yield SystemCommand("Notifications", "Call you when a proposal waits, or not", self.action_notifications)

    async def _run_key(self, action: str, node: DOMNode) -> None:
        if node is self.console_screen.card:
            self.console_screen.card.chosen()
        await super()._run_key(action, node)
