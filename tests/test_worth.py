"""Whether the planner is worth its tokens, on runs that are made up event by event."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from lamdatui.base.clock import SystemClock
from lamdatui.base.jsonio import digest
from lamdatui.cli.show import describe, planner_report, planner_table
from lamdatui.domain.events import Event, check_fields
from lamdatui.domain.planner_report import ENOUGH, Worth, mean, told, worth
from lamdatui.domain.policies import DEFAULT, SUMMARIES
from lamdatui.domain.state import RunState
from lamdatui.policy import POLICIES
from lamdatui.store.journal import Journal
from tests.test_journal import PROPOSAL

Json = dict[str, Any]
BASE = {"id": "base", "digest": "b" * 64, "architecture": "Llama", "layout": "x", "weights": "/w", "adapters": [],
        "parameters": 1, "trial": None, "tokenizer": "", "kind": "model"}  # fmt: skip


class Story:
    """A run as its events: everything that the report may look at."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, Json]] = []
        self.state = RunState()
        self._seq = itertools.count(1)
        self._number = itertools.count(1)
        profile = {"objective": {"weights": {"a": 1.0, "b": 0.5}}, "planner": {"model": "/m/x.gguf"}}
        self.add("run.created", name="r", profile=profile, profile_digest="d", seed=1, mode="auto", policy="hybrid",
                 max_trials=99, wall_seconds=None)  # fmt: skip
        self.add("object.added", object=BASE)
        self.score("base", a=0.2, b=0.4)

    def add(self, kind: str, **data: Any) -> None:
        """One event."""
        check_fields(kind, data)
        self.facts.append((kind, data))
        self.state.apply(Event(next(self._seq), kind, 1.0, 1.0, data))

    def score(self, model: str, **means: float) -> None:
        """The evaluations of a model on the search split."""
        for task, value in means.items():
            score = {"mean": value, "n": 9, "interval": [0.0, 1.0]}
            self.add("evaluation.recorded", model=model, task=task, split="search", key=task, score=score)

    def trial(
        self,
        objective: float | None,
        *,
        by: str = "hybrid",
        details: Json | None = None,
        status: str = "done",
        ran: Json | None = None,
        act: Json | None = None,
        shadows: list[Json] | None = None,
        dataset: str | None = None,
    ) -> Json:
        """A whole trial; the action that was proposed. `ran` is what a person made of it."""
        number = next(self._number)
        act = act or action(number)
        self.add("trial.opened", number=number)
        offered = {**PROPOSAL, "action": act, "proposed_by": by, "reason": "", "seconds": 1.0, "details": details or {}}
        self.add("trial.proposed", number=number, proposal=offered)
        if shadows:
            self.add("shadows.recorded", number=number, shadows=shadows)
        if status == "awaiting":
            return act
        verdict = {"vetoed": "veto", "skipped": "skip"}.get(status, "edit" if ran else "approve")
        self.add("trial.decided", number=number, verdict=verdict, by="person", reason="", action=ran or act)
        model = f"m{number}" if objective is not None else None
        if model and objective is not None:
            self.score(model, a=objective, b=0.0)
            self.add("object.added", object={**BASE, "id": model, "digest": model * 9, "trial": number})
        self.add("trial.closed", number=number, status=status, model=model, dataset=dataset, scores={}, objective=objective,
                 gain=None, cached=False, seconds={}, error=None)  # fmt: skip
        return act

    def asked(self, objective: float | None, against: float | None = 0.4, rival: Json | None = None, **more: Any) -> Json:
        """A trial that the planner chose although the surrogate expected `against` of something else; None: it agreed."""
        told: Json = {"chooser": "planner", "share": 0.3, "expected": 0.35, "std": 0.05}
        if against is not None:
            told["rival"] = {"action": "other(base)", "digest": (rival or action("other"))["digest"], "expected": against}
        return self.trial(objective, details=told, **more)

    def report(self) -> Worth:
        """The report on all that."""
        return worth(self.state)


def action(name: Any, kind: str = "sft") -> Json:
    """An action with a digest of its own."""
    body: Json = {"type": kind, "inputs": {"model": ["base"]}, "params": {"n": str(name)}, "seed": 1}
    return {**body, "digest": digest(body)}


def test_nothing_is_said_about_a_run_in_which_no_planner_chose() -> None:
    story = Story()
    story.trial(0.3, by="opening")
    story.trial(0.5, by="tpe")
    report = story.report()
    assert report.verdict == "no planner has chosen in this run"
    assert (report.choices, report.difference.n, report.tokens_per_choice) == ((), 0, None)


def test_few_choices_tell_nothing_however_clear_they_look() -> None:
    story = Story()
    for _ in range(3):
        story.asked(0.9)
    report = story.report()
    assert report.verdict.startswith("too few choices to tell (n=3)")
    assert (report.won, report.difference.mean, report.difference.interval) == (3, pytest.approx(0.5), None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.50, 0.52, 0.49, 0.51, 0.53, 0.50], "came out better"),
        ([0.30, 0.32, 0.29, 0.31, 0.33, 0.30], "came out worse"),
        ([0.30, 0.52, 0.29, 0.51, 0.33, 0.50], "no difference can be told"),
    ],
)
def test_the_verdict_follows_the_interval_and_says_n(values: list[float], words: str) -> None:
    story = Story()
    for value in values:
        story.asked(value)
    report = story.report()
    assert words in report.verdict and "(n=6)" in report.verdict
    assert report.won == sum(value > 0.4 for value in values)
    assert report.won + report.lost == 6


def test_a_rival_that_was_run_counts_with_what_came_of_it_earlier_or_later() -> None:
    story = Story()
    early = story.trial(0.2, details={"chooser": "surrogate", "expected": 0.3})
    late = action("late")
    story.asked(0.3, 0.9, rival=early)
    story.asked(0.3, 0.9, rival=late)
    assert [choice.outcome for choice in story.report().choices] == ["won", "lost"]
    story.trial(0.1, act=late, by="tpe")
    report = story.report()
    assert [choice.difference for choice in report.choices] == [pytest.approx(0.1), pytest.approx(0.2)]
    assert (report.won, report.measured) == (2, 2)


def test_what_did_not_run_as_proposed_is_counted_apart() -> None:
    story = Story()
    story.asked(0.5)
    story.asked(0.4)
    story.asked(0.5, None)
    story.asked(None, status="failed")
    story.asked(None, dataset="d5")
    story.asked(0.5, ran=action("edited"))
    story.asked(None, status="vetoed")
    story.asked(None, status="awaiting")
    report = story.report()
    assert [choice.outcome for choice in report.choices] == [
        "won", "even", "agreed", "failed", "unscored", "edited", "undone", "open",
    ]  # fmt: skip
    assert (report.won, report.lost, report.even, report.agreed, report.failed, report.difference.n) == (1, 1, 1, 1, 1, 2)
    assert "1 more failed" in report.verdict
    assert dict(told(report))["choices"].endswith(
        "won 1, lost 0, even 1, agreed 1, failed 1, unscored 1, edited 1, undone 1, open 1"
    )


def test_the_papers_policy_is_compared_with_the_surrogate_as_a_shadow() -> None:
    story = Story()
    other = action("other")

    def shadow(act: Json, expected: float | None) -> list[Json]:
        return [
            {"policy": "surrogate", "action": "sft(model=base)", "digest": act["digest"], "expected": expected, "seconds": 0.1}
        ]

    story.trial(0.5, by="lamdagent", shadows=shadow(other, 0.4))
    same = action("same")
    story.trial(0.5, by="lamdagent", act=same, shadows=shadow(same, 0.4))
    story.trial(0.5, by="lamdagent", shadows=shadow(other, None))
    story.trial(0.5, by="lamdagent")
    assert [choice.outcome for choice in story.report().choices] == ["won", "agreed", "no rival", "no rival"]


def test_a_planner_that_failed_did_not_choose() -> None:
    story = Story()
    story.trial(0.5, by="surrogate (planner failed: timed out)", details={"chooser": "surrogate", "expected": 0.4})
    story.trial(0.5, by="random (planner failed: timed out)")
    report = story.report()
    assert report.choices == ()
    assert [row.policy for row in report.proposers] == ["surrogate", "random"]


def test_the_surrogates_own_error_is_told_beside_the_difference() -> None:
    story = Story()
    for number in range(6):
        story.trial(0.30 + number / 1000, details={"chooser": "surrogate", "expected": 0.4})
        story.asked(0.35 + number / 1000)
    report = story.report()
    assert report.surrogate_error.mean == pytest.approx(-0.0975)
    assert "came out worse" in report.verdict
    assert "the surrogate expects 0.098 more of its own choices than comes of them" in report.verdict


def test_tokens_are_told_in_all_and_by_choice() -> None:
    story = Story()
    for number, tokens in ((1, 800), (1, 100), (2, 600)):
        story.add("planner.answered", number=number, call="action", answer="A", tokens=tokens, seconds=1.5)
    story.asked(0.5)
    story.asked(0.3)
    report = story.report()
    assert (report.tokens, report.seconds, report.tokens_per_choice, report.seconds_per_choice) == (1500, 4.5, 750.0, 2.25)
    story.add("planner.answered", number=3, call="action", answer="A", tokens=10**400, seconds=1.5)
    assert story.report().tokens_per_choice is None, "no float holds it"


def test_proposers_have_means_and_gains_over_their_best_parent() -> None:
    story = Story()
    story.trial(0.5, by="tpe")
    child = {**action("child"), "inputs": {"model": ["base", "m1"]}}
    story.trial(0.7, by="tpe", act=child)
    story.trial(0.9, by="tpe", ran=action("edited"))
    story.trial(None, by="tpe", status="failed")
    [row] = story.report().proposers
    assert (row.proposed, row.scored, row.objective, row.best) == (4, 2, pytest.approx(0.6), 0.7)
    # The base scores 0.2 + 0.5 × 0.4; the merge is measured against m1, the better of its two.
    assert (row.gain.n, row.gain.mean) == (2, pytest.approx((0.1 + 0.2) / 2))


def test_shadows_agree_by_action_or_by_type() -> None:
    story = Story()
    act = action("x")
    shadows = [
        {"policy": "tpe", "action": "sft(model=base; n=1)", "digest": "other", "expected": None, "seconds": 0.1},
        {"policy": "random", "action": "dpo(model=base)", "digest": "another", "expected": None, "seconds": 0.1},
        {"policy": "evolution", "action": "sft(model=base; n=x)", "digest": act["digest"], "expected": None, "seconds": 0.1},
    ]
    story.trial(0.5, act=act, shadows=shadows)
    found = {row.policy: (row.asked, row.same, row.same_type) for row in story.report().shadows}
    assert found == {"tpe": (1, 0, 1), "random": (1, 0, 0), "evolution": (1, 1, 1)}


def test_the_interval_is_students() -> None:
    values = [0.1, 0.4, -0.2, 0.3, 0.05]
    found = mean(values)
    assert found.interval is not None
    half = 2.776 * statistics.stdev(values) / 5**0.5
    assert found.interval == pytest.approx((0.13 - half, 0.13 + half), abs=2e-4)
    assert mean(values[: ENOUGH - 1]).interval is None
    assert (mean([]).n, mean([]).mean) == (0, None)


@pytest.mark.parametrize(
    "details",
    [None, [], "x", {"chooser": 3}, {"chooser": "planner", "rival": []}, {"chooser": "planner", "rival": {"expected": "high"}},
     {"chooser": "planner", "rival": {"expected": float("nan")}}, {"chooser": "surrogate", "expected": True}],
)  # fmt: skip
def test_details_of_another_shape_are_taken_as_missing(details: Any) -> None:
    story = Story()
    story.trial(0.5)
    trial = story.state.trials[1]
    assert trial.proposal is not None
    trial.proposal["details"] = details
    report = story.report()
    assert report.difference.n == 0
    json.dumps(report.to_json(), allow_nan=False)


def test_show_has_the_report_as_json_and_for_people(tmp_path: Path) -> None:
    story = Story()
    story.trial(0.3, by="opening")
    story.asked(0.45)
    story.add("hint.added", id="h9", text="try merging", by="person", trial=None)
    found = describe(story.state, alive=False)
    plain = json.loads(json.dumps(found, allow_nan=False))
    assert plain == found, "tuples would come back as lists"
    assert (found["planner"]["won"], found["planner"]["tokens"], found["hints"][0]["id"]) == (1, 0, "h9")
    assert found["trials"][1]["details"]["chooser"] == "planner"
    path = tmp_path / "run.db"
    journal = Journal(path, SystemClock())
    journal.append(*story.facts)
    journal.close()
    text = planner_report(tmp_path)
    assert text == planner_table(story.state)
    assert text.splitlines()[0] == "r: policy hybrid, planner x.gguf"
    assert "hybrid: planner" in text and "won +0.050 against other(base), expected 0.400" in text


def test_every_policy_has_a_name_that_all_may_read() -> None:
    assert list(POLICIES) == list(SUMMARIES)
    assert DEFAULT in SUMMARIES
