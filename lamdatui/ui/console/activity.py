"""The activity pane: what happened, one row each, newest last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.events import Resize
from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from lamdatui.ui.keys.table import bindings
from lamdatui.ui.kit.paint import paint
from lamdatui.ui.view.state import ACTIVITY_ROWS, ViewState

if TYPE_CHECKING:
    from lamdatui.ui.view.activityrows import ActivityRow

HEAD = 10


class ActivityOption(Option):
    """An option that remembers its row."""

    def __init__(self, row: ActivityRow) -> None:
        super().__init__(row_content(row))
        self.row = row


class ActivityPane(OptionList):
    """Follows the newest row while the cursor is on it; stays where the reader is otherwise."""

    BINDINGS = [*bindings("pane")]
    # Without a layout: a row more moves no other pane, and a scrollbar that comes lays the screen out by itself.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0))

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="activity", classes="pane", markup=False)
        self.border_title = "2 Activity"
        self._view = view
        self._shown = 0

    @property
    def selected_row(self) -> ActivityRow | None:
        """The row under the cursor."""
        option = self.highlighted_option
        return cast(ActivityOption, option).row if option else None

    def update_view(self) -> None:
        """Add the rows that are new."""
        rows = list(self._view.activity)
        new = self._view.activity_total - self._shown
        if new <= 0 and self.option_count:
            return
        follow = self.highlighted is None or self.highlighted >= self.option_count - 1
        if new >= len(rows) or self.option_count + new > 2 * ACTIVITY_ROWS:
            self.set_options([ActivityOption(row) for row in rows])
        else:
            self.add_options([ActivityOption(row) for row in rows[-new:]])
        self._shown = self._view.activity_total
        if follow and self.option_count:
            self.highlighted = self.option_count - 1
            self.call_after_refresh(self.scroll_to_highlight)

    def on_resize(self, event: Resize) -> None:
        # The card takes rows from the panes; the row that was read must stay on the screen.
        self.call_after_refresh(self.scroll_to_highlight)


def row_content(row: ActivityRow) -> Content:
    """`08:12:03 ? trial 3   proposed sft(base, mix) by lamdagent`."""
    # A row without a head goes on with the one above it.
    known = row.wall and row.head
    stamp = time.strftime("%H:%M:%S", time.localtime(row.wall)) if known else ""
    return paint(
        [
            (f"{stamp:<8} ", "dim"),
            (f"{row.glyph or ' '} ", row.tone),
            (f"{row.head:<{HEAD}} ", "dim" if row.tone == "dim" else "strong"),
            (row.text, row.tone if row.tone in ("dim", "bad") else "plain"),
        ]
    )
