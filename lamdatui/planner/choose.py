"""Constrained choice: which of some options the planner prefers, as probabilities, without letting it write anything else.

Two ways. `letters`: all options in one prompt, one letter as the answer; its log-probabilities are averaged over rotated orders,
because models favour a position (Zheng et al. 2023, arXiv 2309.03882). `yes-no`: each option alone, log P(Yes) − log P(No);
models too small to compare options still tell a good one from a bad one somewhat, and the order can't matter.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any, Literal

from lamdatui.planner import answers, grammar
from lamdatui.planner.client import Answer

Style = Literal["letters", "yes-no"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
YES, NO = "Yes", "No"
SMALL_PARAMETERS = 1_000_000_000
"""Below this a planner is asked yes or no: measured on models of 0.1 to 1.5 billion parameters (docs/planner.md)."""
TOP_LOGPROBS = 60
"""Tokens whose probability is asked for: a letter that is not among them is as good as excluded."""
UNSEEN = 2.0
"""How far below the least likely token shown one that is not shown is taken to be, in nats."""
LEAST_LOGPROB = -1e4
"""Lower ones (servers also say minus infinity) say no more than this."""
ALIKE = 1e-3
"""A standard deviation below this, in nats, is no preference."""
CHOICE_TOKENS = 16
"""Room for `{"choice": "A"}`."""

Ask = Callable[..., Awaitable[Answer]]
"""(user text, grammar=, schema=, max_tokens=, top_logprobs=, reuse_prefix=) → the answer. Raises PlannerError."""


@dataclass(frozen=True, slots=True)
class Picked:
    """`place` among the options; each option's probability; how it was asked; tokens and seconds of all questions."""

    place: int
    probabilities: tuple[float, ...]
    style: Style
    tokens: int
    seconds: float

    def told(self) -> str:
        """For the record: the style and each option's probability."""
        return f"{self.style}: " + " ".join(f"{LETTERS[i]} {p:.2f}" for i, p in enumerate(self.probabilities))


def style_for(parameters: int) -> Style:
    """How a planner of that many parameters is best asked; 0 (unknown) is taken for a large one."""
    return "yes-no" if 0 < parameters < SMALL_PARAMETERS else "letters"


_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", re.IGNORECASE)


def parameters_in(name: str) -> int:
    """The number of parameters that a model's name tells (`qwen2.5-coder-0.5b-instruct`, `SmolLM2-135M`), or 0."""
    found = _SIZE.search(name.replace("_", "-").replace("-", " "))
    return round(float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6)) if found else 0


class Chooser:
    """Asks in one style. One option is drawn by its probability at this `temperature`; at 0 the most likely is taken."""

    def __init__(self, ask: Ask, style: Style, *, rotations: int = 3, temperature: float = 0.7) -> None:
        self._ask = ask
        self._style: Style = style
        self._rotations = rotations
        self._temperature = temperature
        self._tokens, self._seconds = 0, 0.0

    async def choose(
        self,
        listed: Callable[[Sequence[str]], str],
        alone: Callable[[str], str],
        options: Sequence[str],
        draw: random.Random,
        *,
        reuse_prefix: bool = False,
    ) -> Picked:
        """One of `options`. `listed` makes the prompt with lettered lines in it, `alone` the one about a single option.

        Raises PlannerError.
        """
        self._tokens, self._seconds = 0, 0.0
        if self._style == "letters":
            scores = await self._letters(listed, options, reuse_prefix)
        else:
            scores = [
                await self._judge(alone(option), reuse_prefix=reuse_prefix or place > 0) for place, option in enumerate(options)
            ]
        probabilities = softmax(spread(scores), self._temperature or 1.0)
        if self._temperature:
            place = draw.choices(range(len(options)), probabilities)[0]
        else:
            place = max(range(len(options)), key=lambda at: scores[at])
        return Picked(place, tuple(probabilities), self._style, self._tokens, self._seconds)

    async def _letters(self, listed: Callable[[Sequence[str]], str], options: Sequence[str], reuse_prefix: bool) -> list[float]:
        count = len(options)
        turns = min(self._rotations, count)
        totals = [0.0] * count
        for turn in range(turns):
            shift = turn * count // turns
            order = [(place + shift) % count for place in range(count)]
            lines = [f"{LETTERS[at]}: {options[place]}" for at, place in enumerate(order)]
            scores = await self._logprobs(listed(lines), LETTERS[:count], reuse_prefix=reuse_prefix or turn > 0)
            for at, place in enumerate(order):
                totals[place] += scores[at] / turns
        return totals

    async def _judge(self, prompt: str, *, reuse_prefix: bool) -> float:
        yes, no = await self._logprobs(prompt, (YES, NO), reuse_prefix=reuse_prefix)
        return yes - no

    async def _logprobs(self, prompt: str, words: Sequence[str], *, reuse_prefix: bool) -> list[float]:
        """The log-probability of each word as the answer's beginning; where none come, the answer itself is a vote."""
        form = grammar.one_of(words)
        answer = await self._say(prompt, grammar=form, max_tokens=1, top_logprobs=TOP_LOGPROBS, reuse_prefix=reuse_prefix)
        found = first_token(answer, words)
        if found is not None:
            return found
        if answer.text.strip() not in words:
            schema = grammar.one_of_schema("choice", words)
            answer = await self._say(prompt, grammar=form, schema=schema, max_tokens=CHOICE_TOKENS, reuse_prefix=True)
        said = answers.pick(answer.text, "choice", list(words))
        return [0.0 if word == said else -UNSEEN for word in words]

    async def _say(self, prompt: str, **options: Any) -> Answer:
        answer = await self._ask(prompt, **{"schema": None, "top_logprobs": 0, **options})
        self._tokens += answer.tokens
        self._seconds += answer.seconds
        return answer


def first_token(answer: Answer, words: Sequence[str]) -> list[float] | None:
    """Log-probability of each word where the answer began, or None when none of them is among the tokens shown."""
    top = answer.choices[0].top if answer.choices else ()
    masses = dict.fromkeys(words, 0.0)
    for token, logprob in top:
        name = token.strip(" \n\"'▁Ġ")
        if name in masses:
            masses[name] += math.exp(min(0.0, logprob))
    if not any(masses.values()):
        return None
    floor = max(LEAST_LOGPROB, min(logprob for _, logprob in top)) - UNSEEN
    return [math.log(mass) if mass > 0 else floor for mass in masses.values()]


def spread(scores: Sequence[float]) -> list[float]:
    """The scores with a standard deviation of at least 1 nat, unless they are all alike.

    Small planners tell options apart by tenths of a nat; without this a temperature that suits a large one would drown that.
    """
    deviation = pstdev(scores)
    return [score / min(deviation, 1.0) for score in scores] if deviation > ALIKE else list(scores)


def softmax(scores: Sequence[float], temperature: float) -> list[float]:
    """Probabilities of scores in nats."""
    best = max(scores)
    masses = [math.exp((score - best) / temperature) for score in scores]
    total = sum(masses)
    return [mass / total for mass in masses]
