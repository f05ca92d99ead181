"""What the commands do, apart from parsing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from lamdatui import runs
from lamdatui.errors import EXIT_DONE, EXIT_FAILED, LamdatuiError
from lamdatui.events import MODES
from lamdatui.profile import find_profile, load_profile


def run_profile(
    profile_text: str,
    name: str | None,
    mode: str | None,
    max_trials: int | None,
    overrides: list[str],
    headless: bool,
    as_json: bool,
    runs_dir: Path,
) -> int:
    """Start or go on with a run, watched by the console or (headless) by a line client; the exit code."""
    if mode is not None and mode not in MODES:
        raise LamdatuiError(f"no mode {mode!r}", fix=f"modes: {', '.join(MODES)}")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if headless and mode is None:
        raise LamdatuiError("a headless run must name its mode", fix="add --mode auto (or ask, ask-risky, read-only)")
    if not headless and not terminal:
        raise LamdatuiError("the console needs a terminal", fix="add --headless --mode auto")
    profile = load_profile(find_profile(profile_text), overrides)
    _prepare_lab(profile)
    _open(profile)
    run_dir = runs.prepare_run(profile, name or runs.new_name(profile, runs_dir), runs_dir)
    finished = _finished(run_dir, max_trials)
    if finished and headless:
        print(f"the run {run_dir.name} is finished; give a larger --max-trials to go on", file=sys.stderr)
        return EXIT_DONE
    if not finished:
        _release(run_dir)
    going = not finished and runs.is_alive(run_dir)
    runs.start_engine(run_dir, runs.StartOptions(headless, finished, mode, max_trials))
    if going and mode:
        asyncio.run(_command(run_dir, "mode", mode=mode))
    if going and max_trials:
        print("the run is going: --max-trials is taken when it is started again", file=sys.stderr)
    if headless:
        from lamdatui.headless import Headless

        return asyncio.run(Headless(run_dir, as_json).follow())
    return _console(run_dir)


def _open(profile: Any) -> None:
    """Everything that the engine will open, so that what is wrong is told here and nothing is started."""
    from lamdatui.policy import POLICIES
    from lamdatui.workspace import locate, open_workspace

    if profile.policy.name not in POLICIES:
        raise LamdatuiError(f"no policy named {profile.policy.name!r}", fix=f"policies: {', '.join(POLICIES)}")
    open_workspace(profile)
    if profile.planner is not None and profile.planner.backend == "llamacpp":
        locate(profile.planner.model)


def _prepare_lab(profile: Any) -> None:
    """The lab's bases are made here, not fetched: nothing stands against making them when they are missing."""
    from lamdatui.catalogue.fetch import fetch, local

    references = [spec.path for section in (profile.models, profile.datasets, profile.tasks) for spec in section.values()]
    if any(text.startswith("catalogue:lab-bases") for text in references) and local("lab-bases") is None:
        print("making the lab's two tiny bases (once, about two minutes)", file=sys.stderr)
        fetch("lab-bases", lambda text: print(text, file=sys.stderr, flush=True))


def _finished(run_dir: Path, max_trials: int | None) -> bool:
    from lamdatui.store.journal import read_state

    if not (run_dir / "run.db").exists():
        return False
    state = read_state(run_dir / "run.db")
    return state.status == "done" and (max_trials is None or max_trials <= state.max_trials)


def _release(run_dir: Path) -> None:
    """An engine that only shows a run that has ended makes room for one that goes on."""
    from lamdatui.store.journal import read_state

    if runs.is_alive(run_dir) and read_state(run_dir / "run.db").status != "running":
        asyncio.run(_command(run_dir, "stop", when="now"))
        runs.wait_for_end(run_dir, 30)


async def _command(run_dir: Path, command: str, **args: Any) -> Any:
    from lamdatui.client import Client

    client = await Client.connect(run_dir)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    try:
        await client.command("attach", role="headless")
        return await client.command(command, **args)
    finally:
        reading.cancel()
        await client.close()


def _console(run_dir: Path) -> int:
    """The console as a child of a launcher that restores the terminal whatever happens to it."""
    from lamdatui import launcher

    code = launcher.run(launcher.console_command(run_dir))
    if runs.is_alive(run_dir) and not _over(run_dir):
        print(f"the run goes on; come back with: lamdatui attach {os.path.relpath(run_dir)}", file=sys.stderr)
    return code


def _over(run_dir: Path) -> bool:
    """Whether a run has ended, well or not."""
    from lamdatui.store.journal import read_state

    return read_state(run_dir / "run.db").status not in ("new", "running", "interrupted")


def attach_run(run: str, runs_dir: Path) -> int:
    """Open the console on a run: an interrupted one goes on, one that has ended is only shown."""
    run_dir = runs.find_run(run, runs_dir)
    if not sys.stdout.isatty():
        raise LamdatuiError("the console needs a terminal", fix=f"lamdatui show {run}")
    runs.start_engine(run_dir, runs.StartOptions(view=_over(run_dir)))
    return _console(run_dir)


def stop_run(run: str, runs_dir: Path, when: str) -> None:
    """Ask a run's engine to stop."""
    run_dir = runs.find_run(run, runs_dir)
    if not runs.is_alive(run_dir):
        raise LamdatuiError("no engine is at work on this run", where=str(run_dir), exit_code=EXIT_FAILED)
    asyncio.run(_command(run_dir, "stop", when=when))
    print("stopping", "after the running step" if when == "after-step" else "now", file=sys.stderr)


def pick(runs_dir: Path) -> int:
    """Offer the runs that are going or unfinished and the profiles; open the chosen one."""
    from lamdatui.resources import files

    choices: list[tuple[str, Any]] = []
    for run_dir in runs.list_runs(runs_dir)[:9]:
        try:
            state = "running" if runs.is_alive(run_dir) else "ended" if _over(run_dir) else "interrupted"
        except LamdatuiError:
            continue  # `lamdatui runs` tells what is wrong with it
        if state != "ended":
            choices.append((f"attach to {run_dir.name} ({state})", lambda found=run_dir: attach_run(str(found), runs_dir)))
    for name, (origin, _) in sorted(files("profiles").items()):
        start = lambda found=name: run_profile(found, None, None, None, [], False, False, runs_dir)  # noqa: E731
        choices.append((f"start profile {name} ({origin})", start))
    for number, (label, _) in enumerate(choices, 1):
        print(f"{number:3}  {label}")
    if not sys.stdin.isatty():
        raise LamdatuiError("the console needs a terminal", fix="lamdatui run PROFILE --headless --mode auto")
    answer = input("number (empty to leave): ").strip()
    if not answer:
        return EXIT_DONE
    if not answer.isdigit() or not 1 <= int(answer) <= len(choices):
        raise LamdatuiError(f"no choice {answer!r}", fix=f"1 to {len(choices)}")
    return choices[int(answer) - 1][1]()


def run_one_step(run: str, number: int, overrides: list[str], runs_dir: Path) -> int:
    """Run a trial's step again in a scratch directory with its log on this terminal; the exit code."""
    import shutil
    import tempfile

    from lamdatui.step.rerun import rerun

    run_dir = runs.find_run(run, runs_dir)
    scratch = Path(tempfile.mkdtemp(prefix="lamdatui-step-"))
    try:
        return rerun(run_dir, number, overrides, scratch)
    finally:
        shutil.rmtree(scratch / "store", ignore_errors=True)
        print(f"records of this try: {scratch}", file=sys.stderr)


def action_rows(only: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Declarations of the action types as JSON, and what could not be loaded. Raises LamdatuiError for an unknown name."""
    from dataclasses import asdict

    from lamdatui.resources import load_registry

    registry = load_registry()
    chosen = [registry.get(only)] if only else [registry.types[name] for name in sorted(registry.types)]
    rows = [
        {
            "name": bound.name,
            "summary": bound.type.summary,
            "family": bound.type.family,
            "source": bound.type.source,
            "version": bound.type.version,
            "origin": bound.origin,
            "slots": [asdict(slot) for slot in bound.type.slots],
            "params": [asdict(param) for param in bound.params],
        }
        for bound in chosen
    ]
    return rows, registry.problems


def action_text(row: dict[str, Any]) -> str:
    """One declaration for people."""
    lines = [f"{row['name']} — {row['summary']}", f"source: {row['source']}; from {row['origin']}", "", "inputs"]
    for slot in row["slots"]:
        count = f" ({slot['least']} to {slot['most']})" if slot["kind"] == "models" else ""
        lines.append(f"  {slot['name']:14} {slot['kind']}{count}: {slot['help']}")
    lines += ["", "hyperparameters"]
    for param in row["params"]:
        grid = f"  search {', '.join(map(str, param['choices']))}" if param["choices"] else ""
        legal = "" if param["low"] is None else f"  legal {param['low']:g} to {param['high']:g}"
        lines.append(
            f"  {param['name']:14} {param['type']:6} default {param['default']} {param['unit']}{grid}{legal}\n{'':17}{param['help']}"
        )
    return "\n".join(lines)


def catalogue_rows() -> list[dict[str, Any]]:
    """The catalogue with where each entry is on this machine."""
    from lamdatui.catalogue.entries import ENTRIES
    from lamdatui.catalogue.fetch import local

    found = []
    for entry in ENTRIES.values():
        path = local(entry.name)
        found.append(
            {"name": entry.name, "summary": entry.summary, "licence": entry.licence, "path": str(path) if path else None}
        )
    return found
