"""An action as text for an editor, and back: YAML with what the declaration says as comments. Pure: no textual, no terminal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamdatui.base.text import one_line
from lamdatui.domain.actions import Slot
from lamdatui.domain.declarations import DeclaredType
from lamdatui.domain.objects import DatasetObject
from lamdatui.domain.state import RunState
from lamdatui.ui.view.drafts import fitting, hint
from lamdatui.ui.view.proposals import params_of

if TYPE_CHECKING:
    import yaml

Json = dict[str, Any]
HEAD = """\
# {title}
# Change values, save, and close the editor. The card then shows the difference; nothing runs before you approve it.
# Saved unchanged, or empty: nothing changes.
"""
FIELDS = ("type", "inputs", "params")
TEXT_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and on which line (from 1)."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Types:
    """The action types by name; not `complete` where the engine does not tell them, and only the proposal's own is known."""

    known: Mapping[str, DeclaredType]
    complete: bool = True


def types_of(known: Mapping[str, DeclaredType], proposal: Mapping[str, Any], state: RunState) -> Types:
    """The run's types, or where they are not known the proposal's own as far as the proposal tells."""
    if known:
        return Types(known)
    action = proposal.get("action", {})
    slots = tuple(_slot_of(state, name, ids) for name, ids in action.get("inputs", {}).items())
    name = str(action.get("type", ""))
    return Types({name: DeclaredType(name, slots=slots, params=params_of(proposal))}, complete=False)


def _slot_of(state: RunState, name: str, ids: Sequence[str]) -> Slot:
    item = state.pool.items.get(ids[0]) if ids else None
    is_data = isinstance(item, DatasetObject)
    return Slot(
        name,
        "datasets" if is_data else "models",
        "",
        formats=(item.format,) if is_data else (),
        least=min(1, len(ids)),
        most=max(1, len(ids)),
    )


def text_of(title: str, action: Mapping[str, Any], types: Types, state: RunState) -> str:
    """The text that opens in the editor."""
    kind = str(action["type"])
    spec = types.known.get(kind, DeclaredType(kind))
    lines = [HEAD.format(title=one_line(title))]
    if types.complete:
        lines.append(_comment(f"one of {', '.join(sorted(types.known))}", ""))
    lines += [f"type: {_scalar(kind)}", "", "inputs:"]
    slots = {slot.name: slot for slot in spec.slots}
    for name in dict.fromkeys([*action.get("inputs", {}), *slots]):
        if slot := slots.get(name):
            lines.append(_comment(f"{slot.describe()}: {', '.join(fitting(state, slot)) or 'there is none'}", "  "))
        ids = action.get("inputs", {}).get(name) or []
        lines.append(f"  {_scalar(name)}: [{', '.join(map(_scalar, ids))}]")
    declared = {param.name: param for param in spec.params}
    params = action.get("params", {})
    lines += ["", "params:" if params else "params: {}"]
    for name, value in params.items():
        if name in declared:
            lines.append(_comment(hint(declared[name]), "  "))
        lines.append(f"  {_scalar(name)}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def read(text: str, proposed: Mapping[str, Any], types: Types, state: RunState) -> tuple[Json | None, list[Problem]]:
    """The action that the text says, with its problems by line; no action and no problem where the text is empty."""
    # Imported late: only an editor needs it.
    import yaml

    if len(text) > TEXT_CHARS:
        return None, [Problem(1, f"more than {TEXT_CHARS} characters")]
    try:
        if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            return None, [Problem(1, "anchors and aliases (& and *) are not used here")]
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return None, [Problem(mark.line + 1 if mark else 1, one_line(f"not YAML: {error.problem or error.context}"))]
    except (yaml.YAMLError, RecursionError) as error:
        return None, [Problem(1, one_line(f"not YAML: {error}"))]
    if root is None:
        return None, []
    reader = _Reader(proposed, types, state)
    action = reader.action(root)
    return (None, sorted(reader.problems, key=lambda problem: problem.line)) if reader.problems else (action, [])


class _Reader:
    """Walks the composed nodes, which know their lines."""

    def __init__(self, proposed: Mapping[str, Any], types: Types, state: RunState) -> None:
        self._proposed = proposed
        self._types = types
        self._state = state
        self.problems: list[Problem] = []

    def action(self, root: yaml.Node) -> Json:
        """The action; what is wrong is in `problems`."""
        fields = self._mapping(root, "the file")
        for name, (key, _) in fields.items():
            if name not in FIELDS:
                self._add(key, f"unknown field {name!r}{_near(name, FIELDS)}")
        missing = [name for name in FIELDS if name not in fields]
        if missing:
            self._add(root, f"{missing[0]} is missing")
        if self.problems:
            return {}
        spec = self._type(fields["type"][1])
        if spec is None:
            return {}
        inputs = self._inputs(spec, fields["inputs"][1])
        return {"type": spec.name, "inputs": inputs, "params": self._params(spec, fields["params"][1])}

    def _type(self, node: yaml.Node) -> DeclaredType | None:
        kind = self._text(node, "type")
        spec = self._types.known.get(kind)
        if spec is None:
            only = "" if self._types.complete else "; the engine does not say which others there are"
            self._add(node, f"no action type {kind!r}{_near(kind, sorted(self._types.known))}{only}")
        return spec

    def _inputs(self, spec: DeclaredType, node: yaml.Node) -> dict[str, list[str]]:
        slots = {slot.name: slot for slot in spec.slots}
        found: dict[str, list[str]] = {name: [] for name in slots}
        written = self._mapping(node, "inputs")
        for name, (key, value) in written.items():
            if name not in slots:
                self._add(key, f"{spec.name} has no input {name!r}{_near(name, list(slots))}")
                continue
            found[name] = self._ids(value, name)
            for item in found[name]:
                self._known(value, item, slots[name])
            if not slots[name].least <= len(found[name]) <= slots[name].most:
                self._add(value, f"{name} takes {slots[name].describe()}, not {len(found[name])}")
        for name, slot in slots.items():
            if name not in written and slot.least:
                self._add(node, f"the input {name} is missing: it takes {slot.describe()}")
        return found

    def _known(self, node: yaml.Node, name: str, slot: Slot) -> None:
        item = self._state.pool.items.get(name)
        if item is None:
            self._add(node, f"no object {name!r} in the pool{_near(name, fitting(self._state, slot))}")
        elif name not in fitting(self._state, slot):
            is_data = isinstance(item, DatasetObject)
            what = (
                f"a dataset of format {item.format}"
                if isinstance(item, DatasetObject) and not slot.takes_models
                else ("a dataset" if is_data else "a model")
            )
            self._add(node, f"{name} is {what}; {slot.name} takes {slot.describe()}")

    def _params(self, spec: DeclaredType, node: yaml.Node) -> Json:
        declared = {param.name: param for param in spec.params}
        before = self._proposed.get("params", {}) if spec.name == self._proposed.get("type") else {}
        values: Json = {name: before.get(name, param.default) for name, param in declared.items()}
        for name, (key, value) in self._mapping(node, "params").items():
            if name not in declared:
                self._add(key, f"{spec.name} has no hyperparameter {name!r}{_near(name, list(declared))}")
                continue
            text = self._text(value, name)
            try:
                # What is written as it was keeps its exact value: `number` shortens what it shows.
                values[name] = before[name] if text == _plain(before.get(name)) else declared[name].parse(text)
            except ValueError as error:
                self._add(value, one_line(error))
        return values

    def _mapping(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        import yaml

        if isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~"):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._add(node, f"{what} is a list of `name: value` lines")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = self._text(key, "a name")
            if name in found:
                self._add(key, f"{name} is there twice")
            found[name] = (key, value)
        return found

    def _ids(self, node: yaml.Node, name: str) -> list[str]:
        import yaml

        if isinstance(node, yaml.SequenceNode):
            return [self._text(item, name) for item in node.value]
        text = self._text(node, name)
        return [text] if text not in ("", "null", "~") else []

    def _text(self, node: yaml.Node, what: str) -> str:
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            self._add(node, f"{what} is one value, not a {'list' if isinstance(node, yaml.SequenceNode) else 'mapping'}")
            return ""
        return one_line(node.value)

    def _add(self, node: yaml.Node, text: str) -> None:
        problem = Problem(node.start_mark.line + 1, one_line(text))
        if problem not in self.problems:
            self.problems.append(problem)


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}" if known else ""


def _comment(text: str, indent: str) -> str:
    return f"{indent}# {one_line(text)}"


def _plain(value: Any) -> str:
    return "true" if value is True else "false" if value is False else str(value)


def _scalar(value: Any) -> str:
    """A value as YAML, in one line; text that YAML would read as something else is quoted."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("\n...\n").rstrip("\n")
