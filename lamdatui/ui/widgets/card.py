"""The approval card: what would run, why, and the keys that decide it. It never takes the focus by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Click, DescendantBlur, Key, Resize
from textual.message import Message
from textual.widgets import Input, Static

from lamdatui.state import RunState, Trial
from lamdatui.ui.grace import GRACE_SECONDS, Grace
from lamdatui.ui.keys import bindings
from lamdatui.ui.proposal import LABEL, facts, grounds, rule_text, title, veto_text
from lamdatui.ui.sanitize import one_line
from lamdatui.ui.widgets.hanging import Hanging

Json = dict[str, Any]

LEGEND = "a approve  A always…  e edit  d deny…  s skip  x stop  space full  esc back"
AWAY = "F2 or ctrl+r to answer it; until then your keys stay where you are"
RULE_LEGEND = "enter approve and remember this rule  ·  esc back"
VETO_LEGEND = "enter deny (the reason may be empty)  ·  esc back"


class ApprovalCard(Vertical, can_focus=True):
    """Shows one proposal. Posts `Decided`, `EditAsked` or `Left`; the screen does the rest."""

    BINDINGS = [*bindings("card")]
    BINDING_GROUP_TITLE = "Approval card"

    @dataclass
    class Decided(Message):
        """The person answered; `digest` is that of the action that was shown."""

        number: int
        digest: str
        verdict: str
        params: Json | None = None
        reason: str = ""
        remember: bool = False

    class EditAsked(Message):
        """The person wants the edit form."""

    class Left(Message):
        """The person went back to where they were."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(id="card")
        self.grace = Grace(clock)
        # What is shown, not what the state says by now: the state's trials change under us.
        self.number = 0
        self.proposal: Json | None = None
        self.edited: Json | None = None
        self._state = RunState()
        self._mode = "show"
        self._grabbed = False
        self._body = VerticalScroll(
            Container(Hanging(LABEL, id="card-facts"), Hanging(LABEL, id="card-grounds"), id="card-columns"),
            id="card-body",
            can_focus=False,
        )
        self._question = Static(markup=False, id="card-question")
        self._reason = Input(placeholder="why not? one line; it becomes a constraint", id="card-reason", max_length=400)
        self._legend = Static(AWAY, markup=False, id="card-keys")
        self.display = False

    def compose(self) -> ComposeResult:
        yield self._body
        yield self._question
        yield self._reason
        yield self._legend

    def on_mount(self) -> None:
        self._set_mode("show")
        self.watch(self._body, "scroll_y", self._say_more, init=False)

    @property
    def focusable(self) -> bool:
        """Only after it was asked for: tab must not carry a typing person onto the deciding keys."""
        return self._grabbed and super().focusable

    @property
    def digest(self) -> str:
        """Digest of the action that is shown."""
        return self.proposal["action"]["digest"] if self.proposal else ""

    def is_other(self, trial: Trial | None) -> bool:
        """Whether another proposal than the shown one waits, or none."""
        proposal = trial.proposal if trial else None
        shown = (self.number, self.digest) if self.proposal else None
        return shown != ((trial.number, proposal["action"]["digest"]) if trial and proposal else None)

    def show(self, trial: Trial | None, state: RunState) -> None:
        """Show a proposal, or nothing. Another proposal than before drops edits and starts the grace again."""
        other, self._state = self.is_other(trial), state
        self.number, self.proposal = (trial.number, trial.proposal) if trial else (0, None)
        if trial is None:
            self.release()
            self.display = False
            return
        if other:
            self.edited = None
            self._reason.value = ""
            self._set_mode("show")
            self._restart_grace()
            self._body.scroll_home(animate=False)
            if self.has_focus_within:
                self.focus()
        self.display = True
        self._draw()

    def use(self, params: Json | None) -> None:
        """Values from the edit form: shown as changes, run only when they are approved."""
        self.edited = params
        self._restart_grace()
        self._draw()

    def grab(self) -> None:
        """Take the focus, because the person asked for it."""
        if not self.display:
            return
        self._grabbed = True
        self._restart_grace()
        (self._reason if self._mode == "veto" else self).focus()
        self._draw()

    def release(self) -> None:
        """Give the focus up."""
        had = self.has_focus_within
        self._grabbed = False
        self.remove_class("-full")
        if had:
            self.post_message(self.Left())
        self._draw()

    def reopen(self) -> None:
        """The decision was refused: the card can be answered again."""
        self._set_mode("show")
        self._restart_grace()

    def on_key(self, event: Key) -> None:
        if self.grace.swallow():
            event.stop()
            event.prevent_default()
            self._restart_grace()
        elif event.key == "enter" and self._mode == "rule":
            event.stop()
            self._decide("edit" if self.edited else "approve", remember=True)

    def on_click(self, event: Click) -> None:
        if not self.has_focus_within:
            self.grab()

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        self.call_after_refresh(self._check_focus)

    def on_blur(self) -> None:
        self.call_after_refresh(self._check_focus)

    def on_focus(self) -> None:
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._say_more)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Deciding keys exist only while the card shows the whole choice."""
        deciding = action in ("approve", "remember", "edit", "veto", "skip", "stop_run")
        return not deciding or (self._mode == "show" and self.has_focus)

    def action_approve(self) -> None:
        self._decide("edit" if self.edited else "approve")

    def action_remember(self) -> None:
        self._set_mode("rule")

    def action_edit(self) -> None:
        self.post_message(self.EditAsked())

    def action_veto(self) -> None:
        self._set_mode("veto")
        self._reason.focus()

    def action_skip(self) -> None:
        self._decide("skip")

    def action_stop_run(self) -> None:
        self._decide("stop")

    def action_expand(self) -> None:
        self.toggle_class("-full")
        self.call_after_refresh(self._say_more)

    def action_scroll_down(self) -> None:
        self._body.scroll_down(animate=False)

    def action_scroll_up(self) -> None:
        self._body.scroll_up(animate=False)

    def action_page_down(self) -> None:
        self._body.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        self._body.scroll_page_up(animate=False)

    def action_leave(self) -> None:
        if self._mode in ("rule", "veto"):
            self._set_mode("show")
            self.focus()
        else:
            self.release()

    @on(Input.Submitted, "#card-reason")
    def _veto_with_reason(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.grace.swallow():
            self._decide("veto", reason=one_line(event.value))

    def _decide(self, verdict: str, *, reason: str = "", remember: bool = False) -> None:
        if self.proposal is None or self._mode == "sending":
            return
        params = self.edited if verdict == "edit" else None
        decided = self.Decided(self.number, self.digest, verdict, params, reason, remember)
        self._set_mode("sending")
        self.focus()
        self.post_message(decided)

    def _set_mode(self, mode: str) -> None:
        self._mode = mode
        self._question.display = mode in ("rule", "veto")
        self._reason.display = mode == "veto"
        self._draw()

    def _restart_grace(self) -> None:
        self.grace.restart()
        self.add_class("-grace")
        self.set_timer(GRACE_SECONDS + 0.02, lambda: self.set_class(self.grace.active, "-grace"))

    def _check_focus(self) -> None:
        if self.is_mounted and not self.has_focus_within and self.app.focused is not None:
            self._grabbed = False
            self._draw()

    def _draw(self) -> None:
        proposal = self.proposal
        if proposal is None or not self.is_mounted:
            return
        self.border_title = title(self.number, proposal, self.edited)
        self.query_one("#card-facts", Hanging).show(facts(self._state, proposal, self.edited))
        self.query_one("#card-grounds", Hanging).show(grounds(proposal))
        self._question.update(self._question_text(proposal))
        self._legend.update(self._legend_text())
        self.set_class(self._grabbed, "-answering")
        self.call_after_refresh(self._say_more)

    def _question_text(self, proposal: Json) -> str:
        if self._mode == "rule":
            return f"rule to remember: {rule_text(proposal)}"
        return f"constraint: {veto_text(proposal)}" if self._mode == "veto" else ""

    def _legend_text(self) -> str:
        if self._mode == "sending":
            return "sent, waiting for the engine…"
        if self._mode in ("rule", "veto"):
            return RULE_LEGEND if self._mode == "rule" else VETO_LEGEND
        return LEGEND if self._grabbed else AWAY

    def _say_more(self) -> None:
        below = round(self._body.max_scroll_y - self._body.scroll_y)
        self.border_subtitle = f"↓ {below} more line{'s' if below > 1 else ''}, space shows all" if below > 0 else ""
