"""Keys that a person chose for themselves: checked against the key table before anything is bound. No widgets here."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual.keys import _character_to_key

from lamdatui.base.errors import LamdatuiError
from lamdatui.config.settings import suggestion
from lamdatui.ui.keys.table import CHAINS, KEYS, Key

ALWAYS = {"quit": "ctrl+q"}
"""Keys that no keymap takes away: there is always a way out."""
RESERVED = {
    "tab": "moves the focus",
    "shift+tab": "moves the focus",
    "enter": "chooses",
    "ctrl+c": "copies, or asks whether to quit",
    "ctrl+q": "quits",
}
_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
_CHARACTERS = {_character_to_key(character): character for character in string.punctuation}
_NAMES = frozenset(
    [
        "escape",
        "enter",
        "tab",
        "space",
        "backspace",
        "delete",
        "insert",
        "home",
        "end",
        "pageup",
        "pagedown",
        "up",
        "down",
        "left",
        "right",
    ]
) | frozenset(_CHARACTERS)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One line of `lamdatui keys`. `conflict` says with what its keys clash."""

    id: str
    keys: tuple[str, ...]
    default: tuple[str, ...]
    where: str
    what: str
    conflict: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "id": self.id,
            "keys": list(self.keys),
            "default": list(self.default),
            "changed": self.keys != self.default,
            "where": self.where,
            "what": self.what,
            "conflict": self.conflict or None,
        }


def spelled(keymap: Mapping[str, str], where: str) -> dict[str, str]:
    """The keymap with key names as Textual spells them, and with the way out in it. Raises LamdatuiError."""
    where = f"{where}, [keymap]"
    known = {key.id for key in KEYS}
    for name in keymap:
        if name not in known:
            raise LamdatuiError(
                f"no key id {name!r}", where=where, fix=f"{suggestion(name, sorted(known))}; see `lamdatui keys`"
            )
    found = {name: _names(name, keys, where) for name, keys in keymap.items()}
    for name, key in ALWAYS.items():
        if name in found and key not in found[name]:
            found[name].append(key)
    return {name: ",".join(keys) for name, keys in found.items()}


def checked(keymap: Mapping[str, str], where: str) -> dict[str, str]:
    """`spelled`, and no key with two meanings in one place. Raises LamdatuiError for the first thing that is wrong."""
    found = spelled(keymap, where)
    for row in rows(found):
        if row.conflict and row.keys != row.default:
            fix = "give one of them another key; see `lamdatui keys`"
            raise LamdatuiError(f"{row.id}: {row.conflict}", where=f"{where}, [keymap]", fix=fix)
    return found


def rows(keymap: Mapping[str, str]) -> list[KeyRow]:
    """The whole table under a keymap of spelled-out names, in table order."""
    live = {key.id: tuple(keymap.get(key.id, key.keys).split(",")) for key in KEYS}
    return [
        KeyRow(key.id, live[key.id], tuple(key.keys.split(",")), key.where, key.tooltip, _conflict(key, live)) for key in KEYS
    ]


def table(found: list[KeyRow]) -> str:
    """For people: id, keys (a star where they were changed), place, meaning; conflicts at the end of their line."""
    lines = []
    for row in found:
        mark = "*" if row.keys != row.default else " "
        note = f"  CONFLICT: {row.conflict}" if row.conflict else ""
        lines.append(f"{mark} {row.id:20} {', '.join(map(typed, row.keys)):22} {row.where:10} {row.what}{note}")
    return "\n".join(lines)


def typed(key: str) -> str:
    """A key as a person would write it in the settings: `?`, `ctrl+r`."""
    *modifiers, name = key.split("+")
    return "+".join([*modifiers, _CHARACTERS.get(name, name)])


def _conflict(key: Key, live: Mapping[str, tuple[str, ...]]) -> str:
    """With what a key clashes: something else that is reachable at the same time and does another thing."""
    for chain in CHAINS:
        if key.where not in chain:
            continue
        for other in KEYS:
            if other.id == key.id or other.where not in chain or other.action == key.action:
                continue
            if all(live[each.id] == tuple(each.keys.split(",")) for each in (key, other)):
                continue  # ours: escape goes back from the inner place first
            for name in live[key.id]:
                if name in live[other.id]:
                    return f"{typed(name)} is also {other.id} ({other.label})"
    return ""


def _names(name: str, keys: str, where: str) -> list[str]:
    key = next(key for key in KEYS if key.id == name)
    defaults = key.keys.split(",")
    found: list[str] = []
    for text in _parts(keys):
        spelled = _spelled(text)
        if spelled is None:
            raise LamdatuiError(
                f"{name}: no key is called {text!r}",
                where=where,
                fix=suggestion(text.lower(), [*sorted(_NAMES), *(f"f{number}" for number in range(1, 13))]),
            )
        if spelled in RESERVED and spelled != ALWAYS.get(name) and spelled not in defaults:
            raise LamdatuiError(f"{name}: {spelled} always {RESERVED[spelled]}", where=where, fix="choose another key")
        if key.priority and len(text) == 1:
            raise LamdatuiError(
                f"{name}: {text!r} could not be typed any more", where=where, fix="choose a function key or one with ctrl"
            )
        found.append(spelled)
    return found


def _parts(keys: str) -> list[str]:
    """The keys of a text with commas; a comma that stands alone is the key itself."""
    if keys.strip() == ",":
        return [","]
    return [part.strip() for part in keys.split(",")]


def _spelled(text: str) -> str | None:
    """A key as Textual names it (`?` is `question_mark`), or None for one that does not exist."""
    if len(text) == 1:
        return _character_to_key(text) if text.isprintable() and text != " " else None
    *modifiers, name = text.lower().split("+") if not text.endswith("++") else [*text[:-2].lower().split("+"), "plus"]
    if any(modifier not in _MODIFIERS for modifier in modifiers):
        return None
    if len(name) == 1 and name.isprintable() and name != " ":
        spelled = _character_to_key(name)
    elif name in _NAMES or re.fullmatch(r"f([1-9]|1\d|2[0-4])", name):
        spelled = name
    else:
        return None
    return "+".join([*modifiers, spelled])
