"""Rows as token ids: what a trainer gets, from the one rendering that `check` and `data show` use too (`lamdatui.inputs.templates`).

TRL's trainers render conversations themselves, each in its own way; they are given ids here, so that all train the same tokens of a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from lamdatui.inputs.rowshapes import ANSWERS, dataset_format
from lamdatui.inputs.templates import SPECIAL, ChatTemplate, common_start, make_template
from lamdatui.step.errors import StepError

Row = Mapping[str, Any]


class Encoded(NamedTuple):
    """Token ids of a prompt with an answer: `ids[:start]` are read, `ids[start:]` are trained."""

    ids: list[int]
    start: int


class Encoder:
    """A tokenizer with its chat template; `older`: as before `ASKED`, all that a template writes after the prompt is trained, and no more."""

    def __init__(self, tokenizer: Any, *, older: bool = False) -> None:
        self.tokenizer = tokenizer
        self.template = of_tokenizer(tokenizer)
        self.template.is_older = older

    def ids(self, text: str) -> list[int]:
        """Token ids of a text that brings its special tokens with it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def ask(self, row: Row) -> str:
        """The text that a row is asked with. Raises StepError(template)."""
        try:
            return self.template.ask(row)
        except ValueError as error:
            raise _refused(error) from error

    def encode(self, row: Row, name: str = "completion") -> Encoded:
        """A row with one of its answers; a row of plain text is trained from its first token on. Raises StepError(template)."""
        if "text" in row:
            ids = list(self.tokenizer(row["text"])["input_ids"])
            end = self.tokenizer.eos_token_id
            return Encoded(ids if end is None or ids[-1:] == [end] else [*ids, end], 0)
        try:
            split = self.template.split(row, row[name])
        except ValueError as error:
            raise _refused(error) from error
        ids, asked = self.ids(split.text), self.ids(split.text[: split.start])
        # Where a tokenizer merges across the boundary, the answer begins one token earlier.
        return Encoded(ids, common_start(asked, ids))

    def pair(self, row: Row) -> dict[str, list[int]]:
        """`prompt_ids`, `chosen_ids`, `rejected_ids`: the answers begin at one place."""
        both = {name: self.encode(row, name) for name in ("chosen", "rejected")}
        start = min(encoded.start for encoded in both.values())
        shared = min(common_start(both["chosen"].ids[:start], both["rejected"].ids[:start]), start)
        answers = {f"{name}_ids": encoded.ids[shared:] for name, encoded in both.items()}
        return {"prompt_ids": both["chosen"].ids[:shared], **answers}

    def length(self, row: Row) -> int:
        """Tokens of a row, with the longest of its answers."""
        names = [name for name in (*ANSWERS, "text") if name in row]
        return max((len(self.encode(row, name).ids) for name in names), default=0) or len(self.ids(self.ask(row)))


def encoded(encoder: Encoder, rows: Sequence[Row]) -> Dataset:
    """Rows for a trainer of `lamdatui.step.trainers` or TRL's SFTTrainer, by the format of the first one.

    Columns: `input_ids` and `completion_mask` (1: trained) of answers and plain text; `prompt_ids`, `chosen_ids`, `rejected_ids` of pairs;
    `prompt_ids`, `completion_ids`, `label` of judged answers; else `prompt`, the text that is asked with, and `scorer` with `reference` as JSON
    text where there is one. Raises StepError(template).
    """
    form = dataset_format(rows[0])
    if form in ("sft", "text"):
        return Dataset.from_list(
            [
                {"input_ids": ids, "completion_mask": [0] * start + [1] * (len(ids) - start)}
                for ids, start in map(encoder.encode, rows)
            ]
        )
    if form == "preference":
        return Dataset.from_list([encoder.pair(row) for row in rows])
    if form == "unpaired":
        found = [(encoder.encode(row), row["label"]) for row in rows]
        return Dataset.from_list(
            [{"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": label} for (ids, start), label in found]
        )
    judged = [{"scorer": row["scorer"], "reference": reference_text(row)} if "scorer" in row else {} for row in rows]
    return Dataset.from_list([{"prompt": encoder.ask(row), **more} for row, more in zip(rows, judged, strict=True)])


def reference_text(row: Row) -> str:
    """A reference as JSON text: Arrow wants one type a column, references are of any."""
    return json.dumps(row["reference"], ensure_ascii=False)


def longest(data: Dataset) -> int:
    """Tokens of the longest row of `encoded`."""
    answers = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in data.column_names]
    if not answers:
        return max(map(len, data["input_ids"]), default=0)
    return max((len(row["prompt_ids"]) + max(len(row[name]) for name in answers) for row in data), default=0)  # type: ignore[index]


def of_tokenizer(tokenizer: Any) -> ChatTemplate:
    """The template that a loaded tokenizer has. Raises StepError(template) when it has none."""
    told = tokenizer.chat_template
    named = told if isinstance(told, dict) else {"default": told}
    if not named.get("default"):
        raise StepError(
            "template", "the model has no chat template; name one in the profile (chat_template: chatml, or a file)"
        )
    words = {name: word for name, word in tokenizer.special_tokens_map.items() if name in SPECIAL and isinstance(word, str)}
    path, known = Path(tokenizer.name_or_path), getattr(tokenizer, "backend_tokenizer", None)
    return make_template(path, named["default"], named.get("tool_use", ""), words, known)


def _refused(error: ValueError) -> StepError:
    return StepError("template", f"the chat template does not take a row: {str(error).splitlines()[0][:200]}")


def longest_row(data: Dataset, tokenizer: Any) -> int:
    """Tokens of the longest row, of ids or of text; of pairs the longer answer counts."""
    if "prompt" not in data.column_names and "text" not in data.column_names:
        return longest(data)
    encoder = Encoder(tokenizer)
    return max((encoder.length(dict(row)) for row in data), default=0)  # type: ignore[arg-type]
