"""The shapes that rows of a dataset come in, each read to one: prompt and answers as lists of messages (`messages`). Pure.

Shapes, and whose they are: `messages`, `prompt`+`completion`, `prompt`+`chosen`+`rejected`, `chosen`+`rejected` that begin with one
prompt, `prompt`+`completion`+`label`, `prompt`, `text` (TRL); `chosen`+`rejected` as texts of Human and Assistant (hh-rlhf);
`conversations` of `from` and `value` (ShareGPT), `instruction`+`output` with `input`, `system`, `history` (Alpaca, LLaMA-Factory),
`instruction`+`context`+`response` (Dolly), `question`+`answer`, `system`+`question`+`chosen`+`rejected` (Orca), `kto_tag`
(LLaMA-Factory); `prompt`+`scorer`+`reference` is lamdatui's own. Each may have `tools` and `chat_template_kwargs`. A null is an absent value.

Nothing is left out in silence: what would change what is trained is refused, everything else that was not used is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamdatui.base.jsonio import canonical
from lamdatui.domain.objects import DatasetFormat
from lamdatui.inputs.messages import (
    MARKS,
    Message,
    is_there,
    message_chars,
    read_arguments,
    read_message,
    read_tools,
    refuse,
    sound,
    sound_json,
)

COLUMNS = (
    "messages | prompt+completion | prompt+chosen+rejected | chosen+rejected | prompt+completion+label | conversations | "
    "instruction+output | question+answer | prompt+scorer+reference | prompt | text; columns: in the profile maps other names"
)
ANSWERS = ("completion", "chosen", "rejected")
PARTS = ("prompt", *ANSWERS)
CONTEXT = ("tools", "chat_template_kwargs")
"""What a row may have for the chat template beside its messages: functions that are offered, and arguments."""
_TELLING: dict[str, DatasetFormat] = {
    "chosen": "preference",
    "label": "unpaired",
    "scorer": "verifiable",
    "text": "text",
}
_ANSWERS = (("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("query", "response"))
_ANSWERS += (("prompt", "response"), ("input", "output"))
"""Columns of a question and its answer, beside prompt and completion."""
_ALONE = frozenset(("completion", "chosen", "rejected", "output", "answer", "label", "stepwise", "completions", "labels"))
"""Columns beside which a prompt is not all that a row means to say."""
_WEIGHTS = frozenset(("weight", "train", "sample_weight", "loss_weight"))
_MEANT_HOW = {
    **dict.fromkeys(_WEIGHTS, "rows are not weighted, each counts alike"),
    **dict.fromkeys(("label", "kto_tag"), "a label belongs to one answer, not to a pair or to a question without one"),
}
"""Columns that would change what is trained where nothing has taken them → why such a row is refused."""
_MEANT = _MEANT_HOW.keys()
UNTRAINED = f"the answer that would be trained is marked not to be ({', '.join(MARKS)})"
_TURNS = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
"""How hh-rlhf writes a conversation as one text."""
_LABELS: dict[Any, bool] = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(slots=True)
class ReadRow:
    """A row as it was read.

    `parts`: `{"prompt", "completion"}`, `{"prompt", "chosen", "rejected"}`, `{"prompt", "completion", "label"}`, `{"prompt"}` or
    `{"prompt", "scorer", "reference"}`, prompt and answers as messages, with the `CONTEXT` that the row has; or `{"text"}`.
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
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of messages that are known → the file's, where they differ."""
    first: int = 1
    """The first turn that may be trained."""
    second_reading: bool = False

    def take(self, name: str) -> Any:
        """The value of a column, which is used by that; None where there is none."""
        self.used.add(name)
        return self.row.get(name)

    def has(self, *names: str) -> bool:
        return all(map(self.row.__contains__, names))

    def text(self, name: str) -> str:
        """A column that is text. Raises ValueError."""
        value = self.take(name)
        if not isinstance(value, str):
            raise ValueError(f"{name} is text, not {type(value).__name__}")
        return sound(value, name)

    def turns(self, name: str, role: str) -> list[Message]:
        """A column that is the text of a turn, one message, or several. Raises ValueError."""
        value = self.take(name)
        if isinstance(value, str):
            if not value:
                raise ValueError(f"{name} is empty")
            return [{"role": role, "content": sound(value, name)}]
        return self.messages([value] if isinstance(value, dict) else value, name)

    def messages(self, value: Any, name: str) -> list[Message]:
        """A list of messages: `role` and `content`, or `from` and `value`. Raises ValueError."""
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name} is text or a list of messages, not {type(value).__name__}")
        return [self._message(item, name) for item in value]

    def _message(self, item: Any, name: str) -> Message:
        found = read_message(_renamed(item, self.keys) if self.keys and isinstance(item, dict) else item, name)
        self.second_reading |= found.second_reading
        self.unused |= found.unused
        if not found.trained:
            self.untrained.append(found.message)
        return found.message


OF_MESSAGES = ("role", "content")
"""Keys of messages that `columns` may map, too."""


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A row, or a message, under the names that are known here; what has such a name without being meant keeps it as the file's own."""
    taken = {column: name for name, column in columns.items()}
    return {taken.get(name, f"{name} (the file's own)" if name in columns else name): value for name, value in row.items()}


def _of_rows(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A row under the names that are known here. Raises ValueError when it has none of the columns that are mapped."""
    wanted = {name: column for name, column in columns.items() if name not in OF_MESSAGES}
    if wanted and not any(column in row for column in wanted.values()):
        missing = next(iter(wanted.values()))
        raise ValueError(f"the row has no column {missing}, which columns: names; it has {', '.join(sorted(map(str, row)))}")
    return _renamed(row, wanted)


def read_row(value: Any, columns: Mapping[str, str] | None = None) -> ReadRow:
    """A row of any of the shapes; `columns` maps names that are known here to the row's own.

    Raises ValueError that says which column is wrong and how.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {type(value).__name__}")
    told = _of_rows(value, columns) if columns else value
    reader = _Reader({name: item for name, item in told.items() if is_there(item)}, second_reading=bool(columns))
    reader.keys = {name: column for name, column in (columns or {}).items() if name in OF_MESSAGES}
    refuse(reader.row, "the row has the column ")
    context = _context(reader)
    parts = _parts(reader) | context
    reader.second_reading |= bool(context)
    _check_turns(parts)
    left = reader.row.keys() - reader.used
    for name in left & _MEANT:
        if name in _WEIGHTS and reader.row[name] in (1, "1", "1.0", "true"):
            continue
        raise ValueError(f"the row has the column {name}: {_MEANT_HOW[name]}")
    unused = reader.unused | left
    answers, untrained = _answers(reader, parts, context)
    return ReadRow(parts, frozenset(unused), answers, untrained, reader.second_reading)


def _context(reader: _Reader) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("tools", "functions"):
        if reader.has(name) and (tools := read_tools(reader.take(name), name)):
            found["tools"] = tools
    if reader.has("chat_template_kwargs"):
        found["chat_template_kwargs"] = read_arguments(reader.take("chat_template_kwargs"), "chat_template_kwargs")
    return found


def question_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row's parts is asked: the prompt, with its context."""
    return {name: row[name] for name in ("prompt", *CONTEXT) if name in row}


def normalise(value: Any) -> dict[str, Any]:
    """The parts of `read_row`. Raises ValueError also where their answer is marked not to be trained."""
    row = read_row(value)
    if row.untrained:
        raise ValueError(UNTRAINED)
    return row.parts


def _answers(reader: _Reader, parts: dict[str, Any], context: dict[str, Any]) -> tuple[tuple[dict[str, Any], ...], bool]:
    """`ReadRow.answers` and `ReadRow.untrained`."""
    marked = [any(turn is other for other in reader.untrained) for name in ANSWERS for turn in parts.get(name, ())]
    turns = reader.conversation
    if not turns:
        return (() if any(marked) else (parts,)), any(marked)
    places = [
        place
        for place, turn in enumerate(turns)
        if place >= reader.first and turn["role"] == "assistant" and not any(turn is other for other in reader.untrained)
    ]
    return tuple({"prompt": turns[:place], "completion": [turns[place]], **context} for place in places), any(marked)


def read_question(value: Any) -> list[Message]:
    """The conversation of a task's row, which goes to the chat template and holds no gold answer. Raises ValueError."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages is a list of messages, not {type(value).__name__}")
    turns = [read_message(item, "messages").message for item in value]
    if turns[-1]["role"] == "assistant":
        raise ValueError("messages end with an answer, which the model would only have to repeat; end them before it")
    return turns


def _parts(reader: _Reader) -> dict[str, Any]:
    if reader.has("chosen", "rejected"):
        return _pair(reader)
    if reader.has("prompt", "scorer", "reference"):
        return {"prompt": reader.turns("prompt", "user"), **_judged(reader.take("scorer"), reader.take("reference"))}
    for name in ("messages", "conversations", "conversation"):
        if reader.has(name) and not reader.has("prompt", "completion"):
            return _conversation(reader, name)
    if reader.has("prompt", "completion"):
        return _completed(reader)
    for question, answer in _ANSWERS:
        if reader.has(question, answer):
            return _question(reader, question, answer)
    if reader.has("prompt") and not reader.row.keys() & {"scorer", "reference", *_ALONE}:
        return {"prompt": reader.turns("prompt", "user")}
    if reader.has("text"):
        return {"text": reader.text("text")}
    raise ValueError(f"columns {', '.join(sorted(map(str, reader.row))) or 'none'}; a dataset has {COLUMNS}")


def _completed(reader: _Reader) -> dict[str, Any]:
    """A prompt and what completes it: an answer, or turns of which the answers are trained."""
    before, after = reader.turns("prompt", "user"), reader.turns("completion", "assistant")
    label = _label(reader, "label")
    if label or len(after) == 1 or after[-1]["role"] != "assistant":
        return {"prompt": before, "completion": after, **label}
    reader.second_reading, reader.conversation, reader.first = True, [*before, *after], len(before)
    return {"prompt": [*before, *after[:-1]], "completion": after[-1:]}


def _as_turns(reader: _Reader, name: str) -> list[Message]:
    """A side of a pair: hh-rlhf writes the whole conversation as a text of Human and Assistant."""
    value = reader.row[name]
    if not isinstance(value, str) or not value.lstrip().startswith("Human:") or reader.has("prompt"):
        return reader.turns(name, "assistant")
    reader.second_reading = True
    pieces = _TURNS.split("\n\n" + sound(reader.take(name), name).strip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[role], "content": text} for role, text in zip(pieces[::2], pieces[1::2], strict=True)]


def _pair(reader: _Reader) -> dict[str, Any]:
    chosen, rejected = (_as_turns(reader, name) for name in ("chosen", "rejected"))
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
    history = reader.take("history")
    told = [] if history in (None, "") else history
    for pair in told if isinstance(told, list) else [told]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("history is a list of [question, answer]")
        turns += [
            {"role": "user", "content": sound(pair[0], "history")},
            {"role": "assistant", "content": sound(pair[1], "history")},
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
    from lamdatui.tasks.judging import JUDGED
    from lamdatui.tasks.scorers import SCORERS, problem

    if scorer in JUDGED:
        raise ValueError(f"the scorer {scorer} asks a model: it scores a task's answers and rewards none")
    if not isinstance(scorer, str) or scorer not in SCORERS:
        raise ValueError(f"no scorer named {scorer!r}; scorers: {', '.join(SCORERS)}")
    if wrong := problem(scorer, reference):
        raise ValueError(f"the reference does not suit the scorer {scorer}: {wrong}")
    canonical(reference)  # no NaN: it goes into JSON that can't hold one
    sound_json(reference, "reference")
    return {"scorer": scorer, "reference": reference}


def _check_turns(parts: Mapping[str, Any]) -> None:
    """Only what the model shall say is an answer, and a prompt ends before it. Raises ValueError."""
    for name in ANSWERS:
        for turn in parts.get(name, ()):
            if turn["role"] != "assistant":
                raise ValueError(f"{name} holds a turn of the role {turn['role']}, which would be trained as the model's own")
    if "prompt" in parts and parts["prompt"][-1]["role"] == "assistant":
        raise ValueError("the prompt ends with an answer; it ends before the answer that is trained")


def dataset_format(parts: Mapping[str, Any]) -> DatasetFormat:
    """The format of a row's parts."""
    for column, found in _TELLING.items():
        if column in parts:
            return found
    return "sft" if "completion" in parts else "prompt"


def row_chars(parts: Mapping[str, Any]) -> int:
    """Characters of what a row says: its messages and the functions that it offers, or its text."""
    tools = len(json.dumps(parts["tools"], ensure_ascii=False)) if "tools" in parts else 0
    said = sum(message_chars(message) for name in PARTS for message in parts.get(name, ()))
    return len(parts.get("text", "")) + said + tools


def row_messages(parts: Mapping[str, Any]) -> Iterator[Message]:
    """All messages of a row's parts."""
    for name in PARTS:
        yield from parts.get(name, ())
