"""Commands for a run: stop, suspend, resume, cancel what is at work; baselines and rows of what it found."""

from __future__ import annotations

from typing import Annotated

import typer

from lamdatui.cli.options import DEFAULT_RUNS, AsJson, Run, RunsDir, Trust


def stop(
    run: Run,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the running step.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Stop a run after its step (or now); it can go on later."""
    from lamdatui.cli.commands import order

    when = "now" if now else "after-step"
    order(run, runs_dir, f"stopping {'now' if now else 'after the running step'}", "stop", when=when)


def suspend(run: Run, runs_dir: RunsDir = DEFAULT_RUNS) -> None:
    """End the running step with a checkpoint and pause: the GPU is free until `resume`, from where the step goes on."""
    from lamdatui.cli.commands import order

    order(run, runs_dir, "suspended; lamdatui resume lets it go on", "suspend")


def resume(run: Run, runs_dir: RunsDir = DEFAULT_RUNS) -> None:
    """Let a run go on that is paused or suspended."""
    from lamdatui.cli.commands import order

    order(run, runs_dir, "it goes on", "resume")


def cancel(
    run: Run,
    trial: Annotated[int, typer.Argument(min=1, help="Its number; only the trial at work can be cancelled.")],
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """End the step of one trial, which fails then; the search goes on."""
    from lamdatui.cli.commands import order

    order(run, runs_dir, f"cancelling trial {trial}", "cancel", number=trial)


def baselines(run: Run, as_json: AsJson = False, trust: Trust = False, runs_dir: RunsDir = DEFAULT_RUNS) -> None:
    """What the winner of a run that has ended is compared with: makes what is missing, however long it takes, and prints all."""
    from lamdatui.cli.comparison import compare

    raise typer.Exit(compare(run, runs_dir, as_json=as_json, trust=trust))


def rows(
    run: Run,
    model: Annotated[str, typer.Argument(help="A model's id, winner, base, or a baseline: few_shot, sft_all, …")],
    against: Annotated[str, typer.Option(metavar="MODEL", help="Another model, whose answers stand beside.")] = "",
    task: Annotated[str, typer.Option(help="One of the run's tasks; all when not given.")] = "",
    split: Annotated[str, typer.Option(help="search, or sealed where that was opened for the model.")] = "search",
    only: Annotated[str, typer.Option(help="right, wrong, unfinished, empty; with --against: won, lost.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="How many rows are printed.")] = 10,
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """What a model answered, row by row, and how its rows differ from another's."""
    from lamdatui.cli.answers import print_rows

    print_rows(run, runs_dir, model, against, task, split, only, limit, as_json=as_json)


COMMANDS = (stop, suspend, resume, cancel, baselines, rows)
