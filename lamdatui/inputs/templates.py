"""A model's chat template: how a row becomes text, and which of that text is trained. The one rendering of all: of `check`, of `data show` and of
every step. Needs no torch.

An answer is trained from where the text of its turn begins to its end-of-turn token. Where a template marks what a model generates
(`{% generation %}`), that alone is trained, with the token that ends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lamdatui.base.jsonio import file_digest, read_json, regular
from lamdatui.base.limits import TooMuch, bounded

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBES = ("a", "b")
"""Answers that begin differently: what both have before them is the head of a turn."""


class Split(NamedTuple):
    """A row's text with one of its answers. `text[:start]` is read, `text[start:]` is trained; `asked` is what is asked with, which `text`
    begins with unless the template writes another beginning when an answer follows."""

    text: str
    start: int
    asked: str


@dataclass
class ChatTemplate:
    """A model's template, its special tokens as texts, and the ids at which its answers end. `text` is empty where there is none;
    `tool_text` is the template for rows with tools, where there is one of its own."""

    path: Path
    text: str
    words: dict[str, str]
    ends: frozenset[int]
    config: Mapping[str, Any]
    tool_text: str = ""
    specials: tuple[str, ...] = ()
    """Texts of tokens that no other text may give."""
    tokenizer: Any = field(default=None, repr=False)
    is_older: bool = False
    """Whether an answer is all that follows the prompt, as for results of the first versions."""
    refused: str = ""
    """Why nothing is rendered any more: it took too much."""

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, asks: bool = False, context: Mapping[str, Any] | None = None
    ) -> str:
        """The text of a conversation; `asks` opens an answer at its end, `context` as in `rowshapes.CONTEXT`.

        Raises ValueError with the template's own words.
        """
        return self._render(messages, asks, context or {}, marks=False)[0]

    def _render(
        self, messages: Sequence[Mapping[str, Any]], asks: bool, context: Mapping[str, Any], *, marks: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        # transformers' own renderer, which brings no torch.
        from jinja2 import TemplateError
        from transformers.utils import chat_template_utils

        render: Any = chat_template_utils.render_jinja_template
        tools = context.get("tools")

        template = (tools and self.tool_text) or self.text

        def make() -> Any:
            if _has_power(template):
                raise TooMuch("it computes a power (**), which may take longer than anybody waits")
            return render(
                [list(messages)],
                tools=tools,
                chat_template=template,
                add_generation_prompt=asks,
                return_assistant_tokens_mask=marks,
                **{**self.words, **context.get("chat_template_kwargs", {})},
            )

        if self.refused:
            raise ValueError(self.refused)
        try:
            texts, spans = bounded(make)
        except TooMuch as error:
            # Each row would take as long.
            self.refused = str(error)
            raise
        except RecursionError as error:
            raise ValueError("the template is nested too deeply") from error
        except (TemplateError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, SyntaxError) as error:
            raise ValueError(f"{error}" or type(error).__name__) from error
        return texts[0], list(spans[0]) if spans else []

    def ask(self, row: Mapping[str, Any]) -> str:
        """The text that a row is asked with. Raises ValueError."""
        return self.render(row["prompt"], asks=True, context=row)

    def split(self, row: Mapping[str, Any], answer: Sequence[Mapping[str, Any]], asked: str | None = None) -> Split:
        """The text of a row's prompt with an answer; `asked` where `ask` has told it. Raises ValueError."""
        asked = self.ask(row) if asked is None else asked
        whole, spans = self._render([*row["prompt"], *answer], False, row, marks=self._marks(row))
        if self.is_older:
            return Split(whole, common_start(whole, asked), asked)
        start = len(asked) if whole.startswith(asked) else self._head(row, answer, whole, asked)
        spans = [(max(begin, start), end) for begin, end in spans if end > start]
        if spans:
            start, whole = spans[0][0], self._to_end_token(whole, spans[-1][1])
        if self.specials:
            whole = self._ended(whole, start) or whole.rstrip() + self._ending(is_call="tool_calls" in answer[-1])
        return Split(whole, start, asked)

    def _marks(self, row: Mapping[str, Any]) -> bool:
        return not self.is_older and bool(_MARKED.search((row.get("tools") and self.tool_text) or self.text))

    def _head(self, row: Mapping[str, Any], answer: Sequence[Mapping[str, Any]], whole: str, asked: str) -> int:
        """Where a turn begins when the template does not write what it asked with before an answer: what is common to any answer."""
        said = answer[0].get("content") or ""
        probe = next(text for text in _PROBES if not said.startswith(text))
        other = self.render([*row["prompt"], {"role": "assistant", "content": probe}], context=row)
        return min(common_start(whole, other), common_start(whole, asked))

    def _to_end_token(self, whole: str, end: int) -> str:
        """The text up to the end of what is generated, with the token that ends it."""
        if self._ended(whole[:end], 0):
            return whole[:end]
        after = next((word for word in self.specials if whole.startswith(word, end)), "")
        return whole[: end + len(after)]

    def _ended(self, whole: str, start: int) -> str:
        """The text up to the token that ends the answer: of the tokens at its end the first that is a stop token, else all of them. Empty where
        there is none."""
        text, found = whole.rstrip(), ""
        while word := next((word for word in self.specials if text.endswith(word) and len(text) - len(word) >= start), ""):
            found = text if not found or word in self._stops else found
            text = text[: -len(word)].rstrip()
        return found

    @cached_property
    def _stops(self) -> frozenset[str]:
        return frozenset(map(self.special, self.ends))

    def _ending(self, *, is_call: bool) -> str:
        """What ends an answer where the template writes nothing after the last one: the token that the next turn begins with, if that is
        a stop token (GLM), else the end-of-text token."""
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        then = {"role": "tool" if is_call else "user", "content": "\0"}
        try:
            after = self.render([*turns, then])[len(self.render(turns).rstrip()) :].partition("\0")[0]
        except ValueError:
            after = ""
        word = min((word for word in self.specials if word in after), key=after.index, default="")
        if word and self.ids(word) and not self.ends.isdisjoint(self.ids(word) or ()):
            return after[: after.index(word)] + word
        return self.words.get("eos_token", "")

    def identity(self) -> list[Any]:
        """What tells two templates of models apart in all that is looked for in rows (`templatechecks`)."""
        sizes = [self.config.get(name) for name in ("model_type", "max_position_embeddings", "n_positions")]
        try:
            tokenizer = file_digest(self.path / "tokenizer.json")
        except OSError:
            tokenizer = ""
        return [self.text, self.tool_text, self.words, sorted(self.ends), self.specials, sizes, tokenizer]

    def ids(self, text: str) -> list[int] | None:
        """Token ids; None where the tokenizer is not in a tokenizer.json that can be read, or can't cut this text."""
        if self.tokenizer is None:
            return None
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:
            # The library raises nothing more special, for instance where the vocabulary lacks its own unk_token.
            if isinstance(error, MemoryError):
                raise
            return None

    def special(self, token: int) -> str:
        """The text of a token that is one of its own, not of the vocabulary that texts are cut into; else empty."""
        found = self.tokenizer.get_added_tokens_decoder().get(token) if self.tokenizer else None
        return found.content if found else ""


def common_start(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common beginning of two texts, or of two lists of token ids."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(regular(path / "tokenizer.json")))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return None


def read_template(path: Path, text: str = "") -> ChatTemplate:
    """The template of a model directory that can be read (`lamdatui.inputs.modelfiles`), or the one that is given in its place.

    What is damaged in the directory is as if it were not there.
    """
    tokenizer, special = read_object(path / "tokenizer_config.json"), read_object(path / "special_tokens_map.json")
    words = {name: word for name in SPECIAL if (word := _word(tokenizer.get(name)) or _word(special.get(name)))}
    own, tools = ("", "") if text else _templates(path, tokenizer)
    return make_template(path, text or own, tools, words, _tokenizer(path))


def template_of(path: Path) -> str:
    """The text of a directory's template, without a look at its tokenizer; empty where there is none."""
    return _templates(path, read_object(path / "tokenizer_config.json"))[0]


def make_template(path: Path, text: str, tool_text: str, words: dict[str, str], tokenizer: Any) -> ChatTemplate:
    """A template with the rest of its directory; `tokenizer` is the `tokenizers` one, or None."""
    config, generation = read_object(path / "config.json"), read_object(path / "generation_config.json")
    known = tokenizer.get_added_tokens_decoder().values() if tokenizer else ()
    specials = tuple(
        {token.content: None for token in known if token.special and token.content} | dict.fromkeys(words.values())
    )
    ends = frozenset(end_tokens(config, generation))
    found = ChatTemplate(path, text, words, ends, config, tool_text, specials, tokenizer)
    if not ends and "eos_token" in words:
        found.ends = frozenset(found.ids(words["eos_token"]) or ())
    # What ends an answer may be a token that is not called special.
    found.specials = tuple(dict.fromkeys([*specials, *filter(None, map(found.special, found.ends))]))
    return found


def end_tokens(config: Mapping[str, Any], generation: Mapping[str, Any]) -> list[int]:
    """Ids of the tokens that a config.json and a generation_config.json let answers end with."""
    told = generation.get("eos_token_id", config.get("eos_token_id"))
    return sorted({token for token in (told if isinstance(told, list) else [told]) if type(token) is int})


def read_object(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache
def _has_power(text: str) -> bool:
    """Whether a template computes a power: of two numbers that are large enough it takes hours, in one call that no signal ends, and jinja2 computes
    those of constants when it reads a template. Raises jinja2.TemplateSyntaxError."""
    from jinja2 import Environment

    before = ""
    for _, kind, value in Environment().lex(text):
        if kind in ("whitespace", "comment"):
            continue
        # Behind a bracket or a comma it hands on named arguments.
        if (kind, value) == ("operator", "**") and before not in ("(", ","):
            return True
        before = value
    return False


def _word(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _text(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _templates(path: Path, tokenizer: Mapping[str, Any]) -> tuple[str, str]:
    """The template, and the one for rows with tools."""
    if text := _text(path / "chat_template.jinja"):
        return text, _text(path / "additional_chat_templates" / "tool_use.jinja")
    told = tokenizer.get("chat_template") or read_object(path / "chat_template.json").get("chat_template")
    if isinstance(told, list):
        named = {str(item.get("name")): item.get("template") for item in told if isinstance(item, dict)}
        return _word(named.get("default")), _word(named.get("tool_use"))
    return _word(told), ""
