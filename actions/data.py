"""Datasets from datasets: `mix` takes shares of two or three, `concat` all rows of several, `filter` drops rows.

None changes a row. What was taken and what was dropped, and why, is in the new dataset's provenance.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamdatui.actions import ActionType, Call, Estimate, Param, Slot
from lamdatui.datafiles import CONTEXT, PARTS, dataset_format, said

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext
    from lamdatui.step.encoding import Encoder

FORMATS = ("sft", "preference", "unpaired", "verifiable", "prompt", "text")
ANSWER = {"sft": "completion", "unpaired": "completion", "preference": "chosen"}
"""The column that a dataset's answers are in; the other formats have none."""
BESIDE = ("label", "scorer", "reference", *CONTEXT)
JUDGED_ROWS = 16
"""Rows that the judge reads at once."""
SMALL = 300 * 2**20
"""Memory of work on text alone."""


class Mix(ActionType):
    name = "mix"
    summary = "one dataset out of shares of two or three"
    family = "data"
    source = "data mixing and replay against forgetting: Scialom et al. 2022, arXiv 2205.12393"
    output = "dataset"
    slots = (Slot("datasets", "datasets", "datasets of one format; the first has its own share", FORMATS, least=2, most=3),)
    params = (
        Param(
            "share", "float", 0.5, "share of the first dataset; the others are equal", (0.25, 0.5, 0.75), low=0.01, high=0.99
        ),
        Param(
            "rows",
            "int",
            0,
            "rows in all; 0: as many as the shares allow without repeating",
            low=0,
            high=100_000_000,
            unit="rows",
        ),
        Param(
            "order",
            "str",
            "shuffled",
            "blocks: the first dataset first; alternate: evenly spread; for what reads rows in order",
            allowed=("shuffled", "blocks", "alternate"),
        ),
    )

    def check(self, call: Call) -> list[str]:
        if problems := _of_one_format(call):
            return problems
        datasets = call.datasets["datasets"]
        counts, share, rows = [data.rows for data in datasets], float(call.params["share"]), int(call.params["rows"])
        most = _most(counts, share)
        if not all(_sizes(counts, share, rows or most)):
            return [f"with a share of {share:g} and {rows or most} rows in all, nothing is left of one of the datasets"]
        if rows > most:
            return [f"a share of {share:g} allows at most {most} rows without repeating, not {rows}"]
        return []

    def estimate(self, call: Call) -> Estimate:
        datasets = call.datasets["datasets"]
        size = sum(data.rows for data in datasets)
        return Estimate(seconds=1.0 + size * 2e-5, memory_bytes=SMALL + size * 4096, disk_bytes=size * 1024)

    def run(self, step: StepContext) -> None:
        p = step.params
        count = len(step.request["datasets"]["datasets"])
        parts = [step.rows("datasets", index) for index in range(count)]
        lengths = [len(part) for part in parts]
        sizes = _sizes(lengths, p["share"], p["rows"] or _most(lengths, p["share"]))
        rng = random.Random(step.seed)
        taken = [rng.sample(part, size) for part, size in zip(parts, sizes, strict=True)]
        if p["order"] == "alternate":
            places = [((at + 0.5) / len(part), index, row) for index, part in enumerate(taken) for at, row in enumerate(part)]
            rows = [row for _, _, row in sorted(places, key=lambda place: place[:2])]
        else:
            rows = [row for part in taken for row in part]
            if p["order"] == "shuffled":
                rng.shuffle(rows)
        step.configured("mix", {"rows in": lengths, "rows taken": sizes, "order": p["order"], "seed": step.seed})
        provenance = {"datasets": step.request["datasets"]["datasets"], "rows_in": lengths, "rows_taken": sizes}
        step.finish_dataset(rows, dataset_format(rows[0]), provenance)


def _of_one_format(call: Call) -> list[str]:
    datasets = call.datasets["datasets"]
    if len({dataset.format for dataset in datasets}) > 1:
        return ["only one format can be mixed: " + ", ".join(f"{data.id} is {data.format}" for data in datasets)]
    return []


def _shares(first: float, count: int) -> list[float]:
    return [first] + [(1.0 - first) / (count - 1)] * (count - 1)


def _most(counts: Sequence[int], share: float) -> int:
    """Rows in all that the shares allow without taking a row twice."""
    return min(int(count / part + 1e-9) for count, part in zip(counts, _shares(share, len(counts)), strict=True))


def _sizes(counts: Sequence[int], share: float, rows: int) -> list[int]:
    """Rows to take of each dataset; what rounding leaves over goes to the largest fractions that still have a row."""
    exact = [part * rows for part in _shares(share, len(counts))]
    sizes = [int(size + 1e-9) for size in exact]
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index] - exact[index]):
        if sum(sizes) < rows and sizes[index] < counts[index]:
            sizes[index] += 1
    return sizes


class Concat(ActionType):
    name = "concat"
    summary = "all rows of several datasets, equal ones once"
    family = "data"
    source = "lamdatui"
    output = "dataset"
    slots = (Slot("datasets", "datasets", "datasets of one format", FORMATS, least=2, most=16),)
    params = ()

    def check(self, call: Call) -> list[str]:
        return _of_one_format(call)

    def estimate(self, call: Call) -> Estimate:
        size = sum(data.rows for data in call.datasets["datasets"])
        return Estimate(seconds=1.0 + size * 3e-5, memory_bytes=SMALL + size * 4096, disk_bytes=size * 1024)

    def run(self, step: StepContext) -> None:
        parts = [step.rows("datasets", index) for index in range(len(step.request["datasets"]["datasets"]))]
        rows = {json.dumps(row, sort_keys=True): row for part in parts for row in part}
        told = {"rows_in": list(map(len, parts)), "equal_rows": sum(map(len, parts)) - len(rows)}
        step.configured("concat", told)
        every = list(rows.values())
        step.finish_dataset(every, dataset_format(every[0]), {"datasets": step.request["datasets"]["datasets"], **told})


class Filter(ActionType):
    name = "filter"
    summary = "drop duplicates, task rows, too short or long answers, and the hardest or easiest rows"
    family = "data"
    source = "near-duplicates: Lee et al. 2021, arXiv 2107.06499; choice by loss: Marion et al. 2023, arXiv 2309.04564"
    output = "dataset"
    slots = (
        Slot("dataset", "dataset", "the rows to choose from", FORMATS),
        Slot("judge", "model", "the model whose loss tells hard rows from easy ones", least=0),
    )
    params = (
        Param(
            "deduplicate", "str", "near", "near: 5-grams with a Jaccard similarity of 0.8", allowed=("none", "exact", "near")
        ),
        Param("shortest", "int", 0, "shorter answers are dropped; 0: no limit", low=0, high=10_000_000, unit="characters"),
        Param("longest", "int", 0, "longer answers are dropped; 0: no limit", low=0, high=10_000_000, unit="characters"),
        Param(
            "contamination",
            "float",
            0.8,
            "8-grams shared with a task's prompt, from which on a row is dropped; 0: not tested",
            low=0.0,
            high=1.0,
        ),
        Param(
            "drop_hardest", "float", 0.0, "share of the rows with the judge's largest loss", (0.0, 0.1, 0.3), low=0.0, high=0.99
        ),
        Param("drop_easiest", "float", 0.0, "share of the rows with the judge's smallest loss", (0.0, 0.3), low=0.0, high=0.99),
        Param(
            "max_length",
            "int",
            1024,
            "the judge reads this many tokens at the end of a longer row",
            low=8,
            high=1_048_576,
            unit="tokens",
        ),
    )

    def check(self, call: Call) -> list[str]:
        p, found = call.params, []
        judged = float(p["drop_hardest"]) + float(p["drop_easiest"])
        shortest, longest = int(p["shortest"]), int(p["longest"])
        if judged and not call.models["judge"]:
            found.append("drop_hardest and drop_easiest need a judge")
        if call.models["judge"] and not judged:
            found.append("a judge has nothing to do without drop_hardest or drop_easiest")
        if judged >= 1:
            found.append("drop_hardest and drop_easiest leave no row")
        if longest and shortest > longest:
            found.append(f"no answer has at least {shortest} and at most {longest} characters")
        form = call.dataset("dataset").format
        if form not in ANSWER and (judged or shortest or longest):
            found.append(f"{form} rows have no answer whose length or loss could be measured")
        if p["deduplicate"] == "none" and not (judged or shortest or longest or p["contamination"]):
            found.append("every criterion is off")
        return found

    def estimate(self, call: Call) -> Estimate:
        from lamdatui.costs import generation

        data = call.dataset("dataset")
        text = Estimate(1.0 + data.rows * 1e-3, SMALL + data.rows * 20_000, data.rows * 1024)
        if not call.models["judge"]:
            return text
        # Reading an answer costs a forward pass of its tokens, which is less than writing it.
        judged = generation(call, "judge", rows=data.rows, new_tokens=1)
        seconds = None if judged.seconds is None else judged.seconds + (text.seconds or 0.0)
        return Estimate(seconds, (judged.memory_bytes or 0) + (text.memory_bytes or 0), text.disk_bytes)

    def run(self, step: StepContext) -> None:
        from lamdatui.step.context import StepError

        p = step.params
        rows = list(step.rows("dataset"))
        form = dataset_format(rows[0])
        step.configured("filter", {"rows": len(rows), "format": form, **p})
        dropped: Counter[str] = Counter()
        kept = _by_length(rows, form, p["shortest"], p["longest"], dropped)
        kept = _distinct(kept, p["deduplicate"], dropped)
        kept = _uncontaminated(kept, p["contamination"], step.task_prompts() if p["contamination"] else [], dropped)
        if kept and p["drop_hardest"] + p["drop_easiest"] > 0:
            kept = _by_loss(kept, _losses(step, kept, ANSWER[form]), p["drop_hardest"], p["drop_easiest"], dropped)
        step.say(f"{len(kept)} of {len(rows)} rows kept; dropped: {dict(dropped)}")
        if len(kept) == len(rows):
            raise StepError("data", f"nothing was dropped: all {len(rows)} rows pass, the result would be the same dataset")
        provenance = {"dataset": step.request["datasets"]["dataset"][0], "judge": step.request["models"]["judge"]}
        step.finish_dataset(kept, form, provenance | {"rows_in": len(rows), "kept": len(kept), "dropped": dict(dropped)})


def _asked(row: dict[str, Any]) -> str:
    return row["text"] if "text" in row else said(row["prompt"])


def _by_length(
    rows: list[dict[str, Any]], form: str, shortest: int, longest: int, dropped: Counter[str]
) -> list[dict[str, Any]]:
    if not shortest and not longest:
        return rows
    kept = []
    for row in rows:
        size = len(said(row[ANSWER[form]]))
        if size < shortest:
            dropped["shorter"] += 1
        elif longest and size > longest:
            dropped["longer"] += 1
        else:
            kept.append(row)
    return kept


def _distinct(rows: list[dict[str, Any]], how: str, dropped: Counter[str]) -> list[dict[str, Any]]:
    """The first of equal rows (every column) and, with `near`, the first of rows whose texts are nearly the same."""
    from lamdatui.step.textmatch import near_duplicates

    if how == "none":
        return rows
    first = {json.dumps(row, sort_keys=True): row for row in reversed(rows)}
    kept = list(reversed(first.values()))
    dropped["exact duplicate"] += len(rows) - len(kept)
    if how == "near":
        # Labels, scorers, references and tools are no text: rows that differ there are different rows.
        kinds = [json.dumps([row.get(name) for name in BESIDE], sort_keys=True) for row in kept]
        texts = [row["text"] if "text" in row else "\n".join(said(row[name]) for name in PARTS if name in row) for row in kept]
        repeats = near_duplicates(texts, kinds)
        dropped["near duplicate"] += len(repeats)
        kept = [row for index, row in enumerate(kept) if index not in repeats]
    return kept


def _uncontaminated(
    rows: list[dict[str, Any]], threshold: float, prompts: list[str], dropped: Counter[str]
) -> list[dict[str, Any]]:
    from lamdatui.step.textmatch import overlaps

    if not threshold or not rows:
        return rows
    shares = overlaps([_asked(row) for row in rows], prompts)
    kept = [row for row, share in zip(rows, shares, strict=True) if share < threshold]
    dropped["overlaps a task"] += len(rows) - len(kept)
    return kept


def _by_loss(
    rows: list[dict[str, Any]], losses: list[float], hardest: float, easiest: float, dropped: Counter[str]
) -> list[dict[str, Any]]:
    """Rows in their order without the given shares at both ends of the losses (rows,)."""
    order = sorted(range(len(rows)), key=lambda index: losses[index])
    low, high = int(easiest * len(rows)), len(rows) - int(hardest * len(rows))
    dropped["easiest"] += low
    dropped["hardest"] += len(rows) - high
    return [rows[index] for index in sorted(order[low:high])]


def _losses(step: StepContext, rows: list[dict[str, Any]], column: str) -> list[float]:
    """The judge's mean loss a token (nats) on each row's answer, read after its prompt: (rows,)."""
    import torch
    from torch.nn.functional import cross_entropy

    tokenizer, model = step.load_tokenizer("judge"), step.load_model("judge")
    limit = min(step.params["max_length"], getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
    encoder = step.encoder(tokenizer)
    encoded = [_encode(encoder, row, column, limit) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: -len(encoded[index][0]))
    size = step.batch(JUDGED_ROWS)["per_device_train_batch_size"]
    losses = [0.0] * len(rows)
    model.eval()
    for start in range(0, len(order), size):
        group = order[start : start + size]
        width = len(encoded[group[0]][0])
        ids = torch.full((len(group), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(group), width), dtype=torch.long)
        labels = torch.full((len(group), width), -100)
        for at, index in enumerate(group):
            tokens, answer = encoded[index]
            ids[at, : len(tokens)] = torch.tensor(tokens)
            mask[at, : len(tokens)] = 1
            labels[at, len(tokens) - answer : len(tokens)] = torch.tensor(tokens[-answer:])
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
            for at, index in enumerate(group):
                # The logits of one place predict the next token.
                losses[index] = float(cross_entropy(logits[at, :-1].float(), labels[at, 1:].to(model.device)))
        step.metric(phase="judge", done=start + len(group), total=len(rows))
    return losses


def _encode(encoder: Encoder, row: dict[str, Any], column: str, limit: int) -> tuple[list[int], int]:
    """Token ids of a row, at most the last `limit`, and how many of them at the end are the answer's."""
    ids, start = encoder.encode(row, column)
    tokens = ids[-limit:]
    return tokens, max(1, min(len(ids) - start, len(tokens) - 1))


ACTIONS = (Mix(), Concat(), Filter())
