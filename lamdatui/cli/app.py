"""The commands. Everything heavy is imported inside the command that needs it: `--help` has to be instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lamdatui.base.errors import EXIT_FAILED, EXIT_INTERRUPTED, LamdatuiError
from lamdatui.base.interpreter import without_optimization
from lamdatui.base.output import complain, say, say_findings, say_json
from lamdatui.cli import again, results, steering
from lamdatui.cli.options import (
    DEFAULT_RUNS,
    Ascii,
    AsJson,
    EventsAsJson,
    IsHeadless,
    Mode,
    NoConsole,
    Online,
    Overrides,
    Run,
    RunsDir,
    Trust,
    use_ascii,
)

app = typer.Typer(
    name="lamdatui",
    help="A terminal console in which a local LLM explores LLM post-training pipelines.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=False,
)
models_app = typer.Typer(help="Named weights and data: list them, fetch them.", rich_markup_mode=None, no_args_is_help=False)
actions_app = typer.Typer(help="Action types: what they do and what can be set.", rich_markup_mode=None, no_args_is_help=False)
planner_app = typer.Typer(help="The planner: what it is worth, which servers answer here.", rich_markup_mode=None)
app.add_typer(models_app, name="models")
app.add_typer(planner_app, name="planner")
app.add_typer(actions_app, name="actions")
data_app = typer.Typer(help="A profile's data: what a trainer will see of it.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
    ascii_only: Ascii = False,
) -> None:
    """Without a command: pick a profile, or attach to a run that is going."""
    source = context.get_parameter_source("runs_dir")
    if source is not None and source.name == "COMMANDLINE":
        # Given before the command, it holds for the command.
        os.environ["LAMDATUI_RUNS"] = str(runs_dir)
    use_ascii(ascii_only)
    if version:
        from lamdatui import __version__

        say(f"lamdatui {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        from lamdatui.cli.commands import pick

        raise typer.Exit(pick(runs_dir))


@app.command()
def run(
    profile: Annotated[str, typer.Argument(help="A profile's path or name (see `lamdatui profiles`).")],
    name: Annotated[str | None, typer.Option(help="Name of the run; an unfinished run of this name goes on.")] = None,
    mode: Mode = None,
    max_trials: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="End the search after this many trials.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Who proposes, also in a run that goes on (see `lamdatui policies`).")
    ] = None,
    overrides: Overrides = None,
    headless: IsHeadless = False,
    as_json: EventsAsJson = False,
    fake_gpu: Annotated[
        Path | None, typer.Option("--fake-gpu", metavar="FILE", help="Show recorded GPU readings; nothing runs on them.")
    ] = None,
    online: Online = None,
    ascii_only: Ascii = False,
    no_console: NoConsole = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Start a search, or go on with one."""
    from lamdatui.cli.commands import run_profile

    use_ascii(ascii_only)
    headless = headless or as_json
    raise typer.Exit(
        run_profile(
            profile,
            name,
            mode,
            max_trials,
            overrides or [],
            headless,
            as_json,
            runs_dir,
            policy,
            fake_gpu,
            console=not no_console,
            trust=trust,
            online=online,
        )
    )


@app.command()
def attach(
    run: Run,
    online: Online = None,
    ascii_only: Ascii = False,
    no_console: NoConsole = False,
    trust: Trust = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Open the console on a run; an interrupted one goes on."""
    from lamdatui.cli.commands import attach_run

    use_ascii(ascii_only)
    raise typer.Exit(attach_run(run, runs_dir, console=not no_console, trust=trust, online=online))


@app.command()
def serve(
    run: Annotated[str | None, typer.Argument(help="A run's path or name; the start screen when not given.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8642,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let --host be one that others can reach.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Take the token from this file (made when missing); it is not printed then.")
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """The console in a browser, for this machine alone and only with the token that is printed."""
    from lamdatui.cli.commands import serve_run

    raise typer.Exit(serve_run(run, runs_dir, host, port, allow_remote=allow_remote, token_file=token_file))


for _command in (*steering.COMMANDS, *results.COMMANDS, *again.COMMANDS):
    app.command()(_command)


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without it, it is only shown.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """What the store holds that no run needs: shown, and removed with --yes."""
    from lamdatui.cli.prune import prune_store

    prune_store(runs_dir, yes=yes, as_json=as_json)


@app.command()
def show(
    run: Run,
    planner: Annotated[
        bool, typer.Option("--planner", help="Who proposed what, and whether the planner was worth its tokens.")
    ] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """What a run has found so far."""
    from lamdatui.cli.show import print_run

    print_run(run, runs_dir, planner=planner, as_json=as_json)


@app.command("runs")
def list_runs(as_json: AsJson = False, runs_dir: RunsDir = DEFAULT_RUNS) -> None:
    """The runs of a directory."""
    from lamdatui.cli.show import summary
    from lamdatui.wire import rundir

    rows = []
    for run_dir in rundir.list_runs(runs_dir):
        try:
            rows.append(summary(run_dir, rundir.is_alive(run_dir)))
        except LamdatuiError as error:
            rows.append(
                {
                    "run": run_dir.name,
                    "status": "unreadable",
                    "trials": 0,
                    "winner": None,
                    "path": str(run_dir),
                    "problem": error.what,
                }
            )
    if as_json:
        say_json(rows)
        return
    for row in rows:
        say(f"{row['run']:24} {row['status']:12} {row['trials']:3} trials  winner {row['winner'] or '-'}")
    if not rows:
        complain(f"no runs in {runs_dir}; start one with `lamdatui run lab`")


@app.command()
def check(
    profile: Annotated[str, typer.Argument(help="A profile's path or name.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    machine: Annotated[
        str,
        typer.Option(metavar="TEXT", help='What would fit on another machine: "cuda 24GiB", "cuda 80GiB x 2", "cpu 64GiB".'),
    ] = "",
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Everything that can be known before running."""
    from lamdatui.cli.checks import check_other_machine, check_profile

    findings = check_profile(profile, overrides or [], runs_dir, complain, other=bool(machine))
    if machine:
        check_other_machine(profile, overrides or [], machine, findings, as_json=as_json)
    else:
        say_findings(finding.to_json() for finding in findings) if as_json else say("\n".join(map(str, findings)))
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(2)


@data_app.command("fetch")
def fetch_data(
    name: Annotated[
        str, typer.Argument(help="hf:OWNER/NAME[/CONFIG][:SPLIT], the split is train when not given; or lm_eval:TASK.")
    ],
) -> None:
    """A dataset of a hub, or a benchmark of lm-eval, brought here once: prints what a profile calls it."""
    from lamdatui.catalogue import lm_eval
    from lamdatui.catalogue.entries import DATA_PREFIX, HUB_PREFIX
    from lamdatui.catalogue.fetch import REFERENCE, fetch

    if name.startswith(lm_eval.PREFIX):
        lm_eval.build(name, online=True, say=complain)
        say(name)
        return
    if not name.startswith(HUB_PREFIX):
        fix = "lamdatui data fetch hf:OWNER/NAME[/CONFIG][:SPLIT], or lm_eval:TASK?search=100&sealed=300"
        raise LamdatuiError(f"{name!r} is not a hub's dataset", fix=fix)
    called = DATA_PREFIX + name.removeprefix(HUB_PREFIX)
    fetch(called, complain)
    say(REFERENCE + called)


@app.command()
def init(
    model: Annotated[str, typer.Option(help="The base model's folder, or a name of the catalogue.")] = "",
    data: Annotated[
        list[str] | None, typer.Option(help="A file, folder or pattern of rows; may be given several times.")
    ] = None,
    task: Annotated[str, typer.Option(help="Rows to score on; without it they are held out of the data.")] = "",
    base: Annotated[str, typer.Option(help="Of an adapter: the folder of the model that it stands on.")] = "",
    to: Annotated[Path | None, typer.Option(help="Where the profile is written.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """A profile for your own model and data: looked at, cut, proposed, checked."""
    from lamdatui.cli.setup import set_up

    if not set_up(model, data or [], task, base, to, yes=yes):
        raise typer.Exit(2)


@data_app.command("show")
def show_data(
    profile: Annotated[str, typer.Argument(help="A profile's path or name.")],
    name: Annotated[str, typer.Argument(help="One of its datasets or tasks.")],
    row: Annotated[int, typer.Option(min=1, help="Which row, from 1.")] = 1,
    model: Annotated[str, typer.Option(help="Whose chat template; the first model's when not given.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
) -> None:
    """A row as training or evaluation will see it, with what is trained marked."""
    from lamdatui.cli.rows import show_row

    say(show_row(profile, overrides or [], name, row, model))


@app.command()
def doctor(
    run: Annotated[str | None, typer.Argument(help="A run's path or name: it and its objects are looked at instead.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Of a run: repair what can be; what is damaged is kept beside.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Of a run: compare sizes of models and data, don't read them.")
    ] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """What this machine has, what is missing, and the fix; with RUN: what of that run is damaged."""
    if run is not None:
        from lamdatui.cli.runchecks import doctor_run

        if not doctor_run(run, runs_dir, repair=repair, quick=quick, as_json=as_json):
            raise typer.Exit(EXIT_FAILED)
        return
    if repair or quick:
        raise LamdatuiError("--repair and --quick are of a run", fix="lamdatui doctor RUN --repair")
    from lamdatui.cli.checks import check_machine

    findings = check_machine()
    say_findings(finding.to_json() for finding in findings) if as_json else say("\n".join(map(str, findings)))
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def step(
    run: Run,
    trial: Annotated[int, typer.Argument(min=1, help="The trial's number.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="PARAM=VALUE", help="Another hyperparameter.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact configuration that would run, and end.")] = False,
    debug: Annotated[bool, typer.Option("--pdb", help="On an exception: the traceback, then Python's debugger.")] = False,
    online: Annotated[bool, typer.Option("--online", help="Let it use the network.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Run one trial's step again, in the foreground, beside the run: its records are not touched."""
    from lamdatui.base.network import KERNEL, ONLINE, fence, sentence

    # Before libraries are imported, which start threads.
    if (network := ONLINE if online else fence()) != KERNEL:
        complain(f"note: {sentence(network)}")
    from lamdatui.cli.commands import run_one_step

    raise typer.Exit(run_one_step(run, trial, overrides or [], runs_dir, dry_run=dry_run, debug=debug, online=online))


@app.command()
def profiles(as_json: AsJson = False) -> None:
    """The profiles that can be run by name."""
    _list_files("profiles", as_json)


@app.command()
def prompts(as_json: AsJson = False) -> None:
    """The planner's prompts and where each comes from."""
    _list_files("prompts", as_json)


def _list_files(kind: str, as_json: bool) -> None:
    from lamdatui.config.resources import files, profile_summary, replaced, untrusted

    hidden = replaced(kind)
    rows = [
        {"name": name, "origin": origin, "path": str(path), "replaces_builtin": name in hidden}
        | ({"summary": profile_summary(path)} if kind == "profiles" else {})
        for name, (origin, path) in sorted(files(kind).items())
    ]
    say_json(rows) if as_json else say("\n".join(f"{row['name']:16} {row['origin']:8} {row['path']}" for row in rows))
    for note in (*hidden.values(), untrusted()):
        if note:
            complain(f"note: {note}")


@app.command()
def policies(as_json: AsJson = False) -> None:
    """What can choose the next action."""
    from lamdatui.domain.policies import DEFAULT, SUMMARIES

    rows = [{"name": name, "default": name == DEFAULT, "summary": summary} for name, summary in SUMMARIES.items()]
    say_json(rows) if as_json else say("\n".join(f"{row['name']:12} {row['summary']}" for row in rows))


@actions_app.callback(invoke_without_command=True)
def actions(context: typer.Context, as_json: AsJson = False) -> None:
    """List the action types."""
    if context.invoked_subcommand is None:
        from lamdatui.actionkit.docs import declarations, listing

        rows, problems = declarations()
        say_json(rows) if as_json else say(listing(rows))
        for problem in problems:
            complain(f"problem: {problem}")


@actions_app.command("show")
def show_action(name: Annotated[str, typer.Argument(help="An action type's name.")], as_json: AsJson = False) -> None:
    """One action type: inputs, hyperparameters, defaults, units, source."""
    from lamdatui.actionkit.docs import declarations, description

    rows, _ = declarations(only=name)
    say_json(rows[0]) if as_json else say(description(rows[0]))


@actions_app.command("new")
def new_action(
    name: Annotated[str, typer.Argument(help="The name of your action type; the file is called the same.")],
    like: Annotated[str | None, typer.Option("--like", metavar="NAME", help="Start from this shipped action type.")] = None,
) -> None:
    """Write an action file of your own to start from: a small one that works, or a copy of a shipped one."""
    from lamdatui.actionkit.check import new_file

    say(new_file(name, like))
    complain(f"next: lamdatui actions check {name}; then add {name} to a profile's actions")


@actions_app.command("check")
def check_actions(
    names: Annotated[list[str] | None, typer.Argument(help="Action types or files; every one when none is named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether declarations are complete and consistent: what every shipped action type is held to."""
    from lamdatui.actionkit.check import check

    found = check(names or [])
    say_json([item.to_json() for item in found]) if as_json else say("\n".join(map(str, found)))
    if any(item.problems for item in found):
        raise typer.Exit(EXIT_FAILED)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the catalogue."""
    if context.invoked_subcommand is None:
        from lamdatui.cli.commands import catalogue_rows

        rows = catalogue_rows()
        say_json(rows) if as_json else say(
            "\n".join(f"{r['name']:20} {'here' if r['path'] else '-':5} {r['licence']:12} {r['summary']}" for r in rows)
        )


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="A catalogue name, or hf:OWNER/REPO.")]) -> None:
    """Fetch (and convert or build) a named entry; what is there already is not fetched again."""
    from lamdatui.catalogue.fetch import fetch

    say(fetch(name, complain))


@planner_app.command("check")
def check_planner(
    profile: Annotated[str, typer.Argument(help="A profile's path or name; its planner is tried.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As in `lamdatui run`.")] = None,
    situations: Annotated[int, typer.Option(min=0, help="How many situations the self-test asks; 0: none.")] = 24,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Start or reach a planner: speed, the forms that it obeys, and a self-test of its choices against chance."""
    from lamdatui.cli.commands import try_planner_of

    tried = try_planner_of(profile, overrides or [], situations, trust=trust)
    say_json(tried.to_json()) if as_json else say("\n".join(tried.lines()))


@planner_app.command("servers")
def planner_servers(as_json: AsJson = False) -> None:
    """OpenAI-compatible servers that answer on this machine: what a profile's planner.url can be."""
    import asyncio
    from dataclasses import asdict

    from lamdatui.planner.discover import discover

    found = asyncio.run(discover())
    say_json([asdict(one) for one in found]) if as_json else say("\n".join(map(str, found)))
    if not found and not as_json:
        say(
            "no server answers; start one (vLLM, llama-server, Ollama, LM Studio), or use the embedded planner", file=sys.stderr
        )


@app.command()
def keys(as_json: AsJson = False) -> None:
    """Every key of the console: its id for the settings file, what it does, what was changed, what clashes."""
    from lamdatui.cli.commands import show_keys

    raise typer.Exit(show_keys(as_json))


def main() -> None:
    """Run a command; an error that a person can act on is three lines and an exit code, never a traceback."""
    without_optimization("lamdatui")
    try:
        app(standalone_mode=True)
    except LamdatuiError as error:
        complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(EXIT_FAILED)
    except OSError as error:
        complain(f"error: {error.strerror or error}\n  where: {error.filename or 'this machine'}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
