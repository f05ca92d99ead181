"""A run's state in a few frames instead of all its events: for a console that opens a long run. Pure.

What is heavy and rarely looked at is left out of trials that are over, but for the newest ones: the proposal's alternatives, the
surrogate's rival, the shadows. Such a trial is *brief*; the command `trial` brings the whole one. Evaluation keys are left out too, because only
the engine needs them. Everything else is what a replay of the events up to `seq` gives; a test compares the two.

The frames, in order: `{"type": "snapshot", "part": "run", "seq", "run", "types", "fields", "objects", "steps", "scores"}` with what no trial
made, `{"type": "snapshot", "part": "trials", "trials": [...]}` as often as it takes, `{"type": "snapshot", "part": "end"}`. A trial is
`[values, steps, objects, scores, brief]`; values stand in the order that `fields` names. A step that belongs to no trial has its place
among all steps before its values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from lamdatui.base.surrogates import escaped
from lamdatui.domain.objects import DatasetObject, ModelObject, PoolObject
from lamdatui.domain.records import Declaration
from lamdatui.domain.reducer import declared
from lamdatui.domain.state import RunState, run_from_json
from lamdatui.domain.trials import StepRecord, Trial

Json = dict[str, Any]
Row = list[Any]

LEFT_OUT = ("declaration", "alternatives")
"""Of the proposal of a brief trial. The declaration is put back where the run has its types once, as newer engines record them."""
WHOLE = 20
"""As many of the newest trials are whole."""
SHARED = ("architecture", "layout", "weights", "tokenizer", "traits", "kind")
"""Of objects: what many of them have in common."""
CHUNK_BYTES = 256 * 1024
"""About the size of a frame of trials: whoever reads it answers keys between two of them."""

_CLASSES: dict[str, type[Any]] = {"trial": Trial, "step": StepRecord, "model": ModelObject, "dataset": DatasetObject}
_NAMES: dict[str, list[str]] = {kind: [each.name for each in fields(cls)] for kind, cls in _CLASSES.items()}
_VALUES: dict[str, Callable[[Any], tuple[Any, ...]]] = {kind: attrgetter(*names) for kind, names in _NAMES.items()}
_PROPOSAL, _SHADOWS, _SCORES = (_NAMES["trial"].index(name) for name in ("proposal", "shadows", "scores"))


@dataclass(eq=False, slots=True)
class Taken:
    """A snapshot that was taken and not written yet. What happens later does not change it: a state replaces what it refers to."""

    seq: int
    head: bytes
    trials: list[tuple[int, bytes | Row]]


class Snapshots:
    """Takes snapshots of one state; remembers the bytes of trials that are over, so that each is written once."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._newest: Taken | None = None

    def take(self, state: RunState, touched: Iterable[tuple[str, str]]) -> Taken:
        """The state as it is now. `touched`: what changed since the last time, as (part, id)."""
        for table, key in touched:
            self._known.pop(_owner(state, table, key), None)
        steps: dict[int, list[Row]] = {}
        objects: dict[int, list[PoolObject]] = {}
        others: list[Row] = []
        for place, step in enumerate(state.steps.values()):
            if step.trial is None:
                others.append([place, *_VALUES["step"](step)])
            elif step.trial not in self._known:
                steps.setdefault(step.trial, []).append(list(_VALUES["step"](step)))
        for item in state.pool.items.values():
            if item.trial is not None and item.trial not in self._known:
                objects.setdefault(item.trial, []).append(item)
        head = {
            "type": "snapshot",
            "part": "run",
            "seq": state.last_seq,
            "run": state.run_json(),
            "types": state.types,
            "fields": _NAMES,
            "objects": [_object_row(item) for item in state.pool.items.values() if item.trial is None],
            "steps": others,
            "scores": {name: found for name, found in state.scores.items() if _owner(state, "score", name) < 0},
        }
        trials: list[tuple[int, bytes | Row]] = []
        brief = len(state.trials) - WHOLE
        for place, (number, trial) in enumerate(state.trials.items()):
            known = self._known.get(number)
            made = steps.get(number, []), objects.get(number, [])
            trials.append((number, known or _row(state, trial, *made, place < brief and not trial.is_open)))
        self._newest = Taken(state.last_seq, _dumps(head), trials)
        return self._newest

    def write(self, taken: Taken) -> Iterator[bytes]:
        """The frames, each with its newline."""
        yield taken.head + b"\n"
        chunk, length = list[bytes](), 0
        for number, trial in taken.trials:
            line = trial if isinstance(trial, bytes) else _dumps(trial)
            if not isinstance(trial, bytes) and trial[-1] and taken is self._newest:
                self._known[number] = line
            chunk.append(line)
            length += len(line)
            if length > CHUNK_BYTES:
                yield _trials_frame(chunk)
                chunk, length = [], 0
        yield _trials_frame(chunk)
        yield _dumps({"type": "snapshot", "part": "end"}) + b"\n"


def _owner(state: RunState, table: str, key: str) -> int:
    """The trial that a part belongs to; -1 where it is no trial's."""
    found: int | None = None
    if table == "trial":
        found = int(key)
    elif table == "step":
        found = state.steps[key].trial
    elif table in ("object", "score") and (item := state.pool.items.get(key)):
        found = item.trial
    return -1 if found is None else found


def _row(state: RunState, trial: Trial, steps: Sequence[Row], objects: Sequence[PoolObject], brief: bool) -> Row:
    values = list(_VALUES["trial"](trial))
    scores = {item.id: state.scores[item.id] for item in objects if item.id in state.scores}
    if trial.scores and trial.scores == scores.get(trial.model or ""):
        values[_SCORES] = None
    if brief:
        values[_SHADOWS] = []
    if trial.proposal is not None:
        values[_PROPOSAL] = _proposal(trial, state.types, brief)
    return [values, steps, [_object_row(item) for item in objects], scores, brief]


def _proposal(trial: Trial, types: Mapping[str, Declaration], brief: bool) -> Json:
    """A trial's proposal without the declaration that all proposals of its type share, and of a brief trial without what is heavy."""
    proposal: Json = dict(trial.proposal or {})
    kept = {name: value for name, value in proposal.items() if not (brief and name in LEFT_OUT)}
    if "declaration" in kept and kept["declaration"] == types.get(proposal["action"]["type"]):
        del kept["declaration"]
    if not brief:
        return kept
    # What the trial says too is put back by the reader.
    for name, told in (("action", trial.action), ("reason", trial.reason), ("proposed_by", trial.proposed_by)):
        if kept.get(name) == told:
            del kept[name]
    if "rival" in (kept.get("details") or {}):
        kept["details"] = {name: value for name, value in kept["details"].items() if name != "rival"}
    return kept


def _object_row(item: PoolObject) -> Row:
    return [item.kind, *_VALUES[item.kind](item)]


def _dumps(value: Any) -> bytes:
    return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def _trials_frame(lines: Sequence[bytes]) -> bytes:
    return b'{"type":"snapshot","part":"trials","trials":[' + b",".join(lines) + b"]}\n"


class Restored:
    """A state that is put together from the frames of a snapshot. Take them in in order; `state` is whole after `end`.

    Every method raises KeyError, TypeError, ValueError or IndexError for frames of another shape.
    """

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.state = run_from_json(head["run"])
        self.state.types = dict(head.get("types") or {})
        self.names: Mapping[str, Sequence[str]] = head["fields"]
        self.brief: set[int] = set()
        """Trials of which the heavy parts were left out."""
        self._makers = {kind: _maker(cls, head["fields"][kind]) for kind, cls in _CLASSES.items()}
        # Long strings that all models share are kept once.
        self._same: dict[str, str] = {}
        self._shared = {
            kind: [place for place, name in enumerate(names) if name in SHARED] for kind, names in self.names.items()
        }
        self._others: list[Row] = head["steps"]
        self._add_objects(head["objects"])
        self.state.scores.update(head["scores"])

    def add(self, trials: Iterable[Row]) -> None:
        """Some more trials."""
        state, make, step_of = self.state, self._makers["trial"], self._makers["step"]
        for values, steps, objects, scores, brief in trials:
            trial: Trial = make(values)
            state.trials[trial.number] = trial
            for row in steps:
                step: StepRecord = step_of(row)
                state.steps[step.key] = step
            self._add_objects(objects)
            state.scores.update(scores)
            if trial.scores is None:
                trial.scores = dict(state.scores[trial.model or ""])
            if brief:
                self.brief.add(trial.number)
            if trial.proposal is not None:
                shared = {"action": trial.action, "reason": trial.reason, "proposed_by": trial.proposed_by} if brief else {}
                proposal: Any = {**shared, **trial.proposal}
                trial.proposal = declared(proposal, state.types)

    def end(self) -> RunState:
        """The whole state."""
        steps = list(self.state.steps.values())
        for place, *row in self._others:
            steps.insert(place, self._makers["step"](row))
        self.state.steps = {step.key: step for step in steps}
        return self.state

    def _add_objects(self, rows: Iterable[Row]) -> None:
        same = self._same.setdefault
        for kind, *values in rows:
            for place in self._shared[kind]:
                values[place] = same(values[place], values[place])
            item = self._makers[kind]([tuple(value) if type(value) is list else value for value in values])
            self.state.pool.items[item.id] = item


def _maker(cls: type[Any], names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """What makes an object from its values; fields that only one side knows are left out or stay at their defaults."""
    own = [each.name for each in fields(cls)]
    if list(names) == own:
        return lambda values: cls(*values)
    return lambda values: cls(**{name: value for name, value in zip(names, values, strict=True) if name in own})
