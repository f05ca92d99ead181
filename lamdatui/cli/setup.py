"""The questions of `lamdatui init`, and the check of what it wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.output import complain, say
from lamdatui.cli.checks import check_profile
from lamdatui.cli.newprofile import make


def set_up(model: str, data: list[str], task: str, base: str, to: Path | None, *, yes: bool) -> bool:
    """Ask for what is not given, write the profile, check it; whether it can be run. Raises LamdatuiError."""
    asks = sys.stdin.isatty() and not yes
    missing = [name for name, value in (("--model", model), ("--data", data), ("--to", to)) if not value]
    if missing and not asks:
        raise LamdatuiError(
            f"{', '.join(missing)} is not given and nobody can be asked",
            fix="lamdatui init --model FOLDER --data FILE --to my.yaml --yes",
        )
    model = model or typer.prompt("The base model's folder")
    if not data:
        data = [typer.prompt("A file of training rows")]
        while more := typer.prompt("Another one (enter: none)", default="", show_default=False):
            data.append(more)
        task = task or typer.prompt("A task's file (enter: hold rows out of the data)", default="", show_default=False)
    to = to or Path(typer.prompt("Where to write the profile", default="my.yaml"))
    if to.suffix not in (".yaml", ".yml"):
        raise LamdatuiError("a profile's name ends in .yaml", where=str(to), fix=f"--to {to}.yaml")
    path = make(model, data, task, to, base, say)
    say(f"\nwritten: {path}\n")
    findings = check_profile(str(path), [], Path("lamdatui-runs"), complain)
    bad = [finding for finding in findings if finding.status == "bad"]
    say("\n".join(str(finding) for finding in findings if finding.status in ("ok", "warn")))
    if not bad:
        say(f"\nnext: lamdatui run {path}")
        return True
    complain("\n".join([*map(str, bad), f"mend that, then: lamdatui check {path}"]))
    return False
