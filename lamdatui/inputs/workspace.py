"""Everything a profile refers to, opened and checked: models, datasets, tasks, action types. No torch."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say
from lamdatui.base.jsonio import canonical, digest, regular
from lamdatui.catalogue.fetch import resolve
from lamdatui.config.resources import load_registry, replaced
from lamdatui.domain.actions import BoundType
from lamdatui.domain.objects import DatasetObject, ModelObject
from lamdatui.inputs.adapterfiles import check_adapter, find_base
from lamdatui.inputs.datafiles import DatasetRows, asked, read_known
from lamdatui.inputs.modelfiles import ADAPTER, inspect_model, model_kind, read_tensors
from lamdatui.inputs.namedtemplates import template_text
from lamdatui.inputs.overlap import ASKED_TOO, NEARLY_ASKED, SHARED_WORDS
from lamdatui.inputs.profile import ContaminationSpec, JudgeSpec, ModelSpec, Profile, TaskSpec
from lamdatui.inputs.rowfiles import is_pattern
from lamdatui.inputs.scan import scan
from lamdatui.inputs.taskfiles import Asking, Judge, Task, load_task
from lamdatui.inputs.templatechecks import of_questions
from lamdatui.inputs.templates import read_object, read_template, template_of

if TYPE_CHECKING:
    from lamdatui.planner.settings import PlannerSettings

BUILTIN = Path(__file__).parent.parent / "planner"
LEAST_POSITIONS = 1024
"""Of a judge: its question alone takes about 200 tokens."""


@dataclass(frozen=True)
class Workspace:
    """What a run starts from; `problems` are drop-in files that could not be loaded, `origins` those in a builtin's place, `unasked` what of
    tasks' questions the models' templates leave out."""

    profile: Profile
    models: dict[str, ModelObject]
    datasets: dict[str, DatasetObject]
    tasks: dict[str, Task]
    types: dict[str, BoundType]
    problems: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """CPU threads of a step: the profile's number, or every core this process may use."""
        return self.profile.threads or len(os.sched_getaffinity(0))

    @property
    def judges(self) -> list[ModelObject]:
        """Models that judge answers; they are in no pool."""
        return [task.judge.model for task in self.tasks.values() if task.judge]


def locate(reference: str) -> Path:
    """An existing file or directory from a path, `catalogue:NAME[/file]`, `reasoning-gym:NAME?size=…&seed=…`, `lm_eval:NAME?search=…` or `builtin:FILE`.

    The last is a file that comes with lamdatui's planner.

    Raises LamdatuiError.
    """
    if reference.startswith("catalogue:"):
        return resolve(reference)
    if reference.startswith("reasoning-gym:"):
        from lamdatui.catalogue.reasoning import build

        return build(reference)
    if reference.startswith("lm_eval:"):
        from lamdatui.catalogue.lm_eval import build as build_benchmark

        return build_benchmark(reference)
    # Of one that comes with lamdatui the name alone counts: it is in one folder.
    path = BUILTIN / Path(reference.removeprefix("builtin:")).name if reference.startswith("builtin:") else Path(reference)
    try:
        found = path.exists() or is_pattern(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise LamdatuiError(f"can't look for the file: {error.strerror}", where=str(path)) from error
    if not found:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent) if path.parent.is_dir() else [], n=1)
        fix = (
            f"did you mean {path.parent / near[0]}?"
            if near
            else "check the path; relative ones start at the profile's folder; what is on a hub is fetched first (lamdatui models fetch, lamdatui data fetch)"
        )
        raise LamdatuiError("no such file or directory", where=str(path), fix=fix)
    return path


class ModelPlace(NamedTuple):
    """Where a model of a profile is: the directory of its weights, the adapter on them, the template in place of its own."""

    weights: Path
    adapter: Path | None
    template: str


def locate_model(spec: ModelSpec) -> ModelPlace:
    """The files of a model that a profile names. Raises LamdatuiError."""
    path = locate(spec.path).absolute()
    template = template_text(spec.chat_template) if spec.chat_template else ""
    if not (path / ADAPTER).is_file():
        if spec.base:
            raise LamdatuiError("base: names what an adapter stands on, and this is none", where=str(path), fix="drop base:")
        return ModelPlace(path, None, template)
    base = find_base(path, str(locate(spec.base)) if spec.base else "")
    check_adapter(path, read_tensors(base))
    own = read_template(path).text
    return ModelPlace(base, path, template or (own if own != read_template(base).text else ""))


def model_object(
    name: str, spec: ModelSpec, promised: str = "", *, always: bool = False, say: Say | None = None, headers_only: bool = False
) -> ModelObject:
    """A model of a profile, looked at; `promised`: the digest that a run began with, others as in `open_workspace`. Raises LamdatuiError."""
    place = locate_model(spec)
    if headers_only:
        info, known = model_kind(place.weights), name
    else:
        info = inspect_model(place.weights, adapter=place.adapter, template=place.template, always=always, say=say)
        known = info.older if info.older and promised == info.older else info.digest
    return ModelObject(
        name,
        known,
        info.architecture,
        info.layout,
        str(place.weights),
        (str(place.adapter),) if place.adapter else (),
        info.parameters,
        tokenizer=info.tokenizer,
        template=place.template,
        chat=digest(place.template or template_of(place.weights)),
        own=int(place.adapter is not None),
        traits=info.traits,
        sizes=info.sizes,
    )


def open_judge(spec: JudgeSpec, *, always: bool = False, say: Say | None = None, headers_only: bool = False) -> Judge:
    """The judge of a task, looked at as a base model is. Raises LamdatuiError where it is none, or can't be asked."""
    given = ModelSpec(path=spec.model, chat_template=spec.chat_template)
    found = model_object(Path(spec.model).name, given, always=always, say=say, headers_only=headers_only)
    weights = Path(found.weights)
    if not (found.template or template_of(weights)):
        raise LamdatuiError(
            "the judge has no chat template", where=str(weights), fix="name one: judge: {model: …, chat_template: chatml}"
        )
    config = read_object(weights / "config.json")
    config = inner if isinstance(inner := config.get("text_config"), dict) else config
    places = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(places, int) and places < LEAST_POSITIONS:
        what = f"the judge has {places:,} positions: question, reference and answer need {LEAST_POSITIONS:,} or more"
        raise LamdatuiError(what, where=str(weights), fix="take another judge")
    return Judge(found)


def open_task(name: str, spec: TaskSpec, *, always: bool = False, say: Say | None = None, headers_only: bool = False) -> Task:
    """A task of a profile with its judge; the rest as in `open_workspace`. Raises LamdatuiError."""
    limits = {key: value for key, value in spec.rows.model_dump().items() if value is not None}
    asking = Asking(spec.think, spec.thinking, spec.generation)
    try:
        judge = open_judge(spec.judge, always=always, say=say, headers_only=headers_only) if spec.judge else None
    except LamdatuiError as error:
        where = f"{error.where} (judge of the task {name})" if error.where else f"judge of the task {name}"
        raise LamdatuiError(error.what, where=where, fix=error.fix, exit_code=error.exit_code) from error
    return load_task(name, locate(spec.path), spec.scorer, spec.max_new_tokens, limits, asking, judge)


def bind_types(profile: Profile) -> tuple[dict[str, BoundType], list[str]]:
    """The profile's action types with its narrowed hyperparameters, and what could not be loaded."""
    registry = load_registry()
    bound = {}
    for name, narrowed in profile.actions.items():
        kind = registry.get(name)
        for param, spec in (narrowed or {}).items():
            try:
                kind = kind.narrow(param, spec.default, spec.choices)
            except (KeyError, ValueError) as error:
                raise LamdatuiError(str(error.args[0]), where=f"profile {profile.name}, actions.{name}.{param}") from error
        bound[name] = kind
    return bound, registry.problems


def origins(profile: Profile, types: dict[str, BoundType]) -> list[str]:
    """One line for each action type and prompt of the run that is used in place of a builtin one."""
    found = [
        f"the action {bound.name} is not lamdatui's own but of {bound.origin}" for bound in types.values() if bound.replaces
    ]
    return found + (list(replaced("prompts").values()) if profile.planner else [])


def _keep_apart(where: str, read: DatasetRows, tasks: Mapping[str, Task]) -> None:
    """Raises LamdatuiError when a verifiable dataset holds a task's prompt: a reward must never be a score of the search."""
    prompts = {canonical(row["prompt"]) for row in read.rows}
    for task in tasks.values():
        shared = prompts & {canonical(asked(row)["prompt"]) for rows in task.rows.values() for row in rows}
        if shared:
            raise LamdatuiError(
                f"{len(shared)} of its prompts are rows of the task {task.name}: training on rewards would see the score",
                where=where,
                fix="drop those rows from the dataset",
            )


def _overlaps(
    where: str, read: DatasetRows, tasks: Mapping[str, Task], blocks: ContaminationSpec, say: Say | None
) -> list[str]:
    """What of a dataset's rows stands in a task's, a sentence each. Raises LamdatuiError for what the profile blocks."""
    found = scan(read, {task: each.rows for task, each in tasks.items()}, {}, say)
    told = []
    for splits, how, what in (
        (found.exact, blocks.exact, ASKED_TOO),
        (found.near, blocks.ngram, NEARLY_ASKED),
        (found.ngram, blocks.ngram, SHARED_WORDS),
    ):
        for task, seen in ((task, seen) for task, each in splits.items() for seen in each.items()):
            split, shared = seen
            text = f"{shared.count:,} of {read.info.rows:,} rows {what.format(f'{split} row of the task {task}')}"
            if how == "block":
                raise LamdatuiError(f"{text} (contamination: block)", where=where, fix="drop those rows from the dataset")
            told.append(text)
    return told


def _unasked(profile: Profile, tasks: Mapping[str, Task]) -> list[str]:
    """What of the questions with tools a base's template leaves out or does not take, a sentence each."""
    asks = {
        name: [asked(row) for rows in task.rows.values() for row in rows if row.get("tools")] for name, task in tasks.items()
    }
    told = []
    for model, spec in profile.models.items() if any(asks.values()) else ():
        place = locate_model(spec)
        template = read_template(place.weights, place.template)
        for name, questions in asks.items():
            notes = of_questions(template, questions, tasks[name].max_new_tokens) if template.text and questions else []
            told += [f"task {name} × {model}: {note.detail}; {note.fix}" for note in notes if note.status == "bad"]
    return told


def open_workspace(
    profile: Profile, say: Say | None = None, promised: Mapping[str, str] | None = None, *, headers_only: bool = False
) -> Workspace:
    """Open and check what a profile names; `say` hears of files that take long to read. `promised`: digests of what a run began with.
    `headers_only`: weights are not hashed, and models have their names for digests: enough to reckon with.

    Raises LamdatuiError for the first thing that is wrong.
    """
    types, problems = bind_types(profile)
    tasks = {}
    for name, spec in profile.tasks.items():
        tasks[name] = open_task(name, spec, always=profile.verify == "always", say=say, headers_only=headers_only)
    datasets = {}
    for name, spec in profile.datasets.items():
        path = locate(spec.path)
        read = read_known(path, (promised or {}).get(name, ""), spec.answers, spec.columns, say)
        if read.info.format == "verifiable":
            _keep_apart(f"dataset {name} ({path})", read, tasks)
        # Of a run that has begun it is on record.
        shared = [] if promised else _overlaps(f"dataset {name} ({path})", read, tasks, profile.contamination, say)
        datasets[name] = DatasetObject(
            name,
            read.info.digest,
            read.info.format,
            read.info.rows,
            str(path),
            chars=read.info.chars,
            longest=read.info.longest,
            columns=tuple(sorted(spec.columns.items())),
            notes=(*read.info.notes, *shared),
        )
    always = profile.verify == "always"
    models = {
        name: model_object(name, spec, (promised or {}).get(name, ""), always=always, say=say, headers_only=headers_only)
        for name, spec in profile.models.items()
    }
    unasked = [] if promised or headers_only else _unasked(profile, tasks)
    return Workspace(profile, models, datasets, tasks, types, problems, origins(profile, types), unasked)


def _check_gguf(what: str, path: Path) -> None:
    """Raises LamdatuiError unless the file is one that llama.cpp may open."""
    try:
        with regular(path).open("rb") as handle:
            if handle.read(4) != b"GGUF":
                raise LamdatuiError(f"the planner's {what} is not a GGUF file", where=str(path))
    except OSError as error:
        raise LamdatuiError(f"can't read the planner's {what}: {error.strerror}", where=str(path)) from error


def planner_settings(profile: Profile, threads: int) -> PlannerSettings | None:
    """The profile's planner with its files found, or None; `threads` are the CPU threads of a step. Raises LamdatuiError."""
    spec = profile.planner
    if spec is None:
        return None
    # What a server lists is a name; a model of vLLM may be one too.
    named = spec.backend == "openai" or (spec.backend == "vllm" and not spec.model.startswith(("/", "catalogue:")))
    model = spec.model if named else str(locate(spec.model))
    adapter = str(locate(spec.adapter)) if spec.adapter else ""
    if not named and spec.backend != "vllm":
        for what, file in (("model", model), ("adapter", adapter)):
            _check_gguf(what, Path(file)) if file else None
    # Half the cores: llama.cpp spins while it waits, and on a busy machine its threads then starve each other.
    return spec.placed(model, adapter, max(1, threads // 2))
