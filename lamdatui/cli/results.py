"""Commands on what a run has brought: export a model, verify what was exported, report on the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamdatui.base.errors import EXIT_FAILED
from lamdatui.base.output import complain, say, say_json
from lamdatui.cli.findings import Finding, Status
from lamdatui.cli.options import DEFAULT_RUNS, AsJson, Run, RunsDir


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", help="A directory that does not exist yet.")],
    model: Annotated[str | None, typer.Option(help="A model's id; the winner when not given.")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The adapter alone, where the model is one on a base.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Without rows of data: no answers, no reproduce.py.")] = False,
    gguf: Annotated[
        str, typer.Option(metavar="FORMS", help="GGUF files too, scored by llama.cpp: f16, q8_0, q4_k_m, with commas.")
    ] = "",
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Write a model as a Hugging Face directory, with its card, its recipe, and what it takes to check it."""
    from lamdatui.export.bundle import export_model
    from lamdatui.wire import rundir

    form = "adapter" if adapter else "full"
    export_model(rundir.find_run(run, runs_dir), to, model, complain, form=form, bare=bare, gguf=gguf)
    say(to)


def verify(
    folder: Annotated[Path, typer.Argument(help="What `lamdatui export` has written.")],
    again: Annotated[bool, typer.Option("--reproduce", help="Make the weights again and compare them, too.")] = False,
    base: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="With --reproduce: where a base is, if it has moved.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether an exported model is what it says: files, recipe, answers, scores."""
    from lamdatui.export.proof import verify as look

    words: dict[bool | None, Status] = {True: "ok", False: "bad", None: "info"}
    mark, checks = look(folder, reproduce=again, bases=base or [], say=complain)
    findings = [Finding(words[check.sound], check.subject, check.detail) for check in checks]
    if as_json:
        say_json({"fingerprint": mark, "checks": [finding.to_json() for finding in findings]})
    else:
        say("\n".join([*map(str, findings), f"fingerprint {mark}"]))
    if any(check.sound is False for check in checks):
        raise typer.Exit(EXIT_FAILED)


def report(
    run: Run,
    to: Annotated[Path, typer.Option("--to", help="The file to write: .html or .md; one that is there is replaced.")],
    bare: Annotated[bool, typer.Option("--bare", help="Without rows of data.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Write a run as one page: result, baselines, scores, trials, rows, costs."""
    from lamdatui.export.report import write_report
    from lamdatui.wire import rundir

    write_report(rundir.find_run(run, runs_dir), to, bare=bare, say=complain)
    say(to)


COMMANDS = (export, verify, report)
