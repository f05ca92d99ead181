"""What the console's pipeline pane costs at many trials: reading a run, one change, one more trial, filter, orders, a screen of rows.

`python -m bench.pipeline [TRIALS...]` prints one table of medians in milliseconds. Nothing is drawn: what is measured is
the forest and its rows (`lamdatui.ui.lineage.forest`, `lamdatui.ui.lineage.rows`).
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from lamdatui.domain.objects import ModelObject
from lamdatui.domain.trials import Trial
from lamdatui.ui.lineage.forest import Forest
from lamdatui.ui.lineage.rows import columns, row_line
from lamdatui.ui.view.state import ViewState

ROUNDS = 15
SCREEN = 40


def add(view: ViewState, number: int, chance: random.Random) -> None:
    """A finished trial: a quarter are merges of two, most go on from one of the newest."""
    recent = range(max(1, number - 300), number)
    merge = number > 3 and chance.random() < 0.25
    parents = chance.sample(recent, 2) if merge else [chance.choice(recent)] if number > 1 and chance.random() < 0.9 else [0]
    names = [f"m{parent}" if parent else "base" for parent in parents]
    action: Any = {"type": "merge_ties" if merge else "sft", "inputs": {"models": names, "dataset": [] if merge else ["mix"]}}
    score: Any = {"search": {"mean": chance.random(), "n": 48, "interval": [0.1, 0.9]}}
    trial = Trial(number, "done", action, model=f"m{number}", scores={"tool_use": score}, objective=score["search"]["mean"])
    trial.gain, trial.seconds = {"mean": 0.1, "interval": (0.0, 0.2)}, {"execute": 9.0, "evaluate": 3.0}
    view.run.trials[number] = trial
    view.run.pool.add(ModelObject(f"m{number}", str(number), "Llama", "x", "/w", trial=number))
    view.touched |= {("trial", str(number)), ("object", f"m{number}")}


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def measure(trials: int) -> list[tuple[str, float]]:
    """Each kind of update on a run of that many trials."""
    chance, view, pipeline = random.Random(7), ViewState(), Forest()
    view.run.pool.add(ModelObject("base", "base", "Llama", "x", "/w"))
    for number in range(1, trials + 1):
        add(view, number, chance)
    found = [("read the whole run", milliseconds(lambda: Forest().take(view)))]
    pipeline.take(view)

    def change() -> None:
        view.touched.add(("trial", str(chance.randrange(1, trials))))
        pipeline.take(view)

    def grow() -> None:
        add(view, len(view.run.trials) + 1, chance)
        pipeline.take(view)

    found += [("one trial changes", milliseconds(change)), ("one more trial", milliseconds(grow))]
    found.append(("filter", milliseconds(lambda: pipeline.arrange(query="merge m99"))))
    found.append(("order by objective", milliseconds(lambda: pipeline.arrange(query="", order="objective"))))
    found.append(("back to the tree", milliseconds(lambda: pipeline.arrange(order="number"))))
    fit, middle = columns(pipeline.tasks, 100, pipeline.depth), len(pipeline.rows) // 2
    rows = pipeline.rows[middle : middle + SCREEN]
    found.append((f"{SCREEN} rows as lines", milliseconds(lambda: [row_line(row, pipeline, fit, 100) for row in rows])))
    return found


def main() -> None:
    """Print the table."""
    sizes = [int(text) for text in sys.argv[1:]] or [100, 1000, 10000]
    tables = [measure(size) for size in sizes]
    print(f"{'ms, median of ' + str(ROUNDS):<24}" + "".join(f"{size:>10}" for size in sizes))
    for place, (name, _) in enumerate(tables[0]):
        print(f"{name:<24}" + "".join(f"{table[place][1]:>10.2f}" for table in tables))


if __name__ == "__main__":
    main()
