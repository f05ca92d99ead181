"""Actions that a person puts together from a node: go on from it, fork it, run it again; and the list of those that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from textual.screen import Screen

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.ui.kit.stack import open_over
from lamdatui.ui.view.drafts import Draft, draft_of
from lamdatui.ui.view.format import call_text
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.subject import Subject, subject

Ask = Callable[..., Awaitable[Any]]


class ByHand:
    """Opens the action form for a node and sends what comes of it. `screen` shows the toasts."""

    def __init__(self, screen: Screen[Any], view: ViewState, ask: Ask) -> None:
        self._screen = screen
        self._view = view
        self._ask = ask

    def do(self, verb: str, key: str, closed: Callable[[Any], None]) -> None:
        """`extend`, `fork` or `rerun` a node, write a `new` action, or show the `queue`; `closed` is called when all is done."""
        if verb == "queue":
            from lamdatui.ui.byhand.queue import QueueScreen

            open_over(self._screen, QueueScreen(self._view, self._ask), closed)
            return
        item = subject(self._view.run, key) if key else None
        found = ("Next trial by hand", Draft()) if verb == "new" else self._draft(verb, item)
        if found is None:
            return
        # Imported when it is first asked for: the first paint does not wait for it.
        from lamdatui.ui.kit.actionform import ActionScreen

        title, draft = found
        screen = ActionScreen(title, draft, self._view, self._ask, self._propose, verb="queues it as the next trial")
        open_over(self._screen, screen, closed)

    def _draft(self, verb: str, item: Subject | None) -> tuple[str, Draft] | None:
        if item is None:
            self._tell("Nothing is selected.")
            return None
        trial = item.trial
        if verb == "extend":
            if item.model is None and (trial is None or trial.dataset is None):
                self._tell(f"{item.name} made nothing to go on from; it can be forked or run again.")
                return None
            inputs = {"model": (item.model,)} if item.model else {"dataset": (item.name,)}
            return f"Go on from {item.name}", Draft(inputs=inputs)
        if trial is None or not trial.action:
            self._tell(f"{item.name} comes from no action; it can be gone on from.")
            return None
        if verb == "fork":
            return f"Fork {item.name}: {call_text(trial.action)}", draft_of(trial.action)
        return f"Run {item.name} again: {call_text(trial.action)}, another seed", draft_of(trial.action)

    async def _propose(self, draft: Draft) -> None:
        """Queue the action. Raises LamdatuiError when it is refused: the form shows why."""
        if self._view.run.mode == "read-only":
            raise LamdatuiError("the mode is read-only: nothing runs; change it with m first")
        reply = await self._ask("propose", **draft.args(), note=draft.note)
        told = reply if isinstance(reply, dict) else {}
        name = f" as {told['id']}" if told.get("id") else ""
        text = f"{draft.type} is queued{name}; "
        if told.get("trials_left") == 0:
            text += "no trial of the budget is left for it."
        elif waiting := self._view.waiting:
            text += f"it runs when trial {waiting.number} is decided and done."
        else:
            text += "it is the next trial."
        self._tell(text)

    def _tell(self, text: str) -> None:
        self._screen.notify(one_line(text), markup=False)
