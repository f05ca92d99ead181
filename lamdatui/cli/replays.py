"""`lamdatui promote`, `transfer`, `replay` and `contributions`: pipelines that a run has found, done again with more data, on another base, from a recipe, without one step.

Each is a run of its own, whose script is the pipelines; what is in the store already is not done again. How well the order of the pipelines holds is told by
Kendall's rank correlation: the paper's question of what may be searched small and used large (arXiv 2505.21963).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lamdatui.base.errors import EXIT_DONE, LamdatuiError
from lamdatui.base.output import complain, say, say_json
from lamdatui.base.strictyaml import parse_yaml
from lamdatui.cli.headless import Headless, interrupted_once
from lamdatui.config.resources import load_registry
from lamdatui.domain.lineage import ancestry
from lamdatui.domain.scores import objectives, weights_of
from lamdatui.domain.scripts import FULL, best, distinct, label, script, without
from lamdatui.domain.state import RunState, details_of
from lamdatui.domain.verdicts import gain_text
from lamdatui.inputs.profile import Profile, load_profile
from lamdatui.inputs.trust import ask
from lamdatui.store.journal import newer_run, read_state
from lamdatui.tasks.stats import kendall, paired_gain
from lamdatui.wire import rundir
from lamdatui.wire.answers import answers

RECIPE = "recipe.yaml"


def scales(text: str) -> dict[str, float]:
    """`2x,0.5x,full` → name → factor. Raises LamdatuiError."""
    found: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            found[word] = FULL if word == "full" else float(word.removesuffix("x"))
        except ValueError:
            found[word] = math.nan
        if not found[word] > 0 or (found[word] > 1000 and word != "full"):
            raise LamdatuiError(f"--data takes factors such as 2x, 0.5x, full, not {word!r}", exit_code=2)
    if not found:
        raise LamdatuiError("--data names no factor", fix="--data 2x,4x,full")
    return found


def promote(run: str, runs_dir: Path, top: int, data: str, name: str, *, as_json: bool, trust: bool) -> int:
    """The best pipelines with so many times as much data, a run for each factor; then how their order holds. Raises LamdatuiError."""
    asked = scales(data)
    state, profile = _source(run, runs_dir)
    models = _best(state, top)
    found: dict[str, dict[str, float]] = {}
    for word, scale in asked.items():
        steps, called = distinct(script(state, models, load_registry().types, scale))
        run_name = f"{name or state.name}-{word}"
        done = _run(_scripted(profile, steps, run_name), run_name, runs_dir, trust=trust)
        found[f"data {word}"] = _reached(done, state, models, called)
        complain(f"data {word}: {_tau(state, models, found[f'data {word}'])}")
    _tell(state, models, found, as_json=as_json)
    return EXIT_DONE


def transfer(run: str, runs_dir: Path, top: int, base: str, name: str, *, as_json: bool, trust: bool) -> int:
    """The best pipelines on another base, and how their order holds. Raises LamdatuiError."""
    state, profile = _source(run, runs_dir)
    models = _best(state, top)
    first = state.pool.base or ""
    changed = profile.model_dump(mode="json")
    changed["models"] = {first: {"path": _place(base)}}
    name = name or _named(f"{state.name}-{Path(base.rstrip('/')).name.removeprefix('catalogue:')}")
    steps, called = distinct(script(state, models, load_registry().types))
    done = _run(_scripted(Profile.model_validate(changed), steps, name), name, runs_dir, trust=trust)
    _tell(state, models, {f"on {base}": _reached(done, state, models, called)}, as_json=as_json)
    return EXIT_DONE


def replay(recipe: Path, runs_dir: Path, base: str, name: str, *, trust: bool) -> int:
    """The pipeline of an exported recipe, as a run. Raises LamdatuiError."""
    path = recipe / RECIPE if recipe.is_dir() else recipe
    try:
        told, _ = parse_yaml(path.read_text(encoding="utf-8"))
        profile = _of_recipe(told, base)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LamdatuiError(f"can't read the recipe: {error}", where=str(path)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LamdatuiError(
            f"not a recipe that can be done again: {what}", where=str(path), fix="export the model again"
        ) from error
    _run(profile, name or _named(f"replay-{told['run']}-{told['model']}"), runs_dir, trust=trust)
    return EXIT_DONE


def contributions(run: str, runs_dir: Path, model: str, name: str, *, as_json: bool, trust: bool) -> int:
    """What each step of a model's pipeline brings: the model against its pipeline without the step, row by row. Raises LamdatuiError."""
    state, profile = _source(run, runs_dir)
    target = model or state.winner or _best(state, 1)[0]
    if target not in state.pool.items or state.pool.items[target].trial is None:
        raise LamdatuiError(f"no trial of the run made {target!r}", where=state.name, exit_code=2)
    variants = without(state, target)
    if not variants:
        raise LamdatuiError(
            f"{target} is one step from a base: its gain is what that step brings", where=state.name, exit_code=1
        )
    every = [
        *script(state, [target], load_registry().types),
        *(step for variant in variants.values() for step in variant.steps),
    ]
    steps, called = distinct(every)
    name = name or _named(f"{state.name}-{target}-steps")
    done = _run(_scripted(profile, steps, name), name, runs_dir, trust=trust)
    made = _made(done)
    run_dir = rundir.find_run(name, runs_dir)
    weights = weights_of(state.profile)
    told = []
    for number, variant in variants.items():
        full, other = (made.get(called.get(one, one)) for one in (label(state.name, target), variant.result))
        gain = _difference(run_dir, done, full, other, weights) if full and other else None
        trial = state.trials[number]
        told.append({"trial": number, "step": call_of(trial.action), "brings": gain, "without": other})
    if as_json:
        say_json({"run": state.name, "model": target, "steps": told})
        return EXIT_DONE
    say(
        f"{target} of {state.name}, {ancestry(state, target)}: what each step brings to the objective (search rows, paired, 95% interval)"
    )
    for one in told:
        say(f"  trial {one['trial']:3}  {gain_text(one['brings']) if one['brings'] else 'not made':26} {one['step']}")
    return EXIT_DONE


def call_of(action: Mapping[str, Any] | None) -> str:
    """`sft(base, mix)`."""
    inputs = (action or {}).get("inputs", {})
    return f"{(action or {}).get('type', '?')}({', '.join('+'.join(ids) for ids in inputs.values() if ids)})"


def _difference(run_dir: Path, done: RunState, one: str, other: str, weights: Mapping[str, float]) -> dict[str, Any]:
    """The paired difference of two models of a run in the objective, on the search rows."""
    points = [
        {task: {str(answer.id): answer.score for answer in answers(run_dir, done, model, task, "search")} for task in weights}
        for model in (one, other)
    ]
    return paired_gain(points[0], points[1], weights)


def _of_recipe(told: Mapping[str, Any], base: str) -> Profile:
    steps = told["steps"]
    if not steps:
        raise ValueError("it has no steps: the model is a base")
    made = {step["makes"]: label(told["run"], step["makes"]) for step in steps}
    bases = {name: dict(item["profile"]) for name, item in told["bases"].items()}
    if base:
        bases[next(iter(bases))] = {"path": _place(base)}
    lines = [
        {
            "type": step["type"],
            "inputs": {slot: [made.get(name, name) for name in ids] for slot, ids in step["inputs"].items()},
            "params": step["params"],
            "makes": made[step["makes"]],
        }
        for step in steps
    ]
    tasks = {name: {key: value for key, value in task.items() if value is not None} for name, task in told["tasks"].items()}
    plain = {
        "name": f"replay of {told['model']} of {told['run']}"[:200],
        "seed": steps[0]["seed"],
        "models": bases,
        "datasets": {name: item["profile"] for name, item in told["datasets"].items()},
        "tasks": tasks,
        "objective": told["objective"],
        "actions": {step["type"]: None for step in steps},
    }
    return _scripted(Profile.model_validate(plain), lines, plain["name"])


def _source(run: str, runs_dir: Path) -> tuple[RunState, Profile]:
    run_dir = rundir.find_run(run, runs_dir)
    state = read_state(run_dir / "run.db")
    if state.newer:
        raise newer_run(run_dir, state.newer)
    return state, load_profile(rundir.profile_of(run_dir))


def _best(state: RunState, top: int) -> list[str]:
    found = best(state, objectives(state, weights_of(state.profile)), top)
    if not found:
        raise LamdatuiError("no trial of the run made a model", where=state.name, exit_code=1)
    return found


def _place(base: str) -> str:
    return base if base.startswith("catalogue:") else str(Path(base).expanduser().absolute())


def _scripted(profile: Profile, steps: Sequence[Mapping[str, Any]], name: str) -> Profile:
    """A profile that does these steps and nothing else. Each action type takes what the script says, whatever the profile narrowed."""
    plain = profile.model_dump(mode="json")
    plain |= {"name": name[:200], "planner": None, "mode": "auto"}
    plain["policy"] = {"name": "scripted", "opening": False, "script": list(steps)}
    # Its disk is as large as before; its time is what the steps take.
    kept = {"keep_free_mib": profile.budget.keep_free_mib, "disk_gib": profile.budget.disk_gib}
    plain["budget"] = {"trials": len(steps), "baselines": 0, "replicates": 0, "promotion": 0, **kept}
    plain["actions"] = {kind: plain["actions"].get(kind) for kind in {step["type"]: None for step in steps}}
    return Profile.model_validate(plain)


def _run(profile: Profile, name: str, runs_dir: Path, *, trust: bool) -> RunState:
    """Do a profile's run to its end; an unfinished one of that name goes on. Raises LamdatuiError when it does not end well."""
    from lamdatui.cli.commands import open_all, release

    rundir.check_name(name)
    ask(profile, name, trust=trust, can_ask=True)
    open_all(profile)
    run_dir = rundir.prepare_run(profile, name, runs_dir)
    if not (run_dir / "run.db").exists() or not read_state(run_dir / "run.db").has_ended:
        interrupted_once()
        release(run_dir)
        with rundir.held_engine(run_dir, rundir.StartOptions(headless=True, mode="auto")):
            if code := asyncio.run(Headless(run_dir, as_json=False).follow()):
                raise LamdatuiError(f"the run {name} did not end well", where=str(run_dir), exit_code=code)
    return read_state(run_dir / "run.db")


def _made(done: RunState) -> dict[str, str]:
    """What the script calls a result → the model or dataset of the run; the profile's objects as they are called."""
    steps = (done.profile.get("policy") or {}).get("script") or []
    found = {name: name for name, item in done.pool.items.items() if item.trial is None}
    for trial in done.trials.values():
        place = details_of(trial.proposal or {}).get("step")
        if trial.status == "done" and isinstance(place, int) and place < len(steps):
            found[steps[place].get("makes")] = trial.model or trial.dataset or ""
    return found


def _named(text: str) -> str:
    """A run's name of a text that may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60]


def _reached(done: RunState, source: RunState, models: Sequence[str], called: Mapping[str, str]) -> dict[str, float]:
    """Model of the source → the objective, on the search rows, of what stands for it."""
    made = _made(done)
    reached = {trial.model: trial.objective for trial in done.trials.values() if trial.objective is not None}
    named = {model: made.get(called.get(one := label(source.name, model), one)) for model in models}
    return {model: value for model, name in named.items() if (value := reached.get(name)) is not None}


def _tau(state: RunState, models: Sequence[str], reached: Mapping[str, float]) -> str:
    known = objectives(state, weights_of(state.profile))
    both = [(known[model], reached[model]) for model in models if model in reached]
    found = kendall([one for one, _ in both], [other for _, other in both])
    if found is None:
        return f"{len(both)} pipelines: too few to tell how their order holds"
    value, interval = found
    ends = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
    return f"Kendall's tau {value:+.2f}{ends} over {len(both)} pipelines"


def _tell(state: RunState, models: Sequence[str], found: Mapping[str, Mapping[str, float]], *, as_json: bool) -> None:
    known = objectives(state, weights_of(state.profile))
    if as_json:
        pipelines = [
            {
                "model": model,
                "pipeline": ancestry(state, model),
                "objective": known[model],
                **{name: reached.get(model) for name, reached in found.items()},
            }
            for model in models
        ]
        say_json(
            {
                "run": state.name,
                "pipelines": pipelines,
                "order": {name: _tau(state, models, reached) for name, reached in found.items()},
            }
        )
        return
    head = ["model", "as found", *found]
    lines = [
        [model, f"{known[model]:.3f}", *(f"{reached[model]:.3f}" if model in reached else "-" for reached in found.values())]
        for model in models
    ]
    widths = [max(len(row[place]) for row in [head, *lines]) for place in range(len(head))]
    for row, model in zip([head, *lines], ["pipeline", *models], strict=True):
        what = model if model == "pipeline" else ancestry(state, model)
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + f"  {what}")
    for name, reached in found.items():
        say(f"{name}: {_tau(state, models, reached)} (objective on the search rows)")
