"""What mergekit's merge methods take, as plain data: listing the merge actions must import neither mergekit nor torch.

The specs are mergekit's own (`mergekit.merge_methods.registry`). For the version that lamdatui is made with they are shipped as
`mergekit-VERSION.json` beside this file; for another one they are read once, in a process of its own
(`python -m lamdatui.actionkit.mergespecs`), and kept in the cache folder. So a new mergekit brings its new methods along.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from lamdatui.base import paths
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import read_json, write_json
from lamdatui.base.network import fence

SECONDS = 300
"""The process that reads the specs imports torch: seconds, or a minute where the disk is slow."""
FORMAT = 1
"""Of the JSON: a cached file of another format is made again."""
KINDS = ("float", "int", "bool", "str")


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter: `scope` is `shared` (one value), `input` (one a model) or `non_base` (one a model that is not the base)."""

    name: str
    type: str
    """`float`, `int`, `bool`, `str`, or `other` for what a hyperparameter can't be."""
    scope: str
    required: bool
    default: Any = None


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A merge method and what it can be given; numbers of inputs count the base, None is no limit."""

    name: str
    title: str
    url: str
    base: Literal["required", "optional", "forbidden", "ignored"]
    min_inputs: int
    max_inputs: int | None
    min_non_base: int | None
    max_non_base: int | None
    parameters: tuple[ParameterSpec, ...]


_failed: dict[str, LamdatuiError] = {}
"""mergekit's version → why its specs can't be read: each process asks once."""


def specs() -> list[MethodSpec]:
    """The methods of the installed mergekit, in its own order.

    Raises LamdatuiError when mergekit is not installed or its specs can't be read.
    """
    try:
        installed = version("mergekit")
    except PackageNotFoundError as error:
        raise LamdatuiError("mergekit is not installed", fix="pip install mergekit") from error
    for file in (shipped(installed), cached(installed)):
        try:
            return parse(read_json(file))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    if installed in _failed:
        raise _failed[installed]
    try:
        data = _ask(installed)
    except LamdatuiError as error:
        _failed[installed] = error
        raise
    try:
        cached(installed).parent.mkdir(parents=True, exist_ok=True)
        write_json(cached(installed), data)
    except OSError:
        pass  # a cache that can't be written to costs only the time to ask again
    return parse(data)


def shipped(installed: str) -> Path:
    """The file that lamdatui ships for a version of mergekit, if it does."""
    return Path(__file__).parent / f"mergekit-{installed}.json"


def cached(installed: str) -> Path:
    """Where the specs of another version are kept."""
    return paths.cache_dir() / f"mergekit-{installed}.json"


def parse(data: Mapping[str, Any]) -> list[MethodSpec]:
    """The specs in a JSON that `collect` made. Raises ValueError, TypeError or KeyError when it is none."""
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}, not {FORMAT}")
    return [
        MethodSpec(**{**method, "parameters": tuple(ParameterSpec(**item) for item in method["parameters"])})
        for method in data["methods"]
    ]


def _ask(installed: str) -> dict[str, Any]:
    """Read the specs in a process of its own. Raises LamdatuiError."""
    # -P: a file of the folder that the user is in must not be taken for a module of ours.
    command = [sys.executable, "-P", "-m", "lamdatui.actionkit.mergespecs"]
    here = str(Path(__file__).parent.parent.parent)
    known = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": known, "HF_HUB_OFFLINE": "1"}
    what = f"the methods of mergekit {installed} can't be read"
    fix = f"{' '.join(command)} shows why; another version of mergekit may work"
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LamdatuiError(f"{what}: {error}", fix=fix) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise LamdatuiError(f"{what}: {last}", fix=fix)
    try:
        # Imports may print: the JSON is the last line.
        data = json.loads(done.stdout.strip().splitlines()[-1])
        parse(data)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise LamdatuiError(f"{what}: {error}", fix=fix) from error
    return data


def collect() -> dict[str, Any]:
    """The specs as JSON, from mergekit itself: for a process that may import torch."""
    # By name: the module is one that must not import mergekit, and import-linter can't see that nobody calls this but the
    # process made for it.
    registry = importlib.import_module("mergekit.merge_methods.registry")
    base = importlib.import_module("mergekit.merge_methods.base")
    methods = []
    for method in registry.registered_methods():
        spec, contract = method.spec, method.spec.contract
        parameters = tuple(
            ParameterSpec(item.name, _kind(item.value_type), item.scope.value, *_default(item.default, base.MISSING))
            for item in spec.parameters
        )
        made = MethodSpec(
            name=spec.name,
            title=spec.pretty_name or spec.name,
            url=spec.reference_url or "",
            base=contract.base.value,
            min_inputs=contract.min_inputs,
            max_inputs=contract.max_inputs,
            min_non_base=contract.min_non_base,
            max_non_base=contract.max_non_base,
            parameters=parameters,
        )
        methods.append(asdict(made))
    return {"format": FORMAT, "mergekit": version("mergekit"), "methods": methods}


def _kind(annotation: Any) -> str:
    """A parameter's type as one of `KINDS`, or `other`; what else mergekit says of it (its limits) is not kept."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    name = getattr(annotation, "__name__", "")
    return name if name in KINDS else "other"


def _default(value: Any, missing: Any) -> tuple[bool, Any]:
    """(whether it must be given, its default); a default that is no JSON is left to mergekit and shown as None."""
    if value is missing:
        return True, None
    return False, value if isinstance(value, bool | int | float | str) else None


if __name__ == "__main__":
    fence()
    print(json.dumps(collect()))
