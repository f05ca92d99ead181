"""Datasets that a model writes itself and a scorer judges: its right answers, or pairs of right and wrong ones.

`rejection_sample` and `make_preferences` draw several answers to verifiable prompts and let the scorer of the row judge
them. Generated text is only ever compared and stored, never executed.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from lamdatui.actions import ActionType, Call, Estimate, Param, Slot
from lamdatui.datafiles import question_parts

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

Messages = list[dict[str, str]]
Row = dict[str, Any]

MODEL = Slot("model", "model", "the model that writes the answers")
VERIFIABLE = Slot("dataset", "dataset", "prompts with what a right answer is", formats=("verifiable",))


def _sampling(temperature: float, *grid: float) -> tuple[Param, ...]:
    return (
        Param("samples", "int", 4, "answers drawn for a prompt", (4, 8), low=2, high=1024, unit="answers"),
        Param("temperature", "float", temperature, "higher: more varied, more wrong answers", grid, low=0.01, high=5.0),
        Param("top_p", "float", 1.0, "only the likeliest tokens of this total probability are drawn", low=0.01, high=1.0),
        Param(
            "max_new_tokens", "int", 256, "longer answers count as cut off and are left out", low=1, high=65_536, unit="tokens"
        ),
        Param("prompts", "int", 500, "prompts at most, chosen by the seed; 0: all", low=0, high=100_000_000, unit="prompts"),
        Param("right", "float", 1.0, "score from which an answer is right", low=0.01, high=1.0),
    )


class RejectionSample(ActionType):
    """Without the rationalisation of STaR: no hint is given on prompts that the model never gets right."""

    name = "rejection_sample"
    summary = "the model's own right answers to verifiable prompts, as a dataset to fine-tune on"
    family = "data"
    source = "STaR: Zelikman et al. 2022, arXiv 2203.14465; RFT: Yuan et al. 2023, arXiv 2308.01825"
    output = "dataset"
    samples = True
    slots = (MODEL, VERIFIABLE)
    params = (
        *_sampling(1.0, 0.7, 1.0),
        Param("keep", "int", 4, "different right answers kept for a prompt, at most", low=1, high=1024, unit="answers"),
        Param("skip_solved", "bool", False, "leave out prompts without a wrong sample", (False, True)),
    )

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call)

    def run(self, step: StepContext) -> None:
        p, rows = step.params, _chosen(step)
        counts: Counter[str] = Counter()
        made: list[Row] = []
        for row, (right, wrong) in zip(rows, _judged_answers(step, rows, counts), strict=True):
            if not right:
                counts["prompts never right"] += 1
            elif p["skip_solved"] and not wrong:
                counts["prompts always right, left out"] += 1
            else:
                counts["prompts used"] += 1
                different = list(dict.fromkeys(right))[: p["keep"]]
                counts["right, but repeated or beyond keep"] += len(right) - len(different)
                made += [{**question_parts(row), "completion": _answer(text)} for text in different]
        _finish(step, made, "sft", counts)


class MakePreferences(ActionType):
    name = "make_preferences"
    summary = "pairs of the model's own right and wrong answers to verifiable prompts"
    family = "data"
    source = "pairs from a verifier, as in iterative reasoning preference optimisation: Pang et al. 2024, arXiv 2404.19733"
    output = "dataset"
    samples = True
    slots = (MODEL, VERIFIABLE)
    params = (
        *_sampling(0.7, 0.7, 1.0),
        Param("pairs", "int", 4, "pairs for a prompt, at most", (1, 4), low=1, high=1024, unit="pairs"),
    )

    def estimate(self, call: Call) -> Estimate:
        return _estimate(call)

    def run(self, step: StepContext) -> None:
        rows = _chosen(step)
        counts: Counter[str] = Counter()
        made: list[Row] = []
        for row, (right, wrong) in zip(rows, _judged_answers(step, rows, counts), strict=True):
            if not right or not wrong:
                counts["prompts never right" if not right else "prompts always right"] += 1
                continue
            counts["prompts with a pair"] += 1
            # The mistakes that the model makes most often come first.
            chosen = list(dict.fromkeys(right))
            rejected = [text for text, _ in Counter(wrong).most_common()]
            for at in range(min(step.params["pairs"], max(len(chosen), len(rejected)))):
                better, worse = chosen[at % len(chosen)], rejected[at % len(rejected)]
                made.append({**question_parts(row), "chosen": _answer(better), "rejected": _answer(worse)})
        step.say(f"{counts['prompts with a pair']} of {len(rows)} prompts gave a pair")
        _finish(step, made, "preference", counts)


def _estimate(call: Call) -> Estimate:
    from lamdatui.costs import generation

    rows, wanted = call.dataset("dataset").rows, int(call.params["prompts"])
    answers = (min(rows, wanted) if wanted else rows) * int(call.params["samples"])
    return generation(call, "model", rows=answers, new_tokens=int(call.params["max_new_tokens"]))


def _chosen(step: StepContext) -> list[Row]:
    """The prompts that this action takes, in the dataset's order."""
    rows, wanted = step.rows("dataset"), step.params["prompts"]
    if not wanted or wanted >= len(rows):
        return list(rows)
    return [rows[index] for index in sorted(random.Random(step.seed).sample(range(len(rows)), wanted))]


def _judged_answers(step: StepContext, rows: list[Row], counts: Counter[str]) -> list[tuple[list[str], list[str]]]:
    """(right answers, wrong answers) to each row, repeated ones too; what was cut off or is empty is neither."""
    p = step.params
    step.configured("sampling", {"prompts": len(rows), **p})
    tokenizer = step.load_tokenizer("model")
    texts = step.sample(
        "model",
        tokenizer,
        [question_parts(row) for row in rows],
        samples=p["samples"],
        max_new_tokens=p["max_new_tokens"],
        temperature=p["temperature"],
        top_p=p["top_p"],
    )
    encoder = step.encoder(tokenizer)
    found = []
    for row, answers in zip(rows, texts, strict=True):
        asked = encoder.ask(row)
        right: list[str] = []
        wrong: list[str] = []
        for text in answers:
            if not text.strip():
                counts["empty"] += 1
            elif _tokens(tokenizer, text) >= p["max_new_tokens"]:
                counts["cut off"] += 1
            else:
                (right if step.verify(row["scorer"], row["reference"], text, asked) >= p["right"] else wrong).append(
                    text.strip()
                )
        counts["prompts"] += 1
        counts["answers"] += len(answers)
        counts["right"] += len(right)
        counts["wrong"] += len(wrong)
        found.append((right, wrong))
    return found


def _answer(text: str) -> Messages:
    return [{"role": "assistant", "content": text}]


def _tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _finish(step: StepContext, rows: list[Row], form: Any, counts: Counter[str], **more: Any) -> None:
    provenance = {
        "model": step.request["models"]["model"][0],
        "dataset": step.request["datasets"]["dataset"][0],
        "sampling": step.params,
        "counts": dict(counts),
        **more,
    }
    step.finish_dataset(rows, form, provenance)


ACTIONS = (RejectionSample(), MakePreferences())
