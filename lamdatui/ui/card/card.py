"""The approval card: what would run, why, and the keys that decide it. It never takes the focus by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Click, DescendantBlur, Focus, Key, Resize
from textual.message import Message
from textual.widgets import Input, Static

from lamdatui.base.text import one_line
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.ui.card.grace import GRACE_SECONDS, Grace
from lamdatui.ui.card.legend import question, rows_of
from lamdatui.ui.card.text import facts, grounds, queue_lines, title
from lamdatui.ui.keys.table import bindings, shown
from lamdatui.ui.kit.hanging import Hanging
from lamdatui.ui.kit.legend import Legend
from lamdatui.ui.view.format import LABEL

if TYPE_CHECKING:
    from lamdatui.domain.records import ProposalRecord

Json = dict[str, Any]
Wish = Literal["edit", "editor", "other", "own", "rules"]
Mode = Literal["show", "rule", "veto", "stop", "sending"]

DECIDING = ("approve", "remember", "wish", "veto", "skip", "stop_run")
"""Actions of keys that count only while the card shows the whole choice and its grace is over."""


def live_name(name: str) -> str:
    """The key of an id, after remapping; both of those that lead to the card, because terminals take function keys."""
    return shown(name, 2 if name == "review" else 1)


class ApprovalCard(Vertical, can_focus=True):
    """Shows one proposal. Posts `Decided`, `Wished` or `Left`; `Deciding` does the rest."""

    BINDINGS = [*bindings("card")]
    BINDING_GROUP_TITLE = "Approval card"

    @dataclass
    class Decided(Message):
        """The person answered; `digest` is that of the action that was shown, `action` what is to run instead of it."""

        number: int
        digest: str
        verdict: str
        action: Json | None = None
        reason: str = ""
        remember: bool = False

    @dataclass
    class Wished(Message):
        """The person wants something that is not a decision: a form, an editor, a list."""

        wish: Wish

    class Left(Message):
        """The person went back to where they were."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(id="card")
        self.grace = Grace(clock)
        # What is shown, not what the state says by now: the state's trials change under us.
        self.number = 0
        self.proposal: ProposalRecord | None = None
        self.edited: Json | None = None
        self.tried: Json | None = None
        self._state = RunState()
        self._mode: Mode = "show"
        self._grabbed = False
        self._read = False
        self._note = ""
        self._listed = (0, "", 0)
        self._body = VerticalScroll(
            Container(Hanging(LABEL, id="card-facts"), Hanging(LABEL, id="card-grounds"), id="card-columns"),
            id="card-body",
            can_focus=False,
        )
        self._question = Static(markup=False, id="card-question")
        self._reason = Input(placeholder="why not? one line; it becomes a constraint", id="card-reason", max_length=400)
        self._legend = Legend(id="card-keys")
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
        """Digest of the action that was proposed."""
        return self.proposal["action"]["digest"] if self.proposal else ""

    @property
    def is_sending(self) -> bool:
        """Whether a decision of this console is on its way."""
        return self._mode == "sending"

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
            self.edited = self.tried = None
            self._reason.value = ""
            self._set_mode("show")
            self._begin_again()
            if self.has_focus_within:
                self.focus()
        self.display = True
        self._draw()

    def use(self, action: Json | None) -> None:
        """Another action than the proposed one, or that one again: shown as changes, run only when it is approved."""
        self.edited, self.tried = action, None
        self._begin_again()
        self._draw()

    def forecast(self, tried: Json) -> None:
        """What the engine said of the edited action: its estimate, its problems, or `unknown` with the reason."""
        self.tried = tried
        self._begin_again()
        self._draw()

    def grab(self) -> None:
        """Take the focus, because the person asked for it."""
        if not self.display:
            return
        self._grabbed = True
        self.restart_grace()
        if self.screen.has_class("-tiny"):
            self.fill_screen(True)
        (self._reason if self._mode == "veto" else self).focus()
        self._draw()

    def release(self) -> None:
        """Give the focus up."""
        had = self.has_focus_within
        self._grabbed = False
        self.fill_screen(False)
        if had:
            self.post_message(self.Left())
        self._draw()

    def fill_screen(self, on: bool) -> None:
        """Give the card the whole screen, or give it back."""
        self.set_class(on, "-full")
        if self.is_mounted:
            self.screen.set_class(on, "-card-full")
            self.call_after_refresh(self._say_more)

    def reopen(self) -> None:
        """The decision was refused: the card can be answered again."""
        if self._mode == "sending":
            self._set_mode("show")
            self.restart_grace()

    def restart_grace(self) -> None:
        """From now on keys are swallowed for a moment."""
        self.grace.restart()
        self.add_class("-grace")
        self.set_timer(GRACE_SECONDS + 0.02, lambda: self.set_class(self.grace.active, "-grace"))

    def listed(self) -> None:
        """The palette opens over the card and lists its keys."""
        self._listed = self._content

    def chosen(self) -> None:
        """The person chose one of them by its name, which is no reflex, unless the card shows something else by now."""
        if self._listed == self._content:
            self.grace.end()

    @property
    def _content(self) -> tuple[int, str, int]:
        return (self.number, self.digest, id(self.edited))

    def on_key(self, event: Key) -> None:
        self.grace.came(event.time)
        if event.key != "escape" and self.grace.swallow():
            event.stop()
            event.prevent_default()
            self.restart_grace()
        elif event.key == "enter" and self.has_focus and self._mode in ("rule", "stop"):
            event.stop()
            if self._mode == "stop":
                self._decide("stop")
            else:
                self._decide("edit" if self.edited else "approve", remember=True)

    def on_click(self, event: Click) -> None:
        if not self.has_focus_within:
            self.grab()

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        self.call_after_refresh(self._check_focus)

    def on_blur(self) -> None:
        self.call_after_refresh(self._check_focus)

    def on_focus(self, event: Focus) -> None:
        # Also when the terminal's window comes back: the keys that brought it back were meant for another one.
        self.restart_grace()
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._say_more)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Deciding keys exist only while the card shows the whole choice and nobody is taken by surprise.

        A key is looked up where the focus is by then, which may have come to the card after the key was pressed: so the
        grace is asked here too, and not only where keys come in.
        """
        return action not in DECIDING or (self._mode == "show" and self.has_focus and not self.grace.active)

    def action_approve(self) -> None:
        if self._may_run():
            self._decide("edit" if self.edited else "approve")

    def action_remember(self) -> None:
        if self._may_run():
            self._ask("rule")

    def action_wish(self, wish: Wish) -> None:
        # What opens may take a moment; keys that are meant for it decide nothing.
        self.restart_grace()
        self.post_message(self.Wished(wish))

    def action_veto(self) -> None:
        self._ask("veto")
        self._reason.focus()

    def action_skip(self) -> None:
        self._decide("skip")

    def action_stop_run(self) -> None:
        self._ask("stop")

    def action_expand(self) -> None:
        self.fill_screen(not self.has_class("-full"))

    def action_scroll_down(self) -> None:
        self._body.scroll_down(animate=False)

    def action_scroll_up(self) -> None:
        self._body.scroll_up(animate=False)

    def action_page_down(self) -> None:
        self._body.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        self._body.scroll_page_up(animate=False)

    def action_leave(self) -> None:
        if self._mode in ("rule", "veto", "stop"):
            self._set_mode("show")
            self.restart_grace()
            self.focus()
        else:
            self.release()

    @on(Input.Submitted, "#card-reason")
    def _veto_with_reason(self, event: Input.Submitted) -> None:
        event.stop()
        if self._mode == "veto" and not self.grace.swallow():
            self._decide("veto", reason=one_line(event.value))

    @property
    def _below(self) -> int:
        """Lines that are below what is shown."""
        return max(0, round(self._body.max_scroll_y - self._body.scroll_y))

    def _may_run(self) -> bool:
        """Whether all of it was shown and nothing speaks against it; else show more, or say why not."""
        if self._below and not self._read:
            self._show_rest()
            return False
        if self.edited and (problems := (self.tried or {}).get("problems")):
            self._say(f"✗ This can't run: {one_line(problems[0])}")
            return False
        return True

    def _show_rest(self) -> None:
        """What is approved must have been on the screen: first all of the screen, then page by page."""
        if self.has_class("-full"):
            self._body.scroll_page_down(animate=False)
        else:
            self.fill_screen(True)
        self.restart_grace()
        self._say("Nothing is approved yet: read to the end first. The same key scrolls, and approves at the end.")

    def _say(self, note: str) -> None:
        """Say something on the card itself: a toast would cover what is to be read."""
        self._note = note
        self._set_mode(self._mode)

    def _decide(self, verdict: str, *, reason: str = "", remember: bool = False) -> None:
        if self.proposal is None or self._mode == "sending":
            return
        action = self.edited if verdict == "edit" else None
        decided = self.Decided(self.number, self.digest, verdict, action, reason, remember)
        self._set_mode("sending")
        self.focus()
        self.post_message(decided)

    def _ask(self, mode: Mode) -> None:
        """A second question before a decision. Its answer is no reflex of the key before."""
        self._set_mode(mode)
        self.restart_grace()

    def _set_mode(self, mode: Mode) -> None:
        self._mode = mode
        self._question.display = mode in ("rule", "veto", "stop") or (mode == "show" and bool(self._note))
        self._reason.display = mode == "veto"
        self._draw()

    def _begin_again(self) -> None:
        """Something else is shown than before: it is to be read from its start."""
        self._read = False
        if self._mode == "rule":
            self._mode = "show"
        self._say("")
        self._body.scroll_home(animate=False)
        self.restart_grace()

    def _check_focus(self) -> None:
        if self.is_mounted and not self.has_focus_within and self.app.focused is not None:
            self._grabbed = False
            self._draw()

    def _draw(self) -> None:
        proposal = self.proposal
        if proposal is None or not self.is_mounted:
            return
        self.border_title = Content(title(self.number, proposal, self.edited))
        lines = [*facts(self._state, proposal, self.edited, self.tried), *queue_lines(self._state)]
        self.query_one("#card-facts", Hanging).show(lines)
        self.query_one("#card-grounds", Hanging).show(grounds(proposal))
        self._question.update(question(self._mode, self.number, proposal, self.edited) or self._note)
        self._legend.show(rows_of(self._mode, self._grabbed, live_name))
        self.set_class(self._grabbed, "-answering")
        self.call_after_refresh(self._say_more)

    def _say_more(self) -> None:
        if not self.is_mounted:
            return
        below = self._below
        if not below and self.has_focus and self._body.size.height and not self._read:
            self._read = True
            self._say("")
        more = f"↓ {below} more line{'s' if below > 1 else ''}" if below else ""
        self.border_subtitle = Content(f"{more}, {shown('card-expand')} shows all" if more and self._grabbed else more)
