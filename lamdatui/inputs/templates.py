"""Chat templates, looked at before anything runs: every row of a dataset or task through a model's own template, without torch.

What is looked for is what goes wrong later without a word, or late: rows that a template refuses, a question that is no beginning of the
text that is trained, text that the template puts before an answer, an end of turn that is no stop token, rows longer than the model's positions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lamdatui.base.jsonio import read_json, regular
from lamdatui.inputs.rowshapes import ANSWERS

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")
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
FIX_END = "add its id to eos_token_id in the model's generation_config.json"


class Note(NamedTuple):
    """Something to know about a model with rows; `bad` ends a run."""

    status: Literal["warn", "bad"]
    detail: str
    fix: str = ""


NO_TEMPLATE = Note(
    "bad",
    "the model has no chat template: neither its rows nor its questions can be written",
    "put a chat_template.jinja into its directory: that of its instruct version, or of its family",
)


@dataclass(slots=True)
class ChatTemplate:
    """A model's template, its special tokens as texts, and the ids at which its answers end. `text` is empty where there is none."""

    path: Path
    text: str
    words: dict[str, str]
    ends: frozenset[int]
    config: Mapping[str, Any]
    _tokenizer: Any = field(default=None, repr=False)

    def render(self, messages: Sequence[Mapping[str, Any]], *, asks: bool = False) -> str:
        """The text of a conversation; `asks` opens an answer at its end. Raises ValueError with the template's own words."""
        # transformers' own renderer, which brings no torch.
        from jinja2 import TemplateError
        from transformers.utils import chat_template_utils

        render: Any = chat_template_utils.render_jinja_template
        try:
            texts, _ = render([list(messages)], chat_template=self.text, add_generation_prompt=asks, **self.words)
        except (TemplateError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
            raise ValueError(f"{error}" or type(error).__name__) from error
        return texts[0]

    def ids(self, text: str) -> list[int] | None:
        """Token ids; None where the tokenizer is not in a tokenizer.json that can be read."""
        return self._known.encode(text, add_special_tokens=False).ids if self._known else None

    def special(self, token: int) -> str:
        """The text of a token that is one of its own, not of the vocabulary that texts are cut into; else empty."""
        found = self._known.get_added_tokens_decoder().get(token) if self._known else None
        return found.content if found else ""

    @property
    def _known(self) -> Any:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                self._tokenizer = False
        return self._tokenizer


def read_template(path: Path) -> ChatTemplate:
    """The template of a model directory that can be read (`lamdatui.inputs.modelfiles`). What is damaged in it is as if it were not there."""
    tokenizer, special = _object(path / "tokenizer_config.json"), _object(path / "special_tokens_map.json")
    config, generation = _object(path / "config.json"), _object(path / "generation_config.json")
    words = {name: text for name in SPECIAL if (text := _word(tokenizer.get(name)) or _word(special.get(name)))}
    found = ChatTemplate(path, _template(path, tokenizer), words, frozenset(), config)
    told = generation.get("eos_token_id", config.get("eos_token_id"))
    found.ends = frozenset(token for token in (told if isinstance(told, list) else [told]) if type(token) is int)
    if not found.ends and "eos_token" in words:
        found.ends = frozenset(found.ids(words["eos_token"]) or ())
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _template(path: Path, tokenizer: Mapping[str, Any]) -> str:
    try:
        return regular(path / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    told = tokenizer.get("chat_template") or _object(path / "chat_template.json").get("chat_template")
    if isinstance(told, list):
        named = {item.get("name"): item.get("template") for item in told if isinstance(item, dict)}
        told = named.get("default")
    return told if isinstance(told, str) else ""


def of_model(template: ChatTemplate) -> list[Note]:
    """What is to know of a model's template and generation settings by themselves."""
    if not template.text:
        return [NO_TEMPLATE]
    found = []
    if "strftime_now" in template.text:
        found.append(
            Note("warn", "its chat template writes today's date into prompts (strftime_now): answers change from day to day")
        )
    generation = _object(template.path / "generation_config.json")
    other = {name: generation[name] for name, neutral in NEUTRAL.items() if generation.get(name) not in (neutral, None)}
    if other:
        told = ", ".join(f"{name} {json.dumps(value)[:40]}" for name, value in other.items())
        found.append(
            Note(
                "warn",
                f"its generation_config.json changes greedy answers: {told}",
                "remove these from it, or know that scores are of such answers",
            )
        )
    return found


def of_questions(template: ChatTemplate, rows: Sequence[Mapping[str, Any]], new_tokens: int) -> list[Note]:
    """A task's rows with a template; answers have up to `new_tokens`."""
    texts, broken = _rendered(template, ((number, row["messages"], True) for number, row in enumerate(rows, 1)))
    return [*_broken(broken, len(rows)), *_too_long(template, texts.values(), new_tokens)]


def of_rows(template: ChatTemplate, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int] = ()) -> list[Note]:
    """A dataset's rows (`lamdatui.inputs.rowshapes.ReadRow.parts`) with a template; `numbers`: which row of its file each is of."""
    pairs = [(number, row["prompt"], row[name]) for number, row in enumerate(rows, 1) for name in ANSWERS if name in row]
    asked, broken = _rendered(template, ((number, row["prompt"], True) for number, row in enumerate(rows, 1)))
    whole: list[tuple[int, str, str]] = []
    for number, prompt, answer in pairs:
        if number in broken:
            continue
        try:
            whole.append((number, template.render([*prompt, *answer]), answer[0]["content"]))
        except ValueError as error:
            broken[number] = str(error)
    found = [*_broken(broken, len(rows), numbers), *_too_long(template, [*asked.values(), *(text for _, text, _ in whole)])]
    other = {number for number, text, _ in whole if not text.startswith(asked[number])}
    if other:
        which = _which(other, len(rows), numbers)
        found.append(
            Note(
                "warn",
                f"{which}: the text that is trained does not begin with the prompt that is asked with",
                "the template adds or drops text before an answer",
            )
        )
    answers = [
        (number, text[len(asked[number]) :], answer.strip())
        for number, text, answer in whole
        if number not in other and answer.strip()
    ]
    added = {number: text.partition(answer)[0] for number, text, answer in answers if answer in text}
    added = {number: text.strip() for number, text in added.items() if text.strip()}
    if added:
        first = next(iter(added.values()))
        detail = f"{_which(added, len(rows), numbers)}: the template puts {first[:60]!r} before the answer, and it is trained as part of it"
        found.append(Note("warn", detail, "answers with it are scored as they are; use a template that leaves it out"))
    return found + _end(template, answers)


def _rendered(template: ChatTemplate, wanted: Iterable[tuple[int, Any, bool]]) -> tuple[dict[int, str], dict[int, str]]:
    """Row → its text, and row → why it has none."""
    texts: dict[int, str] = {}
    broken: dict[int, str] = {}
    for number, messages, asks in wanted:
        try:
            texts[number] = template.render(messages, asks=asks)
        except ValueError as error:
            broken[number] = str(error)
    return texts, broken


def _which(rows: Iterable[int], count: int, numbers: Sequence[int] = ()) -> str:
    rows = sorted(rows)
    first = numbers[rows[0] - 1] if numbers else rows[0]
    return f"{len(rows):,} of {count:,} rows, the first: row {first}"


def _broken(broken: Mapping[int, str], count: int, numbers: Sequence[int] = ()) -> list[Note]:
    if not broken:
        return []
    why = broken[min(broken)].splitlines()[0][:200]
    return [
        Note(
            "bad",
            f"the chat template does not take {_which(broken, count, numbers)}: {why}",
            "change or drop these rows, or take a model with another template",
        )
    ]


def _end(template: ChatTemplate, answers: Sequence[tuple[int, str, str]]) -> list[Note]:
    """Whether what the template writes after an answer stops the model: looked at in the first row that has it."""
    for _, text, answer in answers:
        after = text.partition(answer)[2].strip()
        ids = template.ids(after) if after else None
        if not ids or not template.ends:
            continue
        word = template.special(ids[0])
        if ids[0] in template.ends or not word:
            return []
        ends = ", ".join(map(str, sorted(template.ends)))
        detail = f"the chat template ends an answer with {word} (id {ids[0]}), which is no stop token (eos_token_id {ends}): answers run on"
        return [Note("warn", detail, FIX_END)]
    return []


def _too_long(template: ChatTemplate, texts: Iterable[str], new_tokens: int = 0) -> list[Note]:
    """Rows that the model has no positions for: the longest ones by characters are tokenised."""
    most = next(
        (
            template.config[name]
            for name in ("max_position_embeddings", "n_positions")
            if isinstance(template.config.get(name), int)
        ),
        None,
    )
    longest = sorted(texts, key=len, reverse=True)[:LONGEST]
    lengths = [len(ids) + new_tokens for text in longest if (ids := template.ids(text)) is not None]
    if most is None or not lengths or max(lengths) <= most:
        return []
    over = sum(length > most for length in lengths)
    learned = template.config.get("model_type") in LEARNED
    count = f"{over} or more rows have" if over == LONGEST else f"{over} row{' has' if over == 1 else 's have'}"
    return [
        Note(
            "bad" if learned else "warn",
            f"{count} up to {max(lengths):,} tokens{' with their answers' if new_tokens else ''}; the model has {most:,} positions",
            "cut or drop them",
        )
    ]
