"""YAML as profiles are written in it: text, finite numbers, true, false, null, lists and mappings with text as keys.

No aliases, no tags, no silent duplicate keys, and bounds on what is read: no text of some hundred KiB takes more than seconds.
"""

from __future__ import annotations

from typing import Any

import yaml

from lamdatui.base.jsonio import finite
from lamdatui.base.surrogates import has_lone

MOST_TOKENS = 20_000
MOST_NESTED = 50
MOST_DIGITS = 40

_OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class _Loader(yaml.SafeLoader):
    """More or deeper nodes than a profile has would take minutes, or all of the stack."""

    def __init__(self, stream: str) -> None:
        self._depth = self._count = 0
        super().__init__(stream)

    def get_token(self) -> Any:
        token = super().get_token()
        self._count += 1
        self._depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        problem = ""
        if isinstance(token, yaml.AliasToken):
            problem = "aliases are not allowed in a profile; write the value out"
        elif self._depth > MOST_NESTED:
            problem = f"more than {MOST_NESTED} levels"
        elif self._count > MOST_TOKENS:
            problem = f"more than {MOST_TOKENS} words and signs"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=token.start_mark)
        return token


# A date is text here.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_KNOWN = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_Loader.yaml_constructors = {tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in _KNOWN}
_Loader.yaml_constructors[None] = yaml.SafeLoader.construct_undefined


def _refuse(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _mapping(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _refuse(node, "a mapping is expected here")
    seen = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _refuse(key_node, "a key is text; put it in quotes")
        if key in seen:
            raise _refuse(key_node, f"the key {key!r} is there twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """A number that every reader of it can hold: no 400 digits, no infinity."""
    try:
        if len(node.value) > MOST_DIGITS:
            raise ValueError
        value = loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)
    except (ValueError, IndexError) as error:
        raise _refuse(node, f"not a number of at most {MOST_DIGITS} digits") from error
    if finite(value) is None:
        raise _refuse(node, "a number must be finite")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _refuse(node, "a whole number has at most 64 bits")
    return value


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    try:
        return loader.construct_yaml_bool(node)
    except KeyError as error:
        raise _refuse(node, "neither true nor false") from error


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    value = loader.construct_yaml_str(node)
    if has_lone(value) or "\0" in value:
        raise _refuse(node, "a character that no text can have")
    return value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _bool)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its nodes with their lines. Raises YAMLError, which `told` puts into words."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None, None) if node is None else (loader.construct_document(node), node)
    except (ValueError, OverflowError) as error:  # what is no character or no version
        raise yaml.YAMLError(str(error)) from error


def told(error: yaml.YAMLError) -> tuple[str, str]:
    """What is wrong, and the fix where one is known."""
    what, _, fix = " ".join(str(getattr(error, "problem", None) or error).split())[:200].partition("; ")
    return what, fix
