"""What `check` finds in a profile's models, datasets and tasks, each by itself and with one another: every row is read and rendered once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say
from lamdatui.base.output import json_text
from lamdatui.cli.findings import Finding, tried
from lamdatui.domain.objects import unlike
from lamdatui.inputs import templatechecks
from lamdatui.inputs.datafiles import DatasetRows, asked, read_noted
from lamdatui.inputs.modelfiles import ModelKind, inspect_model, model_kind
from lamdatui.inputs.overlap import ASKED_TOO, NEARLY_ASKED, SHARED_WORDS
from lamdatui.inputs.profile import DatasetSpec, ModelSpec, Profile
from lamdatui.inputs.scan import Scanned, scan
from lamdatui.inputs.taskfiles import Task
from lamdatui.inputs.templates import ChatTemplate, read_template
from lamdatui.inputs.workspace import locate, locate_model, open_task
from lamdatui.tasks.judging import reference_text

FEW = 10
"""References, below which a judge's trial tells little."""
Splits = Mapping[str, Sequence[Mapping[str, Any]]]
DROP = "drop them: the score on {split} is else of rows that were trained on (the action filter drops them, too)"


def look(profile: Profile, say: Say | None = None, *, headers_only: bool = False) -> list[Finding]:
    """Findings about models, datasets, tasks, the rows that they share, and every row with every chat template; `say` hears of what takes long."""
    infos: dict[str, ModelKind] = {}
    findings = [
        tried(f"model {name}", lambda name=name, spec=spec: _model(name, spec, infos, headers_only))
        for name, spec in profile.models.items()
    ]
    findings += _unlike(infos)
    tasks: dict[str, Splits] = {}
    of_tasks: list[Finding] = []
    for name in profile.tasks:
        noted: list[Finding] = []
        of_tasks += [
            tried(f"task {name}", lambda name=name, noted=noted: _task(profile, name, tasks, noted, headers_only)),
            *noted,
        ]
    read: dict[str, DatasetRows] = {}
    for name, spec in profile.datasets.items():
        findings.append(tried(f"dataset {name}", lambda name=name, spec=spec: _dataset(name, spec, read, say)))
        if name in read:
            findings += [Finding("warn", f"dataset {name}", note) for note in read[name].info.notes]
    templates, of_models = _templates(profile)
    shared: list[Finding] = []
    rendered: list[Finding] = []
    for name, rows in read.items():
        seen = scan(rows, tasks, templates, say)
        for task in tasks:
            shared += _shared(profile, name, task, rows.info.rows, seen)
        for model, notes in seen.notes.items():
            rendered += _noted(f"dataset {name} × {model}", notes)
    for model, template in templates.items():
        for task, splits in tasks.items():
            every = [asked(row) for held in splits.values() for row in held]
            # What is asked as plain text does not go through a template.
            questions = [one for one in every if not {"plain", "contexts"} & one.keys()]
            rendered += _noted(
                f"task {task} × {model}", templatechecks.of_questions(template, questions, profile.tasks[task].max_new_tokens)
            )
    return [*findings, *of_tasks, *shared, *of_models, *rendered]


def _model(name: str, spec: ModelSpec, infos: dict[str, ModelKind], headers_only: bool) -> str:
    place = locate_model(spec)
    if headers_only:
        info = model_kind(place.weights)
    else:
        info = inspect_model(place.weights, adapter=place.adapter, template=place.template)
    infos[name] = info
    on = f"; the adapter {place.adapter.name} on {place.weights.name}" if place.adapter else ""
    return f"{info.architecture}, {info.parameters / 1e6:.1f} M parameters{on}"


def _unlike(infos: Mapping[str, ModelKind]) -> Iterator[Finding]:
    """What bases that can be merged don't agree on."""
    alike: dict[str, list[str]] = {}
    for name, info in infos.items():
        alike.setdefault(info.layout, []).append(name)
    for names in alike.values():
        for what in unlike([infos[name].traits for name in names], [infos[name].tokenizer for name in names]):
            yield Finding("warn", "merges", f"{' and '.join(names)} have {what}")


def _dataset(name: str, spec: DatasetSpec, read: dict[str, DatasetRows], say: Say | None) -> str:
    read[name] = read_noted(locate(spec.path), answers=spec.answers, columns=spec.columns, say=say)
    info = read[name].info
    told = "" if info.rows == info.read else f" of {info.read:,} conversations: each answer with what comes before it"
    return f"{info.rows:,} rows, {info.format}{told}"


def _task(profile: Profile, name: str, tasks: dict[str, Splits], noted: list[Finding], headers_only: bool) -> str:
    spec = profile.tasks[name]
    task = open_task(name, spec, headers_only=headers_only)
    rows = task.rows
    every = [row for held in rows.values() for row in held]
    if task.judge:
        noted += _judge(name, task, every)
    elif empty := sum(row["reference"] in ("", [], {}, None) for row in every):
        detail = f"{empty} of {len(every)} references are empty: a model that says nothing may be right there"
        noted.append(Finding("warn", f"task {name}", detail, "drop these rows, or give their references"))
    tasks[name] = rows
    by = f" by {task.judge.model.id} ({task.judge.model.parameters / 1e6:.1f} M parameters)" if task.judge else ""
    return f"{len(rows['search'])} search rows, {len(rows['sealed'])} sealed rows, scorer {spec.scorer}{by}"


def _judge(name: str, task: Task, rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What is to be known of a judge before it is asked."""
    assert task.judge is not None
    model, subject = task.judge.model, f"judge of {name}"
    template = read_template(Path(model.weights), model.template)
    try:
        template.ask({"prompt": [{"role": "user", "content": "a"}]})
    except ValueError as error:
        yield Finding(
            "bad", subject, f"its chat template takes no question: {str(error).splitlines()[0][:200]}", "name another one"
        )
    known = sum(bool(reference_text(row["reference"]).strip()) for row in rows if row["split"] == "search")
    if known < FEW:
        detail = f"{known} search rows have a reference answer to try it out on"
        yield Finding(
            "warn", subject, detail, f"give {FEW} or more: a judge that knows right from wrong by chance is not found out"
        )


def _shared(profile: Profile, name: str, task: str, rows: int, scanned: Scanned) -> list[Finding]:
    """Training rows that a task's rows stand in."""
    found = []
    for splits, what, blocks in (
        (scanned.exact[task], ASKED_TOO, profile.contamination.exact),
        (scanned.near[task], NEARLY_ASKED, profile.contamination.ngram),
        (scanned.ngram[task], SHARED_WORDS, profile.contamination.ngram),
    ):
        for split, seen in splits.items():
            detail = f"{seen.count:,} of {rows:,} rows {what.format(f'{split} row of the task {task}')}, the first: {seen.example[:80]!r}"
            status = "bad" if blocks == "block" else "warn"
            found.append(Finding(status, f"dataset {name}", detail, DROP.format(split=split)))
    return found


def _templates(profile: Profile) -> tuple[dict[str, ChatTemplate], list[Finding]]:
    """The template of each base that differs from those before it, and what is to know of each. A base that can't be read has its finding."""
    seen: dict[str, str] = {}
    texts: dict[str, str] = {}
    found: dict[str, ChatTemplate] = {}
    findings: list[Finding] = []
    for name, spec in profile.models.items():
        try:
            place = locate_model(spec)
        except LamdatuiError:
            continue
        template = read_template(place.weights, place.template)
        findings += _noted(f"model {name}", templatechecks.of_model(template))
        texts.setdefault(json_text([template.text, template.words, sorted(template.ends)]), name)
        if seen.setdefault(json_text(template.identity()), name) == name and template.text:
            found[name] = template
    if len(texts) > 1:
        names = ", ".join(texts.values())
        detail = f"{names} have different chat templates: a merge of two of them has the first one's"
        findings.append(Finding("warn", "templates", detail))
    return found, findings


def _noted(subject: str, notes: Sequence[templatechecks.Note]) -> list[Finding]:
    return [Finding(note.status, subject, note.detail, note.fix) for note in notes]
