"""`lamdatui init`: a profile for a model and files of one's own, with what was seen of them, cut and proposed for this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.fingerprint import Say
from lamdatui.cli.rows import row_lines
from lamdatui.inputs.datafiles import DatasetRows, asked, read_noted, read_task_rows
from lamdatui.inputs.holdout import Holdout, hold_out, shared_records, write_rest, write_task
from lamdatui.inputs.modelfiles import inspect_model
from lamdatui.inputs.namedtemplates import template_text
from lamdatui.inputs.profile import ModelSpec
from lamdatui.inputs.rowshapes import ANSWERS
from lamdatui.inputs.templatechecks import Look
from lamdatui.inputs.templates import ChatTemplate, read_template
from lamdatui.inputs.workspace import locate, locate_model
from lamdatui.tasks.scorers import SCORERS, problem

SAMPLE = 2000
"""Rows of a dataset whose tokens are counted."""
SHOWN = 3
FAMILIES = {"<|im_start|>": "chatml", "<|start_header_id|>": "llama3", "<start_of_turn>": "gemma", "[INST]": "mistral"}
"""A token that a vocabulary has → the template that it is made for."""
WITH_TOOLS = {"<|im_start|>": "qwen3_instruct_2507", "<|start_header_id|>": "llama3_1", "<|turn>": "gemma4"}
"""The same for rows with functions to call."""
METHODS: dict[str, tuple[str, ...]] = {
    "sft": ("sft",),
    "text": ("sft",),
    "preference": ("dpo",),
    "unpaired": ("kto",),
    "verifiable": ("grpo", "rejection_sample"),
    "prompt": ("distill",),
}
"""Format of a dataset → the action types that are proposed for it."""
SMALL, LARGE = 50e6, 3e9
"""Parameters below which every weight is trained, and from which on a GPU trains adapters on 4-bit weights."""
CPU_WORK = 60_000 * 135e6
"""Tokens × parameters that a processor trains in about five minutes: the length of a trial where there is no GPU."""


@dataclass
class Seen:
    """What was seen of one dataset."""

    name: str
    path: Path
    data: DatasetRows
    lengths: list[int]
    """Tokens of a sample of its rows, sorted."""
    answers: list[int]
    """Tokens of their longest answers, sorted."""

    @property
    def form(self) -> str:
        return self.data.info.format

    def told(self) -> str:
        """One line."""
        middle, most = at_share(self.lengths, 0.5), self.lengths[-1] if self.lengths else 0
        notes = "".join(f"; {note}" for note in self.data.info.notes)
        return f"{self.name}: {self.data.info.rows:,} rows, {self.form}; tokens a row: half have {middle} or less, the longest of a sample {most}{notes}"


@dataclass
class Draft:
    """A profile to be: what it will say, and the files that are written beside it."""

    to: Path
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)
    minutes: int = 60
    remarks: dict[str, str] = field(default_factory=dict)


def at_share(sizes: Sequence[int], share: float) -> int:
    """The size that this share of sorted sizes does not go beyond; 0 of none."""
    return sizes[min(len(sizes) - 1, math.ceil(share * len(sizes)) - 1)] if sizes else 0


def make(model: str, data: Sequence[str], task: str, to: Path, base: str, say: Say) -> Path:
    """Look at what is given, cut a task where none is, and write the profile. Raises LamdatuiError; then nothing is written."""
    if to.exists():
        raise LamdatuiError("there is a file already", where=str(to), fix="name another one with --to")
    draft = Draft(to)
    read = {path: read_noted(locate(_told(path)), say=say) for path in data}
    offered = next((row for each in read.values() for row in each.rows[:SAMPLE] if "tools" in row), None)
    template, parameters = _look_at_model(draft, model, base, offered, say)
    seen = [_look_at_data(path, rows, template, index, say) for index, (path, rows) in enumerate(read.items())]
    names = [each.name for each in seen]
    if len(set(names)) < len(names):
        raise LamdatuiError(f"two files would have one name: {', '.join(names)}", fix="give them names that differ")
    draft.datasets = {each.name: {"path": str(each.path)} for each in seen}
    if task:
        _take_task(draft, task, template, say)
    else:
        _cut_task(draft, seen, say)
    _propose(draft, seen, parameters, template)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(_yaml(draft), encoding="utf-8")
    return to


def _look_at_model(
    draft: Draft, model: str, base: str, offered: Mapping[str, Any] | None, say: Say
) -> tuple[ChatTemplate, int]:
    """The model's template, or the one that is proposed in its place, and its size; `offered` is a row with tools, where there is one."""
    spec: dict[str, str] = {"path": _told(model), **({"base": _told(base)} if base else {})}
    place = locate_model(ModelSpec.model_validate(spec))
    info = inspect_model(place.weights, adapter=place.adapter, say=say)
    template = read_template(place.weights, place.template)
    lacks = _lacks(template, offered)
    if lacks:
        tokens = {*template.specials, *template.words.values()}
        families = WITH_TOOLS if offered else FAMILIES
        known = next((name for token, name in families.items() if token in tokens), next(iter(families.values())))
        spec["chat_template"] = known
        draft.remarks["model"] = f"its own template {lacks}; this one is of a family with the same tokens"
        template = read_template(place.weights, template_text(known))
    draft.models = {"base": spec}
    say(f"model: {info.architecture}, {info.parameters / 1e6:,.1f} M parameters")
    if lacks:
        say(f"its chat template {lacks}: {spec['chat_template']} is proposed in its place")
    return template, info.parameters


def _lacks(template: ChatTemplate, offered: Mapping[str, Any] | None) -> str:
    """What a template can't do that the rows want."""
    if not template.text:
        return "is missing"
    if offered is None:
        return ""
    look = Look(template)
    look.add(offered)
    return "knows no tools" if look.lost or look.broken.count else ""


def _told(path: str) -> str:
    """A path as the profile has it: absolute, so that the profile can be moved; what is no path stays."""
    return path if path.startswith(("catalogue:", "reasoning-gym:")) else str(Path(path).expanduser().absolute())


def _look_at_data(path: str, data: DatasetRows, template: ChatTemplate, index: int, say: Say) -> Seen:
    place = locate(_told(path))
    step = max(1, len(data.rows) // SAMPLE)
    sample = [data.rows[at] for at in range(0, len(data.rows), step)]
    sizes = [_tokens(template, row) for row in sample]
    name = _name(path, place, index)
    seen = Seen(name, place, data, sorted(whole for whole, _ in sizes), sorted(answer for _, answer in sizes))
    say(seen.told())
    for at in range(min(SHOWN, len(data.rows))):
        say(f"\n[{name}, row {at + 1}]")
        for line in _shown(template, data.rows[at]):
            say(line)
    return seen


def _name(path: str, place: Path, index: int) -> str:
    """What a profile calls a dataset: its file's name as one word that nothing else has."""
    hub = "catalogue:hf-data:"
    told = path.removeprefix(hub).split("/")[1].partition(":")[0] if path.startswith(hub) else place.name.split(".")[0]
    name = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in told).strip("_").lower() or f"data{index + 1}"
    is_taken = name in ("base", "task", "model") or name[0].isdigit() or (name[0] in "md" and name[1:].isdigit())
    return f"data_{name}" if is_taken or not isinstance(yaml.safe_load(name), str) else name


def _shown(template: ChatTemplate, row: Mapping[str, Any]) -> Iterator[str]:
    try:
        for line in row_lines(template, row):
            yield line if len(line) <= 400 else f"{line[:200]} … {line[-150:]}"
    except ValueError as error:
        yield f"the chat template does not take it: {error}"


def _tokens(template: ChatTemplate, row: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of a row, and of its longest answer; characters stand for them where the tokenizer can't be read here."""

    def count(text: str) -> int:
        ids = template.ids(text)
        return len(text) // 3 if ids is None else len(ids)

    if "text" in row:
        return count(row["text"]), 0
    try:
        splits = [template.split(row, row[name]) for name in ANSWERS if name in row]
        if not splits:
            return count(template.ask(row)), 0
    except ValueError:
        return 0, 0
    return max(count(split.text) for split in splits), max(count(split.text[split.start :]) for split in splits)


def _take_task(draft: Draft, task: str, template: ChatTemplate, say: Say) -> None:
    path = locate(_told(task))
    rows = read_task_rows(path)
    scorer = next((name for name in SCORERS if all(problem(name, row["reference"]) is None for row in rows[:200])), "")
    if not scorer:
        raise LamdatuiError(
            "no scorer fits the references", where=str(path), fix=f"scorers: {', '.join(SCORERS)} (docs/data.md)"
        )
    splits = {split: sum(row["split"] == split for row in rows) for split in ("search", "sealed")}
    say(f"task: {splits['search']} search rows, {splits['sealed']} sealed rows; their references suit the scorer {scorer}")
    draft.task = {"path": str(path), "scorer": scorer, "max_new_tokens": _room(_references(rows, template))}


def _references(rows: Sequence[Mapping[str, Any]], template: ChatTemplate) -> list[int]:
    """Tokens of what references want to be said, sorted; a call's schema is not said."""
    wanted = [row["reference"] for row in rows[:SAMPLE]]
    said = [each.get("answer", each) if isinstance(each, dict) else each for each in wanted]
    texts = [each if isinstance(each, str) else json.dumps(each) for each in said]
    return sorted(len(template.ids(text) or text) for text in texts)


def _room(sizes: Sequence[int]) -> int:
    """Tokens that an answer may have: the longest known ones and some more."""
    return min(1024, max(16, 16 * math.ceil((at_share(sizes, 0.99) * 1.25 + 8) / 16)))


def _cut_task(draft: Draft, seen: Sequence[Seen], say: Say) -> None:
    """Hold rows out of the first dataset of prompts and answers, and write what is left of every dataset that shares a question with them."""
    held: Holdout | None = None
    source = next((each for each in seen if each.form == "sft" and (held := hold_out(each.data)) is not None), None)
    if source is None or held is None:
        raise LamdatuiError(
            "no task can be cut: it takes a file of prompts and answers with at least 20 different questions",
            fix="give a task with --task: rows of id, split (search or sealed), messages and reference",
        )
    stem = draft.to.with_suffix("")
    path = Path(f"{stem}-task.jsonl")
    rests = {}
    for each in seen:
        if left_out := shared_records(each.data, held, held.records if each is source else ()):
            rests[each.name] = (each, left_out, Path(f"{stem}-{each.name}.jsonl"))
    for target in (path, *(target for _, _, target in rests.values())):
        if target.exists():
            raise LamdatuiError(
                "there is a file already", where=str(target), fix="remove it, or name another profile with --to"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, (each, left_out, target) in rests.items():
        kept = write_rest(each.path, left_out, target)
        draft.datasets[name] = {"path": target.name}
        draft.remarks[name] = f"{each.path.name} without the {len(left_out):,} rows that the task holds; {kept:,} are left"
    write_task(held.rows, path)
    count = len(held.rows)
    say(f"\ntask: {count:,} rows held out of {source.name}, scored by {held.scorer}; none of their questions is trained")
    draft.task = {"path": path.name, "scorer": held.scorer, "max_new_tokens": _room(source.answers)}
    draft.remarks["task"] = f"{count:,} rows held out of {source.name}"
    row = held.rows[0]
    question, reference = asked(row)["prompt"][-1]["content"], json.dumps(row["reference"], ensure_ascii=False)
    say(f"for instance: {question[:120]!r} → {reference[:160]}")


def _propose(draft: Draft, seen: Sequence[Seen], parameters: int, template: ChatTemplate) -> None:
    """Action types for the formats that are there, in sizes that suit the model and this machine."""
    from lamdatui.hardware.gpu import read_gpus

    gpus, _ = read_gpus()
    draft.minutes = 480 if gpus else 60
    method = "full" if parameters < SMALL else "qlora" if gpus and parameters >= LARGE else "lora"
    rate = 1e-3 if method == "full" else 2e-4
    most = template.config.get("max_position_embeddings")
    limit = most if isinstance(most, int) else 1 << 20
    for each in seen:
        length = min(limit, 64 * math.ceil(max(1, at_share(each.lengths, 0.99) + 1) / 64))
        for kind in METHODS[each.form]:
            known = draft.actions.get(kind, {})
            batch = (16 if gpus or method == "full" else 8) if kind == "kto" else 8 if gpus or method == "full" else 4
            epoch = max(10, math.ceil(each.data.info.rows / batch))
            middle = max(1, at_share(each.lengths, 0.5)) * (2 if each.form == "preference" else 1)
            room = 1000 if gpus else max(10, int(CPU_WORK / max(parameters, 1e6) / (middle * batch)))
            # Of two datasets of one kind the longer one says how long.
            steps = max(min(epoch, room, 1000), known.get("max_steps", {}).get("default", 0))
            slower = {"dpo": 0.25, "kto": 0.25, "grpo": 0.1, "distill": 0.5}.get(kind, 1.0)
            params: dict[str, Any] = {}
            if kind not in ("rejection_sample",):
                params |= {
                    "method": {"default": method},
                    "learning_rate": {"default": rate * slower, "choices": [rate * slower / 2, rate * slower]},
                    "max_steps": {"default": steps, "choices": sorted({max(10, steps // 2), steps})},
                    "batch_size": {"default": 32 if kind == "grpo" else batch},
                }
            if kind in ("sft", "dpo", "kto"):
                params["max_length"] = {"default": max(length, known.get("max_length", {}).get("default", 0))}
            if kind in ("grpo", "rejection_sample", "distill"):
                params["max_new_tokens"] = {"default": draft.task["max_new_tokens"]}
            draft.actions[kind] = params
    draft.actions |= {"merge_linear": {}, "merge_ties": {}}


def _yaml(draft: Draft) -> str:
    """The profile with its comments."""

    def flow(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + " }"
        return json.dumps(value, ensure_ascii=False)

    def remark(name: str) -> str:
        return f" # {draft.remarks[name]}" if name in draft.remarks else ""

    lines = [
        f"# {draft.to.stem}: made by `lamdatui init`. `lamdatui check {draft.to.name}` tells whether all of it fits;",
        f"# `lamdatui run {draft.to.name}` opens the console. Every section is explained in docs/data.md and docs/search.md.",
        f"name: {flow(draft.to.stem)}",
        "seed: 1",
        "",
        "# The base model that the search starts from.",
        "models:",
        *(f"  {name}: {flow(spec)}{remark('model')}" for name, spec in draft.models.items()),
        "",
        "# What may be trained on. `lamdatui data show` prints a row as the trainer will see it.",
        "datasets:",
        *(f"  {name}: {flow(spec)}{remark(name)}" for name, spec in draft.datasets.items()),
        "",
        "# What is scored. The search sees the scores of the search rows; the sealed ones are opened once, at the end.",
        "tasks:",
        f"  task: {flow(draft.task)}{remark('task')}",
        "",
        "objective:",
        "  weights: { task: 1.0 }",
        "",
        "# What the search may do. `default` is what the form starts from, `choices` is the search's grid.",
        "actions:",
    ]
    for name, params in draft.actions.items():
        lines.append(f"  {name}:" if params else f"  {name}: {{}}")
        lines += [f"    {key}: {flow(spec)}" for key, spec in params.items()]
    lines += [
        "",
        "# A model of what earlier trials did ranks every action. A planner can choose among the best: see docs/planner.md.",
        "policy: { name: hybrid }",
        f"budget: {{ trials: 20, wall_minutes: {draft.minutes} }} # whichever comes first",
        "mode: ask # each action waits for your yes; `auto` goes on by itself",
    ]
    return "\n".join(lines) + "\n"
