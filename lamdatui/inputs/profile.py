"""A profile: the YAML file that says what one run searches. Errors name the file, the line and the nearest valid word."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import digest, regular
from lamdatui.base.strictyaml import parse_yaml, told
from lamdatui.inputs.namedtemplates import SUFFIX
from lamdatui.inputs.profilefaults import explain
from lamdatui.planner.settings import PlannerSettings, taken_flag
from lamdatui.tasks.judging import JUDGED

Name = str
MAX_BYTES = 256 * 1024
MOST_TRIALS = 1_000_000
MOST_MINUTES = 60 * 24 * 3660.0
MOST_COUNT = 10**9
MOST_NAME = 128


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, allow_inf_nan=False)


class ModelSpec(_Strict):
    """A base model: a Hugging Face directory with safetensors, `catalogue:NAME[/folder]`, or a LoRA adapter.

    `chat_template`: a template in place of its own, by name (`lamdatui.inputs.namedtemplates`) or as a file. `base`: the model that an adapter
    stands on, where its adapter_config.json names none that is here.
    """

    path: str
    chat_template: str = ""
    base: str = ""


class DatasetSpec(_Strict):
    """A file of rows, `catalogue:NAME/file`, or `reasoning-gym:NAME?size=…&seed=…` (generated rows with a verifier).

    A file, a folder of them or a pattern. `answers`: whether all answers of a conversation are trained, each with what comes before it, or
    the `last` one alone. `columns`: names of columns, and of keys of messages, that are known → those of the file.
    """

    path: str
    answers: Literal["all", "last"] = "all"
    columns: dict[str, str] = {}


class RowsSpec(_Strict):
    """How many rows of each split are used; all of them when not given."""

    search: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    sealed: int | None = Field(default=None, ge=1, le=MOST_COUNT)


class JudgeSpec(_Strict):
    """The model that judges a task's answers: a Hugging Face directory or an adapter, as `ModelSpec` has it."""

    model: str = Field(min_length=1)
    chat_template: str = ""


class TaskSpec(_Strict):
    """A task file (JSONL with id, split, messages, reference), its scorer and the length of an answer in tokens."""

    path: str
    scorer: str
    max_new_tokens: int = Field(default=128, ge=1, le=8192)
    rows: RowsSpec = RowsSpec()
    think: Literal["strip", "keep"] = "strip"
    """Whether what a model thought before its answer is scored with it."""
    thinking: bool | None = None
    """Whether chat templates that know of it let the model think; they are told nothing by default."""
    generation: Literal["neutral", "own"] = "neutral"
    """`own`: answers are asked for with the settings of each model's generation_config.json."""
    judge: JudgeSpec | None = None
    """Who scores, where the scorer is one of `lamdatui.tasks.judging.JUDGED`."""


class ObjectiveSpec(_Strict):
    """The run maximises the sum over tasks of weight × score.

    `keep`: tasks on which a model must not fall behind the base by more than that much: the lower end of the paired 95% interval counts.
    `per_hour`: what counts is the gain over the base per hour of the steps that led to a model (`lamdatui.domain.rates`).
    """

    weights: dict[Name, float]
    keep: dict[Name, Annotated[float, Field(ge=0, le=1)]] = {}
    per_hour: bool = False


class ParamSpec(_Strict):
    """A hyperparameter as this profile narrows it."""

    default: float | int | str | bool | None = None
    choices: list[float | int | str | bool] | None = Field(default=None, min_length=1)


class ScriptStep(_Strict):
    """One action of a script: objects by slot (an id, or several), hyperparameters that differ from the defaults.

    `makes`: what later steps call its result. A step with it is passed over where it, or a step that it needs, is not possible.
    """

    type: str
    inputs: dict[str, str | list[str]] = {}
    params: dict[str, float | int | str | bool] = {}
    makes: str = ""


class PolicySpec(_Strict):
    """Who chooses the next action. `share`: on how many of the trials the hybrid asks its planner at first; `adapt`: whether that follows
    what the planner's choices bring. `opening: false` leaves out the trials that every policy begins with. `longer`: once the best model has trained as long as
    the grid lets it, training for twice as long is offered, too, and so on."""

    name: str = "hybrid"
    share: float = Field(default=0.3, ge=0, le=1)
    adapt: bool = True
    opening: bool = True
    longer: bool = False
    script: list[ScriptStep] = []


class BudgetSpec(_Strict):
    """The search ends at whichever of these comes first: trials, minutes of work, minutes of steps (of the GPU, where there is one),
    tokens of the planner, GiB that the run writes. The minutes have room for the final evaluation, as far as the run has seen
    how long one takes, and those of work for baselines and replicates."""

    trials: int = Field(default=20, ge=1, le=MOST_TRIALS)
    wall_minutes: float | None = Field(default=None, gt=0, le=MOST_MINUTES)
    step_minutes: float | None = Field(default=None, gt=0, le=MOST_MINUTES)
    planner_tokens: int | None = Field(default=None, ge=1, le=10**12)
    disk_gib: float | None = Field(default=None, gt=0, le=MOST_COUNT)
    baselines: float = Field(default=0.5, ge=0, le=10)
    """Share of the search's time that goes, after it, to what its winner is compared with; the wall minutes have room for it. 0: none."""
    replicates: float = Field(default=0.25, ge=0, le=10)
    """The same for doing the best pipelines again with other seeds."""
    promotion: float = Field(default=1 / 3, ge=0, lt=1)
    """The last share of the search, of its trials or its time, in which its best pipelines train for longer. 0: none."""
    keep_free_mib: float = Field(default=64, ge=1, le=MOST_COUNT)
    """What stays free on the run's disk: with less, the run pauses before its next trial."""


class StepsSpec(_Strict):
    """Minutes that a step may take (no limit when not given), and without a sign of progress before that is reported; `on_stall: stop`
    then ends the step."""

    checkpoint_minutes: float = Field(default=10, gt=0, le=MOST_MINUTES)
    """Between two checkpoints of a step that trains."""
    limit_minutes: float | None = Field(default=None, gt=0, le=MOST_MINUTES)
    stall_minutes: float = Field(default=30, gt=0, le=MOST_MINUTES)
    on_stall: Literal["report", "stop"] = "report"


class GenerationSpec(_Strict):
    """What generates answers: for scores, and in actions that sample. `vllm` in an environment of its own, started for a step and ended with
    it; `auto` takes it on a GPU, for bases of 1 billion parameters or more, where there is one. A run keeps what it began with.

    `executable`: the `vllm` command or a Python that has it; `arguments`: more flags; `gpu_memory_utilization`: its share of the GPU.
    """

    backend: Literal["auto", "transformers", "vllm"] = "auto"
    executable: str = ""
    arguments: tuple[str, ...] = ()
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)

    @field_validator("arguments")
    @classmethod
    def _free(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if taken := taken_flag(words):
            raise ValueError(f"can't have {taken}: the program decides it")
        return words


class ContaminationSpec(_Strict):
    """What becomes of training rows that a task's rows stand in: those that ask the same (`exact`), and those that ask
    nearly the same or share 13 words in a row (`ngram`). `block`: a run
    does not start; `report`: `check` tells, and what is trained is as it is."""

    exact: Literal["block", "report"] = "report"
    ngram: Literal["block", "report"] = "report"


class Profile(_Strict):
    """One search."""

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)  # NumPy takes no larger one
    models: dict[Name, ModelSpec] = Field(min_length=1)
    datasets: dict[Name, DatasetSpec] = Field(min_length=1)
    tasks: dict[Name, TaskSpec] = Field(min_length=1)
    objective: ObjectiveSpec
    actions: dict[str, dict[str, ParamSpec] | None] = Field(min_length=1)
    policy: PolicySpec = PolicySpec()
    planner: PlannerSettings | None = None
    budget: BudgetSpec = BudgetSpec()
    mode: Literal["read-only", "ask", "ask-risky", "auto"] = "ask"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    verify: Literal["auto", "always"] = "auto"
    """`always`: hash every input at each look; `auto`: above 2 GiB only when size, times or inode have changed."""
    steps: StepsSpec = StepsSpec()
    contamination: ContaminationSpec = ContaminationSpec()
    generation: GenerationSpec = GenerationSpec()

    def search_digest(self) -> str:
        """Digest of what makes two runs the same search: all but what may change on resume (`OUTSIDE`)."""
        plain = self.model_dump(mode="json", exclude=set(OUTSIDE))
        if not self.policy.longer:
            del plain["policy"]["longer"]
        for step in plain["policy"]["script"]:
            if not step["makes"]:
                del step["makes"]
        if not self.objective.keep:
            del plain["objective"]["keep"]
        if not self.objective.per_hour:
            del plain["objective"]["per_hour"]
        # The digests of models and datasets say how those were read. Profiles of the first versions don't know the other keys.
        for section, keys in LATER.items():
            for spec in plain[section].values():
                for key, default in keys.items():
                    if default is ... or spec[key] == default:
                        del spec[key]
        return digest(plain)


OUTSIDE = ("budget", "mode", "verify", "steps", "contamination", "generation")
"""Sections of a profile that say nothing of what is searched."""
LATER: dict[str, dict[str, Any]] = {
    "models": {"chat_template": ..., "base": ...},
    "datasets": {"answers": ..., "columns": ...},
    "tasks": {"think": "strip", "thinking": None, "generation": "neutral", "judge": None},
}
"""Keys that came after the first version, with the value that says nothing of what is searched; `...`: none does."""


def _read(path: Path) -> tuple[Any, yaml.Node | None]:
    try:
        if regular(path).stat().st_size > MAX_BYTES:
            raise LamdatuiError(f"a profile is at most {MAX_BYTES // 1024} KiB", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LamdatuiError("no such profile", where=str(path), fix="see `lamdatui profiles`") from error
    except UnicodeDecodeError as error:
        raise LamdatuiError(f"can't read the profile: not UTF-8 at byte {error.start}", where=str(path)) from error
    except OSError as error:
        raise LamdatuiError(f"can't read the profile: {error.strerror}", where=str(path)) from error
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        what, fix = told(error)
        raise LamdatuiError(f"not YAML of a profile: {what}", where=where, fix=fix) from error


def _line(node: yaml.Node | None, location: tuple[Any, ...]) -> int | None:
    """Line (from 1) of the deepest part of `location` that the file has."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = _line_of(pair[0]), pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _line_of(node)
    return line


def _line_of(node: Any) -> int:
    return node.start_mark.line + 1


_FIELDS: dict[str, type[BaseModel]] = {
    "models": ModelSpec,
    "datasets": DatasetSpec,
    "tasks": TaskSpec,
    "rows": RowsSpec,
    "judge": JudgeSpec,
    "objective": ObjectiveSpec,
    "actions": ParamSpec,
    "policy": PolicySpec,
    "script": ScriptStep,
    "planner": PlannerSettings,
    "budget": BudgetSpec,
    "steps": StepsSpec,
    "contamination": ContaminationSpec,
    "generation": GenerationSpec,
}


def _override(data: Any, text: str) -> None:
    """Apply one `--set a.b.c=value` (the value is YAML) to the parsed profile."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise LamdatuiError(f"--set takes key=value, not {text[:200]!r}")
    target = data
    *parents, last = key.split(".")
    for part in parents:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise LamdatuiError(f"--set {key}: {part} is not a section")
    try:
        target[last], _ = parse_yaml(value)
    except yaml.YAMLError as error:
        what, fix = told(error)
        raise LamdatuiError(f"--set {key[:200]}: not YAML of a profile: {what}", fix=fix) from error


def _absolute(text: str, folder: Path) -> str:
    if text.startswith("lm_eval:") and ".y" in text.partition("?")[0]:
        name, mark, options = text.removeprefix("lm_eval:").partition("?")
        return f"lm_eval:{_absolute(name, folder)}{mark}{options}"
    if text.startswith(("catalogue:", "reasoning-gym:", "lm_eval:", "builtin:")):
        return text
    try:
        path = Path(text).expanduser()
        return str(path if path.is_absolute() else (folder / path).resolve())
    except (OSError, RuntimeError) as error:  # links in a circle, or nobody's home
        raise LamdatuiError(f"not a path: {error}", where=text) from error


def _place_planner(planner: dict[str, Any], folder: Path) -> None:
    """Paths of a planner section as absolute ones. A model of vLLM may be a name instead, a command one that PATH has."""
    model, executable = planner["model"], planner["executable"]
    is_path = model.startswith(("catalogue:", "/", "./", "../", "~")) or os.path.isdir(folder / model)
    if model and (planner["backend"] in ("llamacpp", "llama-cpp-python") or (planner["backend"] == "vllm" and is_path)):
        planner["model"] = _absolute(model, folder)
    if "/" in executable:
        planner["executable"] = _absolute(executable, folder)


def load_profile(path: Path, overrides: list[str] | None = None) -> Profile:
    """Read and validate a profile; relative paths are taken from the profile's own folder.

    Raises LamdatuiError that names the file, the line, the field and the nearest valid word.
    """
    data, node = _read(path)
    if not isinstance(data, dict):
        raise LamdatuiError("a profile is a mapping of sections", where=str(path))
    for text in overrides or []:
        _override(data, text)
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        raise explain(error, path, lambda place: _line(node, place), _FIELDS, Profile) from error
    except LamdatuiError as error:
        # Settings of the planner that can't work together.
        field = re.search(r"planner\.(\w+)", error.what)
        line = _line(node, ("planner", field[1]) if field else ("planner",))
        raise LamdatuiError(error.what, where=f"{path}, line {line}" if line else str(path), fix=error.fix) from error
    _cross_check(profile, path, node)
    folder = path.resolve().parent
    plain = profile.model_dump(mode="json")
    for section in ("models", "datasets", "tasks"):
        for spec in plain[section].values():
            spec["path"] = _absolute(spec["path"], folder)
    for spec in plain["models"].values():
        spec["base"] = spec["base"] and _absolute(spec["base"], folder)
    judges = [spec["judge"] for spec in plain["tasks"].values() if spec["judge"]]
    for spec in judges:
        spec["model"] = _absolute(spec["model"], folder)
    for spec in [*plain["models"].values(), *judges]:
        if "/" in spec["chat_template"] or spec["chat_template"].endswith(SUFFIX):
            spec["chat_template"] = _absolute(spec["chat_template"], folder)
    if "/" in plain["generation"]["executable"]:
        plain["generation"]["executable"] = _absolute(plain["generation"]["executable"], folder)
    if plain["planner"]:
        _place_planner(plain["planner"], folder)
    if plain["planner"] and plain["planner"]["adapter"]:
        plain["planner"]["adapter"] = _absolute(plain["planner"]["adapter"], folder)
    return Profile.model_validate(plain)


def is_name(name: str) -> bool:
    """Whether a model, dataset or task may be called so: lines of logs have the name in them, and folders of steps."""
    return 0 < len(name) <= MOST_NAME and name.isprintable() and ".." not in name.split("/")


def _cross_check(profile: Profile, path: Path, node: yaml.Node | None) -> None:
    def wrong(location: tuple[str, ...], what: str, fix: str) -> LamdatuiError:
        line = _line(node, location)
        return LamdatuiError(what, where=f"{path}, line {line}" if line else str(path), fix=fix)

    def fail(location: tuple[str, ...], what: str, word: str, known: list[str]) -> LamdatuiError:
        close = difflib.get_close_matches(word, known, n=1)
        return wrong(location, what, f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")

    for task in profile.objective.weights:
        if task not in profile.tasks:
            raise fail(("objective", "weights", task), f"objective: no task named {task!r}", task, list(profile.tasks))
    for task in profile.objective.keep:
        if task not in profile.tasks:
            raise fail(("objective", "keep", task), f"objective: no task named {task!r}", task, list(profile.tasks))
    for section in ("models", "datasets", "tasks"):
        for name in getattr(profile, section):
            if not is_name(name):
                what = f"{section}: {name[:MOST_NAME]!r} is no name"
                raise wrong(
                    (section, name), what, f"1 to {MOST_NAME} printable characters, of which folders can be named: no .."
                )
    for section in ("models", "datasets"):
        for name in getattr(profile, section):
            if re.fullmatch(r"[md]\d+", name):
                raise fail((section, name), f"{name!r} is what the result of a trial is called", "", ["choose another name"])
    for name, spec in profile.tasks.items():
        if spec.judge and spec.scorer not in JUDGED:
            fix = f"drop judge, or take the scorer {' or '.join(JUDGED)}"
            raise wrong(("tasks", name, "judge"), f"tasks.{name}: the scorer {spec.scorer} asks no judge", fix)
        if spec.judge and "://" in spec.judge.model:
            what = f"tasks.{name}.judge: a judge is a folder on this machine, not an address"
            raise wrong(("tasks", name, "judge", "model"), what, "fetch it first: lamdatui models fetch")
    both = set(profile.models) & set(profile.datasets)
    if both:
        name = sorted(both)[0]
        raise fail(("datasets", name), f"{name!r} names a model and a dataset", "", ["another name for one of them"])
    if profile.policy.name == "lamdagent" and profile.planner is None:
        raise fail(("policy",), "the policy lamdagent needs a planner", "", ["add a planner section, or use policy random"])


def dump_profile(profile: Profile) -> str:
    """The profile as YAML, for the frozen copy in a run directory."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_profile(text: str) -> Path:
    """A profile from a path, or by name from the profile folders. Raises LamdatuiError with the nearest name."""
    from lamdatui.config.resources import files, project, untrusted

    known = files("profiles")
    if text in known:
        # A file of the current folder that is called so has to be asked for as ./NAME.
        return known[text][1]
    try:
        path = Path(text).expanduser()
        if path.suffix in (".yaml", ".yml") or path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a name that is too long, nobody's home
        raise LamdatuiError(f"not a profile's path: {error}", where=text[:200]) from error
    close = difflib.get_close_matches(text, known, n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"known profiles: {', '.join(sorted(known))}"
    if (project() / "profiles" / f"{text}.yaml").is_file() and (note := untrusted()):
        fix = note
    raise LamdatuiError(f"no profile named {text!r}", fix=fix)
