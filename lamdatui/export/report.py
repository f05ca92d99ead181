"""A run as one page to send to somebody: HTML that needs nothing beside it and prints well, or Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment

from lamdatui import __version__
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import write_atomic
from lamdatui.base.surrogates import escaped
from lamdatui.base.text import clean
from lamdatui.domain.baselines import board, standing
from lamdatui.domain.budget import ledgers
from lamdatui.domain.lineage import ancestry
from lamdatui.domain.rates import rates, step_seconds
from lamdatui.domain.replicates import spreads
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import gain_text, losses, verdict, winner_gain
from lamdatui.export.card import table
from lamdatui.export.handing import hand_on
from lamdatui.export.recipe import STEP_HEAD, recipe, step_rows
from lamdatui.store.journal import read_state, told_newer
from lamdatui.wire.answers import Answer, answers, paired, question_text, reference_text

ROWS = 5
"""Rows that are shown of those that the winner has won, and of those that it has lost."""
LONGEST = 600
"""Characters that are shown of a text."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, sentences, and a table below them; `bars` and `dots` are drawn in HTML, in place of nothing in Markdown."""

    title: str
    lines: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with its interval; `left`, `right`, `middle` are shares of the drawing's width."""

    label: str
    left: float
    middle: float
    right: float
    zero: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A trial's objective, as shares of the drawing's width and height; `best` of all so far."""

    x: float
    y: float
    label: str
    is_best: bool


def write_report(run_dir: Path, target: Path, *, bare: bool, say: Callable[[str], None] = lambda _: None) -> None:
    """Write the report of a run as `target`, HTML or Markdown by its ending. `bare`: no rows of data; `say` hears of a run of a newer version.

    Raises LamdatuiError.
    """
    if target.suffix not in (".html", ".md"):
        raise LamdatuiError("a report is a .html or a .md file", where=str(target), fix="--to report.html")
    state = read_state(run_dir / "run.db")
    if state.newer:
        say(told_newer(state))
    if not state.pool.items:
        raise LamdatuiError("the run has nothing to report yet", where=str(run_dir))
    sections = [one for one in _sections(run_dir, state, bare=bare) if one.lines or one.rows]
    title = f"{state.name}: {_status(state)}"
    text = _html(title, sections) if target.suffix == ".html" else _markdown(title, sections)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, escaped(text))
    hand_on(target)


def _status(state: RunState) -> str:
    return f"{state.status} ({state.reason})" if state.reason else state.status


def _sections(run_dir: Path, state: RunState, *, bare: bool) -> Iterator[Section]:
    yield _result(state)
    yield _comparison(state)
    yield _seeds(state)
    yield _scores(state)
    yield from _pipeline(state)
    yield _trials(state)
    if not bare and state.winner:
        yield from _rows(run_dir, state)
    yield _inputs(state)
    yield _costs(state)


def _result(state: RunState) -> Section:
    found = winner_gain(state)
    if state.winner is None or found is None:
        return Section("Result", ["The run has no winner."])
    split, gain = found
    lines = [
        f"{state.winner}, which is {ancestry(state, state.winner)}: {gain_text(gain)} of the objective over {state.pool.base} on the {split} rows "
        "(mean of paired differences, 95% interval).",
        f"{verdict(state).capitalize()}.",
    ]
    if words := standing(state):
        lines.append(f"{words.capitalize()}, on the sealed rows.")
    lost = losses(state)
    lines += [f"It is {loss}." for loss in lost] or ["On no task is it told to be worse than the base."]
    return Section("Result", lines)


def _comparison(state: RunState) -> Section:
    rows = board(state)
    if not rows:
        return Section("Baselines")
    gains = [(row.name, row.gain) for row in rows if row.gain]
    return Section(
        "Baselines",
        ["Gains of the objective on the sealed rows, with 95% intervals: over the base, and the winner's over each."],
        ["model", "over the base", "winner over it", "what it is"],
        [
            [
                row.name,
                gain_text(row.gain) if row.gain else "-",
                gain_text(row.behind) if row.behind else "",
                row.missing or row.what,
            ]
            for row in rows
        ],
        _bars(gains),
    )


def _seeds(state: RunState) -> Section:
    found = spreads(state)
    if not found:
        return Section("Seeds")
    return Section(
        "Seeds",
        [
            "The best pipelines, every step of them, done again with other seeds: gains of the objective over the base on the sealed rows, mean over the "
            "seeds, 95% interval over rows and seeds. The first seed is the search's own, which it was picked by."
        ],
        ["pipeline of", "seeds", "gain", "each seed"],
        [
            [one.model, str(len(one.each)), gain_text(one.gain), ", ".join(f"{value:+.3f}" for value in one.each)]
            for one in found
        ],
        _bars([(f"{one.model} {one.name}", one.gain) for one in found]),
    )


def _bars(gains: Sequence[tuple[str, Any]]) -> list[Bar]:
    ends = [0.0, *(end for _, gain in gains for end in gain["interval"])]
    low, span = min(ends), (max(ends) - min(ends)) or 1.0
    return [
        Bar(name, *((value - low) / span for value in (gain["interval"][0], gain["mean"], gain["interval"][1], 0.0)))
        for name, gain in gains
    ]


def _scores(state: RunState) -> Section:
    rows = []
    for task in state.profile["tasks"]:
        for split in ("search", "sealed"):
            pair = [state.scores.get(name or "", {}).get(task, {}).get(split) for name in (state.pool.base, state.winner)]
            if any(pair):
                told = [
                    f"{one['mean']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}]" if one else "-" for one in pair
                ]
                count = next(one["n"] for one in pair if one)
                gain = (((state.gain or {}).get(split) or {}).get("tasks") or {}).get(task)
                rows.append([task, split, *told, gain_text(gain) if gain else "", str(count)])
    looks = len(state.sealed_looks)
    note = "The search saw the search rows alone, and picked the winner by them: its scores there are too high."
    again = f" The sealed rows were opened {looks} times." if looks > 1 else ""
    return Section("Scores", [note + again], ["task", "rows", "base", "winner", "gain", "n"], rows)


def _pipeline(state: RunState) -> Iterator[Section]:
    if state.winner is None:
        return
    told = recipe(state, state.winner)
    rows = [[*row, step["digest"][:12]] for row, step in zip(step_rows(told), told["steps"], strict=True)]
    yield Section("How the winner was made", [], [*STEP_HEAD, "digest"], rows)


def _trials(state: RunState) -> Section:
    trials = [state.trials[number] for number in sorted(state.trials)]
    head = [
        "trial",
        "status",
        "action",
        "makes",
        "objective",
        "gain, search rows",
        "seconds",
        "its lineage's steps",
        "gain per hour of these",
    ]
    best = [trial for trial in trials if trial.objective is not None]
    seconds = step_seconds(state)
    gains = rates(state, seconds)

    def row(trial: Trial) -> list[str]:
        model = trial.model or ""
        took = f"{seconds[model]:.1f}" if model in seconds else ""
        return [*_trial(trial), took, f"{gains[model]['mean']:+.3f}" if model in gains else "", trial.proposed_by]

    return Section("Trials", [], [*head, "proposed by"], [row(trial) for trial in trials], [], _dots(best))


def _trial(trial: Trial) -> list[str]:
    action = trial.action or {}
    used = ", ".join(name for ids in action.get("inputs", {}).values() for name in ids)
    gain = gain_text(trial.gain) if trial.gain else ""
    return [
        str(trial.number),
        trial.status,
        f"{action['type']}({used})" if action else "-",
        trial.model or trial.dataset or "",
        f"{trial.objective:.3f}" if trial.objective is not None else "",
        gain or (trial.error or {}).get("message", ""),
        f"{sum(trial.seconds.get(part, 0.0) for part in ('execute', 'evaluate')):.1f}" if trial.seconds else "",
    ]


def _dots(trials: Sequence[Trial]) -> list[Dot]:
    values = [trial.objective or 0.0 for trial in trials]
    if len(values) < 2:
        return []
    low, span = min(values), (max(values) - min(values)) or 1.0
    found, so_far = [], float("-inf")
    for place, (trial, value) in enumerate(zip(trials, values, strict=True)):
        label = f"trial {trial.number}: {value:.3f}"
        found.append(Dot(place / (len(values) - 1), 1 - (value - low) / span, label, value > so_far))
        so_far = max(so_far, value)
    return found


def _rows(run_dir: Path, state: RunState) -> Iterator[Section]:
    for task in state.profile["tasks"]:
        try:
            ours = answers(run_dir, state, "winner", task, "sealed")
            theirs = answers(run_dir, state, "base", task, "sealed")
        except LamdatuiError:
            continue  # it was not scored, or its file is another one now
        pairs = list(paired(ours, theirs))
        won = [pair for pair in pairs if pair[0].score > pair[1].score]
        lost = [pair for pair in pairs if pair[0].score < pair[1].score]
        rows = [_answers(word, *pair) for word, found in (("lost", lost), ("won", won)) for pair in found[:ROWS]]
        text = f"Of {len(pairs)} sealed rows the winner has won {len(won)} and lost {len(lost)} against the base; the first {ROWS} of each:"
        yield Section(f"Rows of {task}", [text], ["", "asked", "wanted", "base", "winner"], rows)


def _answers(word: str, ours: Answer, theirs: Answer) -> list[str]:
    return [word, *(_clip(text) for text in (question_text(ours), reference_text(ours), theirs.text, ours.text))]


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more characters)"


def _inputs(state: RunState) -> Section:
    rows = []
    for item in state.pool.items.values():
        if item.trial is None:
            named = state.profile.get(f"{item.kind}s", {}).get(item.id, {})
            rows.append([item.kind, item.id, str(named.get("path", "")), item.digest[:12]])
    for name, task in state.profile["tasks"].items():
        digest = (state.tasks.get(name) or {}).get("digest", "")
        rows.append(["task", name, f"{task['path']}, scored by {task['scorer']}", digest[:12]])
    return Section("Models, data, tasks", [], ["kind", "name", "path", "digest"], rows)


def _costs(state: RunState) -> Section:
    rows = [
        [ledger.name, f"{ledger.used:,.0f}", f"{ledger.limit:,.0f}" if ledger.limit is not None else "", ledger.unit]
        for ledger in ledgers(state)
    ]
    device = f"{state.device.get('device', '')} {state.device.get('dtype', '')}"
    words = f"lamdatui {__version__}; policy {state.policy}, seed {state.profile.get('seed', 0)}, device {device}."
    return Section("Budget", [words], ["what", "used", "limit", "unit"], rows)


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {clean(title)}"]
    for one in sections:
        parts += [f"## {one.title}", *map(clean, one.lines)]
        if one.rows:
            parts.append(table(one.head, [[_cell(cell) for cell in row] for row in one.rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """A text that has no meaning in Markdown."""
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace("`", "&#96;")


def _html(title: str, sections: Sequence[Section]) -> str:
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(page).render(title=title, sections=sections)
