"""What the charts of a run are drawn from: scores, what they cost, the base. Pure; a trial that is over is read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lamdatui.base.jsonio import finite
from lamdatui.domain.lineage import parents
from lamdatui.domain.scores import objective, weights_of
from lamdatui.domain.state import RunState
from lamdatui.domain.trials import Trial
from lamdatui.domain.verdicts import corrected

INTERVALS = 50
"""Of the newest trials: a usual one is looked for among them."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A trial with a score: what it and the run had cost when it was done."""

    trial: Trial
    objective: float
    steps: float
    """Seconds of steps of this and all earlier trials."""
    work: float
    """The same with planning and overhead."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the charts of the run are drawn from."""

    items: tuple[Scored, ...] = ()
    base: float | None = None
    """The objective of the (first) base model on the search split."""
    noise: float | None = None
    """The objective up to which a model is not told from the base: a usual interval's half above it, after as many looks as there were."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Model → seconds of all the steps that lead to it."""


def results(run: RunState) -> Results:
    """The scores, the base and the costs of a run so far."""
    return Tally().take(run)


class Tally:
    """The results of a run that goes on. `take` costs what is new, not what there is: a run may have thousands of trials."""

    def __init__(self) -> None:
        self._start(RunState())

    def _start(self, run: RunState) -> None:
        self._run = run
        self._read = 0
        """Trials that were over and are read: they are over in their order."""
        self._known = 0
        """Objects of the pool whose trial is read, or that have none."""
        self._steps = self._work = 0.0
        self._items: list[Scored] = []
        self._costs = _Costs()
        self.found = Results()

    def take(self, run: RunState) -> Results:
        """The results so far; the same object as before when nothing is new."""
        if run is not self._run:
            self._start(run)
        scored, read = len(self._items), self._read
        for trial in itertools.islice(run.trials.values(), self._read, None):
            if trial.is_open:
                break
            self._take_trial(trial)
        if self._read != read:
            self._take_objects()
        base = _base_objective(run)
        if len(self._items) != scored or base != self.found.base:
            self.found = Results(tuple(self._items), base, self._noise(base), dict(self._costs.seconds))
        return self.found

    def _noise(self, base: float | None) -> float | None:
        count = max(1, len(self._items))
        newest = self._items[-INTERVALS:]
        halves = sorted((found[1] - found[0]) / 2 for item in newest if (found := corrected(item.trial.gain, count)))
        return base + halves[len(halves) // 2] if halves and base is not None else None

    def _take_trial(self, trial: Trial) -> None:
        self._read += 1
        self._steps += _seconds(trial, "execute") + _seconds(trial, "evaluate")
        self._work += max(0.0, _seconds(trial, "total") - _seconds(trial, "wait"))
        objective = finite(trial.objective)
        if objective is not None and trial.model:
            self._items.append(Scored(trial, objective, self._steps, self._work))

    def _take_objects(self) -> None:
        run = self._run
        for name, item in itertools.islice(run.pool.items.items(), self._known, None):
            trial = run.trials.get(item.trial) if item.trial is not None else None
            if trial is not None and trial.is_open:
                break
            self._known += 1
            if trial is not None:
                self._costs.add(name, parents(run, name), _seconds(trial, "execute"))


class _Costs:
    """Seconds of the steps that lead to each model or dataset, each step once; what came from the store cost nothing now.

    The parents of a merge may share ancestors. Who is above whom is kept as the bits of a number, one for each object that
    an action made: in a long run a merge has thousands of ancestors, nearly all of them shared.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._own: list[float] = []
        self._above: dict[str, int] = {}

    def add(self, name: str, made_from: Iterable[str], seconds: float) -> None:
        """An object, after those that it was made from."""
        known = [parent for parent in made_from if parent in self._above]
        known.sort(key=lambda parent: self._above[parent].bit_count())
        above, cost = 0, seconds
        while known:
            # The one with the most ancestors first: few are left to be counted one by one.
            parent = known.pop()
            rest = self._above[parent] & ~above
            cost += self.seconds[parent] if not above else sum(self._own[place] for place in _places(rest))
            above |= rest
        self._above[name] = above | 1 << len(self._own)
        self.seconds[name] = cost
        self._own.append(seconds)


def _places(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _seconds(trial: Trial, part: str) -> float:
    return finite((trial.seconds or {}).get(part)) or 0.0


def _base_objective(run: RunState) -> float | None:
    """From the base's own scores; where the profile gives no weights, from a trial's gain over it."""
    own = objective(run.scores.get(run.pool.base or "", {}), weights_of(run.profile))
    if own is not None:
        return own
    for trial in run.trials.values():
        gain, reached = finite((trial.gain or {}).get("mean")), finite(trial.objective)
        if gain is not None and reached is not None:
            return reached - gain
    return None
