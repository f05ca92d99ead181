"""`lamdatui planner check`: does a planner answer, how fast, which forms does it obey, and what are its choices worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.domain.choice import PolicyError
from lamdatui.planner.choose import Style
from lamdatui.planner.client import PlannerError, probe_grammar
from lamdatui.planner.session import PlannerSession
from lamdatui.planner.situations import SituationScore, self_test, shipped

SPEED_TOKENS = 48
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tried:
    """What was seen of a planner. Speeds are tokens per second of one request; `forms` are those that it really obeys."""

    model: str
    parameters: int
    command: str
    style: Style
    start_seconds: float
    prompt_speed: float
    answer_speed: float
    forms: dict[str, bool] = field(default_factory=dict)
    score: SituationScore | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | ({"verdict": self.score.verdict} if self.score else {})

    def lines(self) -> list[str]:
        """For people."""
        size = f", {self.parameters / 1e6:.0f} M parameters" if self.parameters else ""
        obeyed = [name.replace("_", " ") for name, found in self.forms.items() if found and name != "logprobs"]
        found = [
            f"planner     {self.model}{size}, ready after {self.start_seconds:.1f} s",
            f"speed       {self.prompt_speed:.0f} tokens/s of prompt, {self.answer_speed:.1f} tokens/s of answer",
            f"forms       {', '.join(obeyed) or 'none obeyed'}; log-probabilities: {'yes' if self.forms.get('logprobs') else 'no'}",
            f"asked       by {self.style}",
        ]
        if self.command:
            found.insert(1, f"started as  {self.command}")
        return [*found, *(_score_lines(self.score) if self.score else [])]


def _score_lines(score: SituationScore) -> list[str]:
    low, high = score.right_interval
    worst, best = score.worth_interval
    return [
        f"self-test   the best of {1 / score.chance:.0f} options in {score.right:.0%} of {score.n} situations [{low:.0%}, {high:.0%}]; "
        f"chance {score.chance:.0%}",
        f"            takes {score.worth:.0%} [{worst:.0%}, {best:.0%}] of what can be gained over a blind choice; "
        f"{score.seconds / score.n:.1f} s and {score.tokens / score.n:.0f} tokens a choice",
        f"            the surrogate model alone: {score.surrogate_right:.0%}",
        f"verdict     {score.verdict}",
    ]


async def try_planner(session: PlannerSession, count: int, say: Say) -> Tried:
    """Start a planner, measure it, ask it `count` of the shipped situations, end it. Raises LamdatuiError (exit code 4)."""
    began = time.monotonic()
    say("starting the planner")
    await session.start()
    ready = time.monotonic() - began
    try:
        return await _measure(session, count, ready, say)
    except (PlannerError, PolicyError) as error:
        fix = "see its log; a planner that does not answer here would be replaced by the fallback in every trial"
        raise LamdatuiError(str(error), where="planner", fix=fix, exit_code=EXIT_PLANNER) from error
    finally:
        await session.close()


async def _measure(session: PlannerSession, count: int, ready: float, say: Say) -> Tried:
    client = session.client
    say("measuring its speed")
    text = "Explain in some sentences what fine-tuning of a language model is. " * 8
    answer = await client.chat(
        [{"role": "user", "content": text}], grammar=None, schema=None, max_tokens=SPEED_TOKENS, temperature=0.0, seed=1
    )
    first, rest = answer.first_token_seconds, answer.seconds - answer.first_token_seconds
    forms = await probe_grammar(client)
    situations = shipped()
    # Evenly from the whole list, so that a few of them are as varied as all.
    chosen = [situations[place * len(situations) // count] for place in range(min(count, len(situations)))] if count else []
    score = None
    if chosen:
        score = await self_test(session, chosen, lambda done, of: say(f"self-test: {done} of {of} situations"))
    return Tried(
        model=session.model,
        parameters=session.parameters,
        command=session.host.shown,
        style=session.style,
        start_seconds=round(ready, 2),
        prompt_speed=answer.prompt_tokens / first if first > 0 else 0.0,
        answer_speed=(answer.new_tokens - 1) / rest if rest > 0 else 0.0,
        forms=forms,
        score=score,
    )
