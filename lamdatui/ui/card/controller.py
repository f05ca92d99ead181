"""What the approval card leads to: forms, an editor, lists, and the one command that decides. Nothing runs from a form."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.screen import Screen

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.text import one_line
from lamdatui.ui.card.card import ApprovalCard
from lamdatui.ui.card.text import decided_text, described, in_force_text
from lamdatui.ui.kit.stack import leave, open_over
from lamdatui.ui.view.proposals import alternatives, params_of, rivals, runnable, weighed_text
from lamdatui.ui.view.state import ViewState

if TYPE_CHECKING:
    from lamdatui.domain.actions import Param
    from lamdatui.ui.card.actionyaml import Types
    from lamdatui.ui.card.edit import Filled
    from lamdatui.ui.view.drafts import Draft

Json = dict[str, Any]
Request = Callable[..., Awaitable[Any]]
"""Sends a command with its arguments and gives the engine's reply. Raises LamdatuiError when it is refused."""
Result = TypeVar("Result")

NOT_FOUND = "The proposal changed meanwhile; nothing was sent."


class Deciding(Container):
    """Holds the card and acts on what it posts."""

    class RulesAsked(Message):
        """The person wants to see what is in force."""

    def __init__(self, view: ViewState, clock: Callable[[], float], request: Request) -> None:
        super().__init__(id="deciding")
        self.card = ApprovalCard(clock)
        self._view = view
        self._request = request
        self._dialog: Screen[Any] | None = None
        self._decided: tuple[int, str] | None = None
        """Number and kind (`constraints`, `rules`) of what this console's last decision adds."""

    def compose(self) -> ComposeResult:
        yield self.card

    def update_view(self) -> None:
        """Show the proposal that waits, or none."""
        waiting = self._view.waiting
        if self.card.is_other(waiting):
            self._say_who_decided()
            if self._dialog is not None and self._dialog.is_active:
                leave(self._dialog, None)
                self.notify("The proposal changed while you looked at it; nothing was sent.", severity="warning")
        self.card.show(waiting, self._view.run)
        self._say_what_is_in_force()

    def _say_who_decided(self) -> None:
        trial = self._view.run.trials.get(self.card.number)
        if trial is None or trial.decision is None or self.card.is_sending or not self.card.display:
            return
        self.notify(decided_text(trial), title="Decided elsewhere", markup=False)

    def _say_what_is_in_force(self) -> None:
        if self._decided is None:
            return
        number, kind = self._decided
        items = self._view.run.constraints if kind == "constraints" else self._view.run.rules
        for name, item in items.items():
            if item.get("trial") == number:
                self._decided = None
                self.notify(one_line(in_force_text(kind, name, item)), title="In force from now on", markup=False)
                return

    @on(ApprovalCard.Decided)
    def _card_decided(self, message: ApprovalCard.Decided) -> None:
        message.stop()
        self._decide(message)

    @work(group="decide")
    async def _decide(self, message: ApprovalCard.Decided) -> None:
        args: Json = {name: getattr(message, name) for name in ("number", "digest", "verdict", "reason", "remember")}
        if action := message.action:
            args["action"] = {name: action[name] for name in ("type", "inputs", "params")}
        kind = "constraints" if message.verdict == "veto" else "rules" if message.remember else ""
        self._decided = (message.number, kind) if kind else None
        try:
            await self._request("decide", **args)
        except LamdatuiError as error:
            self._decided = None
            self._refuse("decide", error)
            self.card.reopen()
            trial = self._view.run.trials.get(message.number)
            if trial and trial.decision and self.card.number != message.number:
                # Somebody else was faster, and their decision came in before this refusal.
                self.notify(decided_text(trial), title="Decided elsewhere", markup=False)

    @on(ApprovalCard.Wished)
    def _card_wished(self, message: ApprovalCard.Wished) -> None:
        message.stop()
        match message.wish:
            case "edit":
                self._open_form()
            case "editor":
                self._open_editor(self._shown)
            case "other":
                self._open_alternatives()
            case "own":
                self._open_own()
            case "rules":
                self.post_message(self.RulesAsked())

    @property
    def _shown(self) -> Json:
        """The action that approving would run."""
        proposal = self.card.proposal
        return self.card.edited or (dict(proposal["action"]) if proposal else {})

    def _use(self, action: Json | None) -> None:
        """An action for the card, whatever way it was made; the proposed one is no edit."""
        proposed = (self.card.proposal or {}).get("action", {})
        if action and all(action.get(name) == proposed.get(name) for name in ("type", "inputs", "params")):
            action = None
        self.card.use(action)
        if action:
            self._try(action)

    @work(group="try", exclusive=True)
    async def _try(self, action: Json) -> None:
        asked = {name: action[name] for name in ("type", "inputs", "params")}
        seed = (self.card.proposal or {}).get("action", {}).get("seed")
        try:
            reply = await self._request("try_action", **asked, seed=seed)
            told = reply if isinstance(reply, dict) else {"unknown": "the engine said nothing of it"}
        except LamdatuiError as error:
            told = {"unknown": one_line(error.what)}
        if self.card.edited is action:
            self.card.forecast(told)

    async def _types(self) -> Types:
        """All action types of the run; where the engine does not say, the proposal's own."""
        from lamdatui.ui.card.actionyaml import types_of
        from lamdatui.ui.view.drafts import declared_types

        known = {}
        with contextlib.suppress(LamdatuiError):
            known = declared_types(await self._request("actions"))
        return types_of(known, self.card.proposal or {}, self._view.run)

    def _ask(self, screen: Screen[Result], chosen: Callable[[Result | None], None]) -> None:
        """Open a screen about the shown proposal. What it gives counts only while that is still the one."""
        shown = (self.card.number, self.card.digest)

        def left(result: Result | None) -> None:
            self._dialog = None
            # Keys that were meant for the screen must decide nothing.
            self.card.grab()
            if result is None:
                return
            if (self.card.number, self.card.digest) == shown:
                chosen(result)
            else:
                self.notify(NOT_FOUND, severity="warning")

        if open_over(self.screen, screen, left):
            self._dialog = screen

    def _open_form(self) -> None:
        action, proposal = self._shown, self.card.proposal or {}
        if action.get("type") == proposal.get("action", {}).get("type"):
            self._show_form(action, params_of(proposal))
        else:
            self._open_other_form(action)

    @work(group="form", exclusive=True)
    async def _open_other_form(self, action: Json) -> None:
        spec = (await self._types()).known.get(action["type"])
        self._show_form(action, list(spec.params) if spec else [])

    def _show_form(self, action: Json, declared: Sequence[Param]) -> None:
        if not action.get("params") or not declared:
            self.notify("No hyperparameter of this action can be edited here.")
            return
        # Screens are imported when they are first asked for: the first paint does not wait for them.
        from lamdatui.ui.card.edit import EditScreen

        proposed = (self.card.proposal or {}).get("action", {})
        base = proposed if proposed.get("type") == action["type"] else action
        form = EditScreen(f"Edit trial {self.card.number}: {action['type']}", declared, base["params"], action["params"])
        self._ask(form, partial(self._filled, action))

    def _filled(self, action: Json, filled: Filled | None) -> None:
        if filled is None:
            return
        changed = {"type": action["type"], "inputs": action["inputs"], "params": filled.params}
        if filled.in_editor:
            self._open_editor(changed)
        else:
            self._use(changed)

    @work(group="form", exclusive=True)
    async def _open_editor(self, action: Json) -> None:
        from lamdatui.ui.card.actionyaml import text_of

        types = await self._types()
        title = f"Trial {self.card.number}: {action.get('type')}"
        self._edit(text_of(title, action, types, self._view.run), action, types)

    def _edit(self, text: str, action: Json, types: Types) -> None:
        """Open the editor, read what it leaves, and go on at the card or at the list of what is wrong."""
        if not self.screen.is_active:
            self.notify("Another screen was opened meanwhile; the editor was not.", severity="warning")
            return
        from lamdatui.ui.card.actionyaml import read
        from lamdatui.ui.kit.editor import edit

        try:
            left = edit(self.app, text, f"trial-{self.card.number}.yaml")
        except LamdatuiError as error:
            self._refuse("editor", error)
            self.card.grab()
            return
        self.card.grab()
        changed, problems = read(left, action, types, self._view.run)
        if problems:
            from lamdatui.ui.kit.dialogs import ChoiceScreen

            choices = {"again": "Open the editor again", "": "Drop what I wrote"}
            said = "\n".join(str(problem) for problem in problems)
            screen = ChoiceScreen("The action can't be used yet", said, choices)
            self._ask(screen, lambda choice: self._edit(left, action, types) if choice == "again" else None)
        elif changed is None or left == text:
            self.notify("Nothing was changed.")
        else:
            self._use(changed)

    def _open_alternatives(self) -> None:
        proposal = self.card.proposal or {}
        found = [item for item in rivals(proposal) if runnable(item)]
        if not found:
            why = "The engine does not say how to run them." if alternatives(proposal) else "Nothing else was weighed."
            self.notify(f"{why} w writes an action of your own.", title="No alternatives to choose from")
            return
        from lamdatui.ui.kit.dialogs import ChoiceScreen

        choices = {"proposed": f"The proposed one: {described(proposal['action'])}"}
        choices |= {str(place): weighed_text(item) for place, item in enumerate(found)}
        text = (
            "What was weighed, with the planner's probability and the predicted objective. Nothing runs before you approve it."
        )
        self._ask(ChoiceScreen("Run another one", text, choices), partial(self._chosen, found))

    def _chosen(self, found: list[Json], choice: str | None) -> None:
        if choice == "proposed":
            self._use(None)
        elif choice:
            item = found[int(choice)]
            self._use({"type": item["type"], "inputs": item["inputs"], "params": item["params"]})

    def _open_own(self) -> None:
        from lamdatui.ui.kit.actionform import ActionScreen
        from lamdatui.ui.view.drafts import draft_of

        async def use(_: Draft) -> None:
            """The card takes it, when the form has closed."""

        title, verb = f"Your own action for trial {self.card.number}", "shows it on the card"
        screen = ActionScreen(title, draft_of(self._shown), self._view, self._request, use, verb=verb, classes="own-screen")
        self._ask(screen, self._written)

    def _written(self, draft: Draft | None) -> None:
        if draft is not None:
            inputs = {name: list(ids) for name, ids in draft.inputs.items()}
            self._use({"type": draft.type, "inputs": inputs, "params": dict(draft.params)})

    def _refuse(self, what: str, error: LamdatuiError) -> None:
        fix = f" ({error.fix})" if error.fix else ""
        self.notify(one_line(f"{error.what}{fix}"), title=f"{what} refused", severity="error", markup=False)
