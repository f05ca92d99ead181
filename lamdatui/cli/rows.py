"""`lamdatui data show`: a row as a trainer or an evaluation will see it, through a base's own chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.inputs.datafiles import asked, read_noted, read_task_rows
from lamdatui.inputs.profile import Profile, find_profile, load_profile
from lamdatui.inputs.rowshapes import ANSWERS
from lamdatui.inputs.templatechecks import NO_TEMPLATE
from lamdatui.inputs.templates import ChatTemplate, read_template
from lamdatui.inputs.workspace import locate, locate_model


def show_row(profile_text: str, overrides: list[str], name: str, number: int, model: str) -> str:
    """A row (from 1) of a profile's dataset or task, with what is trained marked. Raises LamdatuiError."""
    profile = load_profile(find_profile(profile_text), overrides)
    if name not in profile.datasets and name not in profile.tasks:
        known = ", ".join([*profile.datasets, *profile.tasks])
        raise LamdatuiError(f"no dataset or task named {name!r}", where=f"profile {profile.name}", fix=f"it has {known}")
    base = _model(profile, model)
    place = locate_model(profile.models[base])
    template = read_template(place.weights, place.template)
    if not template.text:
        raise LamdatuiError(NO_TEMPLATE.detail, where=str(template.path), fix=NO_TEMPLATE.fix)
    is_task = name in profile.tasks
    path = locate(profile.tasks[name].path if is_task else profile.datasets[name].path)
    if is_task:
        rows: Sequence[Mapping[str, Any]] = [{**row, **asked(row)} for row in read_task_rows(path)]
        numbers: Sequence[int] = list(range(1, len(rows) + 1))
    else:
        spec = profile.datasets[name]
        read = read_noted(path, answers=spec.answers, columns=spec.columns)
        rows, numbers = read.rows, read.numbers
    if not 1 <= number <= len(rows):
        raise LamdatuiError(f"there is no row {number}", where=str(path), fix=f"rows 1 to {len(rows):,}")
    kind = "task" if is_task else "dataset"
    place = numbers[number - 1]
    of_file = "" if place == number else f" (of row {place:,} of the file)"
    head = f"{kind} {name}, row {number:,} of {len(rows):,}{of_file}, as the template of {base} writes it"
    try:
        return "\n".join([head, *row_lines(template, rows[number - 1])])
    except ValueError as error:
        raise LamdatuiError(f"the chat template does not take it: {error}", where=f"{path}, row {place}") from error


def _model(profile: Profile, model: str) -> str:
    if model and model not in profile.models:
        raise LamdatuiError(
            f"no model named {model!r}", where=f"profile {profile.name}", fix=f"it has {', '.join(profile.models)}"
        )
    return model or next(iter(profile.models))


def row_lines(template: ChatTemplate, row: Mapping[str, Any]) -> Iterator[str]:
    """What is asked with, then each answer with what is trained of it. Raises ValueError where the template refuses it."""
    if "text" in row:
        yield from ("", "--- text, trained from its first token on", row["text"])
        return
    names = [name for name in ANSWERS if name in row]
    splits = {name: template.split(row, row[name]) for name in names}
    before = {split.text[: split.start] for split in splits.values()} or {template.ask(row)}
    yield from ("", "--- the prompt, not trained", min(before, key=len))
    for name, split in splits.items():
        trained = split.text[split.start :]
        yield from (f"--- {name}, trained; it ends with {trained[-20:]!r}", trained)
    for name in ("label", "scorer", "reference", "split"):
        if name in row:
            yield f"--- {name}: {json.dumps(row[name], ensure_ascii=False)}"
