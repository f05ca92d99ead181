"""Is the planner worth its tokens? What its choices brought, against what the surrogate expected of its own favourite instead.

Only one action runs at a time, so what would have come of the other one is mostly an expectation. Where the other one was run too,
earlier or later, its measured objective is used. The report says how often that was so, on how many choices a mean stands, and how
well the surrogate expects: an expectation that is too high makes the planner look bad.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal, get_args

from lamdatui.base.jsonio import finite
from lamdatui.domain import scores
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.state import RunState, details_of
from lamdatui.domain.trials import Trial

Json = dict[str, Any]
Outcome = Literal["won", "lost", "even", "agreed", "failed", "unscored", "edited", "undone", "open", "no rival"]

ENOUGH = 5
"""Fewer differences than this get no interval and no verdict."""
UNDONE = ("vetoed", "skipped", "rejected", "stopped")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of `n` values. `interval` is Student's 95% interval, as if they were independent; None below `ENOUGH` values."""

    n: int
    mean: float | None
    interval: tuple[float, float] | None

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is on that side of zero, else 0."""
        if self.interval is None:
            return 0
        return 1 if self.interval[0] > 0 else -1 if self.interval[1] < 0 else 0


@dataclass(frozen=True, slots=True)
class Rival:
    """What the surrogate would have done: `expected` of it, and its measured `objective` where this run ran it too."""

    action: str
    digest: str
    expected: float | None
    objective: float | None

    @property
    def value(self) -> float | None:
        """What a choice is measured against."""
        return self.expected if self.objective is None else self.objective


@dataclass(frozen=True, slots=True)
class PlannerChoice:
    """One choice of the planner.

    `outcome`: `won`, `lost`, `even` (against `rival`), `agreed` (the surrogate's favourite was the same action), `failed` (it ran
    and gave no result), `unscored` (it made a dataset), `edited` or `undone` (a person decided otherwise), `open` (not over yet),
    `no rival` (nothing is known of what the surrogate would have done). `expected` is what the surrogate expected of the choice.
    """

    trial: int
    action: str
    outcome: Outcome
    objective: float | None
    expected: float | None
    rival: Rival | None
    difference: float | None


@dataclass(frozen=True, slots=True)
class Proposer:
    """A policy's trials, apart by who chose within it (`planner`, `surrogate` or ""). Edited trials are proposed, not scored.

    `gain` is over the best model among the inputs.
    """

    policy: str
    chooser: str
    proposed: int
    scored: int
    objective: float | None
    gain: Mean
    best: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a shadow policy wanted what was proposed: the same action, or at least the same type of action."""

    policy: str
    asked: int
    same: int
    same_type: int


@dataclass(frozen=True, slots=True)
class Worth:
    """The report. `lost` includes `failed`, which has no difference; `measured` differences stand on a rival that was run.

    `surrogate_error` is what came of the surrogate's own choices less what it had expected of them. `tokens` and `seconds` are the
    planner's in all, also for reasons and memory; by choice they are divided by all its choices.
    """

    verdict: str
    choices: tuple[PlannerChoice, ...]
    won: int
    lost: int
    even: int
    agreed: int
    failed: int
    measured: int
    difference: Mean
    surrogate_error: Mean
    tokens: int
    seconds: float
    tokens_per_choice: float | None
    seconds_per_choice: float | None
    proposers: tuple[Proposer, ...]
    shadows: tuple[Agreement, ...]

    def to_json(self) -> Json:
        """Plain JSON, as in `lamdatui show --json`; tuples become lists."""
        return _plain(asdict(self))


def worth(state: RunState) -> Worth:
    """The report on a run so far. Fields of another shape than the engine writes are taken as missing."""
    trials = [state.trials[number] for number in sorted(state.trials)]
    run = {trial.action["digest"]: trial.objective for trial in trials if trial.action and trial.objective is not None}
    choices = tuple(_choice(trial, run) for trial in trials if trial.proposal and chooser(trial) == "planner")
    counts = Counter(choice.outcome for choice in choices)
    compared = [choice for choice in choices if choice.difference is not None]
    difference = mean([choice.difference for choice in compared if choice.difference is not None])
    error = mean([off for trial in trials if (off := _error(trial)) is not None])
    asked, tokens = len(choices), finite(state.planner_tokens)
    return Worth(
        verdict=_verdict(state, counts, difference, error),
        choices=choices,
        won=counts["won"],
        lost=counts["lost"] + counts["failed"],
        even=counts["even"],
        agreed=counts["agreed"],
        failed=counts["failed"],
        measured=sum(choice.rival is not None and choice.rival.objective is not None for choice in compared),
        difference=difference,
        surrogate_error=error,
        tokens=state.planner_tokens,
        seconds=round(state.planner_seconds, 3),
        tokens_per_choice=round(tokens / asked, 1) if asked and tokens is not None else None,
        seconds_per_choice=round(state.planner_seconds / asked, 3) if asked else None,
        proposers=_proposers(state, trials),
        shadows=_agreements(trials),
    )


def told(report: Worth) -> list[tuple[str, str]]:
    """The report for people: (label, text) lines."""
    lines = [("verdict", report.verdict)]
    if report.choices:
        came = Counter[str](choice.outcome for choice in report.choices)
        beaten = ", ".join(f"{name} {came[name]}" for name in get_args(Outcome) if came[name] or name in ("won", "lost"))
        lines.append(("choices", f"{len(report.choices)} of the planner; against the surrogate's favourite: {beaten}"))
    if report.difference.n:
        expected = report.difference.n - report.measured
        known = f"; the favourite was measured for {report.measured} of them, expected for {expected}"
        lines.append(("difference", mean_text(report.difference) + known))
    if report.surrogate_error.n:
        lines.append(("surrogate", f"its own choices came out {mean_text(report.surrogate_error)} against what it expected"))
    cost = f"{report.tokens:,} tokens, {report.seconds:.0f} s"
    if report.tokens_per_choice is not None and report.seconds_per_choice is not None:
        cost += f"; {report.tokens_per_choice:,.0f} tokens and {report.seconds_per_choice:.1f} s a choice"
    lines.append(("cost", cost))
    lines += [("proposed", _proposer_text(row)) for row in report.proposers]
    lines += [
        ("shadow", f"{row.policy}: the same action {row.same} of {row.asked} times, the same type {row.same_type}")
        for row in report.shadows
    ]
    return lines


def chooser(trial: Trial) -> str:
    """Who chose within the policy: `planner`, `surrogate`, or "" where that is not told or makes no difference."""
    said = details(trial).get("chooser")
    if isinstance(said, str):
        return said
    # The paper's policy always asks its planner.
    return "planner" if proposer(trial) == "lamdagent" else ""


def proposer(trial: Trial) -> str:
    """The policy that proposed it; where a planner failed, the one that took over."""
    return trial.proposed_by.split(" (planner failed", 1)[0]


def details(trial: Trial) -> Json:
    """How a trial's choice was made: see `HybridPolicy`. Empty where nothing was told."""
    return details_of(trial.proposal or {})


def mean(values: Sequence[float]) -> Mean:
    """Mean and, from `ENOUGH` values on, Student's 95% interval."""
    count = len(values)
    if count == 0:
        return Mean(0, None, None)
    middle = fmean(values)
    if count < ENOUGH:
        return Mean(count, round(middle, 6), None)
    half = _student(count - 1) * stdev(values) / math.sqrt(count)
    return Mean(count, round(middle, 6), (round(middle - half, 6), round(middle + half, 6)))


def mean_text(value: Mean) -> str:
    """`+0.012 [-0.004, +0.028] (n=7)`."""
    if value.mean is None:
        return "nothing yet (n=0)"
    spread = f" [{value.interval[0]:+.3f}, {value.interval[1]:+.3f}]" if value.interval else ""
    return f"{value.mean:+.3f}{spread} (n={value.n})"


def _student(freedom: int) -> float:
    """The 97.5% quantile of Student's t (expansion of Fisher and Cornish), good to 0.001 from 4 degrees of freedom on."""
    z, v = NormalDist().inv_cdf(0.975), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _choice(trial: Trial, run: Mapping[str, float | None]) -> PlannerChoice:
    rival, agreed = _rival(trial, run)
    outcome, difference = _outcome(trial, rival, agreed)
    action = (trial.proposal or {}).get("action") or {}
    inputs = ", ".join("+".join(map(str, ids)) for ids in (action.get("inputs") or {}).values() if ids)
    text = f"{action.get('type', '?')}({inputs})"
    return PlannerChoice(
        trial.number, text, outcome, trial.objective, finite(details(trial).get("expected")), rival, difference
    )


def _rival(trial: Trial, run: Mapping[str, float | None]) -> tuple[Rival | None, bool]:
    """The surrogate's favourite for this trial, and whether that was the planner's choice too."""
    told = details(trial)
    own = _proposed_digest(trial)
    found = told.get("rival")
    if not isinstance(found, dict):
        if told.get("chooser") == "planner":
            # The hybrid names a rival wherever there is another favourite.
            return None, True
        found = next((shadow for shadow in trial.shadows if shadow.get("policy") == "surrogate"), None)
        if found is None:
            return None, False
    digest = str(found.get("digest", ""))
    if digest == own:
        return None, True
    return Rival(str(found.get("action", "?")), digest, finite(found.get("expected")), run.get(digest)), False


def _outcome(trial: Trial, rival: Rival | None, agreed: bool) -> tuple[Outcome, float | None]:
    if agreed:
        return "agreed", None
    if rival is None or rival.value is None:
        return "no rival", None
    if trial.is_open:
        return "open", None
    if trial.status in UNDONE:
        return "undone", None
    if _edited(trial):
        return "edited", None
    if trial.status == "failed":
        return "failed", None
    if trial.objective is None:
        return "unscored", None
    difference = round(trial.objective - rival.value, 6)
    return "won" if difference > 0 else "lost" if difference < 0 else "even", difference


def _proposed_digest(trial: Trial) -> str:
    return str(((trial.proposal or {}).get("action") or {}).get("digest", ""))


def _edited(trial: Trial) -> bool:
    return trial.action is not None and trial.proposal is not None and trial.action.get("digest") != _proposed_digest(trial)


def _error(trial: Trial) -> float | None:
    """What came of a choice of the surrogate's own, less what it had expected."""
    said = finite(details(trial).get("expected"))
    if chooser(trial) != "surrogate" or said is None or trial.objective is None or _edited(trial):
        return None
    return trial.objective - said


def _verdict(state: RunState, counts: Mapping[str, int], difference: Mean, error: Mean) -> str:
    if not sum(counts.values()):
        return "the planner has chosen nothing" if state.planner_tokens else "no planner has chosen in this run"
    failed = f"; {counts['failed']} more failed, which the mean does not show" if counts["failed"] else ""
    if difference.n < ENOUGH:
        said = f"too few choices to tell (n={difference.n})"
        if difference.n:
            said += f": the mean difference so far is {difference.mean:+.3f}"
        return said + failed
    match difference.sign:
        case 1:
            said = f"the planner's choices came out better than the surrogate's favourites: {mean_text(difference)}"
        case -1:
            said = f"the planner's choices came out worse than the surrogate's favourites: {mean_text(difference)}"
        case _:
            said = f"no difference can be told from the surrogate's favourites: {mean_text(difference)}"
    if error.sign:
        way = "more" if error.sign < 0 else "less"
        said += f"; but the surrogate expects {abs(error.mean or 0.0):.3f} {way} of its own choices than comes of them"
    return said + failed


def _proposers(state: RunState, trials: Sequence[Trial]) -> tuple[Proposer, ...]:
    # What trials reached is on record; of the bases it is not.
    reached = {trial.model: trial.objective for trial in state.trials.values() if trial.model and trial.objective is not None}
    objectives = scores.objectives(state, scores.weights_of(state.profile)) | reached
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        if trial.proposal:
            groups.setdefault((proposer(trial), chooser(trial)), []).append(trial)
    rows = []
    for (policy, chose), group in groups.items():
        own = [trial for trial in group if not _edited(trial)]
        scored = [trial.objective for trial in own if trial.objective is not None]
        gains = [gain for trial in own if (gain := _gain(state, trial, objectives)) is not None]
        average = round(fmean(scored), 6) if scored else None
        rows.append(Proposer(policy, chose, len(group), len(scored), average, mean(gains), max(scored, default=None)))
    return tuple(rows)


def _gain(state: RunState, trial: Trial, objectives: Mapping[str, float]) -> float | None:
    if trial.objective is None or not trial.action:
        return None
    names = [name for ids in trial.action.get("inputs", {}).values() for name in ids]
    parents = [objectives[name] for name in names if isinstance(state.pool.items.get(name), ModelObject) and name in objectives]
    return trial.objective - max(parents) if parents else None


def _agreements(trials: Sequence[Trial]) -> tuple[Agreement, ...]:
    seen: dict[str, list[tuple[bool, bool]]] = {}
    for trial in trials:
        kind = str(((trial.proposal or {}).get("action") or {}).get("type", ""))
        for shadow in trial.shadows:
            same = shadow.get("digest") == _proposed_digest(trial)
            alike = str(shadow.get("action", "")).split("(", 1)[0] == kind
            seen.setdefault(str(shadow.get("policy", "?")), []).append((same, alike or same))
    return tuple(
        Agreement(name, len(pairs), sum(same for same, _ in pairs), sum(alike for _, alike in pairs))
        for name, pairs in seen.items()
    )


def _proposer_text(row: Proposer) -> str:
    name = f"{row.policy}, {row.chooser} chose" if row.chooser and row.chooser != row.policy else row.policy
    said = f"{name}: {row.proposed} trial{'s' if row.proposed != 1 else ''}"
    if row.objective is None or row.best is None:
        return f"{said}, none with a score"
    said += f", mean {row.objective:.3f}, best {row.best:.3f}"
    return said + (f", over the best parent {mean_text(row.gain)}" if row.gain.n else "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
