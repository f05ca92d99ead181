"""Benchmarks of lm-evaluation-harness as task files: `lm_eval:gsm8k?search=100&sealed=300`.

The harness writes every prompt itself, with its examples and in its own words; what it writes is kept as rows of a task, which the scorer `lm_eval` judges by
the harness's filters and metrics. So the model stays in memory, and a search evaluates a part of the rows.

| option | meaning |
|---|---|
| `search`, `sealed` | rows of each split, 100 and 300 if not said; a document's split is a function of its question alone |
| `shots` | examples before each question; the task's own number if not said |
| `metric`, `filter` | one of the task's; its first if not said |
| `chat` | `true`: asked by the model's chat template, examples as turns; else as plain text, as the harness does by default |

`NAME` is one of the harness's tasks or groups, or a YAML file of one's own over local files. Its data comes from the hub once, when it is fetched.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import digest, file_digest, write_atomic
from lamdatui.base.network import OFF, OFFLINE, ONLINE
from lamdatui.base.paths import cache_dir
from lamdatui.tasks.lm_eval import package

PREFIX = "lm_eval:"
VERSION = 1
"""Raise it when the same reference is to give other rows."""
OPTIONS = ("search", "sealed", "shots", "metric", "filter", "chat")
USUAL = {"search": 100, "sealed": 300}
MOST_ROWS = 1_000_000
FORM = f"write {PREFIX}NAME?search=100&sealed=300"


@dataclass(frozen=True)
class Spec:
    """A parsed reference."""

    name: str
    search: int
    sealed: int
    shots: int | None = None
    metric: str = ""
    filter: str = ""
    chat: bool = False
    asked: bool = False
    """Whether the numbers of rows were said, and not usual ones that a small task may fall short of."""

    @property
    def file(self) -> Path | None:
        """The YAML file, where it is one."""
        return Path(self.name).expanduser() if self.name.endswith((".yaml", ".yml")) else None


def parse(reference: str) -> Spec:
    """Raises LamdatuiError for an unknown option, or a value that it can't have."""
    name, _, query = reference.removeprefix(PREFIX).partition("?")
    try:
        pairs = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise LamdatuiError(str(error), where=reference, fix=FORM) from error
    if not name:
        raise LamdatuiError("it names no task", where=reference, fix=FORM)
    for key in pairs:
        if key not in OPTIONS:
            raise LamdatuiError(f"lm_eval has no option {key!r}", where=reference, fix=f"options: {', '.join(OPTIONS)}")
    numbers: dict[str, int] = {}
    for key in ("search", "sealed", "shots"):
        if key in pairs:
            least, text = int(key != "shots"), pairs[key]
            if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= MOST_ROWS:
                raise LamdatuiError(f"{key} is a whole number from {least} to {MOST_ROWS}, not {text!r}", where=reference)
            numbers[key] = int(text)
    if pairs.get("chat", "false") not in ("true", "false"):
        raise LamdatuiError("chat is true or false", where=reference)
    return Spec(
        name,
        numbers.get("search", USUAL["search"]),
        numbers.get("sealed", USUAL["sealed"]),
        numbers.get("shots"),
        pairs.get("metric", ""),
        pairs.get("filter", ""),
        pairs.get("chat") == "true",
        "search" in pairs or "sealed" in pairs,
    )


def build(reference: str, *, online: bool = False, say: Callable[[str], None] = lambda _: None) -> Path:
    """The JSONL file of a reference, made when it is not in the cache yet; only where `online` may its data come from the hub.

    Raises LamdatuiError: no such task, metric, filter; too few documents; data that is not here; no package.
    """
    package()
    spec = parse(reference)
    about = {
        **asdict(spec),
        "version": VERSION,
        "package": importlib.metadata.version("lm-eval"),
        "files": _files(spec, reference),
    }
    label = spec.file.stem if spec.file else spec.name.replace("/", "_")
    path = cache_dir() / "lm_eval" / f"{label[:80]}-{digest(about)[:12]}.jsonl"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"{reference}: lm-eval writes its questions")
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    if not online:
        environment |= OFFLINE
    given = json.dumps(asdict(replace(spec, name=str(spec.file.absolute())) if spec.file else spec))
    words = [sys.executable, "-P", "-m", "lamdatui.catalogue.lm_eval_rows", given, ONLINE if online else OFF]
    # A folder of the current one that is called as a dataset of the hub would be taken for it.
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, cwd=path.parent)
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LamdatuiError(f"lm-eval could not write the questions: {last[:500]}", where=reference) from None
    if told.get("unreachable") and not online:
        fix = f"lamdatui data fetch '{reference}'"
        raise LamdatuiError(f"the data of {spec.name} is not on this machine", where=reference, fix=fix)
    if "error" in told:
        fix = told["fix"] or ("" if online else f"if its data is on the hub: lamdatui data fetch '{reference}'")
        raise LamdatuiError(told["error"][:1000], where=reference, fix=fix)
    for line in told["notes"]:
        say(line)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told["rows"]))
    return path


def _files(spec: Spec, reference: str) -> dict[str, str]:
    """sha256 of a task file of one's own, of those that it includes, and of the local files that they name. Raises LamdatuiError."""
    if spec.file is None:
        return {}
    found = {str(path): digest(text) for path, text in included(spec.file).items()}
    try:
        config = importlib.import_module("lm_eval.tasks._yaml_loader").load_yaml(spec.file, resolve_func=False)
        named: Any = (config.get("dataset_kwargs") or {}).get("data_files") or {}
    except Exception as error:
        raise LamdatuiError(f"can't read the task file: {error}", where=str(spec.file)) from error
    if (
        config.get("use_prompt")
        or (config.get("dataset_kwargs") or {}).get("data_dir")
        or os.path.exists(spec.file.parent / str(config.get("dataset_path") or "-"))
    ):
        raise LamdatuiError("a task of one's own names its local data by data_files alone", where=str(spec.file))
    listed = named.values() if isinstance(named, dict) else [named]
    for one in (str(each) for value in listed for each in (value if isinstance(value, list) else [value])):
        place = data_file(one, spec.file)
        if not place.is_file():
            raise LamdatuiError(
                "no such file", where=f"{one} (data_files of {reference})", fix="paths start at the task file's folder"
            )
        found[one] = file_digest(place)
    return found


def included(file: Path, seen: dict[Path, str] | None = None) -> dict[Path, str]:
    """A task file and those that it includes, with their texts. Raises LamdatuiError for one that can't be read, or names a function."""
    seen = {} if seen is None else seen
    try:
        text = file.read_text(encoding="utf-8")
        told = yaml.safe_load(text.replace("!function", ""))
        more = (told or {}).get("include") or []
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise LamdatuiError(f"can't read the task file: {error}", where=str(file)) from error
    if "!function" in text:
        raise LamdatuiError(
            "a task of one's own can't name functions: they are code", where=str(file), fix="write it as templates"
        )
    seen[file] = text
    for name in [more] if isinstance(more, str) else more:
        place = (file.parent / str(name)).resolve()
        if place not in seen:
            included(place, seen)
    return seen


def data_file(name: str, task: Path) -> Path:
    """Where a file of data is that a task file names: relative paths start at its folder."""
    return (task.parent / Path(name).expanduser()).absolute()
