"""A judge: a local model that rates answers, or compares them, by the log-likelihood of what it would reply (`lamdatui.tasks.judging`).

It reads untrusted text: questions, references and answers stand between marks that they can't write themselves, and become tokens apart from the chat template,
in which none is a control token. So an answer can't end the judge's turn, nor begin one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lamdatui.inputs.datafiles import asked
from lamdatui.inputs.templates import common_start
from lamdatui.step.encoding import Encoder
from lamdatui.step.errors import StepError
from lamdatui.step.likelihood import Pair, measured
from lamdatui.tasks import judging
from lamdatui.tasks.judging import CUT, PAIR, PART_TOKENS, Form

_PLACE = re.compile("\0(\\w+)\0")
LEAST = 64
"""Tokens that all parts of a question to the judge have at least: with less it would judge what it can't see."""
Part = Mapping[str, str]
"""`question`, `reference` (may be empty) and `answer`."""
Judgement = list[float]
"""Of a rating the probabilities of 1 to 10; of a pair that of the answer being better, when it stands first and when it stands second."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A form as tokens: what stands between the parts, the parts' names, what follows the last one, and how each choice goes on."""

    between: tuple[tuple[tuple[int, ...], str], ...]
    end: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


def part_of(row: Mapping[str, Any], answer: str) -> Part:
    """What a judge is asked of an answer to a task's row."""
    question = asked(row)
    return {
        "question": judging.conversation_text(question["prompt"], question.get("tools")),
        "reference": judging.reference_text(row["reference"]),
        "answer": answer,
    }


class Judge:
    """A model in this process, its tokenizer, and the tokens that it has positions for."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int, positions: int) -> None:
        self._model = model
        self._encoder = Encoder(tokenizer)
        self._batch_tokens = batch_tokens
        self._positions = positions
        template = self._encoder.template
        known = (template.ids(word) or tokenizer.encode(word, add_special_tokens=False) for word in template.specials)
        self._controls = {ids[0] for ids in known if len(ids) == 1} | set(template.ends) | set(tokenizer.all_special_ids)
        self._controls -= {tokenizer.unk_token_id} - set(template.ends)
        self._frames: dict[str, _Frame] = {}
        self._cut = self.data(CUT)

    def judged(
        self, scorer: str, parts: Sequence[Part], progress: Callable[[int], None] = lambda done: None
    ) -> list[Judgement]:
        """Of each answer, in their order; of `judge_pair` against the reference. `progress` gets the number of answers done.

        Raises StepError: the chat template does not take the question, there are too few positions, or the model tells no probabilities.
        """
        put = [question for part in parts for question in _questions(scorer, part)]
        found = self._replies(put, lambda done: progress(done * len(parts) // max(1, len(put))))
        if scorer != PAIR:
            return found
        return [[found[place][0], found[place + 1][1]] for place in range(0, len(found), 2)]

    def _replies(self, put: Sequence[tuple[Form, Part]], progress: Callable[[int], None]) -> list[list[float]]:
        """The probabilities of each question's choices."""
        work: list[tuple[int, int, Pair]] = []
        for number, (form, part) in enumerate(put):
            context = self.context(form, part)
            work += [(number, place, Pair(context, ids)) for place, ids in enumerate(self._frame(form).choices)]
        logs = [[0.0] * len(form.choices) for form, _ in put]
        left = len(work)
        for group in measured(self._model, work, self._batch_tokens):
            for number, place, (value, _) in group:
                logs[number][place] = value
            left -= len(group)
            progress(len(put) - -(-left * len(put) // len(work)))
        try:
            return [
                judging.probabilities(values, self._frame(form).choices) for values, (form, _) in zip(logs, put, strict=True)
            ]
        except ValueError as error:
            raise StepError("model", f"the judge can't be used: {error}") from error

    # --- tokens --------------------------------------------------------------------------------------------------

    def data(self, text: str) -> list[int]:
        """Token ids of a text that nobody vouches for: what looks like a control token in it is text."""
        ids = self._encoder.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        # What a tokenizer insists on is left out.
        return [each for each in ids if each not in self._controls]

    def context(self, form: Form, part: Part) -> tuple[int, ...]:
        """Token ids of a question to the judge, up to where its reply goes on. Longer parts are cut, all to one length, so that it fits."""
        frame = self._frame(form)
        given = {name: self.data(judging.as_data(part[name])) for _, name in frame.between}
        fixed = sum(len(ids) for ids, _ in frame.between) + len(frame.end)
        room = self._positions - fixed - max(map(len, frame.choices))
        lengths = [len(given[name]) for _, name in frame.between]
        if room < min(LEAST, sum(lengths)):
            raise StepError(
                "model", f"the judge has {self._positions:,} positions, and its question alone takes {fixed:,} tokens"
            )
        most = _bound(lengths, room)
        ids = [each for before, name in frame.between for each in (*before, *self._shortened(given[name], most))]
        return (*ids, *frame.end)

    def _shortened(self, ids: list[int], most: int) -> list[int]:
        if len(ids) <= most:
            return ids
        kept = max(0, most - len(self._cut))
        return [*ids[: kept - kept // 2], *self._cut, *ids[len(ids) - kept // 2 :]][:most]

    def _frame(self, form: Form) -> _Frame:
        if form.text not in self._frames:
            question = {"prompt": [{"role": "user", "content": form.text}], "chat_template_kwargs": {"enable_thinking": False}}
            texts = _PLACE.split(self._encoder.ask(question))
            if texts[1::2] != _PLACE.findall(form.text):
                raise StepError("template", "the judge's chat template does not write what it is asked as it stands")
            end = texts[-1] + form.begins
            wholes = [self._encoder.ids(end + choice) for choice in form.choices]
            # A tokenizer may merge the end of what stands there with the choice.
            shared = min(common_start(self._encoder.ids(end), ids) for ids in wholes)
            choices = tuple(tuple(ids[shared:]) for ids in wholes)
            if not shared or not all(choices) or len(set(choices)) < len(choices):
                raise StepError(
                    "model", "the judge's tokenizer does not tell the numbers and letters apart that it is to reply"
                )
            between = tuple(
                (tuple(self._encoder.ids(text)), name) for text, name in zip(texts[:-1:2], texts[1::2], strict=True)
            )
            self._frames[form.text] = _Frame(between, tuple(wholes[0][:shared]), choices)
        return self._frames[form.text]


def _questions(scorer: str, part: Part) -> list[tuple[Form, Part]]:
    """What is asked of one answer."""
    if scorer != PAIR:
        return [(judging.RATED_BY_REFERENCE if part["reference"] else judging.RATED, part)]
    orders = ((part["answer"], part["reference"]), (part["reference"], part["answer"]))
    return [(judging.COMPARED, {"question": part["question"], "first": one, "second": other}) for one, other in orders]


def _bound(lengths: Sequence[int], room: int) -> int:
    """The most tokens that each part may have, so that all of them have room."""
    if sum(min(length, PART_TOKENS) for length in lengths) <= room:
        return PART_TOKENS
    ordered = sorted(lengths)
    before = [0, *accumulate(ordered)]
    # What the shorter ones leave is for the longer ones.
    return min(
        PART_TOKENS,
        max((room - before[place]) // (len(ordered) - place) for place in range(len(ordered)) if before[place] <= room),
    )
