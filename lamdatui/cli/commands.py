"""What the commands do, apart from parsing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdatui.base.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, LamdatuiError
from lamdatui.base.network import OFFLINE, ONLINE, sentence
from lamdatui.base.output import complain, say, say_json
from lamdatui.config.resources import files, replaced, untrusted
from lamdatui.domain.decisions import MODES
from lamdatui.inputs.profile import find_profile, load_profile
from lamdatui.inputs.trust import ask
from lamdatui.policy import known_policy
from lamdatui.wire import rundir

if TYPE_CHECKING:
    from lamdatui.domain.state import RunState
    from lamdatui.planner.check import Tried

LEAVE_SECONDS = 30.0
"""How long an engine that was asked to leave may take."""


def run_profile(
    profile_text: str,
    name: str | None,
    mode: str | None,
    max_trials: int | None,
    overrides: list[str],
    headless: bool,
    as_json: bool,
    runs_dir: Path,
    policy: str | None = None,
    fake_gpu: Path | None = None,
    *,
    console: bool = True,
    trust: bool = False,
    online: bool | None = None,
) -> int:
    """Start or go on with a run; the exit code.

    It is watched by the console, or (headless) by a line client, or (without `console`) by nobody yet: then its path is printed.
    """
    if mode is not None and mode not in MODES:
        raise LamdatuiError(f"no mode {mode!r}", fix=f"modes: {', '.join(MODES)}")
    if policy is not None:
        known_policy(policy)
    check_start(mode, headless=headless, console=console)
    if fake_gpu is not None:
        fake_gpu = _recording(fake_gpu)
    path = find_profile(profile_text)
    _tell_origin(profile_text, path)
    profile = load_profile(path, overrides)
    ask(profile, str(path), trust=trust, can_ask=not headless)
    _prepare_lab(profile)
    open_all(profile)
    run_dir = rundir.prepare_run(profile, name or rundir.new_name(profile, runs_dir), runs_dir)
    return go_on(
        run_dir, mode, max_trials, policy, fake_gpu, headless=headless, as_json=as_json, console=console, online=online
    )


def check_start(mode: str | None, *, headless: bool, console: bool) -> None:
    """Raises LamdatuiError where a run can't be watched as it is asked for."""
    from lamdatui.cli.headless import interrupted_once

    if headless and mode is None:
        raise LamdatuiError("a headless run must name its mode", fix="add --mode auto (or ask, ask-risky, read-only)")
    if headless:
        interrupted_once()
    if console and not headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LamdatuiError("the console needs a terminal", fix="add --headless --mode auto")


def go_on(
    run_dir: Path,
    mode: str | None = None,
    max_trials: int | None = None,
    policy: str | None = None,
    fake_gpu: Path | None = None,
    *,
    headless: bool,
    as_json: bool,
    console: bool,
    online: bool | None = None,
) -> int:
    """Have a run's engine at work and watch it; the exit code, as of `run_profile`."""
    from lamdatui.cli.headless import STOP_SECONDS, Headless

    finished = _finished(run_dir, max_trials)
    if finished and headless:
        complain(f"the run {run_dir.name} is finished; give a larger --max-trials to go on")
        return EXIT_DONE
    if finished:
        _tell_newer(run_dir)
    else:
        release(run_dir)
    options = rundir.StartOptions(headless, finished, mode, max_trials, policy, fake_gpu, online=online)
    with rundir.held_engine(run_dir, options) as started:
        try:
            if not (finished or started):
                _tell_going(run_dir, mode, policy, max_trials, fake_gpu)
            _tell_network(run_dir, online, started=started)
            if headless:
                return asyncio.run(Headless(run_dir, as_json).follow())
        except KeyboardInterrupt:
            if headless:
                # Before it could listen: a run that was to be watched does not go on alone.
                with contextlib.suppress(ConnectionError, LamdatuiError, TimeoutError):
                    asyncio.run(asyncio.wait_for(_command(run_dir, "stop", when="now"), STOP_SECONDS))
            raise
        return _console(run_dir) if console else _told(run_dir)


def _tell_going(run_dir: Path, mode: str | None, policy: str | None, max_trials: int | None, fake_gpu: Path | None) -> None:
    """Give what the command line says to an engine that was at work already, as far as it takes that now."""
    if mode:
        asyncio.run(_command(run_dir, "mode", mode=mode))
    if policy:
        asyncio.run(_command(run_dir, "policy", name=policy))
    if max_trials:
        complain("the run is going: --max-trials is taken when it is started again")
    if fake_gpu:
        complain("the run is going: --fake-gpu is taken when its engine is started again")


def _tell_network(run_dir: Path, online: bool | None, *, started: bool) -> None:
    """Say where steps may use the network, and where an engine that was at work goes on as it was started."""
    from lamdatui.store.journal import read_run

    if online is not None and not started:
        complain(f"the run is going: --{'online' if online else 'offline'} is taken when its engine is started again")
    elif online or (online is None and read_run(run_dir / "run.db")[0].network == ONLINE):
        complain(f"note: {sentence(ONLINE)}; --offline ends that")


def _tell_origin(name: str, path: Path) -> None:
    """Say on stderr which file a name stands for, where it is not a shipped one, and which folder was not looked at."""
    if note := untrusted():
        complain(f"note: {note}")
    if name in (known := files("profiles")) and known[name][0] != "builtin":
        complain(f"note: {replaced('profiles').get(name) or f'the profile {name} is {path}'}")


def _recording(name: Path) -> Path:
    """A recording by its path, or a shipped one by its name. Raises LamdatuiError (exit code 2) unless it is sound."""
    from lamdatui.config.resources import builtin
    from lamdatui.hardware.recording import load_recording

    shipped = builtin("profiles") / "recordings" / f"{name}.jsonl"
    path = shipped if len(name.parts) == 1 and not name.exists() and shipped.is_file() else name
    load_recording(path)
    return path


def open_all(profile: Any) -> None:
    """Everything that the engine will open, so that what is wrong is told here and nothing is started."""
    from lamdatui.inputs.workspace import open_workspace, planner_settings

    known_policy(profile.policy.name)
    open_workspace(profile, complain)
    planner_settings(profile, 1)


def _prepare_lab(profile: Any) -> None:
    """The lab's bases and data are made here, not fetched: nothing stands against making them when they are missing."""
    from lamdatui.catalogue.entries import MADE_HERE
    from lamdatui.catalogue.fetch import fetch, local

    sections = (profile.models, profile.datasets, profile.tasks)
    named = {spec.path.removeprefix("catalogue:").split("/")[0] for section in sections for spec in section.values()}
    for name in MADE_HERE:
        if name in named and local(name) is None:
            complain(
                "making the lab's two tiny bases (once, about two minutes)" if name == "lab-bases" else f"making {name} (once)"
            )
            fetch(name, complain)


def _ended(run_dir: Path) -> RunState | None:
    """The state of a run that has ended, well or not; None for one that has not."""
    from lamdatui.store.journal import read_run

    if not (run_dir / "run.db").exists():
        return None
    state, _ = read_run(run_dir / "run.db")
    return state if state.has_ended else None


def _finished(run_dir: Path, max_trials: int | None) -> bool:
    """Whether there is nothing left to do: it has ended by itself and no more trials are asked for."""
    state = _ended(run_dir)
    return state is not None and state.status == "done" and (max_trials is None or max_trials <= state.max_trials)


def release(run_dir: Path) -> None:
    """An engine that only shows a run that has ended makes room for one that goes on."""
    if not (rundir.is_alive(run_dir) and _ended(run_dir)):
        return
    # One that is leaving already takes no order; whether it has left is what counts.
    with contextlib.suppress(ConnectionError, LamdatuiError):
        asyncio.run(_command(run_dir, "stop", when="now"))
    if not rundir.wait_for_end(run_dir, LEAVE_SECONDS):
        raise LamdatuiError(
            "the engine that shows this run does not leave", where=str(run_dir / "engine.log"), exit_code=EXIT_FAILED
        )


async def _command(run_dir: Path, command: str, **args: Any) -> Any:
    from lamdatui.wire.client import Client

    client = await Client.connect(run_dir)

    async def drain() -> None:
        async for _ in client.frames():
            pass

    reading = asyncio.create_task(drain())
    try:
        # After the last event there can be: nothing of what happened is sent.
        await client.command("attach", role="headless", after=sys.maxsize)
        return await client.command(command, **args)
    finally:
        reading.cancel()
        await client.close()


def _console(run_dir: Path) -> int:
    """The console as a child of a launcher that restores the terminal whatever happens to it."""
    from lamdatui.cli import launcher

    code = launcher.run(launcher.console_command(run_dir))
    if rundir.is_alive(run_dir) and not _ended(run_dir):
        complain(f"the run goes on; come back with: lamdatui attach {os.path.relpath(run_dir)}")
    return code


def _told(run_dir: Path) -> int:
    """The run has its engine; its path is all that is said."""
    say(run_dir)
    return EXIT_DONE


def _tell_newer(run_dir: Path) -> None:
    """Say so of an ended run of a newer version, which is only shown; one that would go on is refused by its engine."""
    from lamdatui.store.journal import read_state, told_newer

    if not rundir.is_alive(run_dir) and (state := read_state(run_dir / "run.db")).newer:
        complain(told_newer(state))


def attach_run(run: str, runs_dir: Path, *, console: bool = True, trust: bool = False, online: bool | None = None) -> int:
    """Open the console on a run: an interrupted one goes on, one that has ended is only shown."""
    run_dir = rundir.find_run(run, runs_dir)
    if console and not sys.stdout.isatty():
        raise LamdatuiError("the console needs a terminal", fix=f"lamdatui show {run}")
    if not rundir.is_alive(run_dir):
        ask(load_profile(rundir.profile_of(run_dir)), str(run_dir), trust=trust, can_ask=True)
    if is_over := _ended(run_dir) is not None:
        _tell_newer(run_dir)
    with rundir.held_engine(run_dir, rundir.StartOptions(view=is_over, online=online)) as started:
        _tell_network(run_dir, online, started=started)
        return _console(run_dir) if console else _told(run_dir)


def serve_run(run: str | None, runs_dir: Path, host: str, port: int, *, allow_remote: bool, token_file: Path | None) -> int:
    """Serve the console of a run, or without one the start screen, to browsers until it is interrupted.

    Nothing is started before all is known to be right.
    """
    try:
        from lamdatui.serve.server import Offer, listen, serve
    except ModuleNotFoundError as error:
        raise LamdatuiError(
            f"the console in a browser needs {error.name}", where="lamdatui serve", fix="pip install 'lamdatui[serve]'"
        ) from error
    from lamdatui.cli.launcher import console_command, start_command
    from lamdatui.serve.access import make_guard, new_token, token_from

    run_dir = rundir.find_run(run, runs_dir) if run else None
    if run_dir is not None and not rundir.is_alive(run_dir):
        rundir.profile_of(run_dir)
    guard = make_guard(host, token_from(token_file) if token_file else new_token(), allow_remote=allow_remote)
    with listen(host, port) as door:
        if run_dir is None:
            return serve(Offer(start_command(runs_dir), "runs", contextlib.nullcontext), guard, door, token_file)
        if is_over := _ended(run_dir) is not None:
            _tell_newer(run_dir)
        rundir.start_engine(run_dir, rundir.StartOptions(view=is_over))

        def engine() -> AbstractContextManager[object]:
            # A tab that is opened again must not make a run go on that somebody has stopped.
            return rundir.held_engine(run_dir, rundir.StartOptions(view=True))

        return serve(Offer(console_command(run_dir), run_dir.name, engine), guard, door, token_file)


def _at_work(run: str, runs_dir: Path) -> Path:
    """The directory of a run whose engine answers. Raises LamdatuiError."""
    run_dir = rundir.find_run(run, runs_dir)
    if not rundir.is_alive(run_dir):
        raise LamdatuiError("no engine is at work on this run", where=str(run_dir), exit_code=EXIT_FAILED)
    rundir.check_answers(run_dir)
    return run_dir


def order(run: str, runs_dir: Path, told: str, command: str, **arguments: Any) -> None:
    """Give a run's engine a command, and tell that it took it. Raises LamdatuiError."""
    asyncio.run(_command(_at_work(run, runs_dir), command, **arguments))
    complain(told)


def pick(runs_dir: Path) -> int:
    """The start screen: runs, profiles, this machine. Raises LamdatuiError where there is no terminal for it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for run_dir in rundir.list_runs(runs_dir):
            say(f"lamdatui attach {os.path.relpath(run_dir)}")
        for name in sorted(files("profiles")):
            say(f"lamdatui run {name}")
        raise LamdatuiError("the console needs a terminal", fix="lamdatui run PROFILE --headless --mode auto")
    from lamdatui.cli import launcher

    code = launcher.run(launcher.start_command(runs_dir))
    going = [run_dir.name for run_dir in rundir.list_runs(runs_dir) if rundir.is_alive(run_dir)]
    if going:
        complain(f"at work: {', '.join(going)}; come back with: lamdatui")
    return code


def show_keys(as_json: bool) -> int:
    """Print the key table under the user's keymap; exit code 2 where two keys clash. Raises LamdatuiError for bad settings."""
    from lamdatui.config.settings import load_settings
    from lamdatui.ui.keys.keymap import rows, spelled, table

    settings = load_settings()
    found = rows(spelled(settings.keymap, str(settings.path)))
    say_json([row.to_json() for row in found]) if as_json else say(table(found))
    clashing = [row.id for row in found if row.conflict]
    if not clashing:
        return EXIT_DONE
    complain(f"error: keys clash: {', '.join(clashing)}\n  where: {settings.path}, [keymap]")
    return EXIT_USAGE


def run_one_step(
    run: str, number: int, overrides: list[str], runs_dir: Path, *, dry_run: bool, debug: bool, online: bool = False
) -> int:
    """Run a trial's step again in a scratch directory with its log on this terminal; the exit code."""
    from lamdatui.engine.warmhost import ENVIRONMENT
    from lamdatui.step.rerun import rerun

    if debug and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LamdatuiError("--pdb needs a terminal", fix="leave --pdb out, or run it in a terminal")
    run_dir = rundir.find_run(run, runs_dir)
    for name, value in {**ENVIRONMENT, **({} if online else OFFLINE)}.items():
        # What an engine gives its steps.
        os.environ.setdefault(name, value)
    return rerun(run_dir, number, overrides, dry_run=dry_run, debug=debug)


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


def try_planner_of(profile_text: str, overrides: list[str], situations: int, *, trust: bool = False) -> Tried:
    """Try the planner of a profile, with progress on stderr. Raises LamdatuiError (exit code 4 when it can't be reached)."""
    import os
    import tempfile

    from lamdatui.config.resources import load_prompt
    from lamdatui.inputs.workspace import planner_settings
    from lamdatui.planner.check import try_planner
    from lamdatui.planner.session import PlannerSession

    path = find_profile(profile_text)
    _tell_origin(profile_text, path)
    profile = load_profile(path, overrides)
    ask(profile, str(path), trust=trust, can_ask=True)
    settings = planner_settings(profile, profile.threads or len(os.sched_getaffinity(0)))
    if settings is None:
        raise LamdatuiError(
            "the profile has no planner", where=profile_text, fix="add a planner section, or name another profile"
        )
    shown = sys.stderr.isatty()

    def say(text: str) -> None:
        if shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif ": 0 of" not in text:
            complain(text)

    with tempfile.TemporaryDirectory(prefix="lamdatui-planner-") as folder:
        session = PlannerSession(settings, load_prompt, Path(folder) / "planner.log")
        try:
            return asyncio.run(try_planner(session, situations, say))
        finally:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
