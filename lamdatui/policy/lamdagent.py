"""The paper's policy (LaMDAgent, arXiv 2505.21963): an LLM chooses the type, then the objects, and keeps a memory.

Two inferences make one choice, because asking for everything at once fails more often, and asking for one object at a
time makes the result depend on the order of asking. A third one rewrites the memory after each trial.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lamdatui.errors import LamdatuiError
from lamdatui.jsonio import digest
from lamdatui.planner import answers, brief, grammar
from lamdatui.planner.client import Answer, PlannerClient, PlannerError
from lamdatui.planner.host import PlannerHost
from lamdatui.planner.prompts import Load, PromptBook
from lamdatui.planner.settings import PlannerSettings
from lamdatui.policy.base import Candidate, Outcome, PlannerCall, PolicyError, Proposal, View
from lamdatui.state import Trial

T = TypeVar("T")

TYPE_TOKENS = 48
ACTION_TOKENS = 200
MEMORY_TOKENS = 90
TOP_LOGPROBS = 60
MOST_RESTARTS = 3
"""A planner whose process dies more often than this in one run stays dead: its machine can't carry it."""

_ROWS = (5, 4, 3, 2, 1)
_FEWER_OPTIONS = (12, 8, 6, 4, 2)


class LamdagentPolicy:
    """Asks a planner. Seeds come from the view's seed and number, so the same history gives the same proposals."""

    name = "lamdagent"

    def __init__(self, settings: PlannerSettings, load_prompt: Load, log_path: Path) -> None:
        self.calls: list[PlannerCall] = []
        self.host = PlannerHost(settings, log_path)
        self._settings = settings
        self._prompts = PromptBook(load_prompt)
        self._client: PlannerClient | None = None
        self._told_dead = False
        self._restarts = 0

    async def start(self) -> None:
        """Have a planner that answers. Raises LamdatuiError (exit code 4)."""
        await self.close()
        await self.host.start()
        self._client = PlannerClient(self._settings, self.host.url, model=self.host.model, key=self.host.key)

    async def propose(self, view: View) -> Proposal:
        """One type, then one candidate of it. A question with one possible answer is not asked. Raises PolicyError."""
        if not view.candidates:
            raise PolicyError("there is no legal action left")
        kind, asked = await self._choose_type(view)
        shortlist = self._shortlist(view, kind)
        if len(shortlist) == 1:
            why = f"the only legal {kind}; the planner chose the type" if asked else "the only legal action"
            return Proposal(shortlist[0].action, why, self.name)
        return await self._choose_action(view, kind, shortlist, reuse_prefix=asked)

    async def observe(self, view: View, trial: Trial) -> Outcome:
        """Rewrite the memory. Raises PolicyError; the old memory then stays."""
        newest = brief.newest_line(view, trial)

        def prompt(rows: int, _: int) -> str:
            return self._prompts.render("update_memory", objective=view.objective, newest=newest, **brief.situation(view, rows))

        answer = await self._ask(
            "update_memory",
            view,
            self._fit(view, prompt)[0],
            form=grammar.free_text(),
            schema=None,
            max_tokens=MEMORY_TOKENS,
        )
        memory = answers.whole_sentences(answer.text)
        if not memory:
            raise PolicyError("the planner wrote an empty memory")
        return Outcome(memory=memory, by=f"{self.name} ({self.host.model})")

    async def close(self) -> None:
        """End the client and our planner's process."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self.host.close()

    async def _choose_type(self, view: View) -> tuple[str, bool]:
        kinds = sorted(view.candidates)
        if len(kinds) == 1:
            return kinds[0], False
        # Small models favour what stands first, so the order changes with each trial.
        self._draw(view, "types").shuffle(kinds)
        listed = "\n".join(brief.type_line(view, kind) for kind in kinds)

        def prompt(rows: int, _: int) -> str:
            return self._prompts.render("choose_type", objective=view.objective, types=listed, **brief.situation(view, rows))

        answer = await self._ask(
            "choose_type",
            view,
            self._fit(view, prompt)[0],
            form=grammar.one_of(kinds),
            schema=grammar.one_of_schema("type", kinds),
            max_tokens=TYPE_TOKENS,
        )
        return _read(lambda: answers.pick(answer.text, "type", kinds)), True

    async def _choose_action(self, view: View, kind: str, shortlist: Sequence[Candidate], *, reuse_prefix: bool) -> Proposal:
        labels = [chr(ord("A") + place) for place in range(len(shortlist))]
        shared, lines = brief.options(view, labels, shortlist)

        def prompt(rows: int, options: int) -> str:
            return self._prompts.render(
                "choose_action",
                objective=view.objective,
                type=kind,
                summary=answers.plain(view.summaries.get(kind, ""), brief.LINE_CHARS),
                shared=shared,
                candidates="\n".join(lines[:options]),
                **brief.situation(view, rows),
            )

        user, options = self._fit(view, prompt, len(lines))
        labels = labels[:options]
        if self._settings.reasons == "facts":
            said = {label: brief.reasons(view, item) for label, item in zip(labels, shortlist, strict=False)}
            form, schema = grammar.choice_of_reasons(said), grammar.choice_of_reasons_schema(said)
        else:
            form, schema = grammar.choice(labels), grammar.choice_schema(labels)
        answer = await self._ask(
            "choose_action",
            view,
            user,
            form=form,
            schema=schema,
            max_tokens=ACTION_TOKENS,
            top_logprobs=TOP_LOGPROBS,
            reuse_prefix=reuse_prefix,
        )
        label, reason = _read(lambda: answers.pick_with_reason(answer.text, labels))
        weights = answers.weights(answer, labels)
        told = zip(labels, shortlist, brief.short(shortlist), strict=False)
        ranked = sorted(told, key=lambda item: -(weights[item[0]] or 0.0))
        weighed = [{"action": line, "digest": item.action.digest, "probability": weights[name]} for name, item, line in ranked]
        return Proposal(shortlist[labels.index(label)].action, reason or "no reason given", self.name, tuple(weighed))

    def _shortlist(self, view: View, kind: str) -> list[Candidate]:
        candidates = sorted(view.candidates[kind], key=lambda candidate: candidate.action.digest)
        return self._draw(view, "shortlist").sample(candidates, min(self._settings.shortlist, len(candidates)))

    def _draw(self, view: View, purpose: str) -> random.Random:
        return random.Random(digest([self.name, purpose, view.seed, view.number]))

    def _fit(self, view: View, prompt: Callable[[int, int], str], options: int = 0) -> tuple[str, int]:
        """(text, options in it): the first of ever shorter prompts that the budget holds, else the shortest.

        `prompt` makes one from the rows of the record and the number of options. Rows go before options do.
        """
        used = brief.tokens(self._prompts.render("system", objective=view.objective))
        text, count = "", options
        for count in (options, *(fewer for fewer in _FEWER_OPTIONS if fewer < options)):
            for rows in _ROWS:
                text = prompt(rows, count)
                if used + brief.tokens(text) <= self._settings.prompt_budget:
                    return text, count
        return text, count

    async def _ask(
        self,
        call: str,
        view: View,
        user: str,
        *,
        form: str,
        schema: dict[str, Any] | None,
        max_tokens: int,
        top_logprobs: int = 0,
        reuse_prefix: bool = False,
    ) -> Answer:
        client = await self._ready()
        system = self._prompts.render("system", objective=view.objective)
        try:
            answer = await client.chat(
                [{"role": "system", "content": system}, {"role": "user", "content": user}],
                grammar=form,
                schema=schema,
                max_tokens=max_tokens,
                temperature=self._settings.temperature,
                seed=int(digest([call, view.seed, view.number])[:7], 16),
                top_logprobs=top_logprobs,
                reuse_prefix=reuse_prefix,
            )
        except PlannerError as error:
            dead = await self.host.death()
            self._told_dead = bool(dead)
            raise PolicyError(dead or str(error)) from error
        self.calls.append(PlannerCall(call, answer.text, answer.tokens, answer.seconds))
        return answer

    async def _ready(self) -> PlannerClient:
        """A client of a live planner. A death is told once, as a PolicyError; the next question starts it again."""
        if self._client is not None and self.host.alive:
            return self._client
        if self._client is not None and not self._told_dead:
            self._told_dead = True
            raise PolicyError(await self.host.death() or "the planner is not running")
        if self._restarts >= MOST_RESTARTS:
            raise PolicyError(f"the planner's process died again after {MOST_RESTARTS} restarts")
        self._restarts += 1
        try:
            await self.start()
        except LamdatuiError as error:
            raise PolicyError(error.what) from error
        self._told_dead = False
        assert self._client is not None
        return self._client


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except PlannerError as error:
        raise PolicyError(str(error)) from error
