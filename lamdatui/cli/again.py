"""Commands that do again what a run has found: with more data, on another base, from a recipe; and one that goes on from within a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamdatui.cli.options import (
    DEFAULT_RUNS,
    Ascii,
    AsJson,
    EventsAsJson,
    IsHeadless,
    Mode,
    NoConsole,
    Overrides,
    Run,
    RunsDir,
    Trust,
    use_ascii,
)

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


def fork(
    run: Run,
    at: Annotated[int, typer.Option(min=0, help="The last trial that is kept; 0: the scored bases alone.")],
    name: Annotated[str, typer.Option(help="Name of the run; RUN-at-N when not given.")] = "",
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="End after so many trials, kept ones included.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Who proposes (see `lamdatui policies`).")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed: other choices from there on.")] = None,
    mode: Mode = None,
    overrides: Overrides = None,
    headless: IsHeadless = False,
    as_json: EventsAsJson = False,
    ascii_only: Ascii = False,
    no_console: NoConsole = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """A run that begins as RUN was when a trial had closed, and goes on from there on its own."""
    from lamdatui.cli import forking

    use_ascii(ascii_only)
    given = {"budget.trials": trials, "policy.name": policy, "seed": seed, "mode": mode}
    named = [f"{key}={value}" for key, value in given.items() if value is not None]
    raise typer.Exit(
        forking.fork(
            run,
            runs_dir,
            at,
            name,
            [*(overrides or []), *named],
            headless=headless or as_json,
            mode=mode,
            as_json=as_json,
            console=not no_console,
            trust=trust,
        )
    )


COMMANDS = (promote, transfer, replay, contributions, fork)
