"""Policies against the tables: who finds good pipelines in fewer trials and less compute, measured on sealed rows.

    python -m bench.policies run llama                  the cheap policies, 50 seeds (about 10 minutes on one core)
    python -m bench.policies run phi --llm              the arms with a planner too, 10 seeds (answers are kept by prompt)
    python -m bench.policies run phi --arm "hybrid 1.5B"
    python -m bench.policies report                     tables with intervals, and docs/policies.svg

Each seed is a variant of the table: another 85% of its actions, another draw of its search rows (`replay.variant`). All arms get the
same variants, the same opening and the same candidates, so differences are paired by seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.policies.arms import CHEAP, LLM, Arm, Kept, make, session_of
from bench.policies.planners import planner_file
from bench.policies.replay import Search, curve, shorten, variant
from bench.policies.table import Table
from lamdatui.base.paths import cache_dir

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TRIALS = 20
"""Trials of a search, the opening's three included."""
CHEAP_SEEDS, LLM_SEEDS = 50, 10


def result_file(table: str, arm: Arm) -> Path:
    """Where an arm's runs are kept."""
    return RESULTS / table / (arm.name.replace(" ", "-").replace("%", "pct").replace("(", "").replace(")", "") + ".json")


async def run_arm(table: Table, arm: Arm, seeds: int, trials: int, kept: Kept) -> None:
    """All seeds of one arm; what is in its file already is not run again."""
    path = result_file(table.name, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"arm": {"name": arm.name}, "runs": {}}
    todo = [seed for seed in range(1, seeds + 1) if str(seed) not in found["runs"]]
    if not todo:
        return
    session = session_of(arm, planner_file(arm.planner, print), kept) if arm.planner else None
    if session is not None:
        await session.start()
    try:
        for seed in todo:
            began = time.monotonic()
            space = variant(table, seed)
            run = await Search(space, make(arm, session), seed, anonymous=arm.anonymous).go(trials)
            found["runs"][str(seed)] = asdict(run) | asdict(shorten(curve(space, run), trials)) | _limits(space)
            path.write_text(json.dumps(found) + "\n")
            print(f"{table.name} {arm.name} seed {seed}: {time.monotonic() - began:.1f} s", flush=True)
    finally:
        if session is not None:
            await session.close()


def _limits(space: Table) -> dict[str, float]:
    """The base and the best that can be had in a variant, on sealed rows."""
    return {"base": space.objective(0, "sealed"), "attainable": max(space.objective(node, "sealed") for node in space.bits)}


async def run(options: argparse.Namespace) -> None:
    """The arms that were asked for, one after the other."""
    table = Table.load(HERE / "tables" / f"{options.table}.json.xz")
    kept = Kept(cache_dir() / "bench-policies" / "answers.db")
    named = [arm for arm in (*CHEAP, *LLM) if arm.name in options.arm]
    if unknown := set(options.arm) - {arm.name for arm in named}:
        raise SystemExit(f"no arm {sorted(unknown)[0]!r}; there are: {', '.join(arm.name for arm in (*CHEAP, *LLM))}")
    for arm in named or (*CHEAP, *(LLM if options.llm else ())):
        seeds = options.seeds or (LLM_SEEDS if arm.planner else CHEAP_SEEDS)
        await run_arm(table, arm, seeds, options.trials, kept)


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("table", choices=("llama", "phi"))
    one.add_argument("--llm", action="store_true")
    one.add_argument("--arm", action="append", default=[])
    one.add_argument("--seeds", type=int, default=0)
    one.add_argument("--trials", type=int, default=TRIALS)
    commands.add_parser("report")
    options = parser.parse_args()
    if options.command == "run":
        asyncio.run(run(options))
    else:
        from bench.policies.report import report

        report(RESULTS, HERE / "tables")


if __name__ == "__main__":
    main()
