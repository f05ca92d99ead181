"""Arguments and options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="LAMDATUI_RUNS", help="Where runs and their models are kept.")]
Ascii = Annotated[bool, typer.Option("--ascii", help="Only ASCII characters on the screen.")]
NoConsole = Annotated[
    bool, typer.Option("--no-console", help="Only see to it that its engine is at work; print the run's path.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Confirm the programs, addresses and keys that the profile names; they are printed.")
]
Online = Annotated[
    bool | None,
    typer.Option(
        "--online/--offline",
        show_default=False,
        help="Whether its steps may use the network. Offline, unless the run was started online before.",
    ),
]
Mode = Annotated[str | None, typer.Option(help="ask, ask-risky, auto or read-only.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a profile field.")]
IsHeadless = Annotated[bool, typer.Option("--headless", help="No screen; needs --mode.")]
EventsAsJson = Annotated[bool, typer.Option("--json", help="With --headless: events as JSON lines on stdout.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Run = Annotated[str, typer.Argument(help="A run's path, or its name below --runs-dir.")]
DEFAULT_RUNS = Path("lamdatui-runs")


def use_ascii(asked: bool) -> None:
    """Have this process and those that it starts draw with ASCII alone, where that is asked for."""
    if asked:
        # The console is another process.
        os.environ["LAMDATUI_ASCII"] = "1"
