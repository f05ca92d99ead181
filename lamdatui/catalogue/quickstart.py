"""Building the quickstart profile's tasks and datasets from BFCL rows and the base model's own words.

The splits, prompts, gold calls and wrong calls are the same on every machine. What the base model says (the words of
`instructions.jsonl` and of the instruction preferences, and the prose that some wrong calls are) is greedy but may
differ in a word between kinds of processor, so those files are not bit-for-bit reproducible across machines.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdatui.base.errors import LamdatuiError
from lamdatui.catalogue import quickstart_calls as calls
from lamdatui.catalogue import quickstart_instructions as instructions
from lamdatui.catalogue.fetch import resolve

SEED = 1
CALL_SIZES = {"search": 48, "sealed": 120}
INSTRUCTION_SIZES = {"search": 42, "sealed": 98}
INSTRUCTIONS_PER_TOPIC = 3
PROSE_ROWS = 24
ANSWER_TOKENS = 80
PROSE_TOKENS = 48
BATCH = 50
CALLS_PER_INSTRUCTION = 3

SOURCES = """# Where these files come from

- `tool_use.jsonl`, `function_calls.jsonl`, `call_rewards.jsonl`, `preferences.jsonl` and the calls in `mix.jsonl`: questions, functions and
  accepted answers of the Berkeley Function-Calling Leaderboard (package bfcl-eval, Apache-2.0), reformatted, split anew
  and in part trained on. Scores on them are not BFCL scores.
- The answers in `instructions.jsonl`, `instruction_preferences.jsonl` and `mix.jsonl`: written by SmolLM2-135M-Instruct
  (Apache-2.0) and brought into form by rules. They may state things that are not true.
"""

Say = Callable[[str], None]
Row = dict[str, Any]
Messages = list[dict[str, str]]
Answer = Callable[[list[Messages], int, str], list[str]]


@dataclass(frozen=True)
class AnswerPair:
    """A training row's prompt with a right and a wrong answer."""

    prompt: Messages
    chosen: str
    rejected: str

    def row(self) -> Row:
        """The row as it is written: three conversations."""
        return {
            "prompt": self.prompt,
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
        }


def base_answers(model_dir: Path, say: Say) -> Answer:
    """A function (conversations, tokens at most, what for) → greedy answers of the model in `model_dir`, in order."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, padding_side="left", local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True)
    model.to(device).eval()

    def answer(conversations: list[Messages], tokens: int, what: str) -> list[str]:
        ids = [tokenizer.apply_chat_template(one, add_generation_prompt=True)["input_ids"] for one in conversations]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        answers = [""] * len(ids)
        started = time.monotonic()
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            batch = tokenizer.pad({"input_ids": [ids[place] for place in places]}, return_tensors="pt").to(device)
            with torch.inference_mode():
                made = model.generate(**batch, max_new_tokens=tokens, do_sample=False)
            texts = tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for place, text in zip(places, texts, strict=True):
                answers[place] = text
            say(f"{what}: {first + len(places)} of {len(order)} answers, {time.monotonic() - started:.0f} s")
        return answers

    return answer


def _write(path: Path, rows: Iterable[Row], say: Say) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"{path.name}: {len(lines)} rows")


def tool_use_rows(splits: dict[str, list[calls.CallRow]]) -> list[Row]:
    """The tool-use task: the rows of both evaluation splits."""
    return [
        {"id": row.id, "split": split, "messages": calls.prompt(row), "reference": calls.reference(row)}
        for split in CALL_SIZES
        for row in splits[split]
    ]


def instruction_task_rows(pairs: dict[str, list[tuple[str, str]]]) -> list[Row]:
    """The task of asked forms: the rows of both evaluation splits."""
    return [
        {"id": prompt.id, "split": split, "messages": prompt.messages, "reference": prompt.reference}
        for split in INSTRUCTION_SIZES
        for prompt in instructions.task_prompts(split, pairs[split], SEED)
    ]


def _conversation(prompt: Messages, answer: str) -> Row:
    return {"messages": [*prompt, {"role": "assistant", "content": answer}]}


def call_rows(train: list[calls.CallRow]) -> list[Row]:
    """Training conversations that end in the right call."""
    golds = [(row, calls.gold_call(row)) for row in train]
    return [_conversation(calls.prompt(row), calls.call_text(gold)) for row, gold in golds if gold is not None]


def reward_rows(train: list[calls.CallRow]) -> list[Row]:
    """Training questions with the answers that the scorer of calls accepts: for actions that learn from its verdict."""
    return [{"prompt": calls.prompt(row), "scorer": "function_call", "reference": calls.reference(row)} for row in train]


def mixed_rows(some: list[Row], others: list[Row], seed: int) -> list[Row]:
    """`CALLS_PER_INSTRUCTION` rows of `some` for each of `others`, in turn, both shuffled, until one of them ends."""
    rng = random.Random(seed)
    some, others = rng.sample(some, len(some)), rng.sample(others, len(others))
    turns = min(len(some) // CALLS_PER_INSTRUCTION, len(others))
    mixed: list[Row] = []
    for turn in range(turns):
        mixed.extend(some[turn * CALLS_PER_INSTRUCTION : (turn + 1) * CALLS_PER_INSTRUCTION])
        mixed.append(others[turn])
    return mixed


def call_preferences(train: list[calls.CallRow], prose: dict[str, str], seed: int) -> list[Row]:
    """Right calls against wrong ones: made wrong by a rule, or, where `prose` has the row's id, the base's answer."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for number, row in enumerate(train):
        gold = calls.gold_call(row)
        if gold is None:
            continue
        wrong = prose.get(row.id) or calls.wrong_call(row, gold, number, rng)
        if wrong and calls.function_call(calls.reference(row), wrong) == 0.0:
            rows.append(AnswerPair(calls.prompt(row), calls.call_text(gold), wrong).row())
    return rows


def instruction_preferences(rows: list[tuple[instructions.Prompt, str]], plain: dict[str, str]) -> list[Row]:
    """Answers in the asked form against the base's own words on the same topic in no form (`plain`, by topic)."""
    made: list[Row] = []
    for prompt, answer in rows:
        other = " ".join(instructions.body_of(plain[prompt.topic])[:4])
        if other and instructions.constraints(prompt.reference, other) < 1.0:
            made.append(AnswerPair(prompt.messages, answer, other).row())
    return made


def build_from(bfcl: Path, answer: Answer, target: Path, say: Say) -> None:
    """Write the two tasks and six datasets into `target`, with `answer` speaking for the base model."""
    splits = calls.split_rows([row for row in calls.load_rows(bfcl) if calls.answerable(row)], CALL_SIZES, SEED)
    pairs = instructions.split_topics(INSTRUCTION_SIZES, SEED)
    train, train_pairs = splits["train"], pairs["train"]

    plain = answer([instructions.plain_request(question) for _, question in train_pairs], ANSWER_TOKENS, "instructions")
    prose_rows = random.Random(SEED).sample(train, PROSE_ROWS)
    prose = answer([calls.prompt(row) for row in prose_rows], PROSE_TOKENS, "wrong calls")

    pairs_of_answers = instructions.training_rows(train_pairs, plain, INSTRUCTIONS_PER_TOPIC, SEED)
    instruction_rows = [_conversation(prompt.messages, text) for prompt, text in pairs_of_answers]
    right_calls = call_rows(train)
    by_topic = {topic: text for (topic, _), text in zip(train_pairs, plain, strict=True)}
    by_id = {row.id: text.strip() for row, text in zip(prose_rows, prose, strict=True)}

    (target / "SOURCES.md").write_text(SOURCES, encoding="utf-8")
    _write(target / "tool_use.jsonl", tool_use_rows(splits), say)
    _write(target / "format_constraints.jsonl", instruction_task_rows(pairs), say)
    _write(target / "function_calls.jsonl", right_calls, say)
    _write(target / "call_rewards.jsonl", reward_rows(train), say)
    _write(target / "instructions.jsonl", instruction_rows, say)
    _write(target / "mix.jsonl", mixed_rows(right_calls, instruction_rows, SEED), say)
    _write(target / "preferences.jsonl", call_preferences(train, by_id, SEED), say)
    _write(target / "instruction_preferences.jsonl", instruction_preferences(pairs_of_answers, by_topic), say)


def build(target: Path, say: Say) -> None:
    """The catalogue entry `quickstart-data-2`. Needs `bfcl` and `smollm2-135m`; 1 to 3 minutes on two cores."""
    answer = base_answers(resolve("catalogue:smollm2-135m"), say)
    build_from(resolve("catalogue:bfcl"), answer, target, say)


def superseded(target: Path, say: Say) -> None:
    """The catalogue entry `quickstart-data`, whose tasks asked in the words of its training rows. Raises LamdatuiError."""
    raise LamdatuiError(
        "this data is not made any more: its tasks asked in the words of its training rows",
        where="quickstart-data",
        fix="lamdatui models fetch quickstart-data-2, and start the quickstart anew; a run that began with the older data needs a copy of it",
    )
