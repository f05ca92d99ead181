"""What the planner screen says, as lines of text. Pure: state in, lines out, no textual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from lamdatui.base.jsonio import finite
from lamdatui.base.text import one_line
from lamdatui.domain.planner_report import Worth, details, told
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.ui.view.format import Line, Tone, call_text, count, duration, labelled
from lamdatui.ui.view.proposals import alternatives, by_text, expected_text
from lamdatui.ui.view.state import Exchange, ViewState

if TYPE_CHECKING:
    from lamdatui.domain.records import Told

Json = dict[str, Any]
Kind = Literal["hint", "constraint", "rule"]

NEWEST_TRIALS = 200


@dataclass(frozen=True, slots=True)
class Said:
    """A hint, a constraint or a rule that is in force."""

    kind: Kind
    id: str
    text: str
    by: str

    @property
    def line(self) -> Line:
        """`h12 hint: try merging first (by person)`."""
        return ((f"{self.id:<4} ", "strong"), (f"{self.kind}: ", "dim"), (self.text, "plain"), (f" ({self.by})", "dim"))


def said(state: RunState) -> list[Said]:
    """Hints, then constraints, then rules, each oldest first."""
    kinds: tuple[tuple[Kind, Mapping[str, Told]], ...] = (
        ("hint", state.hints),
        ("constraint", state.constraints),
        ("rule", state.rules),
    )
    return [_said(kind, name, item) for kind, items in kinds for name, item in items.items()]


def _said(kind: Kind, name: str, item: Told) -> Said:
    by = f"by {one_line(item['by'])}"
    if item["trial"] is not None:
        by += f", trial {item['trial']}"
    return Said(kind, one_line(name), one_line(item["text"]), by)


def policy_text(state: RunState) -> str:
    """`hybrid, asks the planner on 30% of the trials`."""
    text = one_line(state.policy) or "not known yet"
    share = share_of(state)
    return text if share is None else f"{text}, asks the planner on {share:.0%} of the trials"


def share_of(state: RunState) -> float | None:
    """The newest share that a choice was made with, else the profile's; None for a policy that has none."""
    if state.policy != "hybrid" or not state.profile.get("planner"):
        return None
    told_share = (share for trial in _newest(state) if (share := finite(details(trial).get("share"))) is not None)
    spec = state.profile.get("policy")
    return next(told_share, finite(spec.get("share")) if isinstance(spec, dict) else None)


def _newest(state: RunState) -> Iterator[Trial]:
    """The newest trials, the last one first; what is newest of something is found among them or not worth the search."""
    return islice(reversed(state.trials.values()), NEWEST_TRIALS)


def planner_model(state: RunState) -> str:
    """`SmolLM2-135M-Instruct (llamacpp)`, or that there is none."""
    spec = state.profile.get("planner")
    if not isinstance(spec, dict):
        return "none: this profile has no planner"
    told_name = next((name for trial in _newest(state) if (name := details(trial).get("planner"))), None)
    name = told_name or spec.get("model") or spec.get("url") or "the first model that the server lists"
    where = spec.get("backend") or spec.get("kind")
    return one_line(f"{str(name).rsplit('/', 1)[-1]}{f' ({where})' if where else ''}")


def choice_lines(view: ViewState) -> list[Line]:
    """Who proposes, the newest exchange with the planner, and what the last proposal weighed."""
    run = view.run
    used = f" · {spent(run.planner_tokens, run.planner_seconds)}" if run.planner_tokens else ""
    lines = [
        labelled("policy", (policy_text(run), "strong")),
        labelled("planner", (planner_model(run), "plain"), (used, "dim")),
    ]
    if view.exchanges:
        newest = view.exchanges[-1]
        lines.append(
            labelled(
                "asked",
                (f"{newest.call}, trial {newest.number}", "plain"),
                (f" · {spent(newest.tokens, newest.seconds)}", "dim"),
            )
        )
        lines.append(labelled("answer", (newest.answer or "nothing", "plain")))
    proposed = next((trial for trial in _newest(run) if trial.proposal), None)
    return [*lines, *_weighed(proposed)] if proposed else lines


def _weighed(trial: Trial) -> list[Line]:
    proposal = trial.proposal or {}
    own = proposal.get("action") or {}
    lines = [
        labelled(f"trial {trial.number}", (one_line(call_text(own)), "strong"), (f" by {one_line(by_text(proposal))}", "dim"))
    ]
    if text := expected_text(details(trial)):
        lines.append(labelled("expects", (f"objective {text}", "plain")))
    weighed = alternatives(proposal)
    if not weighed:
        lines.append(labelled("weighed", ("nothing else", "dim")))
    rival = details(trial).get("rival")
    favourite = rival.get("digest") if isinstance(rival, dict) else None
    return [*lines, *(_alternative(item, own.get("digest"), favourite) for item in weighed)]


def _alternative(item: Json, own: object, rival: object) -> Line:
    chosen = item.get("digest") == own
    chance = finite(item.get("probability"))
    label = f"{'›' if chosen else ' '} {'' if chance is None else f'{chance:.0%}'}"
    text = expected_text(item)
    tone: Tone = "strong" if chosen else "plain"
    note = " · the surrogate's favourite" if rival and item.get("digest") == rival else ""
    return labelled(label, (f"{text}  " if text else "", "dim"), (one_line(item.get("action", "?")), tone), (note, "wait"))


def worth_lines(report: Worth) -> list[Line]:
    """The report on whether the planner is worth its tokens."""
    return report_lines(told(report), report.difference.sign)


def report_lines(lines: Sequence[tuple[str, str]], sign: object) -> list[Line]:
    """The same from its text; `sign` says which way the verdict goes: 1, 0 or -1."""
    tone: Tone = "good" if sign == 1 else "bad" if sign == -1 else "strong"
    return [labelled(label, (one_line(text), tone if label == "verdict" else "plain")) for label, text in lines]


def memory_lines(state: RunState) -> list[Line]:
    """The memory and who wrote it."""
    if not state.memory:
        return [(("Nothing yet; e writes one.", "dim"),)]
    by = "code, from what was measured" if state.memory_by == "facts" else one_line(state.memory_by) or "nobody known"
    return [((one_line(state.memory), "plain"),), ((f"written by {by}", "dim"),)]


def spent(tokens: int, seconds: float) -> str:
    """`812 tokens, 1.2 s`, each with its unit where the line wraps."""
    return f"{count(tokens)}\xa0tokens, {duration(seconds).replace(' ', chr(0xA0))}"


def exchange_line(exchange: Exchange) -> Line:
    """One row of the list of exchanges."""
    return ((f"{exchange.number:>3} ", "dim"), (f"{exchange.call:<14} ", "strong"), (exchange.answer, "plain"))


def exchange_lines(exchange: Exchange) -> list[Line]:
    """One exchange in full."""
    return [
        labelled("trial", (str(exchange.number), "plain")),
        labelled("call", (exchange.call, "strong")),
        labelled("answer", (exchange.answer or "nothing", "plain")),
        labelled("cost", (spent(exchange.tokens, exchange.seconds), "plain")),
    ]
