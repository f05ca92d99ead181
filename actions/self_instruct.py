"""New prompts after the example of seed rows, answered by the model itself: a dataset without a teacher.

Prompts come from the model, which continues lists of seed prompts (Self-Instruct, Wang et al. 2022, arXiv 2212.10560), or
from the seeds alone: `recombine` puts words of one seed prompt into the places of another of the same form (Andreas 2020,
arXiv 1904.09545), which also works for a model that can only answer. Answers are the model's own: greedy, or what most of
several samples agree on, which are right more often than one answer (Huang et al. 2022, arXiv 2210.11610). Generated text
is only ever compared and stored, never executed.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamdatui.actions import ActionType, Call, Estimate, Param, Slot

if TYPE_CHECKING:
    from lamdatui.step.context import StepContext

Messages = list[dict[str, str]]
Seeds = dict[str, list[str]]
TRIES = 20
"""Recombinations that are tried for each one wanted: some give a seed again."""


class SelfInstruct(ActionType):
    name = "self_instruct"
    summary = "new prompts after the example of seed rows, answered by the model itself"
    family = "data"
    source = "Self-Instruct: Wang et al. 2022, arXiv 2212.10560; majority answers: Huang et al. 2022, arXiv 2210.11610"
    output = "dataset"
    samples = True
    slots = (
        Slot("model", "model", "the model that writes prompts and answers"),
        Slot("dataset", "dataset", "seed rows", formats=("sft",)),
    )
    params = (
        Param(
            "write",
            "str",
            "continue",
            "continue: the model continues lists of seeds; recombine: a seed with words of another one",
            allowed=("continue", "recombine"),
        ),
        Param("count", "int", 100, "lists to continue, or prompts to recombine", (100, 300), low=1, high=1_000_000),
        Param("examples", "int", 5, "seed prompts in a list", low=1, high=64, unit="prompts"),
        Param("prompt_tokens", "int", 96, "tokens by which a list is continued", low=4, high=8192, unit="tokens"),
        Param(
            "max_new_tokens", "int", 256, "longer answers count as cut off and are left out", low=1, high=65_536, unit="tokens"
        ),
        Param("samples", "int", 1, "answers drawn for a prompt; 1: a greedy one", low=1, high=1024, unit="answers"),
        Param("agreement", "float", 0.6, "share of the samples that must be the same answer", low=0.0, high=1.0),
        Param("temperature", "float", 0.7, "of new prompts, and of several answers", (0.7, 1.0), low=0.01, high=5.0),
        Param("top_p", "float", 0.95, "only the likeliest tokens of this total probability are drawn", low=0.01, high=1.0),
        Param("similarity", "float", 0.7, "ROUGE-L with a known prompt, from which on one is dropped", low=0.01, high=1.0),
        Param("contamination", "float", 0.8, "8-grams shared with a task's prompt, likewise", low=0.01, high=1.0),
    )

    def estimate(self, call: Call) -> Estimate:
        from lamdatui.costs import generation

        p, count = call.params, int(call.params["count"])
        # About one new prompt a list survives.
        tokens = int(p["samples"]) * int(p["max_new_tokens"])
        tokens += int(p["prompt_tokens"]) if p["write"] == "continue" else 0
        return generation(call, "model", rows=count, new_tokens=tokens)

    def run(self, step: StepContext) -> None:
        from lamdatui.step.context import StepError

        p = step.params
        seeds = _seeds(step.rows("dataset"))
        if not seeds:
            raise StepError("data", "no two seed rows with one user message share a system message (or have none)")
        step.configured("self_instruct", {"seeds": sum(map(len, seeds.values())), "list": few_shot(["…"] * 2), **p})
        tokenizer = step.load_tokenizer("model")
        counts: Counter[str] = Counter()
        if p["write"] == "continue":
            found = _continued(step, tokenizer, seeds, counts)
        else:
            found = recombined(random.Random(step.seed), seeds, p["count"])
        counts["prompts written"] = len(found)
        kept = _usable(found, seeds, step.task_prompts(), p["similarity"], p["contamination"], counts)
        if not kept:
            raise StepError("data", f"no new prompt is usable: {json.dumps(dict(counts))}")
        made = _answered(step, tokenizer, [_conversation(system, prompt) for system, prompt in kept], counts)
        if not made:
            raise StepError("data", f"no answer is usable: {json.dumps(dict(counts))}")
        provenance = {
            "model": step.request["models"]["model"][0],
            "dataset": step.request["datasets"]["dataset"][0],
            "sampling": p,
            "counts": dict(counts),
        }
        step.finish_dataset(made, "sft", provenance)


def _continued(step: StepContext, tokenizer: Any, seeds: Seeds, counts: Counter[str]) -> list[tuple[str, str]]:
    """(system, prompt) that the model wrote after lists of seed prompts."""
    p = step.params
    rng = random.Random(step.seed)
    room = step.positions("model")
    lists = [_draw(rng, seeds, p["examples"], tokenizer, room - p["prompt_tokens"]) for _ in range(p["count"])]
    openings = [text for _, text in lists]
    written = step.sample(
        "model", tokenizer, openings, max_new_tokens=p["prompt_tokens"], temperature=p["temperature"], top_p=p["top_p"]
    )
    found: list[tuple[str, str]] = []
    for (system, _), (text,) in zip(lists, written, strict=True):
        one_line = not any("\n" in seed for seed in seeds[system])
        new = new_prompts(text, one_line=one_line, ended=_tokens(tokenizer, text) < p["prompt_tokens"])
        counts["lists without a new prompt"] += not new
        found += [(system, prompt) for prompt in new]
    return found


def _answered(step: StepContext, tokenizer: Any, asked: list[Messages], counts: Counter[str]) -> list[dict[str, Messages]]:
    """Rows of the conversations whose answer is usable; of several samples, the answer that enough of them agree on."""
    p = step.params
    many = {"samples": p["samples"], "temperature": p["temperature"], "top_p": p["top_p"]} if p["samples"] > 1 else {}
    answers = step.sample("model", tokenizer, asked, max_new_tokens=p["max_new_tokens"], **many)
    made = []
    for conversation, texts in zip(asked, answers, strict=True):
        ((text, votes),) = Counter(text.strip() for text in texts).most_common(1)
        problem = _answer_problem(text, conversation[-1]["content"], _tokens(tokenizer, text) >= p["max_new_tokens"])
        if not problem and votes < p["agreement"] * len(texts):
            problem = "answers disagree"
        if problem:
            counts[problem] += 1
        else:
            made.append({"prompt": conversation, "completion": [{"role": "assistant", "content": text}]})
    return made


def recombined(rng: random.Random, seeds: Seeds, count: int) -> list[tuple[str, str]]:
    """(system, prompt), `count` at most: a seed with one of its words replaced by the word in that place of another seed.

    Both have the same form: as many words, with the same spaces and signs between them.
    """
    forms: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for system, prompts in seeds.items():
        for prompt in prompts:
            pieces = re.split(r"(\w+)", prompt)
            forms.setdefault((system, *pieces[::2]), []).append(tuple(pieces[1::2]))
    pairs = {form: words for form, words in forms.items() if len(words) > 1 and len(form) > 2}
    found: dict[tuple[str, str], None] = {}
    for _ in range(count * TRIES if pairs else 0):
        if len(found) == count:
            break
        (form,) = rng.choices(list(pairs), weights=[len(words) for words in pairs.values()])
        system, between = form[0], form[1:]
        one, other = rng.sample(pairs[form], 2)
        place = rng.randrange(len(one))
        words = [*one[:place], other[place], *one[place + 1 :], ""]
        prompt = "".join(sign + word for sign, word in zip(between, words, strict=True))
        if prompt not in seeds[system]:
            found[(system, prompt)] = None
    return list(found)


def few_shot(prompts: list[str]) -> str:
    """A numbered list of prompts whose next number is open: plain text that a model continues."""
    return "".join(f"Task {number}: {prompt}\n" for number, prompt in enumerate(prompts, 1)) + f"Task {len(prompts) + 1}:"


def new_prompts(text: str, *, one_line: bool, ended: bool) -> list[str]:
    """The prompts in what a model wrote after `few_shot`, as far as it kept to the list.

    `one_line` says that no seed has a line break: then the first line without a number ends the list. `ended` says that the
    model ended by itself; otherwise the last prompt is incomplete and left out.
    """
    if one_line:
        lines = text.split("\n")
        complete = lines if ended else lines[:-1]
        found = complete[:1]
        for line in complete[1:]:
            heading = re.match(r"\s*Task \d+:", line)
            if heading is None:
                break
            found.append(line[heading.end() :])
    else:
        found = re.split(r"\n\s*Task \d+:", text)
        found = found if ended else found[:-1]
    return [prompt.strip() for prompt in found if prompt.strip()]


def _seeds(rows: Sequence[dict[str, Any]]) -> Seeds:
    """System message ("" for none) → different prompts of the rows with one user message under it; at least two each."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        *before, last = row["prompt"]
        # A question with functions to call makes no sense without them.
        if "tools" not in row and last["role"] == "user" and [message["role"] for message in before] in ([], ["system"]):
            found.setdefault(before[0]["content"] if before else "", {})[last["content"].strip()] = None
    return {system: list(prompts) for system, prompts in found.items() if len(prompts) > 1}


def _draw(rng: random.Random, seeds: Seeds, count: int, tokenizer: Any, room: int) -> tuple[str, str]:
    """A system message and a list of `count` prompts under it, or of as many as `room` tokens take."""
    (system,) = rng.choices(list(seeds), weights=[len(prompts) for prompts in seeds.values()])
    picked = rng.sample(seeds[system], min(count, len(seeds[system])))
    while len(picked) > 1 and _tokens(tokenizer, few_shot(picked)) > room:
        picked.pop()
    return system, few_shot(picked)


def _usable(
    found: list[tuple[str, str]],
    seeds: Seeds,
    tasks: list[str],
    similarity: float,
    contamination: float,
    counts: Counter[str],
) -> list[tuple[str, str]]:
    """The (system, prompt) that are new, of the seeds' size, readable and in no task; each drop is counted by its reason."""
    from lamdatui.step.textmatch import degenerate, overlaps, rouge_l, words

    sizes = [len(prompt) for prompts in seeds.values() for prompt in prompts]
    shares = overlaps([prompt for _, prompt in found], tasks)
    known = [words(prompt) for prompts in seeds.values() for prompt in prompts]
    kept = []
    for (system, prompt), share in zip(found, shares, strict=True):
        if not min(sizes) / 2 <= len(prompt) <= max(sizes) * 2:
            counts["prompt of another size than the seeds"] += 1
        elif degenerate(prompt) or re.search(r"\bTask \d+:", prompt):
            counts["prompt degenerate"] += 1
        elif share >= contamination:
            counts["prompt overlaps a task"] += 1
        elif rouge_l(prompt, known, similarity) >= similarity:
            counts["prompt too like a seed or an earlier one"] += 1
        else:
            known.append(words(prompt))
            kept.append((system, prompt))
    return kept


def _answer_problem(text: str, prompt: str, cut_off: bool) -> str | None:
    from lamdatui.step.textmatch import degenerate

    if not text.strip():
        return "answer empty"
    if cut_off:
        return "answer cut off"
    if degenerate(text):
        return "answer degenerate"
    return "answer repeats the prompt" if text.strip() == prompt else None


def _conversation(system: str, prompt: str) -> Messages:
    return [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": prompt}]


def _tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


ACTION = SelfInstruct()
