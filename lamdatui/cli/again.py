"""Commands that do again what a run has found: with more data, on another base, from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamdatui.cli.options import DEFAULT_RUNS, AsJson, Run, RunsDir, Trust

Top = Annotated[int, typer.Option(min=1, max=1000, help="How many of the best pipelines.")]


def promote(
    run: Run,
    data: Annotated[str, typer.Option(help="How many times as many rows each training step reads: 2x,4x,full (once all).")],
    top: Top = 5,
    name: Annotated[str, typer.Option(help="Name of the runs, before the factor.")] = "",
    as_json: AsJson = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Do a run's best pipelines again with more data (or less), a run for each factor, and tell how their order holds."""
    from lamdatui.cli import replays

    raise typer.Exit(replays.promote(run, runs_dir, top, data, name, as_json=as_json, trust=trust))


def transfer(
    run: Run,
    base: Annotated[str, typer.Option(help="Another base: a folder, or a name of the catalogue.")],
    top: Top = 5,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "",
    as_json: AsJson = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Do a run's best pipelines again on another base, as a run of its own, and tell how their order holds."""
    from lamdatui.cli import replays

    raise typer.Exit(replays.transfer(run, runs_dir, top, base, name, as_json=as_json, trust=trust))


def replay(
    recipe: Annotated[Path, typer.Argument(help="What `lamdatui export` has written, or its recipe.yaml.")],
    base: Annotated[str, typer.Option(help="Another base: a folder, or a name of the catalogue.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run.")] = "",
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Do an exported model's pipeline again, step by step and scored, as a run of its own."""
    from lamdatui.cli import replays

    raise typer.Exit(replays.replay(recipe, runs_dir, base, name, trust=trust))


def contributions(
    run: Run,
    model: Annotated[str, typer.Option(help="A model's id; the winner when not given.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run.")] = "",
    as_json: AsJson = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """What each step of a model's pipeline brings: the pipeline without it, as a run of its own, compared row by row."""
    from lamdatui.cli import replays

    raise typer.Exit(replays.contributions(run, runs_dir, model, name, as_json=as_json, trust=trust))


COMMANDS = (promote, transfer, replay, contributions)
