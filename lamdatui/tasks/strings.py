"""The lab's string skills: deterministic rows of `prefix:argument=` → answer, with splits that cannot overlap.

A row's split is a function of its argument string alone (a hash), so no argument is ever in two splits, whatever the
skill, the dataset or the seed. Nothing here imports torch or touches a file.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Split = Literal["train", "search", "sealed"]
SPLITS: tuple[Split, ...] = get_args(Split)

ALPHABET = "abcdefghijkl"
"""Letters an argument is made of."""

LENGTHS = (3, 4, 5, 6)
"""Lengths of an argument, in characters; each is drawn with the same probability."""

TOOLS = ("pad", "cut", "mix", "tag")
"""Tool names that the `call` skill is asked to call."""


@dataclass(frozen=True)
class Skill:
    """One string function that a model can learn: `prompt(argument)` is to be continued by `answer(argument)`."""

    name: str
    summary: str
    prompt: Callable[[str], str]
    answer: Callable[[str], str]


@dataclass(frozen=True)
class Row:
    """A prompt, the one right completion (without an end token), and the argument that decides the row's split."""

    prompt: str
    completion: str
    argument: str


@dataclass(frozen=True)
class Preference:
    """A prompt with its right completion and a corrupted one; the two always differ."""

    prompt: str
    chosen: str
    rejected: str
    argument: str


def _digest(text: str, salt: str) -> int:
    """A number in [0, 2**64) that depends on nothing but the text: `hash()` differs from process to process."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:8], "big")


def _swap(argument: str) -> str:
    return "".join(argument[i : i + 2][::-1] for i in range(0, len(argument), 2))


def _tool(argument: str) -> str:
    """The tool a `call` prompt asks for: it follows from the argument, so that a row is its argument's function."""
    return TOOLS[_digest(argument, "tool") % len(TOOLS)]


def _prefixed(name: str, prefix: str, summary: str, answer: Callable[[str], str]) -> Skill:
    return Skill(name, summary, lambda argument: f"{prefix}:{argument}=", answer)


SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        _prefixed("copy", "cpy", "repeat the argument: abc → abc", lambda s: s),
        _prefixed("reverse", "rev", "spell the argument backwards: abc → cba", lambda s: s[::-1]),
        _prefixed("upper", "upp", "put the argument in capitals: abc → ABC", str.upper),
        _prefixed("double", "dbl", "write each letter twice: abc → aabbcc", lambda s: "".join(c + c for c in s)),
        _prefixed("swap", "swp", "swap each pair of neighbours: abcd → badc", _swap),
        Skill(
            "call",
            "call a named tool on the argument: do tag abc → tag(abc)",
            lambda s: f"do {_tool(s)} {s}=",
            lambda s: f"{_tool(s)}({s})",
        ),
    )
}


def split_of(argument: str) -> Split:
    """The split an argument belongs to, for ever and for every skill: train 60 %, search 15 %, sealed 25 %."""
    percentile = _digest(argument, "split") % 100
    if percentile < 60:
        return "train"
    return "search" if percentile < 75 else "sealed"


def stream(skill: str, split: Split, rng: random.Random, lengths: Sequence[int] = LENGTHS) -> Iterator[Row]:
    """Endless rows of one skill from one split, drawn with replacement."""
    spec = SKILLS[skill]
    while True:
        argument = "".join(rng.choices(ALPHABET, k=rng.choice(lengths)))
        if split_of(argument) == split:
            yield Row(spec.prompt(argument), spec.answer(argument), argument)


def rows(skill: str, split: Split, count: int, seed: int, lengths: Sequence[int] = LENGTHS) -> list[Row]:
    """`count` rows of one skill from one split with distinct arguments; the same call gives the same rows.

    Raises ValueError where the lengths leave too few strings to draw from.
    """
    space = sum(len(ALPHABET) ** length for length in set(lengths))
    if count > space // 20:
        raise ValueError(f"{count} distinct rows asked of {space} strings; use longer arguments")
    found: dict[str, Row] = {}
    for row in stream(skill, split, random.Random(f"{skill}/{split}/{seed}"), lengths):
        if len(found) == count:
            break
        found.setdefault(row.argument, row)
    return list(found.values())


def mixture(parts: dict[str, int], split: Split, seed: int) -> list[Row]:
    """Rows of several skills (`parts`: skill → count) in one shuffled list."""
    mixed = [row for skill, count in parts.items() for row in rows(skill, split, count, seed)]
    random.Random(f"mixture/{seed}").shuffle(mixed)
    return mixed


def corrupt(completion: str, rng: random.Random) -> str:
    """A near miss of `completion`: one letter lost, doubled or replaced, or two different neighbours exchanged."""
    place = rng.randrange(len(completion))
    kind = rng.choice(("drop", "repeat", "replace", "exchange"))
    head, letter, tail = completion[:place], completion[place], completion[place + 1 :]
    if kind == "exchange" and tail and tail[0] != letter:
        return head + tail[0] + letter + tail[1:]
    if kind == "drop" and len(completion) > 1:
        return head + tail
    if kind == "repeat":
        return head + letter + letter + tail
    return head + rng.choice([c for c in ALPHABET if c != letter]) + tail


def preferences(parts: dict[str, int], split: Split, seed: int) -> list[Preference]:
    """Pairs of a right answer and a rule-corrupted one (`parts`: skill → count), shuffled."""
    rng = random.Random(f"preferences/{seed}")
    return [
        Preference(row.prompt, row.completion, corrupt(row.completion, rng), row.argument)
        for row in mixture(parts, split, seed)
    ]
