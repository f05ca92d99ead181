"""Writing an action file: what a declaration has to hold, a file to start from, and a copy of a shipped one.

`declaration_problems` is the rule book: `lamdatui actions check` and the conformance test over the shipped files use it.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import reprlib
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import finite, regular
from lamdatui.config.reading import SECONDS, examine
from lamdatui.domain.actions import FAMILIES, ActionType, BoundType, Call, Estimate, Param, Registry, Slot, Value
from lamdatui.domain.declarations import faults
from lamdatui.domain.objects import FORMATS, DatasetObject, ModelObject

HEAVY = ("accelerate", "datasets", "mergekit", "peft", "textual", "torch", "transformers", "trl")
"""What listing the action types must not import: it takes seconds, and the console lists them too."""
CHECK_SECONDS = 6 * SECONDS
"""`check` and `estimate` are tried on many sample calls."""
DECLARED = ("name", "summary", "family", "source", "slots", "params")


# --- what a declaration has to hold ----------------------------------------------------------------------------------


def declaration_problems(bound: BoundType) -> list[str]:
    """What is wrong with a declaration, one plain sentence each; empty when it is complete and consistent.

    `check` and `estimate` are tried on made-up objects: they may refuse a call, but not raise.
    """
    kind = bound.type
    missing = [name for name in DECLARED if not hasattr(kind, name)]
    if missing:
        return [f"{name} is missing" for name in missing]
    if wrong := faults(kind):
        return wrong
    problems = [*_header(kind), *_names(bound)]
    for slot in kind.slots:
        problems += [f"slot {slot.name}: {text}" for text in _slot(slot)]
    for param in bound.params:
        problems += [f"hyperparameter {param.name}: {text}" for text in _param(param)]
    # Sample calls are made from the declaration, so they need a sound one.
    return problems or list(dict.fromkeys(_answers(bound)))


def _header(kind: ActionType) -> Iterator[str]:
    if (text := name_problem(kind.name)) is not None:
        yield f"name: {text}"
    if not 10 < len(kind.summary) < 100:
        yield f"summary: one line of 11 to 99 characters, not {len(kind.summary)}"
    if "\n" in kind.summary:
        yield "summary: one line, not several"
    if not kind.source.strip():
        yield "source: name the paper (with its arXiv id) or the library"
    if kind.family not in FAMILIES:
        yield f"family: one of {', '.join(FAMILIES)}, not {kind.family!r}"
    if kind.output not in ("model", "dataset"):
        yield f"output: model or dataset, not {kind.output!r}"
    if type(kind.version) is not int or kind.version < 1:
        yield f"version: a whole number from 1, not {kind.version!r}"
    needed = [slot for slot in kind.slots if slot.least > 0]
    if not needed:
        yield "slots: at least one input that is not optional"
    elif kind.output == "model" and not any(slot.takes_models and not slot.base_only for slot in needed):
        yield "slots: a model can only be made from a model; add a slot of kind model or models"


def name_problem(name: Any) -> str | None:
    """Why `name` can't be an action type's name; None when it can."""
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        return f"letters, digits and underscores, beginning with a letter, not {name!r}"
    if name != name.lower() or name.startswith("_"):
        return f"small letters, and no underscore in front, not {name!r}"
    return None


def _names(bound: BoundType) -> Iterator[str]:
    names = [slot.name for slot in bound.type.slots] + [param.name for param in bound.params]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"the name {name} is used twice among slots and hyperparameters"
    for name in names:
        if not name.isidentifier():
            yield f"{name!r} is not an identifier"


def _slot(slot: Slot) -> Iterator[str]:
    kinds = ("model", "models", "dataset", "datasets")
    if slot.kind not in kinds:
        yield f"kind is one of {', '.join(kinds)}, not {slot.kind!r}"
        return
    if not slot.help:
        yield "no help text"
    if not slot.takes_models and not slot.formats:
        yield f"say which formats it takes, of {', '.join(FORMATS)}"
    if slot.takes_models and slot.formats:
        yield "formats are for datasets"
    if unknown := [name for name in slot.formats if name not in FORMATS]:
        yield f"formats are {', '.join(FORMATS)}, not {unknown[0]!r}"
    if not slot.takes_models and slot.base_only:
        yield "base_only is for models"
    if not 0 <= slot.least <= slot.most or slot.most < 1:
        yield f"takes {slot.least} to {slot.most} objects: least is at most most, and most at least 1"
    if slot.kind in ("model", "dataset") and slot.most != 1:
        yield f"a slot of kind {slot.kind} takes one object; use kind {slot.kind}s for more"


def _param(param: Param) -> Iterator[str]:
    types = get_args(Param.__annotations__["type"]) or ("float", "int", "str", "bool")
    if param.type not in types:
        yield f"type is one of {', '.join(types)}, not {param.type!r}"
        return
    if not param.help:
        yield "no help text"
    for word, value in [("default", param.default), *(("choice", choice) for choice in param.choices)]:
        try:
            parsed = param.parse(value)
        except ValueError as error:
            yield f"the {word} {value!r} is not legal: {error}"
            continue
        if parsed != value or type(parsed) is not type(value):
            yield f"the {word} {value!r} is not of type {param.type}"
    if param.choices and param.default not in param.choices:
        yield f"the default {param.default!r} is not in the search grid"
    if len(set(param.choices)) != len(param.choices):
        yield "the search grid has a value twice"
    if param.type in ("int", "float"):
        if param.low is None or param.high is None:
            yield "a number needs its legal range: low and high"
        elif not param.low < param.high:
            yield f"low is below high, not {param.low:g} to {param.high:g}"
        if param.allowed:
            yield "allowed is for text; a number has low and high"
    elif param.low is not None or param.high is not None:
        yield "low and high are for numbers"
    if param.type == "str" and not param.allowed:
        yield "text needs its legal words: allowed"


def _answers(bound: BoundType) -> Iterator[str]:
    for told, call in sample_calls(bound):
        try:
            reasons = bound.type.check(call)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (somebody's file may raise anything; it becomes a finding)
            yield f"check() raised {type(error).__name__} {told}: {error}"
        else:
            if not isinstance(reasons, list) or not all(isinstance(reason, str) and reason for reason in reasons):
                yield f"check() returns a list of sentences, not {_brief(reasons)}"
        try:
            cost = bound.type.estimate(call)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (as above)
            yield f"estimate() raised {type(error).__name__} {told}: {error}"
            continue
        if not isinstance(cost, Estimate):
            yield f"estimate() returns an Estimate, not {type(cost).__name__}"
            continue
        for name in ("seconds", "memory_bytes", "disk_bytes"):
            value = getattr(cost, name)
            if value is not None and ((number := finite(value)) is None or number < 0):
                yield f"estimate(): {name} is a number from 0, or None, not {_brief(value)}"


def _brief(value: object) -> str:
    """A value of somebody's code in a few words."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 (its own, or an integer of thousands of digits)
        return f"something of type {type(value).__name__}"


def sample_calls(bound: BoundType) -> Iterator[tuple[str, Call]]:
    """(in words, call) on made-up objects: fewest and most inputs, both devices, each word and grid value once."""
    defaults = bound.defaults()
    yield "on sample objects", _sample(bound, defaults, "cpu", fewest=True)
    yield "on a GPU", _sample(bound, defaults, "cuda", fewest=False)
    yield "on models of two kinds", _sample(bound, defaults, "cpu", fewest=False, mixed=True)
    for param in bound.params:
        values: tuple[Value, ...] = (True, False) if param.type == "bool" else (*param.choices, *param.allowed)
        for value in dict.fromkeys(values):
            if value != param.default:
                yield f"with {param.name}={value}", _sample(bound, {**defaults, param.name: value}, "cpu", fewest=False)


def _sample(bound: BoundType, params: dict[str, Value], device: str, *, fewest: bool, mixed: bool = False) -> Call:
    models: dict[str, tuple[ModelObject, ...]] = {}
    datasets: dict[str, tuple[DatasetObject, ...]] = {}
    for slot in bound.type.slots:
        count = slot.least if fewest else min(slot.most, max(slot.least, 1) + 1)
        if slot.takes_models:
            models[slot.name] = tuple(_model(slot, index, mixed) for index in range(count))
        else:
            datasets[slot.name] = tuple(_dataset(slot, index) for index in range(count))
    return Call(params, models, datasets, device)


def _model(slot: Slot, index: int, mixed: bool) -> ModelObject:
    other = mixed and index > 0
    return ModelObject(
        id=f"{slot.name}{index}",
        digest=f"{slot.name}-{index}",
        architecture="PhiForCausalLM" if other else "LlamaForCausalLM",
        layout="two" if other else "one",
        weights="/no/such/model",
        adapters=() if slot.base_only or index else ("store:adapter",),
        parameters=135_000_000,
        trial=None if slot.base_only else index + 1,
        tokenizer="two" if other else "one",
    )


def _dataset(slot: Slot, index: int) -> DatasetObject:
    form: Any = slot.formats[index % len(slot.formats)]
    return DatasetObject(f"{slot.name}{index}", f"{slot.name}-{index}", form, 1000, "/no/such/file.jsonl", chars=400)


# --- checking files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """One action type, or a file that could not be loaded (then `name` is the file's): what is wrong with it."""

    name: str
    where: str
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{'bad' if self.problems else 'ok':4}  {self.name:22} {self.where}"]
        return "\n".join(lines + [f"{'':6}- {problem}" for problem in self.problems])


def check_file(file: Path, only: str | None = None) -> list[Checked]:
    """Findings about each type of a file (or about one of them). Whatever the file does, it does it in another process."""
    return _examined("check", file.name, str(file), only)


def _examined(mode: str, name: str, place: str, only: str | None) -> list[Checked]:
    (report,) = examine([(mode, "checked", place)], CHECK_SECONDS)
    if "problem" in report:
        return [Checked(name, place, [f"can't be loaded: {report['problem']}"])]
    found = [Checked(**item) for item in report["checked"]]
    return [item for item in found if only in (None, item.name)]


def checked(kinds: Iterable[ActionType], where: str) -> list[Checked]:
    """Findings about types that have just been loaded into a fresh process, and about what that has imported."""
    heavy = sorted(set(HEAVY) & set(sys.modules))
    told = [f"loading the file imports {', '.join(heavy)}: import inside run(), or under TYPE_CHECKING"] if heavy else []
    found = []
    for kind in kinds:
        params = getattr(kind, "params", ())
        bound = BoundType(kind, tuple(params) if isinstance(params, tuple | list) else ())
        found.append(Checked(str(getattr(kind, "name", Path(where).stem))[:100], where, [*declaration_problems(bound), *told]))
    return found


def check(words: list[str]) -> list[Checked]:
    """Findings about action types by name or by file; about every file of the folders when none is named.

    Raises LamdatuiError for what is neither an action type nor a file.
    """
    from lamdatui.config.resources import files, load_registry

    if not words:
        return [item for _, file in sorted(files("actions").values()) for item in check_file(file)]
    found: list[Checked] = []
    registry: Registry | None = None
    for word in words:
        path = Path(word).expanduser()
        if path.suffix == ".py" or "/" in word:
            if not path.is_file():
                raise LamdatuiError(
                    "no such action file", where=str(path), fix="name a file, or an action type (`lamdatui actions`)"
                )
            found += check_file(path.resolve())
            continue
        known = files("actions")
        registry = registry or load_registry()
        if word not in registry.types and word in known:
            # The file of that name could not be loaded, or declares types of other names.
            found += check_file(known[word][1])
            continue
        bound = registry.get(word)
        found += _check_type(bound, known)
    return found


def _check_type(bound: BoundType, known: dict[str, tuple[str, Path]]) -> list[Checked]:
    file = next((file for origin, file in known.values() if f"{origin}: {file.name}" == bound.origin), None)
    if file is None:
        # From an installed package: there is no drop-in file to load afresh.
        return _checked_points(bound)
    return check_file(file, only=bound.name)


def _checked_points(bound: BoundType) -> list[Checked]:
    from lamdatui.config.resources import GROUP

    points = [point for point in entry_points(group=GROUP) if f"package: {point.value}" == bound.origin]
    return [item for point in points for item in _examined("check-point", point.name, point.value, bound.name)]


# --- a file to start from --------------------------------------------------------------------------------------------

TEMPLATE = '''\
"""@NAME@: fine-tuning on prompts and answers, a working start. Try it: `lamdatui actions check @NAME@`."""

from lamdatui import costs
from lamdatui.actions import TRAINING_PARAMS, ActionType, Param, Slot, adapter_problems


class @CLASS@(ActionType):
    # What people, the planner and the docs see. Raise `version` when run() does other work than before: results are
    # kept under a digest of the name, the version, the inputs, the hyperparameters, the seed and the dtype.
    name = "@NAME@"
    version = 1
    summary = "fine-tune a model on a dataset of prompts and answers"
    family = "supervised"  # or preference, reinforcement, distillation, merge, data
    source = "TRL SFTTrainer"  # the paper (with its arXiv id) or the library
    # The inputs, of kind model, models, dataset or datasets; one for data names the formats that it takes.
    slots = (Slot("model", "model", "the model to train"), Slot("dataset", "dataset", "prompts and answers", formats=("sft",)))
    # The hyperparameters: name, type, default, help, the values that a search tries, and what a person may type.
    params = (
        Param("learning_rate", "float", 2e-4, "peak learning rate", (1e-4, 2e-4, 5e-4), low=1e-8, high=1.0),
        Param("max_steps", "int", 60, "optimiser steps", low=1, high=1_000_000, unit="steps"),
        Param("batch_size", "int", 8, "rows in one optimiser step", low=1, high=4096, unit="rows"),
        *TRAINING_PARAMS,  # method (lora, dora, rslora, qlora or full) and lora_rank
    )

    # Reasons why a call can't work, in plain words, before anyone is asked. It sees the objects, not their files.
    def check(self, call):
        return adapter_problems(call)

    # What it will cost in seconds, memory and disk; `Estimate()` says that nobody knows.
    def estimate(self, call):
        return costs.training(call, rows=call.params["max_steps"] * call.params["batch_size"])

    # The work, in a process of its own. Heavy imports belong in here: the list of actions is read all the time.
    def run(self, step):
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        p = step.params
        tokenizer, data = step.load_tokenizer("model"), step.load_dataset("dataset")
        config = SFTConfig(
            **step.trainer_arguments(full=p["method"] == "full"),  # seed, device, precision, logs
            **step.batch(p["batch_size"]),  # the batch, in parts that fit in memory
            learning_rate=p["learning_rate"],
            max_steps=p["max_steps"],
            max_length=step.sequence_length(data, tokenizer),
        )
        model = step.load_for_training("model", p["method"])
        lora = step.adapter(p["method"], p["lora_rank"])  # None for full
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, peft_config=lora)
        step.train(trainer)  # a dry run prints the configuration and ends here
        # Every step ends with one of finish_training, finish_directory, finish_adapter, finish_dataset.
        step.finish_training(trainer.model, tokenizer)


ACTION = @CLASS@()  # or ACTIONS = (One(), Two())
'''


def new_file(name: str, like: str | None = None) -> Path:
    """Write an action file for the user to change; its path. Nothing that is there is overwritten.

    Raises LamdatuiError for a name that can't be one or is taken, and for a type that has no shipped file to copy.
    """
    from lamdatui.config.resources import files, load_registry

    if (problem := name_problem(name)) is not None:
        raise LamdatuiError(f"an action's name has {problem}")
    folder = paths.config_dir() / "actions"
    target = folder / f"{name}.py"
    if target.exists():
        raise LamdatuiError("the file exists already", where=str(target), fix="choose another name, or edit that file")
    registry, known = load_registry(), files("actions")
    if name in registry.types:
        raise LamdatuiError(
            f"there is an action type {name!r} already", where=registry.types[name].origin, fix="choose another name"
        )
    if name in known:
        # A user's file of that name would take the place of the whole file.
        raise LamdatuiError(f"there is a file {name}.py already", where=str(known[name][1]), fix="choose another name")
    if like is None:
        text = TEMPLATE.replace("@NAME@", name).replace("@CLASS@", class_name(name))
    else:
        text = copy_of(shipped_file(registry, like), like, name)
    folder.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as handle:
        handle.write(text)
    return target


def class_name(name: str) -> str:
    """`my_action` as a class is called: MyAction."""
    return "".join(part.capitalize() for part in name.split("_"))


def shipped_file(registry: Registry, like: str) -> Path:
    """The file that ships an action type. Raises LamdatuiError when none does."""
    from lamdatui.config.resources import builtin

    bound = registry.get(like)
    origin, _, file_name = bound.origin.partition(": ")
    if origin != "builtin":
        raise LamdatuiError(f"{like} is not a shipped action type", where=bound.origin, fix="copy its file yourself")
    return builtin("actions") / file_name


def copy_of(file: Path, like: str, name: str) -> str:
    """The text of a shipped file with the type `like` renamed and the file's other types left out.

    Raises LamdatuiError when the file does not declare the type as a class with its name written out.
    """
    text = regular(file).read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    cls = next((node for node in classes.values() if like in _named(node)), None)
    if cls is None:
        raise LamdatuiError(f"{like} is not written out as a class of its own", where=str(file), fix="copy the file yourself")
    row = _named(cls)[like] - 1
    lines[row] = re.sub(rf"""(["']){like}\1""", f'"{name}"', lines[row], count=1)
    needed = {cls.name}
    for node in reversed(classes.values()):  # what a class stands on is above it
        if node.name in needed:
            needed |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    parts, end = [], 0
    for node in tree.body:
        start, end = end, node.end_lineno or len(lines)
        other = isinstance(node, ast.ClassDef) and _named(node) and node.name not in needed
        final = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("ACTION", "ACTIONS")
        if not other and not final:
            parts.append("\n".join(lines[start:end]))
    note = f"# Started from the shipped action type {like}: under another name it is a type of its own, with its own digests."
    parts.insert(1 if ast.get_docstring(tree) else 0, note)
    return _renamed("\n".join([*parts, "", "", f"ACTION = {cls.name}()", ""]), cls.name, class_name(name))


def _named(cls: ast.ClassDef) -> dict[str, int]:
    """The text that a class gives as its `name`, and the line."""
    found = {}
    for node in cls.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str) and any(getattr(target, "id", "") == "name" for target in node.targets):
            found[node.value.value] = node.value.lineno
    return found


def _renamed(text: str, old: str, new: str) -> str:
    """Python source with one identifier renamed, where the new one is free; texts and comments stay."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    if any(token.string == new for token in tokens if token.type == tokenize.NAME):
        return text
    lines = text.splitlines(keepends=True)
    for token in reversed(tokens):
        if token.type == tokenize.NAME and token.string == old:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = f"{lines[row][:column]}{new}{lines[row][column + len(old) :]}"
    return "".join(lines)
