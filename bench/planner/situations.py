"""Decision situations from a table: for the planner's self-test (second table) and for its training (first table).

    python -m bench.planner.situations              writes lamdatui/planner/situations.jsonl from the table phi
    python -m bench.planner.situations --train OUT  writes SFT and preference rows from the table llama

A situation is a moment of a search by a mixed policy on a variant of the table, with four legal actions of which one is clearly the
best. The memory is what code writes; the facts are those of a run, the surrogate's expectation among them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.policies.arms import PROMPTS
from bench.policies.replay import Search, legal, variant
from bench.policies.table import Table
from lamdatui.domain.choice import Candidate, Policy, Proposal, View
from lamdatui.planner import brief
from lamdatui.planner.prompts import PromptBook
from lamdatui.planner.situations import FILE, to_json
from lamdatui.policy.hybrid import Ranked, expectation, rank
from lamdatui.policy.uniform import RandomPolicy

TABLES = Path(__file__).parents[1] / "policies" / "tables"
OPTIONS = 4
CLEAR, LEAST = 0.08, 0.12
"""The best option is at least this much better than the second, and than the mean, in the objective (a sum of three shares)."""
TRIALS = 16
SHIPPED = 96
TRAIN_SEEDS, TEST_SEEDS = range(1000, 1060), range(2000, 2060)
EACH = 24
"""Options a moment of the training searches gives."""


class Mixed(Policy):
    """Half the time the surrogate's favourite, else a random action: searches that reach good models and see bad ones."""

    name = "mixed"

    async def propose(self, view: View) -> Proposal:
        """One of the view's candidates."""
        if random.Random(f"mixed/{view.seed}/{view.number}").random() < 0.5:
            return await RandomPolicy().propose(view)
        return Proposal(rank(view)[0].candidate.action, "", self.name)


@dataclass(frozen=True)
class Moment:
    """A view in the middle of a search with every candidate's forecast and value."""

    view: View
    ranking: list[Ranked]
    values: dict[str, float]
    """Digest → what the action leads to, on search rows."""


class Watched(Search):
    """A search whose moments are kept."""

    def __init__(self, table: Table, seed: int) -> None:
        super().__init__(table, Mixed(), seed)
        self.moments: list[Moment] = []

    async def _propose(self, view: View) -> Proposal:
        told = replace(view, memory=brief.findings(view), trials_left=TRIALS - view.number)
        values = {self._action(node).digest: self.table.objective(node.id) for node in legal(self.table, self._made)}
        self.moments.append(Moment(told, rank(view), values))
        return await super()._propose(view)


def moments(table: Table, seeds: Sequence[int]) -> Iterator[Moment]:
    """All moments of one search a seed."""
    for seed in seeds:
        search = Watched(variant(table, seed), seed)
        asyncio.run(search.go(TRIALS))
        yield from search.moments


def told(item: Ranked) -> Candidate:
    """A candidate with the fact that a hybrid adds."""
    return replace(item.candidate, facts=(expectation(item.forecast),))


def situation(moment: Moment, draw: random.Random) -> dict[str, Any] | None:
    """Four options of a moment, one of them clearly the best; None when a few draws find none."""
    for _ in range(8):
        picked = draw.sample(moment.ranking, OPTIONS) if len(moment.ranking) >= OPTIONS else []
        values = [moment.values[item.candidate.action.digest] for item in picked]
        ranked = sorted(values, reverse=True)
        if picked and ranked[0] - ranked[1] >= CLEAR and ranked[0] - sum(values) / OPTIONS >= LEAST:
            return to_json(moment.view, [told(item) for item in picked], values, [item.forecast.expected for item in picked])
    return None


def ship(out: Path) -> None:
    """The self-test's situations, one of every few moments."""
    draw = random.Random(5)
    found = [one for moment in moments(Table.load(TABLES / "phi.json.xz"), TEST_SEEDS) if (one := situation(moment, draw))]
    kept = draw.sample(found, min(SHIPPED, len(found)))
    out.write_text("".join(json.dumps(one, sort_keys=True, separators=(",", ":")) + "\n" for one in kept), encoding="utf-8")
    print(f"{out}: {len(kept)} of {len(found)} situations")


def judged(book: PromptBook, view: View, line: str) -> list[dict[str, str]]:
    """The messages of one yes-or-no question, as `PlannerSession` asks it."""
    user = book.render("judge_action", objective=view.objective, **brief.situation(view, 5), option=line)
    return [
        {"role": "system", "content": book.render("system_judge", objective=view.objective)},
        {"role": "user", "content": user},
    ]


def rows(moment: Moment, book: PromptBook, draw: random.Random) -> list[dict[str, Any]]:
    """As many options that lead beyond the best so far as options that don't: the question with its right answer."""
    best = max(moment.view.objectives.values())
    good = [item for item in moment.ranking if moment.values[item.candidate.action.digest] > best]
    bad = [item for item in moment.ranking if moment.values[item.candidate.action.digest] <= best]
    count = min(len(good), len(bad), EACH // 2)
    found = []
    for answer, group in (("Yes", good), ("No", bad)):
        picked = draw.sample(group, count)
        lines = brief.option_lines(moment.view, [told(item) for item in picked])
        found += [{"messages": judged(book, moment.view, line), "answer": answer} for line in lines]
    return found


def train(out: Path) -> None:
    """`sft.jsonl` and `preferences.jsonl` for training, `task.jsonl` for choosing among trained planners."""
    book, draw = PromptBook(PROMPTS), random.Random(6)
    table = Table.load(TABLES / "llama.json.xz")
    seeds = list(TRAIN_SEEDS)
    learn = [row for moment in moments(table, seeds[:-12]) for row in rows(moment, book, draw)]
    look = [row for moment in moments(table, seeds[-12:]) for row in rows(moment, book, draw)]
    draw.shuffle(learn)
    draw.shuffle(look)
    out.mkdir(parents=True, exist_ok=True)
    cut = len(learn) * 2 // 3
    _write(out / "sft.jsonl", [{"messages": [*r["messages"], _said(r["answer"])]} for r in learn[:cut]])
    other = {"Yes": "No", "No": "Yes"}
    _write(
        out / "preferences.jsonl",
        [
            {"prompt": r["messages"], "chosen": [_said(r["answer"])], "rejected": [_said(other[r["answer"]])]}
            for r in learn[cut:]
        ],
    )
    splits = ("search", "sealed")
    _write(
        out / "task.jsonl",
        [
            {"id": f"t{n}", "split": splits[n % 2], "messages": r["messages"], "reference": r["answer"]}
            for n, r in enumerate(look[:400])
        ],
    )
    print(f"{out}: {cut} rows of SFT, {len(learn) - cut} pairs, {min(400, len(look))} task rows")


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _write(path: Path, found: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="OUT")
    options = parser.parse_args()
    if options.train:
        train(options.train)
    else:
        ship(Path(__file__).parents[2] / "lamdatui" / "planner" / FILE)


if __name__ == "__main__":
    main()
