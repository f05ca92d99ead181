"""`reproduce/` of an exported model: what `reproduce.py` beside it needs to make the same weights without lamdatui.

Each step that made a model is run dry once more: that ends where its trainer has its rows and its configuration, and these are written. What made
the rows (data actions, answers that were sampled) needs no repetition then.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib.metadata
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import file_digest, read_json, read_record, write_json
from lamdatui.domain.lineage import lineage
from lamdatui.domain.objects import STORED, ModelObject, object_to_json
from lamdatui.domain.state import RunState
from lamdatui.export.rebuild import rebuild
from lamdatui.export.recipe import baseline_of
from lamdatui.step.files import CONFIG, FOLDERS, REQUEST, ROWS, attempt_directory, read_outcome, write_request
from lamdatui.step.request import ModelReference, reference
from lamdatui.step.rerun import promised, request_again
from lamdatui.store.artifacts import Store

FOLDER = "reproduce"
PLAN = "plan.json"
SCRIPT = "reproduce.py"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "mergekit", "safetensors", "tokenizers", "datasets")
PLACES = ("output_dir", "logging_dir", "run_name")
"""Arguments of a trainer that are of this machine."""
TRAINERS = ("SFTTrainer", "EncodedDPOTrainer", "EncodedKTOTrainer", "OrpoTrainer", "CpoTrainer")
"""Of TRL, those that `reproduce.py` knows; their rows are all that they need."""
REASONS = {
    "reinforcement": "its rewards are given by lamdatui's scorers; lamdatui step does it again",
    "distillation": "it samples answers while it trains; lamdatui step does it again",
}
"""Family of an action → why nothing but lamdatui makes the same weights."""


def write(
    run_dir: Path,
    state: RunState,
    model: ModelObject,
    store: Store,
    staged: Path,
    say: Callable[[str], None],
    *,
    form: str = "full",
) -> list[str]:
    """Write the script and its folder into `staged`; the steps that it can't do, in words. `form` as in `export_model`. Raises LamdatuiError."""
    folder = staged / FOLDER
    folder.mkdir()
    shutil.copyfile(Path(__file__).with_name(SCRIPT), staged / SCRIPT)
    bases = _bases(state)
    named = {base["path"]: f"base:{name}" for name, base in bases.items()}
    steps = []
    for name, action, number in _actions(state, model):
        number_of = f"{len(steps) + 1:02}-{name}"
        told: dict[str, Any] = {
            "makes": name,
            "type": action["type"],
            "seed": action["seed"],
            "how": "",
            "folder": f"{FOLDER}/{number_of}",
        }
        told["reason"] = _reason(state, action)
        if not told["reason"]:
            say(f"noting how {name} was made ({action['type']})")
            for each in (each for inputs in action["inputs"].values() for each in inputs if each in state.pool.items):
                rebuild(run_dir, state, state.pool.items[each], store, say)
            told |= _how(run_dir, state, action, number, folder / number_of, named)
        steps.append(told)
        named[f"{STORED}{action['digest']}"] = f"step:{name}"
    result = {"form": form, **_placed(reference(model, state.pool), named)}
    needed = {base for base in bases if f'"base:{base}"' in json.dumps([steps, result])}
    plan = {
        "model": model.id,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "dtype": state.device.get("dtype", "float32"),
        "bases": {name: {**bases[name], "files": _files(Path(bases[name]["path"]))} for name in bases if name in needed},
        "steps": steps,
        "result": result,
    }
    write_json(folder / PLAN, plan)
    return [f"{step['makes']} ({step['type']}): {step['reason']}" for step in steps if step["reason"]]


def _actions(state: RunState, model: ModelObject) -> Iterator[tuple[str, Mapping[str, Any], int | None]]:
    """(name of what it made, action, trial) of the steps that made models, in order."""
    if baseline := baseline_of(state, model.id):
        yield model.id, baseline.get("actions", [{}])[-1], None
        return
    for trial in lineage(state, model.id):
        if trial.model and trial.action:
            yield trial.model, trial.action, trial.number


def _bases(state: RunState) -> dict[str, dict[str, Any]]:
    """Name → folder of what the profile names; the adapters of its models are named after them."""
    found = {}
    for model in state.pool.models:
        if model.trial is None:
            found[model.id] = {"path": model.weights}
            for index, adapter in enumerate(model.adapters):
                found[f"{model.id}.adapter{index}"] = {"path": adapter}
    return found


def _files(folder: Path) -> dict[str, str]:
    """sha256 of the weights and configurations of a folder."""
    names = [*folder.glob("*.safetensors"), *folder.glob("config.json"), *folder.glob("adapter_config.json")]
    return {path.name: file_digest(path) for path in sorted(names)}


def _placed(found: ModelReference, named: Mapping[str, str]) -> dict[str, Any]:
    """A model's weights and adapters as `base:NAME` and `step:NAME`. Raises KeyError for what nothing in the plan makes."""
    return {"weights": named[found["weights"]], "adapters": [named[adapter] for adapter in found["adapters"]]}


def _reason(state: RunState, action: Mapping[str, Any]) -> str:
    """Why `reproduce.py` can't do an action, as far as that is known without its step; else empty."""
    family = str((state.types.get(action["type"]) or {}).get("family", ""))
    if family in REASONS:
        return REASONS[family]
    if action["params"].get("method") == "qlora":
        return "its base is in 4 bits while it trains"
    if action["params"].get("holdout"):
        return "its rows that are held out end its training; lamdatui step does it again"
    return ""


def _how(
    run_dir: Path, state: RunState, action: Mapping[str, Any], number: int | None, folder: Path, named: Mapping[str, str]
) -> dict[str, Any]:
    """What `reproduce.py` has to know of a step, or its `reason` for not doing it. Its files are in `folder` then."""
    request = _request(run_dir, state, action, number)
    with tempfile.TemporaryDirectory(prefix="lamdatui-step-") as scratch:
        if problem := _dry_run(Path(scratch), request, run_dir.parent / "store"):
            return {"reason": problem}
        return {"threads": request["threads"], "device": request["device"], **_noted(Path(scratch), request, folder, named)}


def _request(run_dir: Path, state: RunState, action: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    """What the step was asked to do: on record where this run did it, else as it would ask for it."""
    if number is not None and state.trials[number].step:
        return request_again(state, run_dir, number)
    done = [step for step in state.steps.values() if step.digest == action["digest"] and step.status == "ok"]
    if done and (request := attempt_directory(run_dir, done[-1].key) / REQUEST).exists():
        return promised(read_record(request), state)
    known = state.pool.items
    models: dict[str, Any] = {}
    datasets: dict[str, Any] = {}
    for slot, ids in action["inputs"].items():
        found = [known[each] for each in ids]
        if all(isinstance(item, ModelObject) for item in found):
            models[slot] = [reference(state.pool.model(item.id), state.pool) for item in found]
        else:
            datasets[slot] = [object_to_json(item) for item in found]
    return {
        **{"step": "", "purpose": "trial", "trial": number, "digest": action["digest"], "action": dict(action)},
        **{"models": models, "datasets": datasets, "subject": None, "evaluations": [], "tasks": [], "small": False},
        **{"device": "cpu", "dtype": state.device.get("dtype", "float32"), "threads": 1, "always": False},
    }


def _dry_run(scratch: Path, request: dict[str, Any], store: Path) -> str:
    """Run a step dry in `scratch`; what went wrong, in words, or nothing."""
    from lamdatui.config.resources import load_registry
    from lamdatui.step.child import run_step

    own, raised = scratch / "store", list[BaseException]()
    (own / "objects").mkdir(parents=True)
    for published in (store / "objects").iterdir():
        if published.name != request["digest"]:
            (own / "objects" / published.name).symlink_to(published.absolute())
    request |= {"evaluations": [], "purpose": "remake", "store": str(own)}
    with (scratch / "log").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        write_request(scratch, request)
        run_step(scratch, load_registry(), dry_run=True, on_error=raised.append)
    if any(isinstance(error, KeyboardInterrupt) for error in raised):
        raise KeyboardInterrupt
    raised.clear()
    gc.collect()
    outcome = read_outcome(scratch) or {}
    if outcome.get("status") == "dry-run":
        return ""
    return str((outcome.get("error") or {}).get("message") or "it does not say what it runs")


def _noted(scratch: Path, request: Mapping[str, Any], folder: Path, named: Mapping[str, str]) -> dict[str, Any]:
    """How a step is done without lamdatui; its configuration and rows are written to `folder`."""
    config = read_json(scratch / CONFIG)
    runs = str(config["runs"])
    models = {each["id"]: each for slot in request["models"].values() for each in slot}
    if runs in TRAINERS:
        folder.mkdir()
        config["arguments"] = {key: value for key, value in config["arguments"].items() if key not in PLACES}
        write_json(folder / CONFIG, config)
        with (scratch / ROWS).open("rb") as rows, gzip.GzipFile(folder / f"{ROWS}.gz", "wb", mtime=0) as packed:
            shutil.copyfileobj(rows, packed)
        method = request["action"]["params"]["method"]
        kept = runs in ("EncodedDPOTrainer", "EncodedKTOTrainer") and method == "full"
        model = _placed(request["models"]["model"][0], named)
        return {"how": "trl", "method": method, "model": model, "keeps_reference": kept}
    if runs.startswith("mergekit "):
        folder.mkdir()
        folders = read_json(scratch / FOLDERS)
        write_json(folder / "mergekit.yaml", _renamed({key: config[key] for key in config if key != "runs"}, folders))
        return {"how": "mergekit", "models": {name: _placed(model, named) for name, model in models.items()}}
    if runs.startswith("PEFT "):
        folder.mkdir()
        adapters = [named[model["adapters"][-1]] for model in models.values()]
        write_json(folder / CONFIG, {**config, "adapters": adapters})
        return {"how": "peft", "weights": named[next(iter(models.values()))["weights"]], "adapters": adapters}
    return {"reason": f"it is done by {runs}, which reproduce.py does not know"}


def _renamed(value: Any, folders: Mapping[str, str]) -> Any:
    """A configuration with `model:NAME` in place of folders."""
    if isinstance(value, dict):
        return {key: _renamed(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, folders) for item in value]
    return f"model:{folders[value]}" if isinstance(value, str) and value in folders else value
