"""Data and tasks from reasoning-gym's generators: rows that are made here from a reference, once, and kept in the cache.

A reference is `reasoning-gym:GENERATOR?option=value&…`: `reasoning-gym:chain_sum?size=200&seed=1&max_terms=3` is a dataset of
200 rows, `reasoning-gym:chain_sum?search=100&sealed=200&max_terms=3` a task. `size`, `search`, `sealed` and `seed` are options
of ours, the others the generator's own.

A question's split is a function of its text alone (a hash), as in `lamdatui.tasks.strings`: whatever the generator, its
options or the seed, no question of a dataset is ever in a task, and none in both splits of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.metadata
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import canonical, digest, parse_json, write_atomic
from lamdatui.base.paths import cache_dir
from lamdatui.tasks.reasoning import check_name, generator, package, reasoning_gym

PREFIX = "reasoning-gym:"
VERSION = 1
"""Raise it when the same reference is to give other rows."""
DATA_OPTIONS = {"size": 200, "seed": 1}
TASK_OPTIONS = {"search": 100, "sealed": 200, "seed": 1}
MOST_ROWS = 100_000
TRIES = 40
"""Questions looked at for each one wanted, before a generator is said to have too few different ones."""
FORM = "\nGive only the final answer, in the form that is asked for."


@dataclass(frozen=True)
class Spec:
    """A parsed reference: data or task, our options with their defaults, and the generator's own."""

    name: str
    kind: str
    ours: dict[str, int]
    options: dict[str, Any]


def build(spec: str) -> Path:
    """The JSONL file that a reference names, made when it is not in the cache yet.

    Its rows are `verifiable` ones, or where the reference has `search` or `sealed`, those of a task for the scorer
    `reasoning_gym`: both splits, the search rows first. Raises LamdatuiError for an unknown generator or option, with the
    nearest name; for a generator without enough different questions; and when the package is missing.
    """
    package()
    parsed = _parse(spec)
    about = {**dataclasses.asdict(parsed), "version": VERSION, "package": importlib.metadata.version("reasoning-gym")}
    path = cache_dir() / "reasoning-gym" / f"{parsed.name}-{parsed.kind}-{digest(about)[:12]}.jsonl"
    if not path.exists():
        # Some generators print while they work.
        with contextlib.redirect_stdout(io.StringIO()):
            rows = list(_task_rows(parsed) if parsed.kind == "task" else _data_rows(parsed))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def split_of(question: str) -> str:
    """The split a question belongs to, for ever: train 60 %, search 15 %, sealed 25 %. Case and spacing don't count."""
    percentile = int.from_bytes(hashlib.sha256(f"reasoning-gym:{_plain(question)}".encode()).digest()[:8], "big") % 100
    if percentile < 60:
        return "train"
    return "search" if percentile < 75 else "sealed"


def _plain(question: str) -> str:
    return " ".join(question.lower().split())


def _parse(spec: str) -> Spec:
    name, _, query = spec.removeprefix(PREFIX).partition("?")
    try:
        check_name(name)
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise LamdatuiError(str(error), where=spec, fix=f"write {PREFIX}GENERATOR?size=200&seed=1") from error
    kind = "task" if {"search", "sealed"} & {key for key, _ in pairs} else "data"
    defaults = TASK_OPTIONS if kind == "task" else DATA_OPTIONS
    config = importlib.import_module("reasoning_gym.factory").DATASETS[name][1]
    known = {field.name for field in dataclasses.fields(config)} - {"seed", "size"}
    ours, options = dict(defaults), {}
    for key, text in pairs:
        if key in defaults:
            ours[key] = _count(key, text, spec)
        elif key in known:
            options[key] = _value(text)
        elif key == "size":
            raise LamdatuiError("a task has search and sealed rows, no size", where=spec, fix="leave out size")
        else:
            close = difflib.get_close_matches(key, [*defaults, *known], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"options: {', '.join([*defaults, *sorted(known)])}"
            raise LamdatuiError(f"{name} has no option {key!r}", where=spec, fix=hint)
    return Spec(name, kind, ours, options)


def _count(key: str, text: str, spec: str) -> int:
    least = 0 if key == "seed" else 1
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= MOST_ROWS:
        raise LamdatuiError(f"{key} is a whole number from {least} to {MOST_ROWS}, not {text!r}", where=spec)
    return int(text)


def _value(text: str) -> Any:
    """A number, true, false or a list as JSON; anything else is text."""
    try:
        value = parse_json(text)
        canonical(value)  # no NaN
        return value
    except ValueError:
        return text


def _entries(spec: Spec, wanted: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, reference) of `wanted[split]` different questions of each split, as the generator gives them."""
    tries = TRIES * sum(wanted.values()) + 200
    try:
        # Generators take seed + index for a row: neighbouring seeds would give nearly the same rows.
        source = generator(spec.name, spec.options, seed=spec.ours["seed"] * 1_000_003, size=tries)
    except ValueError as error:
        raise LamdatuiError(str(error), where=f"{PREFIX}{spec.name}", fix="change or leave out the option") from error
    left, seen = dict(wanted), set()
    for index in range(tries):
        if not any(left.values()):
            return
        entry = _entry(spec, source, index)
        split, text = split_of(entry["question"]), _plain(entry["question"])
        if not left.get(split) or text in seen:
            continue
        seen.add(text)
        left[split] -= 1
        yield split, _reference(spec, entry)
    if any(left.values()):
        found = ", ".join(f"{wanted[split] - left[split]} of {wanted[split]} {split} rows" for split in wanted)
        raise LamdatuiError(
            f"{spec.name} has too few different questions: {found}",
            where=f"{PREFIX}{spec.name}",
            fix="ask for fewer rows, or for a wider range in its options",
        )


def _entry(spec: Spec, source: Any, index: int) -> dict[str, Any]:
    try:
        return source[index]
    except Exception as error:  # whatever a generator stumbles over, with options that its checks let pass
        raise LamdatuiError(
            f"the generator {spec.name} failed: {type(error).__name__}: {error}",
            where=f"{PREFIX}{spec.name}",
            fix="change or leave out the options" if spec.options else "take another generator",
        ) from error


def _reference(spec: Spec, entry: dict[str, Any]) -> dict[str, Any]:
    """The scorer's reference, once it is known that the generator's own answer gets the full score after JSON."""
    reference: dict[str, Any] = {"dataset": spec.name, "entry": {key: entry[key] for key in ("question", "answer", "metadata")}}
    if spec.options:
        reference["options"] = spec.options
    try:
        reference = json.loads(json.dumps(reference, allow_nan=False))
        right = reasoning_gym(reference, entry["answer"]) == 1.0
    except (TypeError, ValueError, KeyError):
        right = False
    if not right:
        raise LamdatuiError(
            f"the generator {spec.name} can't be used: its own answer does not get the full score once it is written to a file",
            where=f"{PREFIX}{spec.name}",
        )
    return reference


def _data_rows(spec: Spec) -> Iterator[dict[str, Any]]:
    for _, reference in _entries(spec, {"train": spec.ours["size"]}):
        yield {"prompt": reference["entry"]["question"] + FORM, "scorer": "reasoning_gym", "reference": reference}


def _task_rows(spec: Spec) -> Iterator[dict[str, Any]]:
    wanted = {"search": spec.ours["search"], "sealed": spec.ours["sealed"]}
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in wanted}
    for split, reference in _entries(spec, wanted):
        found[split].append(reference)
    for split, references in found.items():
        for number, reference in enumerate(references):
            yield {
                "id": f"{spec.name}-{split}-{number:05d}",
                "split": split,
                "messages": [{"role": "user", "content": reference["entry"]["question"] + FORM}],
                "reference": reference,
            }
