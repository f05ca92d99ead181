"""What lets anyone check an exported model: a list of its files with their hashes, and each answer that its scores stand on.

`verify` looks, from the cheapest to the dearest, whether the files are those that were written, whether the digests of the recipe follow from what it says
(so that no step, seed or hyperparameter of it is another one), whether the answers give the scores and the gain, and, where that is asked
for, whether `reproduce.py` makes the same weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lamdatui import __version__
from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import Damaged, digest, read_jsonl, read_record, sealed, write_json
from lamdatui.base.surrogates import escaped
from lamdatui.domain.actions import action_digest
from lamdatui.domain.schemes import GENERATORS
from lamdatui.domain.state import RunState
from lamdatui.export.recipe import RECIPE
from lamdatui.export.reproduction import FOLDER, SCRIPT
from lamdatui.store.artifacts import file_hash
from lamdatui.tasks.scorers import is_known, score
from lamdatui.tasks.stats import paired_gain, summary
from lamdatui.tasks.thinking import without_thinking
from lamdatui.wire.answers import SPLITS, answers, evaluations

FILE = "proof.json"
ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `sound` is None where it can't be told."""

    subject: str
    sound: bool | None
    detail: str


def write_answers(run_dir: Path, state: RunState, name: str, staged: Path) -> list[str]:
    """The model's and the base's answers to each row of each task that was scored, with question and reference; `task split`s that lack some."""
    missing: dict[str, None] = {}
    with (staged / ANSWERS).open("w", encoding="utf-8") as lines:
        for model in dict.fromkeys([state.pool.base or name, name]):
            who, keys = evaluations(state, model)
            for task in state.profile["tasks"]:
                for split in (each for each in SPLITS if each in keys.get(task, {})):
                    try:
                        found = answers(run_dir, state, model, task, split)
                    except LamdatuiError:  # the store has lost them, or the task's file is another one now
                        missing[f"{task} {split}"] = None
                        continue
                    for answer in found:
                        row = {"model": who, "task": task, "split": split, "id": answer.id, "asked": answer.question}
                        row |= {"wanted": answer.reference, "answer": answer.text, "score": answer.score, "ended": answer.ended}
                        lines.write(escaped(json.dumps(row, ensure_ascii=False)) + "\n")
    return list(missing)


def write(staged: Path, run: str, model: str) -> str:
    """The list of files with their hashes, last; its fingerprint."""
    files = {name: {"size": path.stat().st_size, "blake2b": file_hash(path)} for name, path in _files(staged)}
    record = sealed({"lamdatui": __version__, "run": run, "model": model, "files": files})
    write_json(staged / FILE, record)
    return digest(record)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_dir() and name != FILE:
            yield name, path


def verify(folder: Path, *, reproduce: bool, bases: list[str], say: Callable[[str], None]) -> tuple[str, list[Check]]:
    """(fingerprint, checks) of an exported model; `reproduce`: its weights are made again, too. Raises LamdatuiError where it is none."""
    try:
        proof = read_record(folder / FILE)
        mark = digest(sealed(proof))
    except FileNotFoundError as error:
        raise LamdatuiError(
            f"no {FILE} is there", where=str(folder), fix="name a folder that lamdatui export has written"
        ) from error
    except (OSError, Damaged) as error:
        return "", [Check("proof", False, f"{FILE}: {error}")]
    found = []
    try:
        found.append(_check_files(folder, proof))
        told = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
        found += [_check_recipe(told), *_check_answers(folder, told)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, yaml.YAMLError) as error:
        found.append(Check("recipe", False, f"what it says can't be read: {type(error).__name__}: {error}"[:300]))
    if reproduce:
        found.append(_make_again(folder, bases, say))
    return mark, found


def _check_files(folder: Path, proof: Mapping[str, Any]) -> Check:
    listed, there = proof["files"], dict(_files(folder))
    lost, strange = sorted(set(listed) - set(there)), sorted(set(there) - set(listed))
    changed = [
        name
        for name, entry in listed.items()
        if name in there and (there[name].stat().st_size != entry["size"] or file_hash(there[name]) != entry["blake2b"])
    ]
    words = [
        f"{label}: {', '.join(names[:5])}"
        for label, names in (("missing", lost), ("changed", changed), ("added", strange))
        if names
    ]
    return Check("files", not words, "; ".join(words) or f"{len(listed)} files are those that were written")


def _check_recipe(told: Mapping[str, Any]) -> Check:
    """Whether each step's digest follows from its type, inputs, hyperparameters and seed, and those of its inputs."""
    from lamdatui.config.resources import load_registry

    types, device = load_registry().types, told["device"]
    known = {name: base["digest"] for name, base in told["bases"].items()}
    known |= {name: data["sha256"] for name, data in told["datasets"].items()}
    unknown = []
    for step in told["steps"]:
        parents = {slot: [known[name] for name in ids] for slot, ids in step["inputs"].items()}
        known[step["makes"]] = step["digest"]
        bound = types.get(step["type"])
        if bound is None or set(step["params"]) != {param.name for param in bound.type.params}:
            unknown.append(step["makes"])
            continue
        given = {
            action_digest(
                bound, parents, step["params"], step["seed"], device.get("dtype", "float32"), step.get("scheme", 1),
                spelled_out=spelled, generator=device.get("generator", GENERATORS[0]),
            )
            for spelled in (False, True)
        }  # fmt: skip
        if step["digest"] not in given:
            return Check("recipe", False, f"the digest of {step['makes']} does not follow from what the recipe says of it")
    if unknown:
        return Check("recipe", None, f"this version of lamdatui has no such action for {', '.join(unknown)}")
    return Check(
        "recipe", True, f"the digests of {len(told['steps'])} steps follow from bases, data, hyperparameters and seeds"
    )


def _check_answers(folder: Path, told: Mapping[str, Any]) -> Iterator[Check]:
    if not (folder / ANSWERS).exists():
        yield Check("answers", None, "they were left out of this export")
        return
    points: dict[str, dict[str, dict[str, dict[Any, float]]]] = {}
    wrong = []
    # Somebody's own scorer is not handed on: it is code. Nor is lm-eval here for certain.
    unknown = {name for name, task in told["tasks"].items() if not is_known(task["scorer"])}
    for number, row in read_jsonl(folder / ANSWERS):
        task = told["tasks"][row["task"]]
        try:
            sound = row["task"] in unknown or _is_scored_so(row, task, older=told["older"])
        except LamdatuiError:
            unknown.add(row["task"])  # a benchmark's rules that are not offered
            sound = True
        except Exception:  # noqa: BLE001 (whoever wrote the folder wrote the row, too)
            sound = False
        if not sound:
            wrong.append(f"line {number}")
        points.setdefault(row["split"], {}).setdefault(row["model"], {}).setdefault(row["task"], {})[row["id"]] = row["score"]
    count = sum(len(rows) for models in points.values() for tasks in models.values() for rows in tasks.values())
    if unknown and not wrong:
        names = ", ".join(f"{told['tasks'][name]['scorer']} (of {name})" for name in sorted(unknown))
        yield Check("answers", None, f"the scorer {names} is not here; the answers of other tasks get their scores")
    else:
        found = f"{count} answers get their scores" if not wrong else f"other scores: {', '.join(wrong[:5])}"
        yield Check("answers", not wrong, found)
    base, model, missing = told["base"], told["model"], told["answers_missing"]
    other = []
    for task, splits in told["scores"].items():
        for split, value in splits.items():
            if f"{task} {split}" in missing:
                continue
            made = summary(list(points[split][model][task].values()))
            if abs(made["mean"] - value["mean"]) > 1e-6 or made["n"] != value["n"]:
                other.append(f"{task} ({split})")
    for split, report in (told["gain"] or {}).items():
        if any(f"{task} {split}" in missing for task in told["weights"]):
            continue
        made = paired_gain(points[split][model], points[split][base], told["weights"])
        if made != report["objective"]:
            other.append(f"the gain ({split})")
    if missing and not other:
        yield Check("scores", None, f"answers are missing: {', '.join(missing)}")
        return
    yield Check(
        "scores",
        not other,
        f"not what the answers give: {', '.join(other)}" if other else "scores and gain follow from the answers",
    )


def _is_scored_so(row: Mapping[str, Any], task: Mapping[str, Any], *, older: bool) -> bool:
    """Whether an answer gets its score; a template may have begun the thoughts that stand before it."""
    texts = (
        [row["answer"]]
        if task["think"] == "keep" or older
        else [without_thinking(row["answer"], asked) for asked in ("", "<think>")]
    )
    return any(score(task["scorer"], row["wanted"], text, older=older) == row["score"] for text in texts)


def _make_again(folder: Path, bases: list[str], say: Callable[[str], None]) -> Check:
    if not (folder / FOLDER).exists():
        return Check("weights", None, f"{FOLDER} was left out of this export")
    say("making the weights again; this takes as long as it took")
    # Not the script that lies there: whoever sent the folder may have written it.
    own = Path(__file__).with_name(SCRIPT)
    command = [
        sys.executable,
        str(own),
        "--folder",
        str(folder.absolute()),
        *(word for base in bases for word in ("--base", base)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stderr if done.returncode not in (0, 1) or not done.stdout else done.stdout).strip().splitlines() or [
        "it said nothing"
    ]
    return Check("weights", {0: True, 2: None}.get(done.returncode, False), said[-1].removeprefix("error: "))
