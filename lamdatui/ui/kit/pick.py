"""A modal list with a filter: pick one of many, or several in an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.kit.stack import leave
from lamdatui.ui.view.format import Line, Span

SHOWN = 200
"""Rows at once; typing narrows the rest."""


class PickScreen(ModalScreen[tuple[str, ...] | None]):
    """Gives what was picked, in the order of picking; None when nothing changed.

    With `most` above 1, enter adds and removes, and escape keeps what is picked.
    """

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS = [*bindings("pick")]

    def __init__(
        self, title: str, names: Sequence[str], line: Callable[[str], Line], picked: Sequence[str], most: int = 1
    ) -> None:
        super().__init__(classes="pick-screen")
        self._title = title
        self._names = list(names)
        self._line = line
        self._picked = list(picked)
        self._most = most
        self._rows: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -form") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(
                f"enter adds or removes · {shown('pick-done')} keeps this"
                if self._most > 1
                else f"enter takes it · {shown('pick-done')} goes back"
            )
            yield Input(placeholder="type to narrow the list", compact=True, classes="dialog-line")
            yield OptionList(markup=False, id="pick-list")
            yield Static("", markup=False, id="pick-verdict")

    def on_mount(self) -> None:
        self._fill()

    @on(Input.Changed)
    def _typed(self) -> None:
        self._fill()

    @on(Input.Submitted)
    def _entered(self) -> None:
        place = self.query_one(OptionList).highlighted
        if place is not None and self._rows:
            self._take(self._rows[place])

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        if self._rows:
            self._take(self._rows[event.option_index])

    def action_move(self, by: int) -> None:
        rows = self.query_one(OptionList)
        (rows.action_cursor_down if by > 0 else rows.action_cursor_up)()

    def action_done(self) -> None:
        leave(self, tuple(self._picked) if self._most > 1 else None)

    def _take(self, name: str) -> None:
        if self._most == 1:
            leave(self, (name,))
            return
        if name in self._picked:
            self._picked.remove(name)
        elif len(self._picked) < self._most:
            self._picked.append(name)
        else:
            self.app.bell()
        self._fill(name)

    def _fill(self, at: str = "") -> None:
        typed = self.query_one(Input).value.lower().strip()
        matching = self._matching(typed) if typed else self._names
        self._rows = matching[:SHOWN]
        rows = self.query_one(OptionList)
        if self._rows:
            rows.set_options([Option(paint((self._sign(name), *self._line(name)))) for name in self._rows])
            # What was typed decides, not what is picked already: the same keys lead to the same row.
            wanted = at or (self._picked[0] if self._picked and not typed else "")
            rows.highlighted = self._rows.index(wanted) if wanted in self._rows else 0
        else:
            rows.set_options([Option(paint([("Nothing matches.", "dim")]), disabled=True)])
        hidden = len(matching) - len(self._rows)
        parts = [f"{hidden} more; type to narrow the list"] if hidden else []
        if self._most > 1:
            parts.insert(0, f"picked: {'+'.join(self._picked) or 'none'}")
        self.query_one("#pick-verdict", Static).update(" · ".join(parts))

    def _matching(self, typed: str) -> list[str]:
        """Names whose rows have every word that was typed: first the name itself, then what begins with it, then the rest."""
        words = typed.split()
        lines = {name: self._line(name) for name in self._names}
        matching = [name for name, line in lines.items() if all(word in _text(line) for word in words)]

        def rank(name: str) -> int:
            heads = [name.lower(), *(text.strip().lower() for text, _ in lines[name])]
            if typed in heads:
                return 0
            if any(head.startswith(typed) for head in heads):
                return 1
            return 2 if typed in _text(lines[name]) else 3

        return sorted(matching, key=rank)

    def _sign(self, name: str) -> Span:
        if name not in self._picked:
            return ("   ", "plain")
        place = f"{self._picked.index(name) + 1}" if self._most > 1 else ""
        return (f"✓{place:<2}", "good")


def _text(line: Line) -> str:
    return "".join(text for text, _ in line).lower()
