"""`lamdatui rows RUN MODEL`: what a model answered, row by row, beside another model's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.output import complain, say, say_json
from lamdatui.base.text import clean
from lamdatui.domain.state import RunState
from lamdatui.store.journal import read_state, told_newer
from lamdatui.wire import rundir
from lamdatui.wire.answers import KINDS, Answer, answers, evaluations, flips, kinds, paired, question_text, reference_text

LINES = 12
"""Of a question or an answer on the terminal."""


def print_rows(
    run: str, runs_dir: Path, model: str, against: str, task: str, split: str, only: str, limit: int, *, as_json: bool
) -> None:
    """The command. Raises LamdatuiError for names that the run has not."""
    run_dir = rundir.find_run(run, runs_dir)
    state = read_state(run_dir / "run.db")
    if state.newer:
        complain(told_newer(state))
    if only and only not in KINDS:
        raise LamdatuiError(f"--only takes one of {', '.join(KINDS)}, not {only!r}")
    if only in ("won", "lost") and not against:
        raise LamdatuiError(f"--only {only} needs another model", fix="add --against MODEL")
    tasks = [task] if task else list(state.profile["tasks"])
    if unknown := [name for name in tasks if name not in state.profile["tasks"]]:
        raise LamdatuiError(f"no task {unknown[0]!r} in this run", fix=f"tasks: {', '.join(state.profile['tasks'])}")
    found = [_of_task(run_dir, state, model, against, name, split, only) for name in tasks]
    if as_json:
        say_json(found)
        return
    shown = 0
    for told in found:
        say(_head(told))
        for row in told["rows"]:
            shown += 1
            if shown <= limit:
                say("\n" + _row(row, told))
    if shown > limit:
        say(f"\n{shown - limit} more rows; --limit {shown} prints all, --json has them whole")


def _of_task(run_dir: Path, state: RunState, model: str, against: str, task: str, split: str, only: str) -> dict[str, Any]:
    ours = answers(run_dir, state, model, task, split)
    theirs = answers(run_dir, state, against, task, split) if against else None
    pairs: list[tuple[Answer, Answer | None]] = list(paired(ours, theirs)) if theirs else [(one, None) for one in ours]
    chosen = [(one, other) for one, other in pairs if not only or only in kinds(one, other)]
    told: dict[str, Any] = {"task": task, "split": split, "model": evaluations(state, model)[0], "n": len(ours)}
    told["mean"] = round(sum(one.score for one in ours) / len(ours), 6)
    if theirs:
        found = flips(ours, theirs)
        told |= {
            "against": evaluations(state, against)[0],
            "won": found.won,
            "lost": found.lost,
            "alike": found.alike,
            "p": found.p,
        }
    told["rows"] = [_json(one, other) for one, other in chosen]
    return told


def _json(one: Answer, other: Answer | None) -> dict[str, Any]:
    found = {"id": one.id, "question": one.question, "reference": one.reference, "answer": one.text, "score": one.score}
    found |= {
        "ended": one.ended,
        "kinds": sorted(kinds(one, other)),
        "asked": question_text(one),
        "wanted": reference_text(one),
    }
    return found | ({"other": {"answer": other.text, "score": other.score, "ended": other.ended}} if other else {})


def _head(told: dict[str, Any]) -> str:
    text = f"{told['task']} ({told['split']}): {told['model']} {told['mean']:.3f} on {told['n']} rows"
    if "against" not in told:
        return text
    return f"{text}; against {told['against']} {told['won']} won, {told['lost']} lost, {told['alike']} alike, p = {told['p']:.3g} (exact sign test)"


def _row(row: dict[str, Any], told: dict[str, Any]) -> str:
    lines = [f"row {row['id']}: {', '.join(row['kinds'])}", _block("asked", row["asked"]), _block("wanted", row["wanted"])]
    lines.append(_block(f"{told['model']}, {row['score']:.2f}", row["answer"]))
    if "other" in row:
        lines.append(_block(f"{told['against']}, {row['other']['score']:.2f}", row["other"]["answer"]))
    return "\n".join(lines)


def _block(label: str, text: str) -> str:
    """A text below its label, as far as the terminal is to have it."""
    every = clean(text).splitlines() or ["(nothing)"]
    more = [f"… {len(every) - LINES} more lines"] if len(every) > LINES else []
    return "\n".join([f"  {label}:", *(f"    {line}" for line in [*every[:LINES], *more])])
