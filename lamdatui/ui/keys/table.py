"""Every key of the console, in one table: `lamdatui keys`, the footer, the help panel and the palette read it.

No default is a multiplexer's key (ctrl+a, b, s, h, j, k, l), and no function key stands alone: terminals and
multiplexers take some of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding
from textual.keys import format_key

from lamdatui.ui.keys.key import Key, Where

CHAINS: tuple[tuple[Where, ...], ...] = (
    ("start", "pane", "app", "always"),
    ("console", "pane", "run", "app", "always"),
    ("console", "logs", "run", "app", "always"),
    ("console", "hardware", "scroll", "run", "app", "always"),
    ("progress", "scroll", "run", "app", "always"),
    ("console", "card", "run", "app", "always"),
    ("planner", "pane", "run", "app", "always"),
    ("planner", "scroll", "run", "app", "always"),
    ("dialog", "run", "always"),
    ("text", "run", "always"),
    ("edit", "run", "always"),
    ("line", "run", "always"),
    ("page", "run", "always"),
    ("form", "pick-row", "run", "always"),
    ("pick", "run", "always"),
    ("newrun", "always"),
    ("newprofile", "always"),
    ("console", "pipeline", "pane", "run", "app", "always"),
    ("filter", "run", "always"),
    ("node", "run", "app", "always"),
    ("compare", "run", "app", "always"),
    ("rows", "run", "app", "always"),
    ("queue", "run", "always"),
)
"""Places whose keys can be live at the same time: within one of these a key has one meaning. `always` is every screen and
dialog, also while text is typed; `app` is every screen but the dialogs; `run` is every place but the start screen."""


# fmt: off
KEYS: tuple[Key, ...] = (
    Key("palette", "ctrl+p", "app.command_palette", "Commands", "Every command by name", "always", priority=True),
    Key("help", "f1", "app.help", "Help", "Keys of the focused pane", "always", show=True, priority=True, palette="Help: keys"),
    Key("help-letter", "question_mark", "app.help", "Help", "Keys of the focused pane", "app"),
    Key("review", "f2,ctrl+r", "review", "Review", "Go to the proposal that waits", "console", show=True, palette="Review the waiting proposal"),
    Key("pane-pipeline", "f3,1", "pane('pipeline')", "Pipeline", "Show models by lineage", "console", palette="Pane: pipeline"),
    Key("pane-activity", "f4,2", "pane('activity')", "Activity", "Show what happened", "console", palette="Pane: activity"),
    Key("pane-logs", "f5,3", "pane('logs')", "Logs", "Show the log of the step", "console", palette="Pane: logs"),
    Key("pane-hardware", "f6,4", "pane('hardware')", "GPU", "Show GPU, CPU and the running step", "console", palette="Pane: GPU and CPU"),
    Key("pause", "f7,p", "app.pause", "Pause", "Pause or go on; the running step ends first", "console", show=True, palette="Pause or go on"),
    Key("cancel", "X", "app.cancel_trial", "End step", "Suspend or cancel the running trial's step", "console", palette="Suspend or cancel the running step"),
    Key("screenshot", "f8", "app.save_screenshot", "Screenshot", "Save the screen as SVG", "always", priority=True, palette="Save a screenshot (SVG)"),
    Key("screenshot-letter", "S", "app.save_screenshot", "Screenshot", "Save the screen as SVG", "app"),
    Key("hold", "f9,ctrl+g", "app.hold", "Hold", "Drop to mode ask: nothing more starts unasked", "run", show=True, priority=True, palette="Hold: drop to mode ask"),
    Key("mode", "m", "app.cycle_mode", "Mode", "Next mode: read-only, ask, ask-risky, auto", "console", show=True, palette="Mode: next"),
    Key("planner", "f10,P", "planner", "Planner", "Who proposes, what it was told, and whether it is worth its tokens", "console", show=True, palette="Planner: policy, hints, memory, worth"),
    Key("hardware-detail", "v", "detail", "Detail", "More or less detail: auto, compact, normal, full", "hardware", show=True, palette="GPU and CPU: more or less detail"),
    Key("progress", "f11,C", "progress", "Progress", "Charts of the step and of the run, and what of the budget is used", "console", palette="Progress: charts, best so far, budget"),
    Key("progress-next", "right,right_square_bracket", "move(1)", "Next", "Next panel", "progress", show=True),
    Key("progress-before", "left,left_square_bracket", "move(-1)", "Previous", "Previous panel", "progress"),
    Key("progress-tables", "t", "tables", "Table", "Numbers in place of charts, or charts again", "progress", show=True, palette="Progress: tables or charts"),
    Key("progress-axis", "x", "axis", "Over", "Best so far over trials, seconds of steps, seconds of the run", "progress", show=True, palette="Progress: best so far over trials or time"),
    Key("progress-metric", "n", "metric", "Metric", "Next value that the step reports beside its loss", "progress", show=True, palette="Progress: next reward metric"),
    Key("progress-review", "f2,ctrl+r", "review", "Review", "Go back to the proposal that waits", "progress", palette="Review the waiting proposal"),
    Key("progress-back", "escape", "back", "Back", "Back to the console", "progress", show=True),
    Key("log-source", "l", "log_source", "Choose log", "Log of any step, of the engine or the planner", "console", palette="Logs: choose a log"),
    Key("log-failure", "E", "log_failure", "Why it failed", "Log of the newest step that failed, at its error", "console", palette="Logs: why the last step failed"),
    Key("copy", "y", "app.copy", "Copy", "Copy the selection, else the row", "app", palette="Copy the selection or the row"),
    Key("zoom", "z", "zoom", "Zoom", "Show one pane alone; again or esc to go back", "console", palette="Zoom the focused pane"),
    Key("quit", "ctrl+q", "app.quit", "Quit", "Leave the run going, or stop it", "always", show=True, priority=True, palette="Quit"),
    Key("quit-letter", "q", "app.quit", "Quit", "Leave the run going, or stop it", "app"),
    Key("log-end", "end,G", "scroll_end", "Follow", "Go to the newest line and follow", "logs", palette="Logs: newest line, follow"),
    Key("log-start", "home,g", "scroll_home", "Top", "Go to the oldest line", "logs", palette="Logs: oldest line"),
    Key("log-down", "j", "scroll_down", "Down", "Line down", "logs"),
    Key("log-up", "k", "scroll_up", "Up", "Line up", "logs"),
    Key("log-search", "slash", "ask('search')", "Search", "Search; capitals count only when you type some", "logs", show=True, palette="Logs: search"),
    Key("log-next", "n", "find(1)", "Next hit", "Next line that has what was searched for", "logs", palette="Logs: next hit"),
    Key("log-before", "N", "find(-1)", "Previous match", "Previous line that has it", "logs", palette="Logs: previous match"),
    Key("log-error", "e", "error", "Error", "Go to the first traceback or error; again: the next one", "logs", show=True, palette="Logs: go to the error"),
    Key("log-problems", "f", "problems", "Problems", "Only warnings and errors, or all lines", "logs", show=True, palette="Logs: only warnings and errors, or all"),
    Key("log-wrap", "w", "wrap", "Wrap", "Fold long lines, or scroll sideways", "logs", palette="Logs: wrap long lines"),
    Key("log-times", "t", "times", "Times", "Times in front of the lines, or not", "logs", palette="Logs: times"),
    Key("log-pager", "o", "ask('pager')", "Pager", "Open the file in your pager", "logs", palette="Logs: open in the pager"),
    Key("log-step-before", "left_square_bracket", "ask('before')", "Previous step", "Log of the previous step", "logs", palette="Logs: previous step"),
    Key("log-step-after", "right_square_bracket", "ask('after')", "Step after", "Log of the step after", "logs", palette="Logs: step after"),
    Key("log-clear", "escape", "clear_search", "Clear", "End the search, point at no line", "logs", palette="Logs: end the search"),
    Key("down", "j", "cursor_down", "Down", "Next row", "pane"),
    Key("up", "k", "cursor_up", "Up", "Previous row", "pane"),
    Key("scroll-down", "j", "scroll_down", "Down", "Line down", "scroll"),
    Key("scroll-up", "k", "scroll_up", "Up", "Line up", "scroll"),
    Key("rows", "V", "rows", "Rows", "See rows of the proposal's datasets as they will be trained", "console", palette="Rows as they will be trained"),
    Key("card-approve", "a", "approve", "Approve", "Run it as shown", "card", palette="Card: approve"),
    Key("card-remember", "A", "remember", "Always", "Approve and remember a rule", "card", palette="Card: approve always"),
    Key("card-edit", "e", "wish('edit')", "Edit", "Change hyperparameters first", "card", palette="Card: edit"),
    Key("card-editor", "ctrl+e", "wish('editor')", "Editor", "Change it in your editor", "card", palette="Card: editor"),
    Key("card-other", "o", "wish('other')", "Other", "Run one of the alternatives instead", "card", palette="Card: other"),
    Key("card-own", "w", "wish('own')", "Own", "Write an action of your own instead", "card", palette="Card: own action"),
    Key("card-veto", "d", "veto", "Deny", "Veto it, with a reason that every policy obeys", "card", palette="Card: deny"),
    Key("card-skip", "s", "skip", "Skip", "Skip this trial without a constraint", "card", palette="Card: skip"),
    Key("card-stop", "x", "stop_run", "Stop", "Stop the run; asks once more", "card", palette="Card: stop the run"),
    Key("card-rules", "r", "wish('rules')", "Rules", "What is in force, to take it back", "card", palette="Card: rules"),
    Key("card-expand", "space", "expand", "Full", "Give the card the whole screen, or not", "card", palette="Card: full"),
    Key("card-down", "down,j", "scroll_down", "Down", "Scroll the card", "card"),
    Key("card-up", "up,k", "scroll_up", "Up", "Scroll the card", "card"),
    Key("card-page-down", "pagedown", "page_down", "Page down", "Scroll the card by a page", "card"),
    Key("card-page-up", "pageup", "page_up", "Page up", "Scroll the card by a page", "card"),
    Key("card-leave", "escape", "leave", "Back", "Back to where you were; nothing is decided", "card"),
    Key("planner-review", "f2,ctrl+r", "review", "Review", "Go back to the proposal that waits", "planner", palette="Review the waiting proposal"),
    Key("planner-hint", "h", "hint", "Hint", "Tell the planner something", "planner", show=True, palette="Planner: give a hint"),
    Key("planner-memory", "e", "memory", "Memory", "Rewrite the planner's memory", "planner", show=True, palette="Planner: edit its memory"),
    Key("planner-policy", "p", "policy", "Policy", "Choose who proposes from the next trial on", "planner", show=True, palette="Planner: choose another policy"),
    Key("planner-revoke", "x,delete", "revoke", "Revoke", "Take back the selected hint, constraint or rule", "planner", show=True, palette="Planner: revoke what is selected"),
    Key("start-new", "n", "new_run", "New run", "Start a run of the selected profile", "start", show=True, palette="Start a run"),
    Key("start-init", "i", "new_profile", "New profile", "Make a profile for a model and data of your own", "start", show=True, palette="Make a profile"),
    Key("start-refresh", "r", "refresh", "Refresh", "Look at runs and machine again", "start", show=True, palette="Look again"),
    Key("start-stop", "x", "stop_run", "Stop run", "Stop the selected run after its step", "start", palette="Stop the selected run"),
    Key("planner-back", "escape", "back", "Back", "Back to the console", "planner", show=True),
    Key("unzoom", "escape", "unzoom", "Back", "Show all panes again", "console"),
    Key("dialog-back", "escape", "cancel", "Back", "Close without choosing", "dialog"),
    Key("dialog-down", "j", "move(1)", "Down", "Next answer", "dialog"),
    Key("dialog-up", "k", "move(-1)", "Up", "Previous answer", "dialog"),
    Key("text-back", "escape,q,enter", "dismiss(None)", "Back", "Close", "text"),
    Key("text-copy", "y", "app.copy", "Copy", "Copy the selection, else the text", "text"),
    Key("text-down", "j,down", "scroll(1)", "Down", "Scroll", "text"),
    Key("text-up", "k,up", "scroll(-1)", "Up", "Scroll", "text"),
    Key("edit-back", "escape", "cancel", "Back", "Close without changing anything", "edit"),
    # Before the field's own ctrl+e, which goes to the end of the line: so does the key End.
    Key("edit-editor", "ctrl+e", "editor", "Editor", "Go on in your editor", "edit", priority=True, palette="Edit: editor"),
    Key("edit-next", "down", "app.focus_next", "Next", "Next field", "edit"),
    Key("edit-previous", "up", "app.focus_previous", "Previous", "Previous field", "edit"),
    Key("newrun-start", "ctrl+o", "start", "Start", "Start the run", "newrun"),
    Key("newrun-back", "escape", "cancel", "Back", "Close without starting anything", "newrun"),
    Key("newrun-next", "down", "app.focus_next", "Next", "Next field", "newrun"),
    Key("newrun-previous", "up", "app.focus_previous", "Previous", "Previous field", "newrun"),
    Key("newprofile-make", "ctrl+o", "make", "Make", "Make the profile", "newprofile"),
    Key("newprofile-back", "escape", "cancel", "Back", "Close without making anything", "newprofile"),
    Key("newprofile-next", "down", "app.focus_next", "Next", "Next field", "newprofile"),
    Key("newprofile-previous", "up", "app.focus_previous", "Previous", "Previous field", "newprofile"),
    Key("line-back", "escape", "cancel", "Back", "Close without sending anything", "line"),
    Key("page-back", "escape", "cancel", "Back", "Close without saving", "page", priority=True),
    Key("page-save", "ctrl+o", "save", "Save", "Save and close", "page", priority=True),
    Key("tree-down", "down", "cursor_down", "Down", "Next row", "pipeline"),
    Key("tree-up", "up", "cursor_up", "Up", "Previous row", "pipeline"),
    Key("tree-page-down", "pagedown", "page_down", "Page down", "A page down", "pipeline"),
    Key("tree-page-up", "pageup", "page_up", "Page up", "A page up", "pipeline"),
    Key("tree-first", "home,g", "first", "First", "Go to the first row", "pipeline", palette="Pipeline: first row"),
    Key("tree-last", "end,G", "last", "Last", "Go to the last row", "pipeline", palette="Pipeline: last row"),
    Key("tree-best", "b", "best", "Best", "Go to the best model", "pipeline", palette="Pipeline: go to the best model"),
    Key("tree-open", "enter", "open", "Open", "Everything about this model or trial", "pipeline", show=True, palette="Pipeline: open the selected row"),
    Key("tree-fold", "left", "fold", "Fold", "Fold, or go to the parent", "pipeline", palette="Pipeline: fold, or go to the parent"),
    Key("tree-unfold", "right", "unfold", "Unfold", "Unfold, or go to the first child", "pipeline", palette="Pipeline: unfold, or go to the first child"),
    Key("tree-toggle", "space", "turn", "Fold", "Fold or unfold", "pipeline", show=True, palette="Pipeline: fold or unfold"),
    Key("tree-fold-all", "minus", "fold_all", "Fold all", "Fold every row", "pipeline", palette="Pipeline: fold all"),
    Key("tree-unfold-all", "plus,equals_sign", "unfold_all", "Unfold all", "Unfold every row", "pipeline", palette="Pipeline: unfold all"),
    Key("tree-filter", "slash", "filter", "Filter", "Show the rows with these words or states", "pipeline", show=True, palette="Pipeline: filter"),
    Key("tree-sort", "s", "sort", "Sort", "Next order: by number (tree), objective, gain, cost", "pipeline", show=True, palette="Pipeline: next order"),
    Key("tree-mark", "c", "mark", "Compare", "Mark this one, or compare it with the marked one", "pipeline", show=True, palette="Pipeline: mark, or compare with the marked one"),
    Key("tree-extend", "e", "ask('extend')", "Extend", "Propose an action that goes on from this model", "pipeline", palette="By hand: go on from the selected model"),
    Key("tree-fork", "f", "ask('fork')", "Fork", "Propose another action with the same inputs", "pipeline", palette="By hand: fork the selected trial"),
    Key("tree-rerun", "r", "ask('rerun')", "Re-run", "Propose the same action with another seed", "pipeline", palette="By hand: run the selected trial again"),
    Key("tree-new", "n", "ask('new')", "New", "Write an action by hand", "pipeline", palette="By hand: write an action"),
    Key("tree-queue", "u", "ask('queue')", "Queue", "Actions that wait for their turn", "pipeline", palette="By hand: the queue"),
    Key("filter-keep", "enter,down", "keep", "Use", "Keep the filter and go back to the rows", "filter"),
    Key("filter-leave", "escape", "leave", "Clear", "Take the filter away", "filter"),
    Key("node-back", "escape", "back", "Back", "Back to the console", "node", show=True),
    Key("node-review", "f2,ctrl+r", "review", "Review", "Go back to the proposal that waits", "node", palette="Review the waiting proposal"),
    Key("node-action", "1", "section('action')", "Action", "Go to this section", "node", palette="Node: action"),
    Key("node-scores", "2", "section('scores')", "Scores", "Go to this section", "node", palette="Node: scores"),
    Key("node-lineage", "3", "section('lineage')", "Lineage", "Go to this section", "node", palette="Node: lineage"),
    Key("node-data", "4", "section('data')", "Data", "Go to this section", "node", palette="Node: data"),
    Key("node-loss", "5", "section('loss')", "Loss", "Go to this section", "node", palette="Node: loss"),
    Key("node-story", "6", "section('story')", "Story", "Go to this section", "node", palette="Node: story"),
    Key("node-log", "7", "section('log')", "Log", "Go to this section", "node", palette="Node: log"),
    Key("node-files", "8", "section('files')", "Files", "Go to this section", "node", palette="Node: files"),
    Key("node-pager", "o", "pager", "Pager", "Open its log in the pager", "node", show=True, palette="Node: log in the pager"),
    Key("node-down", "j,down", "scroll(1)", "Down", "Scroll", "node"),
    Key("node-up", "k,up", "scroll(-1)", "Up", "Scroll", "node"),
    Key("node-extend", "e", "ask('extend')", "Extend", "Propose an action that goes on from this model", "node", show=True, palette="By hand: go on from this"),
    Key("node-fork", "f", "ask('fork')", "Fork", "Propose another action with the same inputs", "node", show=True, palette="By hand: fork this"),
    Key("node-rerun", "r", "ask('rerun')", "Re-run", "Propose the same action with another seed", "node", show=True, palette="By hand: run this again"),
    Key("node-queue", "u", "ask('queue')", "Queue", "Actions that wait for their turn", "node", palette="By hand: the queue"),
    Key("node-compare", "c", "compare", "Compare", "Compare with the marked one, or mark this", "node", show=True, palette="Compare with the marked one, or mark this"),
    Key("node-rows", "w", "rows", "Answers", "What it answered, row by row, beside the base", "node", show=True, palette="Node: its answers, row by row"),
    Key("compare-rows", "w", "rows", "Answers", "What both answered, row by row", "compare", show=True, palette="Compare: their answers, row by row"),
    Key("answers-back", "escape", "back", "Back", "Back to where you were", "rows", show=True),
    Key("answers-task", "t", "task(1)", "Task", "Next task or split", "rows", show=True, palette="Answers: next task or split"),
    Key("answers-filter", "f", "filter(1)", "Filter", "Next kind of rows: all, lost, won, wrong, unfinished, empty", "rows", show=True, palette="Answers: next kind of rows"),
    Key("answers-down", "j,down", "move(1)", "Down", "Next row", "rows"),
    Key("answers-up", "k,up", "move(-1)", "Up", "Row before", "rows"),
    Key("answers-read", "space,pagedown", "read(1)", "Read on", "Scroll the row's texts", "rows", show=True, palette="Answers: scroll down"),
    Key("answers-read-up", "pageup", "read(-1)", "Read back", "Scroll the row's texts", "rows", palette="Answers: scroll up"),
    Key("compare-back", "escape", "back", "Back", "Back to where you were", "compare", show=True),
    Key("compare-swap", "x", "swap", "Swap", "The other one first", "compare", show=True, palette="Compare: the other one first"),
    Key("compare-down", "j,down", "scroll(1)", "Down", "Scroll", "compare"),
    Key("compare-up", "k,up", "scroll(-1)", "Up", "Scroll", "compare"),
    Key("queue-back", "escape", "dismiss(None)", "Back", "Close", "queue"),
    Key("queue-withdraw", "x,delete", "withdraw", "Withdraw", "Take the selected action back", "queue", palette="Queue: withdraw the selected action"),
    Key("form-send", "ctrl+o", "send", "Send", "Use the action as it stands", "form", show=True),
    Key("form-back", "escape", "cancel", "Back", "Close without using anything", "form", show=True),
    Key("form-next", "down", "app.focus_next", "Next", "Next field", "form"),
    Key("form-previous", "up", "app.focus_previous", "Previous", "Previous field", "form"),
    Key("pick-open", "enter,space", "ask", "Choose", "Open the list", "pick-row"),
    Key("pick-done", "escape", "done", "Back", "Close the list", "pick"),
    Key("pick-down", "down", "move(1)", "Down", "Next row", "pick"),
    Key("pick-up", "up", "move(-1)", "Up", "Previous row", "pick"),
)
# fmt: on


_chosen: dict[str, str] = {}


def use_keymap(keymap: Mapping[str, str]) -> None:
    """Let `shown` speak of the keys that a person chose; `keymap` has spelled-out names (`lamdatui.ui.keys.keymap.checked`)."""
    _chosen.clear()
    _chosen.update(keymap)


def shown(name: str, most: int = 1) -> str:
    """The keys of an id as a legend names them, after remapping: `F2`, or `F2 or ctrl+r` with `most=2`."""
    default = next(key.keys for key in KEYS if key.id == name)
    return " or ".join(display(key) for key in _chosen.get(name, default).split(",")[:most])


def display(key: str) -> str:
    """A key as it is written for people: `F2`, `ctrl+r`, `?`."""
    *modifiers, name = key.split("+")
    if function_key(name):
        name = name.upper()
    return "+".join([*modifiers, _SHORT.get(name) or (format_key(name) if "_" in name else name)])


def function_key(key: str) -> bool:
    """Whether it is F1 to F24, which terminals and multiplexers may take."""
    return key[0] == "f" and key[1:].isdigit()


_SHORT = {"escape": "esc", "up": "up", "down": "down", "pageup": "PgUp", "pagedown": "PgDn"}


def bindings(*where: Where) -> list[Binding]:
    """The bindings of some places, in table order."""
    return [key.binding() for key in KEYS if key.where in where]
