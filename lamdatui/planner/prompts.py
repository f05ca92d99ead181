"""The planner's prompts: Markdown files with `$name` fields from a fixed list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from lamdatui.base.errors import LamdatuiError

Load = Callable[[str], str]
"""A prompt's name (`system`, without `.md`) → its text. May raise LamdatuiError, OSError or LookupError."""

FIELDS: dict[str, str] = {
    "objective": "what the run maximises, as a sentence",
    "record": "table of trials: the best and the latest",
    "facts": "the best model, its weakest task, the base's score",
    "constraints": "what people forbade, or `none`",
    "hints": "what people told the planner, or `none`",
    "memory": "what was learnt so far, as the planner, code or a person wrote it, or `none yet`",
    "trials_left": "number of trials that the budget still allows",
    "options": "what can be chosen, one per line: a letter (in `think` a dash), the option, its facts",
    "option": "one option with its facts",
    "thoughts": "what the planner thought before it answers; empty unless planner.think_tokens is set",
    "newest": "the trial that has just ended, with its score or failure",
}
"""Every field that a prompt may use, with what it holds."""

_SITUATION = frozenset({"objective", "record", "facts", "constraints", "hints", "memory", "trials_left"})


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields that a prompt must use and those that it may use."""

    needs: frozenset[str]
    may: frozenset[str]


PROMPTS: dict[str, Shape] = {
    "system": Shape(frozenset(), frozenset({"objective"})),
    "system_judge": Shape(frozenset(), frozenset({"objective"})),
    "choose_type": Shape(frozenset({"options"}), _SITUATION | {"options", "thoughts"}),
    "choose_action": Shape(frozenset({"options"}), _SITUATION | {"options", "thoughts"}),
    "judge_type": Shape(frozenset({"option"}), _SITUATION | {"option"}),
    "judge_action": Shape(frozenset({"option"}), _SITUATION | {"option"}),
    "think": Shape(frozenset({"options"}), _SITUATION | {"options"}),
    "explain": Shape(frozenset({"option"}), _SITUATION | {"option"}),
    "update_memory": Shape(frozenset({"memory", "newest"}), _SITUATION | {"newest"}),
}
"""The prompts by name. `choose_*` is for planners that pick a letter, `judge_*` (with its shorter `system_judge`) for small ones that
say yes or no to one option.
What stands before the options should be alike in all of them: llama.cpp then reads that part once."""


class PromptBook:
    """All prompts, read and checked once. Raises LamdatuiError that names the file and the field."""

    def __init__(self, load: Load) -> None:
        self._templates = {name: _template(name, load) for name in PROMPTS}

    def render(self, name: str, **fields: str) -> str:
        """A prompt with its fields filled in; what a value holds is never read as a field."""
        try:
            return self._templates[name].substitute(fields).strip()
        except KeyError as error:
            raise LamdatuiError(f"the prompt has no value for ${error.args[0]}", where=_file(name)) from error


def folder_loader(folder: Path) -> Load:
    """Prompts from one folder of `NAME.md` files."""

    def load(name: str) -> str:
        return (folder / f"{name}.md").read_text(encoding="utf-8")

    return load


def _file(name: str) -> str:
    return f"prompts/{name}.md"


def _template(name: str, load: Load) -> Template:
    try:
        template = Template(load(name))
    except (OSError, LookupError, UnicodeDecodeError) as error:
        raise LamdatuiError(f"the prompt can't be read: {error}", where=_file(name)) from error
    if not template.is_valid():
        raise LamdatuiError("a $ stands alone in the prompt", where=_file(name), fix="write $$ for a dollar sign")
    shape, used = PROMPTS[name], set(template.get_identifiers())
    if unknown := sorted(used - shape.may):
        known = ", ".join(f"${field}" for field in sorted(shape.may))
        raise LamdatuiError(f"unknown field ${unknown[0]}", where=_file(name), fix=f"this prompt may use {known}")
    if missing := sorted(shape.needs - used):
        fix = f"put ${missing[0]} ({FIELDS[missing[0]]}) into the text"
        raise LamdatuiError(f"missing field ${missing[0]}", where=_file(name), fix=fix)
    return template
