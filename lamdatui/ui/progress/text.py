"""Progress in words: of the step, of the run, and what of the budget is used and reserved. Pure, no textual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lamdatui.base.jsonio import finite
from lamdatui.domain.budget import Ledger
from lamdatui.domain.verdicts import looks, tied
from lamdatui.ui.progress.results import Results
from lamdatui.ui.view.format import Line, Span, bar, call_text, clip_lines, count, duration, hang, mark, score, signed, size
from lamdatui.ui.view.state import ViewState
from lamdatui.ui.view.training import pace_text

NAME_CELLS = 15
LEAST_BAR = 6
MANY_EPOCHS = 10_000
"""A trainer that counts steps has no number of epochs, or an enormous one."""


def overview_lines(view: ViewState, ledgers: Sequence[Ledger], found: Results | None, width: int) -> list[Line]:
    """Everything in words, at most `width` cells wide."""
    empty: Line = (("", "plain"),)
    lines = [*step_lines(view, width), empty, *run_lines(view, found, width), empty, *ledger_lines(ledgers, width)]
    return clip_lines(lines, width)


def _heading(text: str) -> Line:
    return ((text, "strong"),)


def step_lines(view: ViewState, width: int) -> list[Line]:
    """The step: what it does, how far it is, its pace, and its time beside the estimate."""
    step = view.running_step
    progress = view.progress
    if step is None:
        last = f"; the newest was {progress.step}" if progress else ""
        return [_heading("Step"), ((f"no step is running{last}", "dim"),)]
    trial = view.run.trials.get(step.trial) if step.trial is not None else None
    what = call_text(trial.action) if trial and trial.action else step.purpose
    lines: list[Line] = [_heading("Step"), *hang((("▶ ", "run"), (f"{step.key} ", "strong"), (what, "plain")), width, 2)]
    if progress is None or progress.step != step.key:
        return [*lines, (("  starting: weights and data are loaded", "dim"),)]
    doing = {"train": "training", "evaluate": "evaluating", "generate": "generating"}.get(progress.phase, progress.phase)
    phase = f"{doing} {progress.task}".strip()
    if progress.total:
        tail = f" {progress.done}/{progress.total}"
        room = max(LEAST_BAR, width - len(tail))
        lines.append(((bar(progress.done / progress.total, room), "run"), (tail, "plain")))
        phase += f", {100 * progress.done / progress.total:.0f}%"
    if progress.epoch is not None and progress.phase == "train":
        phase += f", epoch {progress.epoch:.2g}" + (
            f" of {progress.epochs:g}" if progress.epochs and progress.epochs < MANY_EPOCHS else ""
        )
    lines += hang(((phase, "plain"),), width, 2)
    lines += hang(((pace_text(progress), "dim"),), width, 2)
    estimate = ((trial.proposal or {}).get("estimate") or {}) if trial else {}
    expected = finite(estimate.get("seconds"))
    if progress.seconds is not None:
        told = f"{duration(progress.seconds)} so far"
        if expected is not None:
            told += f"; the estimate was {duration(expected)}"
        lines += hang(((told, "dim"),), width, 2)
    return lines


def run_lines(view: ViewState, found: Results | None, width: int) -> list[Line]:
    """The run: trials by outcome, the best model and when it came."""
    run = view.run
    counts = Counter(trial.status for trial in run.trials.values())
    lines: list[Line] = [
        _heading("Run"),
        *hang(((f"{run.phase} {run.phase_detail}".strip() or "not started", "plain"),), width, 2),
    ]
    spans: list[Span] = [(f"trial {max(run.trials, default=0)} of {run.max_trials or '?'}", "plain")]
    for status, many in counts.items():
        sign = mark(status)
        spans.append((f"  {sign.glyph}\u00a0{many}\u00a0{sign.word}", sign.tone))
    lines += hang(tuple(spans), width, 2)
    if found is None:
        return [*lines, (("reading the trials…", "dim"),)]
    items, base = found.items, found.base
    if not items:
        return [*lines, (("no trial has a score yet", "dim"),)]
    best = max(items, key=lambda item: item.objective)
    gain = f", {signed(best.objective - base)} over the base" if base is not None else ""
    lines += hang((("★ best ", "good"), (f"{best.trial.model} {score(best.objective)}{gain}", "plain")), width, 2)
    if len(alike := tied(run)) > 1:
        told = f"{len(alike)} of {looks(run)} are not told from it on the search rows; the cheapest is {alike[0].model}"
        lines += hang(((told, "dim"),), width, 2)
    since = sum(1 for item in items if item.trial.number > best.trial.number)
    told = f"found at trial {best.trial.number}, after {duration(best.steps)} of steps"
    told += f"; {since} scored since" if since else ""
    return [*lines, *hang(((told, "dim"),), width, 2)]


def amount(value: float, unit: str) -> str:
    """A number of a ledger in its unit."""
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        return size(value)
    return count(value) if unit == "tokens" else f"{value:g}"


def ledger_lines(ledgers: Sequence[Ledger], width: int) -> list[Line]:
    """What is used, what the final evaluation still needs, and what is left, one ledger a line and its bar."""
    lines: list[Line] = [_heading("Budget")]
    for ledger in ledgers:
        told = amount(ledger.used, ledger.unit)
        if ledger.limit is not None:
            told += f" of {amount(ledger.limit, ledger.unit)}"
        name = ledger.name[:NAME_CELLS].ljust(NAME_CELLS)
        spans: list[Span] = [(name, "dim"), (told, "plain")]
        if ledger.reserved:
            spans.append((f"  ▒ {amount(ledger.reserved, ledger.unit)} kept for the final evaluation", "dim"))
        elif ledger.limit is None:
            spans.append(("  no limit", "dim"))
        lines += hang(tuple(spans), width, NAME_CELLS)
        if ledger.limit:
            over = ledger.used + ledger.reserved > ledger.limit
            cells = ledger_bar(ledger, max(LEAST_BAR, width - NAME_CELLS))
            lines.append(((" " * NAME_CELLS, "plain"), (cells, "wait" if over else "run")))
    return lines


def ledger_bar(ledger: Ledger, width: int) -> str:
    """`█` used, `▒` reserved, `░` left."""
    limit = ledger.limit or 1.0
    used = min(width, round(width * max(0.0, ledger.used) / limit))
    kept = min(width - used, round(width * max(0.0, ledger.reserved) / limit))
    if ledger.reserved > 0 and kept == 0 and used < width:
        kept = 1
    return "█" * used + "▒" * kept + "░" * (width - used - kept)
