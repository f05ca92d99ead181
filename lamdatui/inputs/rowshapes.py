"""The shapes that rows of a dataset come in, each read to one: prompt and answers as lists of messages. Pure.

Shapes, and whose they are: `messages`, `prompt`+`completion`, `prompt`+`chosen`+`rejected`, `chosen`+`rejected` that begin with one
prompt, `prompt`+`completion`+`label` (TRL); `conversations` of `from` and `value` (ShareGPT), `instruction`+`output` with `input`,
`system`, `history` (Alpaca, LLaMA-Factory), `instruction`+`context`+`response` (Dolly), `question`+`answer`, `system`+`question`+`chosen`+
`rejected` (Orca), `kto_tag` (LLaMA-Factory); `prompt`+`scorer`+`reference` is lamdatui's own. A null is an absent value.

Nothing is left out in silence: what would change what is trained is refused, everything else that was not used is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamdatui.base.jsonio import canonical
from lamdatui.base.surrogates import has_lone
from lamdatui.domain.objects import DatasetFormat

Message = dict[str, str]
COLUMNS = (
    "messages | prompt+completion | prompt+chosen+rejected | chosen+rejected | prompt+completion+label | conversations | "
    "instruction+output | question+answer | prompt+scorer+reference"
)
ANSWERS = ("completion", "chosen", "rejected")
PARTS = ("prompt", *ANSWERS)
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "bing", "bard"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
"""Role as it is written → as it is read."""
_TOOL_ROLES = frozenset(("tool", "function", "observation", "ipython", "function_call", "tool_call", "tool_response"))
_TOOLS = "tool calls are not trained yet: they would be lost"
_CHANGES = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(("images", "image", "videos", "video", "audio", "audios"), "only text is trained"),
    **dict.fromkeys(
        ("reasoning_content", "thinking", "reasoning"), "it would be lost; write it into content as the model shall give it"
    ),
    "chat_template_kwargs": "the chat template is used without arguments: they would be lost",
    **dict.fromkeys(("input_ids", "labels", "attention_mask", "loss_mask"), "rows are rendered with the model's own template"),
    "segments": "rows are rendered with the model's own template",
}
"""Columns and keys of a message that change what is trained → why a row that has one is refused."""
_TELLING: dict[str, DatasetFormat] = {"chosen": "preference", "label": "unpaired", "scorer": "verifiable"}
_ANSWERS = (("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("query", "response"))
_ANSWERS += (("prompt", "response"), ("input", "output"))
"""Columns of a question and its answer, beside prompt and completion."""
_WEIGHTS = frozenset(("weight", "train", "sample_weight", "loss_weight"))
_MEANT_HOW = {
    **dict.fromkeys(_WEIGHTS, "rows are not weighted, each counts alike"),
    **dict.fromkeys(("label", "kto_tag"), "a label belongs to one answer, not to a pair or to a question without one"),
}
"""Columns that would change what is trained where nothing has taken them → why such a row is refused."""
_MEANT = _MEANT_HOW.keys()
_MARKS = ("weight", "train", "training")
"""Keys of an answer that say whether it is trained."""
UNTRAINED = f"the answer that would be trained is marked not to be ({', '.join(_MARKS)})"
_LABELS: dict[Any, bool] = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(slots=True)
class ReadRow:
    """A row as it was read.

    `parts`: `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}`, `{"prompt", "completion", "label"}` or
    `{"prompt", "scorer", "reference"}`, prompt and answers as messages.
    """

    parts: dict[str, Any]
    unused: frozenset[str] = frozenset()
    """Names of columns, and of keys of messages, that were not used."""
    answers: tuple[dict[str, Any], ...] = ()
    """Every answer of a conversation that is to be trained, each with what comes before it as its prompt; elsewhere the parts alone."""
    untrained: bool = False
    """Whether the answer of the parts is marked not to be trained."""
    second_reading: bool = False
    """Whether the first version of lamdatui took it otherwise: then the file's digest is another one."""


@dataclass(slots=True)
class _Reader:
    """Reads one row; remembers what of it was used."""

    row: Mapping[str, Any]
    used: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)
    untrained: list[Message] = field(default_factory=list)
    """Answers that are marked so."""
    conversation: list[Message] = field(default_factory=list)
    """All turns, where each answer counts alike."""
    second_reading: bool = False

    def take(self, name: str) -> Any:
        """The value of a column, which is used by that; None where there is none."""
        self.used.add(name)
        return self.row.get(name)

    def has(self, *names: str) -> bool:
        return all(name in self.row for name in names)

    def text(self, name: str) -> str:
        """A column that is text. Raises ValueError."""
        value = self.take(name)
        if not isinstance(value, str):
            raise ValueError(f"{name} is text, not {type(value).__name__}")
        return _sound(value, name)

    def turns(self, name: str, role: str) -> list[Message]:
        """A column that is the text of a turn, one message, or several. Raises ValueError."""
        value = self.take(name)
        if isinstance(value, str):
            if not value:
                raise ValueError(f"{name} is empty")
            return [{"role": role, "content": _sound(value, name)}]
        return self.messages([value] if isinstance(value, dict) else value, name)

    def messages(self, value: Any, name: str) -> list[Message]:
        """A list of messages: `role` and `content`, or `from` and `value`. Raises ValueError."""
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name} is text or a list of messages, not {type(value).__name__}")
        return [self._message(item, name) for item in value]

    def _message(self, item: Any, name: str) -> Message:
        keys = ("from", "value") if isinstance(item, dict) and "role" not in item and "from" in item else ("role", "content")
        if not isinstance(item, dict) or not isinstance(item.get(keys[0]), str):
            raise ValueError(f'{name}: a message is {{"role": text, "content": text}}')
        told, rest = item[keys[0]], {key: value for key, value in item.items() if key not in keys and _is_there(value)}
        if told in _TOOL_ROLES:
            raise ValueError(f"{name} has a turn of the role {told}: {_TOOLS}")
        _refuse(rest, f"{name} has messages with ")
        content = _content(item.get(keys[1]), name)
        role, is_trained = ROLES.get(told.lower()), True
        if role is None:
            raise ValueError(f"{name}: the role is {told!r}; roles are system, user, assistant")
        if role == "assistant":
            marks = {mark: rest.pop(mark) for mark in _MARKS if mark in rest}
            is_trained = all(value not in (0, False, "0", "false") for value in marks.values())
        self.second_reading |= role != told or not isinstance(item.get(keys[1]), str)
        self.unused |= {f"{key} (of a message)" for key in rest}
        turn = {"role": role, "content": content}
        if not is_trained:
            self.untrained.append(turn)
        return turn


def _is_there(value: Any) -> bool:
    """Whether a value says something: what writes unions of columns fills up with nulls and empty lists."""
    return value is not None and value != [] and value != {}


def _sound(text: str, name: str) -> str:
    if has_lone(text):
        raise ValueError(f"{name} holds half of a surrogate pair")
    return text


def _content(value: Any, name: str) -> str:
    """Text, or text parts in order. Raises ValueError."""
    if isinstance(value, list):
        other = [
            part
            for part in value
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str))
        ]
        if other:
            kind = other[0].get("type") if isinstance(other[0], dict) else type(other[0]).__name__
            raise ValueError(f"{name} has content of the type {kind}; only text is trained")
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise ValueError(f'{name}: a message is {{"role": text, "content": text}}')
    return _sound(value, name)


def _refuse(names: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for what would change what is trained."""
    for name in names:
        if name in _CHANGES:
            raise ValueError(f"{where}{name}: {_CHANGES[name]}")


def read_row(value: Any) -> ReadRow:
    """A row of any of the shapes. Raises ValueError that says which column is wrong and how."""
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {type(value).__name__}")
    reader = _Reader({name: item for name, item in value.items() if _is_there(item)})
    _refuse(reader.row, "the row has the column ")
    parts = _parts(reader)
    _check_turns(parts)
    left = reader.row.keys() - reader.used
    for name in left & _MEANT:
        if name in _WEIGHTS and reader.row[name] in (1, "1", "1.0", "true"):
            continue
        raise ValueError(f"the row has the column {name}: {_MEANT_HOW[name]}")
    unused = reader.unused | left
    answers, untrained = _answers(reader, parts)
    return ReadRow(parts, frozenset(unused), answers, untrained, reader.second_reading)


def normalise(value: Any) -> dict[str, Any]:
    """The parts of `read_row`. Raises ValueError also where their answer is marked not to be trained."""
    row = read_row(value)
    if row.untrained:
        raise ValueError(UNTRAINED)
    return row.parts


def _answers(reader: _Reader, parts: dict[str, Any]) -> tuple[tuple[dict[str, Any], ...], bool]:
    """`ReadRow.answers` and `ReadRow.untrained`."""
    marked = [any(turn is other for other in reader.untrained) for name in ANSWERS for turn in parts.get(name, ())]
    turns = reader.conversation
    if not turns:
        return (() if any(marked) else (parts,)), any(marked)
    places = [
        place
        for place, turn in enumerate(turns)
        if place and turn["role"] == "assistant" and not any(turn is other for other in reader.untrained)
    ]
    return tuple({"prompt": turns[:place], "completion": [turns[place]]} for place in places), any(marked)


def check_question(value: Any) -> None:
    """The conversation of a task's row, which goes to the chat template as it is; it holds no gold answer. Raises ValueError."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages is a list of messages, not {type(value).__name__}")
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("role"), str) or not isinstance(item.get("content"), str):
            raise ValueError('messages: a message is {"role": text, "content": text}')
        _sound(item["role"] + item["content"], "messages")
    if ROLES.get(value[-1]["role"]) == "assistant":
        raise ValueError("messages end with an answer, which the model would only have to repeat; end them before it")


def _parts(reader: _Reader) -> dict[str, Any]:
    if reader.has("chosen", "rejected"):
        return _pair(reader)
    if reader.has("prompt", "scorer", "reference"):
        return {"prompt": reader.turns("prompt", "user"), **_judged(reader.take("scorer"), reader.take("reference"))}
    for name in ("messages", "conversations", "conversation"):
        if reader.has(name) and not reader.has("prompt", "completion"):
            return _conversation(reader, name)
    if reader.has("prompt", "completion"):
        found = {"prompt": reader.turns("prompt", "user"), "completion": reader.turns("completion", "assistant")}
        return found | _label(reader, "label")
    for question, answer in _ANSWERS:
        if reader.has(question, answer):
            return _question(reader, question, answer)
    if reader.has("text"):
        raise ValueError("plain text is not trained; give a prompt and its completion, or messages")
    raise ValueError(f"columns {', '.join(sorted(map(str, reader.row))) or 'none'}; a dataset has {COLUMNS}")


def _pair(reader: _Reader) -> dict[str, Any]:
    chosen, rejected = (reader.turns(name, "assistant") for name in ("chosen", "rejected"))
    before: list[Message] = []
    if reader.has("question") and not reader.has("prompt"):
        before = [*_system(reader), {"role": "user", "content": reader.text("question")}]
    elif reader.has("conversations") and not reader.has("prompt"):
        before = [*_system(reader), *reader.messages(reader.take("conversations"), "conversations")]
    elif reader.has("prompt"):
        is_text = isinstance(reader.row["prompt"], str)
        before = reader.turns("prompt", "user")
        if chosen[0]["role"] != "assistant" and is_text:
            # As TRL reads it: the answers are whole conversations, the column repeats what they begin with.
            reader.second_reading, before = True, []
        elif chosen[: len(before)] == before or rejected[: len(before)] == before:
            raise ValueError("chosen and rejected begin with the prompt, and there is a column prompt; drop one of the two")
    if before:
        return {"prompt": before, "chosen": chosen, "rejected": rejected}
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise ValueError("chosen and rejected share no prompt; add a prompt column")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _conversation(reader: _Reader, name: str) -> dict[str, Any]:
    told = reader.messages(reader.take(name), name)
    messages = told if told[0]["role"] == "system" else [*_system(reader), *told]
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"{name} end with the assistant's answer and begin with a prompt")
    label = {**_label(reader, "label"), **_label(reader, "kto_tag")}
    reader.second_reading |= bool(label) or len(messages) > len(told)
    reader.conversation = [] if label else messages
    return {"prompt": messages[:-1], "completion": messages[-1:], **label}


def _question(reader: _Reader, question: str, answer: str) -> dict[str, Any]:
    asked = reader.text(question)
    for more in ("input", "context"):
        if more != question and reader.has(more) and (text := reader.text(more)):
            asked = f"{asked}\n{text}"
    turns = _system(reader)
    for pair in reader.take("history") or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("history is a list of [question, answer]")
        turns += [
            {"role": "user", "content": _sound(pair[0], "history")},
            {"role": "assistant", "content": _sound(pair[1], "history")},
        ]
    if not asked:
        raise ValueError(f"{question} is empty")
    found = {"prompt": [*turns, {"role": "user", "content": asked}], "completion": reader.turns(answer, "assistant")}
    label = _label(reader, "kto_tag") | _label(reader, "label")
    reader.conversation = [] if label else [*found["prompt"], *found["completion"]]
    return found | label


def _system(reader: _Reader) -> list[Message]:
    for name in ("system", "system_prompt"):
        if reader.has(name) and (text := reader.text(name)):
            return [{"role": "system", "content": text}]
    return []


def _label(reader: _Reader, name: str) -> dict[str, bool]:
    """Whether an answer is wanted: true or false, also as 0 and 1."""
    if not reader.has(name):
        return {}
    value = reader.take(name)
    found = (
        value
        if isinstance(value, bool)
        else _LABELS.get(str(value).strip().lower())
        if isinstance(value, int | float | str)
        else None
    )
    if found is None:
        raise ValueError(f"{name} is true or false, not {value!r}")
    return {"label": found}


def _judged(scorer: Any, reference: Any) -> dict[str, Any]:
    """Scorer and reference of a verifiable row, once they are known to fit each other."""
    from lamdatui.tasks.scorers import SCORERS, problem

    if not isinstance(scorer, str) or scorer not in SCORERS:
        raise ValueError(f"no scorer named {scorer!r}; scorers: {', '.join(SCORERS)}")
    if wrong := problem(scorer, reference):
        raise ValueError(f"the reference does not suit the scorer {scorer}: {wrong}")
    canonical(reference)  # no NaN: it goes into JSON that can't hold one
    return {"scorer": scorer, "reference": reference}


def _check_turns(parts: Mapping[str, Any]) -> None:
    """Only what the model shall say is an answer, and a prompt ends before it. Raises ValueError."""
    for name in ANSWERS:
        for turn in parts.get(name, ()):
            if turn["role"] != "assistant":
                raise ValueError(f"{name} holds a turn of the role {turn['role']}, which would be trained as the model's own")
    if parts["prompt"][-1]["role"] == "assistant":
        raise ValueError("the prompt ends with an answer; it ends before the answer that is trained")


def dataset_format(parts: Mapping[str, Any]) -> DatasetFormat:
    """The format of a row's parts."""
    for column, found in _TELLING.items():
        if column in parts:
            return found
    return "sft"


def row_chars(parts: Mapping[str, Any]) -> int:
    """Characters of a row's messages."""
    return sum(len(message["content"]) for name in PARTS for message in parts.get(name, ()))
