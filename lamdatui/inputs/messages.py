"""Messages of a conversation as people write them, each read to one form: role, content, and what a chat template takes beside them. Pure.

A message that was read is `{"role", "content"}`; an answer may have `reasoning_content` (text) and `tool_calls`
(`[{"type": "function", "function": {"name": text, "arguments": object}, "id": text}]`), a tool's result `name` and `tool_call_id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamdatui.base.jsonio import parse_json
from lamdatui.base.surrogates import has_lone

Message = dict[str, Any]
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "bing", "bard"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
"""Role as it is written → as it is read."""
_CALLERS = frozenset(("function_call", "tool_call"))
"""Roles whose text is a call as JSON (ShareGPT, LLaMA-Factory)."""
CHANGES = {
    **dict.fromkeys(("images", "image", "videos", "video", "audio", "audios"), "only text is trained"),
    **dict.fromkeys(("input_ids", "labels", "attention_mask", "loss_mask"), "rows are rendered with the model's own template"),
    "segments": "rows are rendered with the model's own template",
}
"""Columns and keys of a message that change what is trained → why a row that has one is refused."""
_OWN = frozenset(
    (
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "messages",
        "conversation",
        "tools",
        "chat_template",
        "return_dict",
    )
)
"""Arguments of a chat template that say what is asked for, not how."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
MARKS = ("weight", "train", "training")
"""Keys of an answer that say whether it is trained."""
_SHAPE = '{"role": text, "content": text}'


@dataclass(slots=True)
class ReadMessage:
    """A message as it was read."""

    message: Message
    unused: frozenset[str]
    """Keys that were not used."""
    trained: bool
    """Whether it is not marked to be left out."""
    second_reading: bool
    """Whether the first version of lamdatui took it otherwise, or refused it."""


def is_there(value: Any) -> bool:
    """Whether a value says something: what writes unions of columns fills up with nulls and empty lists."""
    return value is not None and value != [] and value != {}


def sound(text: str, name: str) -> str:
    """The text. Raises ValueError for one that can't be written as UTF-8."""
    if has_lone(text):
        raise ValueError(f"{name} holds half of a surrogate pair")
    return text


def sound_json(value: Any, name: str) -> Any:
    """The value. Raises ValueError where a text in it can't be written as UTF-8."""
    sound(json.dumps(value, ensure_ascii=False), name)
    return value


def refuse(names: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for what would change what is trained."""
    for name in names:
        if name in CHANGES:
            raise ValueError(f"{where}{name}: {CHANGES[name]}")


def read_message(item: Any, name: str) -> ReadMessage:
    """A message of `role` and `content`, or of `from` and `value`, in the column `name`. Raises ValueError."""
    keys = ("from", "value") if isinstance(item, dict) and "role" not in item and "from" in item else ("role", "content")
    if not isinstance(item, dict) or not isinstance(item.get(keys[0]), str):
        raise ValueError(f"{name}: a message is {_SHAPE}")
    told, value = item[keys[0]], item.get(keys[1])
    rest = {key: more for key, more in item.items() if key not in keys and is_there(more)}
    refuse(rest, f"{name} has messages with ")
    role = ROLES.get(told.lower())
    if role is None:
        raise ValueError(f"{name}: the role is {told!r}; roles are system, user, assistant, tool")
    message: Message = {"role": role}
    trained, calls = True, None
    if role == "assistant":
        marks = {mark: rest.pop(mark) for mark in MARKS if mark in rest}
        trained = all(more not in (0, False, "0", "false") for more in marks.values())
        calls = _calls(rest, name)
        if told.lower() in _CALLERS:
            calls, value = read_calls(value, name), ""
        for key in _REASONING:
            if key in rest:
                message["reasoning_content"] = _text(rest.pop(key), f"{key} of {name}")
    elif reasoning := next((key for key in (*_REASONING, "tool_calls", "function_call") if key in rest), None):
        raise ValueError(f"{name} has a turn of the role {told} with {reasoning}, which only an answer has")
    content = "" if value is None and (calls or role == "tool") else _content(value, name, is_result=role == "tool")
    message = {"role": role, "content": content, **message}
    if calls:
        message["tool_calls"] = calls
    if role == "tool":
        message |= {key: rest.pop(key) for key in ("name", "tool_call_id") if isinstance(rest.get(key), str)}
    second = role != told or not isinstance(value, str) or len(message) > len(keys)
    return ReadMessage(message, frozenset(f"{key} (of a message)" for key in rest), trained, second)


def _calls(rest: dict[str, Any], name: str) -> list[dict[str, Any]] | None:
    if "tool_calls" in rest:
        return read_calls(rest.pop("tool_calls"), name)
    return read_calls([rest.pop("function_call")], name) if "function_call" in rest else None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is text, not {type(value).__name__}")
    return sound(value, name)


def _content(value: Any, name: str, *, is_result: bool) -> str:
    """Text, or text parts in order; the result of a tool may be any JSON. Raises ValueError."""
    if isinstance(value, list):
        other = [
            part
            for part in value
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str))
        ]
        if other and not is_result:
            kind = other[0].get("type") if isinstance(other[0], dict) else type(other[0]).__name__
            raise ValueError(f"{name} has content of the type {kind}; only text is trained")
        value = value if other else "".join(part["text"] for part in value)
    if is_result and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise ValueError(f"{name}: a message is {_SHAPE}")
    return sound(value, name)


def read_calls(value: Any, name: str) -> list[dict[str, Any]]:
    """Calls of functions as chat templates take them: arguments are an object, whether they were one or its JSON. Raises ValueError."""
    found = _parsed(value, f"{name}: calls are a list")
    calls = [_call(call, name) for call in (found if isinstance(found, list) else [found])]
    if not calls:
        raise ValueError(f"{name}: there is no call")
    return calls


def _call(call: Any, name: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f'{name}: a call is {{"function": {{"name": text, "arguments": object}}}}')
    arguments = _parsed(
        function.get("arguments", function.get("parameters")) or {}, f"{name}: the arguments of {function['name']}"
    )
    if not isinstance(arguments, dict):
        raise ValueError(f"{name}: the arguments of {function['name']} are an object, not {type(arguments).__name__}")
    named = {"id": call["id"]} if function is not call and isinstance(call.get("id"), str) else {}
    return sound_json({"type": "function", "function": {"name": function["name"], "arguments": arguments}} | named, name)


def _parsed(value: Any, what: str) -> Any:
    """A value, or what its text holds as JSON. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"{what} as JSON: {error}") from error


def read_tools(value: Any, name: str) -> list[dict[str, Any]]:
    """The functions that a conversation offers, as chat templates take them. Raises ValueError."""
    tools = _parsed(value, name)
    if not isinstance(tools, list):
        raise ValueError(f"{name} is a list of functions, not {type(tools).__name__}")
    return [_tool(_parsed(tool, name), name) for tool in tools]


def _tool(tool: Any, name: str) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f'{name}: a function is {{"type": "function", "function": {{"name": text, "parameters": object}}}}')
    if isinstance(function.get("parameters"), str):
        function = {**function, "parameters": _parsed(function["parameters"], f"{name}: the parameters of {function['name']}")}
    return sound_json({"type": "function", "function": function}, name)


def read_arguments(value: Any, name: str) -> dict[str, Any]:
    """Arguments of a chat template. Raises ValueError."""
    found = _parsed(value, name)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} is an object, not {type(found).__name__}")
    if own := _OWN & found.keys():
        raise ValueError(f"{name} holds {min(own)}, which is for the step to say")
    return sound_json(found, name)


def message_chars(message: Mapping[str, Any]) -> int:
    """Characters of what a message says."""
    calls = message.get("tool_calls")
    said = len(message["content"]) + len(message.get("reasoning_content", ""))
    return said + (len(json.dumps(calls, ensure_ascii=False)) if calls else 0)


def said(messages: list[Message]) -> str:
    """What messages say as one text: to compare rows, not to train."""
    parts = []
    for message in messages:
        parts += [message["reasoning_content"]] if "reasoning_content" in message else []
        parts.append(message["content"])
        if "tool_calls" in message:
            parts.append(json.dumps([call["function"] for call in message["tool_calls"]], ensure_ascii=False))
    return "\n".join(parts)
