"""Every key of the console, in one table: `lamdatui keys`, the footer, the help panel and the palette read it.

No default is a multiplexer's key (ctrl+a, b, s, h, j, k, l), and no function key stands alone: terminals and
multiplexers take some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Where = Literal["app", "console", "pane", "logs", "card", "planner", "scroll", "form", "pick", "pick-row"]


@dataclass(frozen=True, slots=True)
class Key:
    """A binding: `id` is its name in a keymap, `palette` its name in the command palette."""

    id: str
    keys: str
    action: str
    label: str
    tooltip: str
    where: Where
    show: bool = False
    priority: bool = False
    palette: str = ""

    def binding(self) -> Binding:
        """The Textual binding."""
        return Binding(
            self.keys, self.action, self.label, show=self.show, priority=self.priority, tooltip=self.tooltip, id=self.id
        )


KEYS: tuple[Key, ...] = (
    Key("help", "f1,question_mark", "app.help", "Help", "Keys of the focused pane", "app", show=True, palette="Help: keys"),
    Key(
        "review",
        "f2,ctrl+r",
        "review",
        "Review",
        "Go to the proposal that waits",
        "console",
        show=True,
        palette="Review the waiting proposal",
    ),
    Key("pane-pipeline", "f3,1", "pane('pipeline')", "Pipeline", "Show models by lineage", "console", palette="Pane: pipeline"),
    Key("pane-activity", "f4,2", "pane('activity')", "Activity", "Show what happened", "console", palette="Pane: activity"),
    Key("pane-logs", "f5,3", "pane('logs')", "Logs", "Show the log of the step", "console", palette="Pane: logs"),
    Key(
        "pane-hardware",
        "f6,4",
        "pane('hardware')",
        "GPU",
        "Show GPU, CPU and the running step",
        "console",
        palette="Pane: GPU and CPU",
    ),
    Key(
        "pause",
        "f7,p",
        "app.pause",
        "Pause",
        "Pause or go on; the running step ends first",
        "console",
        show=True,
        palette="Pause or go on",
    ),
    Key(
        "screenshot",
        "f8,S",
        "app.save_screenshot",
        "Screenshot",
        "Save the screen as SVG",
        "app",
        palette="Save a screenshot (SVG)",
    ),
    Key(
        "hold",
        "f9,ctrl+g",
        "app.hold",
        "Hold",
        "Drop to mode ask: nothing more starts unasked",
        "app",
        show=True,
        priority=True,
        palette="Hold: drop to mode ask",
    ),
    Key(
        "mode",
        "m",
        "app.cycle_mode",
        "Mode",
        "Next mode: read-only, ask, ask-risky, auto",
        "console",
        show=True,
        palette="Mode: next",
    ),
    Key(
        "planner",
        "f10,P",
        "planner",
        "Planner",
        "Who proposes, what it was told, and whether it is worth its tokens",
        "console",
        show=True,
        palette="Planner: policy, hints, memory, worth",
    ),
    Key(
        "log-source",
        "l",
        "log_source",
        "Log source",
        "Log of the step, the engine or the planner",
        "console",
        palette="Logs: next source (step, engine, planner)",
    ),
    Key(
        "zoom", "z", "zoom", "Zoom", "Show one pane alone; again or esc to go back", "console", palette="Zoom the focused pane"
    ),
    Key(
        "quit", "ctrl+q", "app.quit", "Quit", "Leave the run going, or stop it", "app", show=True, priority=True, palette="Quit"
    ),
    Key("quit-letter", "q", "app.quit", "Quit", "Leave the run going, or stop it", "app"),
    Key("log-end", "end,G", "scroll_end", "Follow", "Go to the newest line and follow", "logs"),
    Key("log-start", "home,g", "scroll_home", "Top", "Go to the oldest line", "logs"),
    Key("log-down", "j", "scroll_down", "Down", "Line down", "logs"),
    Key("log-up", "k", "scroll_up", "Up", "Line up", "logs"),
    Key("down", "j", "cursor_down", "Down", "Next row", "pane"),
    Key("up", "k", "cursor_up", "Up", "Row before", "pane"),
    Key("form-send", "ctrl+o", "send", "Send", "Use the action as it stands", "form", show=True),
    Key("form-back", "escape", "cancel", "Back", "Close without using anything", "form", show=True),
    Key("form-next", "down", "app.focus_next", "Next", "Next field", "form"),
    Key("form-previous", "up", "app.focus_previous", "Before", "Field before", "form"),
    Key("pick-open", "enter,space", "ask", "Choose", "Open the list", "pick-row"),
    Key("pick-done", "escape", "done", "Back", "Close the list", "pick"),
    Key("pick-down", "down", "move(1)", "Down", "Next row", "pick"),
    Key("pick-up", "up", "move(-1)", "Up", "Row before", "pick"),
    Key("scroll-down", "j", "scroll_down", "Down", "Line down", "scroll"),
    Key("scroll-up", "k", "scroll_up", "Up", "Line up", "scroll"),
    Key("card-approve", "a", "approve", "Approve", "Run it as shown", "card"),
    Key("card-remember", "A", "remember", "Approve always", "Approve and remember the rule that is shown", "card"),
    Key("card-edit", "e", "edit", "Edit", "Change hyperparameters before it runs", "card"),
    Key("card-veto", "d", "veto", "Deny", "Veto it, with a reason that every policy obeys", "card"),
    Key("card-skip", "s", "skip", "Skip", "Skip this trial without a constraint", "card"),
    Key("card-stop", "x", "stop_run", "Stop", "Stop the run", "card"),
    Key("card-expand", "space", "expand", "Full", "Give the card the whole screen, or not", "card"),
    Key("card-down", "down,j", "scroll_down", "Down", "Scroll the card", "card"),
    Key("card-up", "up,k", "scroll_up", "Up", "Scroll the card", "card"),
    Key("card-page-down", "pagedown", "page_down", "Page down", "Scroll the card by a page", "card"),
    Key("card-page-up", "pageup", "page_up", "Page up", "Scroll the card by a page", "card"),
    Key("card-leave", "escape", "leave", "Back", "Back to where you were; nothing is decided", "card"),
    Key(
        "planner-review",
        "f2,ctrl+r",
        "review",
        "Review",
        "Go back to the proposal that waits",
        "planner",
        palette="Review the waiting proposal",
    ),
    Key(
        "planner-hint",
        "h",
        "hint",
        "Hint",
        "Tell the planner something",
        "planner",
        show=True,
        palette="Planner: give a hint",
    ),
    Key(
        "planner-memory",
        "e",
        "memory",
        "Memory",
        "Rewrite the planner's memory",
        "planner",
        show=True,
        palette="Planner: edit its memory",
    ),
    Key(
        "planner-policy",
        "p",
        "policy",
        "Policy",
        "Choose who proposes from the next trial on",
        "planner",
        show=True,
        palette="Planner: choose another policy",
    ),
    Key(
        "planner-revoke",
        "x,delete",
        "revoke",
        "Revoke",
        "Take back the selected hint, constraint or rule",
        "planner",
        show=True,
        palette="Planner: revoke what is selected",
    ),
    Key("planner-back", "escape", "back", "Back", "Back to the console", "planner", show=True),
)


def bindings(*where: Where) -> list[Binding]:
    """The bindings of some places, in table order."""
    return [key.binding() for key in KEYS if key.where in where]
