"""Rows of tasks that stand in training data: what a model was trained on does not tell what it can do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamdatui.base.words import words
from lamdatui.inputs.rowshapes import ANSWERS, read_question

Row = Mapping[str, Any]
GRAM = 13
"""Words in a row that two texts share before they count as overlapping (GPT-3: Brown et al. 2020, arXiv 2005.14165, appendix C)."""
ASKED_TOO = "ask what a {} asks"
SHARED_WORDS = f"share {GRAM} words in a row with a {{}}"
"""What is said of rows: of which split of which task is filled in."""
NEARLY_ASKED = "ask nearly what a {} asks"
NEAR, NEAR_GRAM = 0.8, 5
"""Questions are nearly the same when their sets of 5-grams have this Jaccard similarity (Lee et al. 2021, arXiv 2107.06499)."""
_PART = (GRAM + 1) // 2
"""Every run of `GRAM` words has one of this many that begins at a multiple of it."""


def question_of(messages: Sequence[Row]) -> str:
    """What is asked in a conversation: its last turn by a user, without regard to case and spaces; empty where there is none."""
    asked = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    return " ".join(asked.casefold().split())


@dataclass(slots=True)
class Shared:
    """How many rows of a dataset share something with a split, and the first of them."""

    count: int = 0
    first: int = 0
    example: str = ""

    def add(self, number: int, example: str) -> None:
        """One more row (from 1)."""
        if not self.count:
            self.first, self.example = number, example
        self.count += 1

    def merge(self, later: Shared) -> None:
        """Take in what was seen in later rows."""
        if not self.count:
            self.first, self.example = later.first, later.example
        self.count += later.count


@dataclass
class Overlap:
    """What of a dataset's rows a task's splits hold too: `add` each row, then look at `exact`, `near` and `ngram` (by split); a row counts once."""

    splits: Mapping[str, Sequence[Row]]
    exact: dict[str, Shared] = field(default_factory=dict)
    """Rows that ask what a row of the split asks."""
    near: dict[str, Shared] = field(default_factory=dict)
    """Other rows that ask nearly the same."""
    ngram: dict[str, Shared] = field(default_factory=dict)
    """Other rows with a run of `GRAM` words of a row of the split, in what they ask or answer."""
    rows: int = 0

    def __post_init__(self) -> None:
        self._questions: dict[bytes, set[str]] = {}
        self._grams: dict[tuple[str, ...], str] = {}
        for split, held in self.splits.items():
            for row in held:
                if question := question_of(read_question(row["messages"])):
                    self._questions.setdefault(_short(question), set()).add(split)
                    found = words(question)
                    self._grams.update((tuple(found[at : at + GRAM]), split) for at in range(len(found) - GRAM + 1))
        asked = [
            (split, _near_grams(question_of(read_question(row["messages"]))))
            for split, held in self.splits.items()
            for row in held
        ]
        self._asked = [(split, grams) for split, grams in asked if grams]
        self._places: dict[tuple[str, ...], list[int]] = {}
        for place, (_, grams) in enumerate(self._asked):
            for gram in grams:
                self._places.setdefault(gram, []).append(place)
        self._parts = {gram[at : at + _PART] for gram in self._grams for at in range(GRAM - _PART + 1)}

    def add(self, row: Row) -> None:
        """A row's parts (`lamdatui.inputs.rowshapes.ReadRow.parts`)."""
        self.rows += 1
        question = question_of(row.get("prompt", ()))
        if question and (splits := self._questions.get(_short(question))):
            for split in splits:
                self.exact.setdefault(split, Shared()).add(self.rows, question)
        elif self._asked and (split := self._nearly(question)):
            self.near.setdefault(split, Shared()).add(self.rows, question)
        elif self._grams and (split := self._found(row)):
            self.ngram.setdefault(split, Shared()).add(self.rows, question or row.get("text", ""))

    def merge(self, later: Overlap) -> None:
        """Take in what was seen in later rows."""
        self.rows = later.rows
        for mine, theirs in ((self.exact, later.exact), (self.near, later.near), (self.ngram, later.ngram)):
            for split, seen in theirs.items():
                mine.setdefault(split, Shared()).merge(seen)

    def _nearly(self, question: str) -> str:
        """The split of a question that this one is nearly; empty where there is none."""
        grams = _near_grams(question)
        counts = Counter(place for gram in grams for place in self._places.get(gram, ()))
        for place, shared in counts.items():
            split, others = self._asked[place]
            if shared >= NEAR * (len(grams) + len(others) - shared):
                return split
        return ""

    def _found(self, row: Row) -> str:
        """The split that a run of words of the row's last question, its answers or its text is of; empty where it is of none."""
        texts = [row.get("text", ""), question_of(row.get("prompt", ()))]
        texts += [turn["content"] for name in ANSWERS for turn in row.get(name, ())]
        for said in map(words, texts):
            if any(tuple(said[at : at + _PART]) in self._parts for at in range(0, len(said) - _PART + 1, _PART)):
                grams = (tuple(said[at : at + GRAM]) for at in range(len(said) - GRAM + 1))
                if split := next((self._grams[gram] for gram in grams if gram in self._grams), ""):
                    return split
        return ""


def shared_rows(rows: Iterable[Row], held: Sequence[Row]) -> dict[str, tuple[int, str]]:
    """`exact`, `near`, `ngram` → how many rows share that with one that is held out, and the words for it; those that are none are left out."""
    overlap = Overlap({"held": held})
    for row in rows:
        overlap.add(row)
    seen = {"exact": (overlap.exact, ASKED_TOO), "near": (overlap.near, NEARLY_ASKED), "ngram": (overlap.ngram, SHARED_WORDS)}
    return {what: (splits["held"].count, words) for what, (splits, words) in seen.items() if "held" in splits}


def _near_grams(question: str) -> frozenset[tuple[str, ...]]:
    """Sets of words in a row; a shorter question has none."""
    said = words(question) if question else []
    return frozenset(tuple(said[at : at + NEAR_GRAM]) for at in range(len(said) - NEAR_GRAM + 1))


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
