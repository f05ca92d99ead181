"""Chat templates, looked at before anything runs: every row of a dataset or task through a model's own template, without torch.

What is looked for is what goes wrong later without a word, or late: rows that a template refuses, functions and calls that it leaves out, a
question that is no beginning of the text that is trained, text that the template puts before an answer, an end of turn that is no stop token,
control tokens in what people wrote, rows longer than the model's positions.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lamdatui.inputs.rowshapes import ANSWERS, row_messages
from lamdatui.inputs.templates import ChatTemplate, Split, read_object

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "encoder_repetition_penalty": 1.0,
}
"""Settings of generation_config.json that change greedy answers → the value at which they don't."""
LEARNED = frozenset(("gpt2", "gpt_neo", "opt", "gpt_bigcode", "xglm", "openai-gpt", "biogpt"))
"""Model types whose positions are learned: there is nothing beyond the last one."""
LONGEST = 20
"""As many of the longest rows, by characters, are tokenised."""
TAIL = 20
"""Characters at the end of a message that its text has to hold."""
FIX_END = "add its id to eos_token_id in the model's generation_config.json"
FIX_LOST = "take a model whose template has them (chat_template: in the profile gives it one), or drop them from the rows"


class Note(NamedTuple):
    """Something to know about a model with rows; `bad` ends a run."""

    status: Literal["warn", "bad"]
    detail: str
    fix: str = ""


NO_TEMPLATE = Note(
    "bad",
    "the model has no chat template: neither its rows nor its questions can be written",
    "name one in the profile (chat_template: chatml, or a file), or put a chat_template.jinja into its directory",
)


NO_END = Note(
    "bad",
    "neither its tokenizer nor its generation_config.json names a token that ends an answer: answers would never end",
    "name eos_token in tokenizer_config.json, or eos_token_id in generation_config.json",
)


def of_model(template: ChatTemplate) -> list[Note]:
    """What is to know of a model's template and generation settings by themselves."""
    if not template.text:
        return [NO_TEMPLATE]
    found = []
    if not template.ends and "eos_token" not in template.words:
        found.append(NO_END)
    if "strftime_now" in template.text:
        found.append(
            Note("warn", "its chat template writes today's date into prompts (strftime_now): answers change from day to day")
        )
    generation = read_object(template.path / "generation_config.json")
    other = {name: generation[name] for name, neutral in NEUTRAL.items() if generation.get(name) not in (neutral, None)}
    if other:
        told = ", ".join(f"{name} {json.dumps(value)[:40]}" for name, value in other.items())
        found.append(
            Note(
                "warn",
                f"its generation_config.json changes greedy answers, which are asked for without that: {told}",
                "a task with generation: own takes the model's settings",
            )
        )
    return found


@dataclass(slots=True)
class _Seen:
    """How many rows something was seen in, and the first of them."""

    count: int = 0
    first: int = 0
    last: int = 0
    detail: str = ""

    def add(self, number: int, detail: str = "") -> None:
        if not self.count:
            self.first, self.detail = number, detail
        self.count += number != self.last
        self.last = number

    def merge(self, later: _Seen) -> None:
        if not self.count:
            self.first, self.detail = later.first, later.detail
        self.count += later.count

    def which(self, rows: int, numbers: Sequence[int]) -> str:
        number = numbers[self.first - 1] if len(numbers) else self.first
        return f"{self.count:,} of {rows:,} rows, the first: row {number}"


@dataclass
class Look:
    """What is seen of a dataset's or task's rows with a template, row by row: `add` each, then `notes`."""

    template: ChatTemplate
    new_tokens: int = 0
    """How long answers may be that are yet to be made."""
    rows: int = 0
    broken: _Seen = field(default_factory=_Seen)
    lost: dict[str, _Seen] = field(default_factory=dict)
    other: _Seen = field(default_factory=_Seen)
    added: _Seen = field(default_factory=_Seen)
    control: _Seen = field(default_factory=_Seen)
    alike: _Seen = field(default_factory=_Seen)
    _longest: list[tuple[int, str]] = field(default_factory=list)
    _end: Note | None = None
    _end_is_known: bool = False

    def __post_init__(self) -> None:
        words = sorted((word for word in self.template.specials if len(word) > 2), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, words))) if words else None

    def add(self, row: Mapping[str, Any]) -> None:
        """A row's parts (`lamdatui.inputs.rowshapes.ReadRow.parts`)."""
        self.rows += 1
        if "text" in row:
            self._keep(row["text"])
            return
        if self._control is not None:
            self._look_for_control(row)
        try:
            asked = self.template.ask(row)
            splits = {name: self.template.split(row, row[name], asked) for name in ANSWERS if name in row}
        except ValueError as error:
            self.broken.add(self.rows, str(error))
            return
        self._keep(asked)
        if not _holds(asked, row["prompt"][-1]):
            self._lose("what they ask")
        for tool in row.get("tools", ()):
            if tool["function"]["name"] not in asked:
                self._lose("the functions that they offer (tools)")
                break
        for name, split in splits.items():
            self._keep(split.text)
            self._look_at_answer(row, row[name], split)
        if "chosen" in splits and splits["chosen"].text == splits["rejected"].text:
            self.alike.add(self.rows)

    def merge(self, later: Look) -> None:
        """Take in what was seen in later rows."""
        self.rows = later.rows
        for name in ("broken", "other", "added", "control", "alike"):
            getattr(self, name).merge(getattr(later, name))
        for what, seen in later.lost.items():
            self.lost.setdefault(what, _Seen()).merge(seen)
        for _, text in later._longest:
            self._keep(text)
        if not self._end_is_known:
            self._end, self._end_is_known = later._end, later._end_is_known

    def _look_at_answer(self, row: Mapping[str, Any], answer: Sequence[Mapping[str, Any]], split: Split) -> None:
        first, trained = answer[0], split.text[split.start :]
        if any(call["function"]["name"] not in trained for call in answer[-1].get("tool_calls", ())):
            self._lose("the calls of their answers (tool_calls)")
        reasoning = str(first.get("reasoning_content", "")).strip()
        if reasoning and reasoning not in split.text:
            self._lose("the reasoning of their answers (reasoning_content)")
        if not _holds(trained, answer[-1]):
            self._lose("what they answer")
        said = str(first["content"]).strip()
        if not split.text.startswith(split.asked):
            self.other.add(self.rows)
        elif said and not reasoning and said in trained and (before := trained.partition(said)[0].strip()):
            self.added.add(self.rows, before)
        if said and said in trained and not self._end_is_known:
            self._look_at_end(trained.partition(said)[2].strip())

    def _look_for_control(self, row: Mapping[str, Any]) -> None:
        assert self._control is not None
        for message in row_messages(row):
            if found := self._control.search(message["content"]):
                self.control.add(self.rows, found[0])
                return

    def _lose(self, what: str) -> None:
        self.lost.setdefault(what, _Seen()).add(self.rows)

    def _keep(self, text: str) -> None:
        if len(self._longest) < LONGEST:
            heapq.heappush(self._longest, (len(text), text))
        elif len(text) > self._longest[0][0]:
            heapq.heapreplace(self._longest, (len(text), text))

    def _look_at_end(self, after: str) -> None:
        """Whether what the template writes after an answer stops the model: looked at in the first row that has it."""
        template = self.template
        ids = template.ids(after) if after else None
        if not ids or not template.ends:
            return
        word = template.special(ids[0])
        self._end_is_known = ids[0] in template.ends or not word
        if self._end_is_known or self._end is not None:
            return
        ends = ", ".join(map(str, sorted(template.ends)))
        detail = f"the chat template ends an answer with {word} (id {ids[0]}), which is no stop token (eos_token_id {ends}): answers run on"
        self._end, self._end_is_known = Note("warn", detail, FIX_END), True

    def notes(self, numbers: Sequence[int] = ()) -> list[Note]:
        """What was seen; `numbers`: which row of its file each row is of."""

        def which(seen: _Seen) -> str:
            return seen.which(self.rows, numbers)

        found = []
        if self.broken.count:
            detail = f"the chat template does not take {which(self.broken)}: {self.broken.detail.splitlines()[0][:200]}"
            found.append(Note("bad", detail, "change or drop these rows, or take a model with another template"))
        found += [
            Note("bad", f"the chat template leaves out {what}: {which(seen)}", FIX_LOST) for what, seen in self.lost.items()
        ]
        found += self._too_long()
        if self.other.count:
            detail = f"{which(self.other)}: the text that is trained does not begin with the prompt that is asked with"
            found.append(Note("warn", detail, "the template adds or drops text before an answer"))
        if self.added.count:
            detail = f"{which(self.added)}: the template puts {self.added.detail[:60]!r} before the answer, and it is trained as part of it"
            fix = "a think block is stripped before answers are scored; for other text take a template that leaves it out"
            found.append(Note("warn", detail, fix))
        if self.control.count:
            detail = f"{which(self.control)}: what people wrote holds {self.control.detail!r}, which is read as a control token"
            found.append(Note("warn", detail, "write it otherwise, or drop these rows"))
        if self.alike.count:
            detail = f"{which(self.alike)}: the chosen and the rejected answer are the same text, which teaches nothing"
            found.append(Note("warn", detail, "drop these rows"))
        return found + ([self._end] if self._end else [])

    def _too_long(self) -> list[Note]:
        """Rows that the model has no positions for: the longest ones by characters are tokenised."""
        config = self.template.config
        most = next(
            (config[name] for name in ("max_position_embeddings", "n_positions") if isinstance(config.get(name), int)), None
        )
        texts = [text for _, text in self._longest]
        lengths = [len(ids) + self.new_tokens for text in texts if (ids := self.template.ids(text)) is not None]
        if most is None or not lengths or max(lengths) <= most:
            return []
        over = sum(length > most for length in lengths)
        learned = config.get("model_type") in LEARNED
        count = f"{over} or more rows have" if over == LONGEST else f"{over} row{' has' if over == 1 else 's have'}"
        return [
            Note(
                "bad" if learned else "warn",
                f"{count} up to {max(lengths):,} tokens{' with their answers' if self.new_tokens else ''}; the model has {most:,} positions",
                "cut or drop them",
            )
        ]


def _holds(text: str, message: Mapping[str, Any]) -> bool:
    """Whether a text has the end of what a message says: templates may move what was thought before it, and cut spaces off."""
    return str(message["content"]).strip()[-TAIL:] in text


def of_rows(template: ChatTemplate, rows: Iterable[Mapping[str, Any]], numbers: Sequence[int] = ()) -> list[Note]:
    """A dataset's rows with a template; `numbers` as in `Look.notes`."""
    look = Look(template)
    for row in rows:
        look.add(row)
    return look.notes(numbers)


def of_questions(template: ChatTemplate, rows: Iterable[Mapping[str, Any]], new_tokens: int) -> list[Note]:
    """A task's questions (`lamdatui.inputs.datafiles.asked`) with a template; answers have up to `new_tokens`."""
    look = Look(template, new_tokens)
    for row in rows:
        look.add(row)
    return look.notes()
