"""The model card of an exported model: what it is, what it scored against what, how it was made, how to check it (Markdown)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from lamdatui import __version__
from lamdatui.domain.baselines import board, standing
from lamdatui.domain.budget import step_seconds, worked
from lamdatui.domain.lineage import ancestry
from lamdatui.domain.objects import ModelObject
from lamdatui.domain.replicates import spreads
from lamdatui.domain.replicates import told as seeds_told
from lamdatui.domain.state import RunState
from lamdatui.domain.verdicts import gain_text
from lamdatui.export.recipe import STEP_HEAD, step_rows
from lamdatui.tasks.judging import worth

FILE = "README.md"


def text(state: RunState, model: ModelObject, told: Mapping[str, Any], unknown: Sequence[str], *, bare: bool) -> str:
    """The card of a model with the recipe `told`; `unknown`: the steps that `reproduce.py` can't do."""
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": sorted(_name(base["path"]) for base in told["bases"].values()),
        "tags": sorted({"lamdatui", *(step["type"] for step in told["steps"])}),
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {model.id} of {state.name}",
        f"Made by lamdatui {__version__} (the search of LaMDAgent, arXiv 2505.21963): {ancestry(state, model.id) or model.id}.",
        "## Scores",
        *_scores(state, told),
        "## How it was made",
        *_steps(told),
        "## What it cost",
        f"{worked(state) / 60:.1f} minutes of work in all, {step_seconds(state) / 60:.1f} of them in steps (training, merging, answering), on {told['device'].get('device', 'cpu')}.",
        "## How to check it",
        *_checks(unknown, bare=bare),
    ]
    return "\n\n".join(parts) + "\n"


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1].removeprefix("catalogue:").removeprefix("hf:")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def _scores(state: RunState, told: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    base = state.scores.get(state.pool.base or "", {})
    for task, splits in told["scores"].items():
        for split, value in splits.items():
            low, high = value["interval"]
            before = base.get(task, {}).get(split)
            rows.append(
                [
                    task,
                    split,
                    f"{before['mean']:.3f}" if before else "-",
                    f"{value['mean']:.3f} [{low:.3f}, {high:.3f}]",
                    str(value["n"]),
                    told["tasks"][task]["scorer"],
                ]
            )
    yield table(["task", "rows", "base", "this model, 95% interval", "n", "scorer"], rows)
    for name, judged in {
        task: value["judge"] for task, splits in told["scores"].items() for value in splits.values() if "judge" in value
    }.items():
        yield f"The scores of {name} are the judgement of a model, which {worth(judged['tried'])}."
    yield (
        "The search saw the search rows and picked this model by them, so those scores are too high; the sealed rows were opened after it"
        + (f", {len(state.sealed_looks)} times in all." if len(state.sealed_looks) > 1 else ".")
    )
    for split, report in (told["gain"] or {}).items():
        yield f"Gain of the objective over the base on the {split} rows, 95% paired interval: {gain_text(report['objective'])}."
    for one in spreads(state):
        yield f"{one.name.capitalize()}, mean and 95% interval over rows and seeds, on the sealed rows: {gain_text(one.gain)}; {seeds_told(one)}."
    if rows := board(state):
        yield "What the winner of the search is compared with, gains of the objective on the sealed rows:"
        lines = [
            [
                row.name,
                gain_text(row.gain) if row.gain else "-",
                gain_text(row.behind) if row.behind else "",
                row.missing or row.what,
            ]
            for row in rows
        ]
        yield table(["model", "over the base", "the winner over it", "what it is"], lines)
        yield f"{standing(state).capitalize()}." if standing(state) else ""


def _steps(told: Mapping[str, Any]) -> Iterator[str]:
    for label in ("bases", "datasets"):
        for name, item in told[label].items():
            yield f"- {label[:-1]} `{name}`: `{item['path']}`" + (f", {item['rows']:,} rows" if "rows" in item else "")
    if told["steps"]:
        yield table(STEP_HEAD, step_rows(told))


def _checks(unknown: Sequence[str], *, bare: bool) -> Iterator[str]:
    yield "`lamdatui verify FOLDER` compares files, recipe, answers and scores with each other."
    if bare:
        yield "The rows of data and the answers were left out of this folder: it can't be made again from it."
        return
    yield (
        "`python reproduce.py --base NAME=FOLDER` makes the weights again with TRL, PEFT and mergekit alone and compares them bit by bit; "
        "`reproduce/` has each step's configuration and the rows that its trainer got."
    )
    yield from (f"- it can't make {each}" for each in unknown)
