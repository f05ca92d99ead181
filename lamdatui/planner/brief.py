"""What the planner is told: the facts that code computes from a view, as short lines.

Small models can't read a table, but some act on a fact that stands beside the option, so each option carries its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from lamdatui.domain.actions import Value
from lamdatui.domain.choice import Candidate, View, datasets_of, parents_of
from lamdatui.domain.objects import DatasetObject
from lamdatui.domain.trials import Trial
from lamdatui.planner.answers import plain
from lamdatui.planner.grammar import MEMORY_CHARS

LINE_CHARS = 200
OPTION_CHARS = 320
MEMORY_SHOWN = 600
CHARS_PER_TOKEN = 2.5
"""Few, because tables of numbers and identifiers split finely; prose has about four."""


def tokens(text: str) -> int:
    """An estimate, on the high side, of a text's tokens; no tokenizer is at hand on this side of the socket."""
    return int(len(text) / CHARS_PER_TOKEN) + 8


def situation(view: View, rows: int, with_facts: bool = True) -> dict[str, str]:
    """The fields that all prompts share, with at most `rows` best and `rows` latest trials in the record."""
    return {
        "record": record(view, rows),
        "facts": facts(view) if with_facts else "none computed",
        "hints": plain("; ".join(view.hints[-5:]), 2 * LINE_CHARS) or "none",
        "constraints": plain("; ".join(view.constraints[-5:]), 2 * LINE_CHARS) or "none",
        "memory": plain(view.memory, MEMORY_SHOWN) or "none yet",
        "trials_left": str(view.trials_left),
    }


def record(view: View, rows: int) -> str:
    """The most informative trials, oldest first: the `rows` best and the `rows` latest."""
    closed = [trial for trial in view.trials if trial.action is not None and not trial.is_open]
    scored = [trial for trial in closed if trial.objective is not None]
    best = sorted(scored, key=lambda trial: (-(trial.objective or 0.0), trial.number))[:rows]
    shown = {trial.number: trial for trial in (*best, *closed[-rows:])}
    if not shown:
        return "(none yet)"
    varied = varying(_actions(view))
    lines = [trial_line(view, shown[number], varied) for number in sorted(shown)]
    if len(shown) < len(closed):
        lines.insert(0, f"({len(closed)} trials in all)")
    return "\n".join(lines)


def facts(view: View) -> str:
    """Best model with its tasks, the weakest first, and the best of the models that the run began with."""
    if not view.objectives:
        return "nothing is scored yet"
    best = _best_model(view)
    said = [f"best model so far {best} ({view.objectives[best]:.3f})"]
    tasks = sorted(view.scores.get(best, {}).items(), key=lambda item: (item[1], item[0]))
    if tasks:
        said.append(f"its weakest task {tasks[0][0]} ({tasks[0][1]:.3f})")
    if len(tasks) > 1:
        said.append("its other tasks " + ", ".join(f"{name} {score:.3f}" for name, score in tasks[1:6]))
    bases = [item.id for item in view.pool.models if item.trial is None and item.id in view.objectives]
    if bases and best not in bases:
        base = max(bases, key=lambda name: view.objectives[name])
        said.append(f"base model {base} ({view.objectives[base]:.3f})")
    return "; ".join(said) + "."


def type_line(view: View, name: str, *, facts: bool = True) -> str:
    """`sft: summary [tried 3 times, best 0.431 (m3), mean change +0.012]`; without `facts` nothing is in brackets."""
    line = f"{name}: {plain(view.summaries.get(name, ''), 100)}"
    if not facts:
        return line
    done = _trials_of(view, name)
    changes = [change for trial in done if (change := _change(view, trial)) is not None]
    mean = f", mean change {fmean(changes):+.3f}" if changes else ""
    return f"{line} [{_tried(done)}{mean}]"


def option_lines(view: View, candidates: Sequence[Candidate], *, facts: bool = True) -> list[str]:
    """One line a candidate: `sft(base, mix; learning_rate=0.001) [parent base 0.392; other settings not tried yet]`."""
    lines = []
    for line, item in zip(short(candidates), candidates, strict=True):
        notes = "; ".join(_notes(view, item)) if facts else ""
        lines.append(plain(f"{line} [{notes}]" if notes else line, OPTION_CHARS))
    return lines


def short(candidates: Sequence[Candidate]) -> list[str]:
    """One line a candidate with only the hyperparameters that tell them apart: `dpo(m1, preferences; beta=0.3)`."""
    varied = varying([(item.action.type, item.action.params) for item in candidates])
    return [f"{item.action.type}({_chosen(item.action.inputs, item.action.params, varied)})" for item in candidates]


def reasons(view: View, candidate: Candidate) -> list[str]:
    """True sentences about a candidate, computed here: the reason of a planner that is too small to write one."""
    inputs = candidate.action.inputs
    said = []
    if view.objectives:
        best = _best_model(view)
        scored = [(name, view.objectives[name]) for name in parents_of(view, inputs) if name in view.objectives]
        told = " and ".join(f"{name} ({score:.3f})" for name, score in scored)
        if len(scored) > 1:
            said.append(f"it joins {told}")
        elif scored and scored[0][0] == best:
            said.append(f"it builds on the best model so far, {told}")
        elif scored:
            said.append(f"it gives {told} another way than the one that led to {best} ({view.objectives[best]:.3f})")
    datasets = datasets_of(view, inputs)
    used = {name for trial in view.trials if trial.action is not None for name in _ids(trial.action["inputs"])}
    said += [f"no trial has used {name} yet" for name in datasets if name not in used]
    alike = [t for t in _trials_of(view, candidate.action.type) if t.action and _ids(t.action["inputs"]) == _ids(inputs)]
    said.append(
        f"trial {alike[-1].number} had the same objects with other settings"
        if alike
        else "these objects were never put together"
    )
    return [plain(text, LINE_CHARS) for text in said]


def _notes(view: View, candidate: Candidate) -> list[str]:
    inputs = candidate.action.inputs
    notes = [plain(fact, 80) for fact in candidate.facts[:3]]
    best = _best_model(view) if view.objectives else ""
    if scored := [_parent(view, name, best) for name in parents_of(view, inputs) if name in view.objectives]:
        notes.append(("parent " if len(scored) == 1 else "parents ") + ", ".join(scored))
    for name in datasets_of(view, inputs):
        notes.append(_data_note(view, candidate.action.type, name, parents_of(view, inputs)))
    chosen = _ids(inputs)
    done = _trials_of(view, candidate.action.type)
    if alike := [trial for trial in done if trial.action is not None and _ids(trial.action["inputs"]) == chosen]:
        notes.append(f"other settings {_tried(alike)}")
    return notes


def _data_note(view: View, kind: str, name: str, parents: Sequence[str]) -> str:
    """What a type did with a dataset so far, and whether the parent has already learned from it."""
    done = [trial for trial in _trials_of(view, kind) if trial.action is not None and name in _ids(trial.action["inputs"])]
    changes = [change for trial in done if (change := _change(view, trial)) is not None]
    said = f"{name} gave {fmean(changes):+.3f} on average" if changes else f"{name} not tried with {kind}"
    if any(name in lineage(view, parent) for parent in parents):
        said += ", the parent was trained on it"
    return said


def lineage(view: View, model: str) -> list[str]:
    """The ids of everything that a model was made from, itself included."""
    made = {trial.model: trial.action for trial in view.trials if trial.model and trial.action}
    found, waiting = [], [model]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            waiting += _ids(made[name]["inputs"]) if name in made else []
    return found


def findings(view: View, limit: int = MEMORY_CHARS) -> str:
    """The memory as code writes it: what helped and what did not, by type and data, and promising directions."""
    if not view.objectives:
        return "Nothing is scored yet."
    changes: dict[str, list[float]] = {}
    for trial in view.trials:
        change = _change(view, trial)
        if change is not None and trial.action is not None:
            data = "+".join(datasets_of(view, trial.action["inputs"]))
            changes.setdefault(f"{trial.action['type']}{' on ' if data else ''}{data}", []).append(change)
    ranked = sorted(((fmean(found), name, len(found)) for name, found in changes.items()), reverse=True)
    helped = [f"{name} {mean:+.3f}{f' ({count} trials)' if count > 1 else ''}" for mean, name, count in ranked if mean > 0]
    harmed = [f"{name} {mean:+.3f}" for mean, name, _ in reversed(ranked) if mean <= 0]
    said = [f"Helped: {', '.join(helped[:3])}."] if helped else []
    said += [f"Did not help: {', '.join(harmed[:3])}."] if harmed else []
    best = _best_model(view)
    behind = lineage(view, best)
    untried = [data.id for data in view.pool.datasets if data.id not in behind]
    promising = f"Promising: go on from {best} ({view.objectives[best]:.3f})"
    if untried:
        promising += f", with {', '.join(untried[:3])}, which it was not trained on yet"
    return plain(" ".join([*said, promising + "."]), limit)


def trial_line(view: View, trial: Trial, varied: frozenset[str]) -> str:
    """`3 sft(base, mix; learning_rate=0.001) -> m3 0.412 (+0.020)`, or what stopped it instead of a score."""
    action = trial.action
    spelled = f"{action['type']}({_chosen(action['inputs'], action['params'], varied)})" if action else "?()"
    line = f"{trial.number} {spelled} -> "
    if trial.objective is not None:
        line += f"{trial.model or 'model'} {trial.objective:.3f}"
        change = _change(view, trial)
        line += f" ({change:+.3f})" if change is not None else ""
    elif trial.dataset:
        line += _made(view, trial.dataset)
    else:
        error = trial.error or {}
        why = error.get("class") or error.get("message") or (trial.decision or {}).get("reason") or ""
        line += f"{trial.status}{': ' if why else ''}{why}"
    return plain(line, LINE_CHARS)


def _made(view: View, name: str) -> str:
    item = view.pool.items.get(name)
    return f"{name} ({item.rows} rows, {item.format})" if isinstance(item, DatasetObject) else name


def newest_line(view: View, trial: Trial) -> str:
    """The trial that has just ended, with its scores by task."""
    line = trial_line(view, trial, varying(_actions(view)))
    tasks = view.scores.get(trial.model or "", {})
    if tasks:
        line += ", tasks: " + ", ".join(f"{name} {score:.3f}" for name, score in list(tasks.items())[:6])
    return line


def varying(actions: Iterable[tuple[str, Mapping[str, Value]]]) -> frozenset[str]:
    """Hyperparameters that have more than one value within a type: only those tell actions apart."""
    seen: dict[tuple[str, str], Value] = {}
    found: set[str] = set()
    for kind, params in actions:
        for name, value in params.items():
            if seen.setdefault((kind, name), value) != value:
                found.add(name)
    return frozenset(found)


def _actions(view: View) -> list[tuple[str, Mapping[str, Value]]]:
    return [(trial.action["type"], trial.action["params"]) for trial in view.trials if trial.action is not None]


def _trials_of(view: View, kind: str) -> list[Trial]:
    return [trial for trial in view.trials if trial.action is not None and trial.action["type"] == kind and not trial.is_open]


def _tried(trials: Sequence[Trial]) -> str:
    if not trials:
        return "not tried yet"
    said = "tried once" if len(trials) == 1 else f"tried {len(trials)} times"
    scored = [trial for trial in trials if trial.objective is not None]
    made = [trial.dataset for trial in trials if trial.dataset]
    if made:
        return f"{said}, made {', '.join(made[-3:])}"
    if not scored:
        return f"{said}, never with a score"
    best = max(scored, key=lambda trial: trial.objective or 0.0)
    return f"{said}, best {best.objective:.3f}" + (f" ({best.model})" if best.model else "")


def _change(view: View, trial: Trial) -> float | None:
    if trial.objective is None or trial.action is None:
        return None
    known = [view.objectives[name] for name in parents_of(view, trial.action["inputs"]) if name in view.objectives]
    return trial.objective - max(known) if known else None


def _parent(view: View, name: str, best: str) -> str:
    return f"{name} {view.objectives[name]:.3f}{' best so far' if name == best else ''}"


def _best_model(view: View) -> str:
    return max(view.objectives, key=lambda name: view.objectives[name])


def _ids(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for ids in inputs.values() for name in ids]


def _chosen(inputs: Mapping[str, Sequence[str]], params: Mapping[str, Value], varied: frozenset[str]) -> str:
    settings = ", ".join(f"{name}={_value(value)}" for name, value in params.items() if name in varied)
    return "; ".join(filter(None, (", ".join(_ids(inputs)), settings)))


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
