"""One planner as policies use it: its process or server, the prompts, choices and texts, and a record of every exchange."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.base.jsonio import digest
from lamdatui.domain.choice import Candidate, PlannerCall, PolicyError, View
from lamdatui.domain.trials import Trial
from lamdatui.planner import answers, brief, grammar
from lamdatui.planner.choose import Chooser, Picked, Style, parameters_in, style_for
from lamdatui.planner.client import Answer, PlannerClient, PlannerError, probe_grammar
from lamdatui.planner.prompts import Load, PromptBook
from lamdatui.planner.servers import planner_server
from lamdatui.planner.settings import PlannerSettings

MEMORY_TOKENS = 110
REASON_TOKENS = 60
MOST_RECORDED = 20_000
"""Characters of an answer that go on record: a server may send megabytes, and each client gets the record as frames, which have a limit."""
MOST_RESTARTS = 3
"""A planner whose process dies more often than this in one run stays dead: its machine can't carry it."""

_ROWS = (5, 4, 3, 2, 1)


class PlannerSession:
    """Asks one planner. Seeds come from the view's seed and number, so the same history gives the same choices."""

    def __init__(self, settings: PlannerSettings, load_prompt: Load, log_path: Path) -> None:
        self.calls: list[PlannerCall] = []
        self.settings = settings
        self.host = planner_server(settings, log_path)
        self._prompts = PromptBook(load_prompt)
        self._client: PlannerClient | None = None
        self._parameters = 0
        self._forms: dict[str, bool] | None = None
        self._told_dead = False
        self._restarts = 0

    # --- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have a planner that answers. Raises LamdatuiError (exit code 4)."""
        await self.close()
        await self.host.start()
        client = self._connect()
        if self.host.external and self._forms is None:
            # Somebody else's server: which forms it obeys is not known from its name.
            with contextlib.suppress(PlannerError):
                self._forms = await probe_grammar(client)
                client.adopt(self._forms)
        self._parameters = await client.parameters() or parameters_in(Path(self.host.model).name)

    def _connect(self) -> PlannerClient:
        """A client of where the host now listens: a process that was started again has another port and key."""
        self._client = PlannerClient(self.settings, self.host.url, model=self.host.model, key=self.host.key)
        if self._forms is not None:
            self._client.adopt(self._forms)
        return self._client

    async def close(self) -> None:
        """End the client and our planner's process."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self.host.close()

    async def make_room(self, needed: int | None, total: int, device: str) -> None:
        """Put the planner to sleep while a step runs: always, never, or when both don't fit into the device's memory.

        `needed` bytes is None where nobody knows; the next question wakes the planner. Raises LamdatuiError.
        """
        if self._client is None or self.settings.sleep == "never":
            return
        held = self.host.gpu_bytes() if device.startswith("cuda") else self.host.memory_bytes()
        fits = not held or (needed is not None and needed + held <= total)
        if self.settings.sleep == "always" or not fits:
            await self.host.rest()

    async def _ready(self) -> PlannerClient:
        """A client of a live planner that is awake. A death is told once, as a PolicyError; the next question starts it again."""
        if self._client is not None and self.host.resting:
            try:
                await self.host.wake()
                self._connect()
            except LamdatuiError as error:
                raise PolicyError(error.what) from error
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

    # --- what suits it -------------------------------------------------------------------------------------------

    @property
    def client(self) -> PlannerClient:
        """The client of a planner that was started. Raises LamdatuiError before that."""
        if self._client is None:
            raise LamdatuiError("the planner was not started", where="planner", exit_code=EXIT_PLANNER)
        return self._client

    @property
    def parameters(self) -> int:
        """How many parameters it has, as its server or its name tells; 0 where neither does."""
        return self._parameters

    @property
    def model(self) -> str:
        """The planner's name, for people."""
        return Path(self.host.model).stem if self.host.model.endswith(".gguf") else self.host.model

    @property
    def style(self) -> Style:
        """How it is asked to choose: as set, or as its size suggests."""
        return style_for(self._parameters) if self.settings.style == "auto" else self.settings.style

    @property
    def small(self) -> bool:
        """Whether it is too small to write sentences that are worth reading."""
        return style_for(self._parameters) == "yes-no"

    @property
    def memory_mode(self) -> Literal["planner", "facts", "off"]:
        """Who writes the memory: the planner, or code where the planner is too small."""
        mode = self.settings.memory
        return mode if mode != "auto" else "facts" if self.small else "planner"

    @property
    def writes_reasons(self) -> bool:
        """Whether the planner writes its reason; else code tells the facts that speak for the choice."""
        return self.settings.reasons == "sentence" or (self.settings.reasons == "auto" and not self.small)

    # --- questions -----------------------------------------------------------------------------------------------

    async def choose(self, view: View, call: str, options: Sequence[str], *, reuse_prefix: bool = False) -> Picked:
        """One of the options, by the prompts `choose_<call>` and `judge_<call>`. Raises PolicyError."""
        thinks = self.settings.think_tokens and self.style == "letters"
        thoughts = await self._think(view, call, options) if thinks else ""

        def listed(lines: Sequence[str]) -> str:
            def prompt(rows: int) -> str:
                return self._render(f"choose_{call}", view, rows, options="\n".join(lines), thoughts=thoughts)

            return self._fit(view, prompt)

        def alone(option: str) -> str:
            return self._fit(view, lambda rows: self._render(f"judge_{call}", view, rows, option=option))

        async def ask(user: str, **settings: Any) -> Answer:
            return await self._ask(call, view, user, **settings)

        chooser = Chooser(ask, self.style, rotations=self.settings.rotations, temperature=self.settings.temperature)
        try:
            choice = await chooser.choose(listed, alone, options, draw(view, f"choose {call}"), reuse_prefix=reuse_prefix)
        except PlannerError as error:
            raise PolicyError(str(error)) from error
        self._note(call, choice.told(), choice.tokens, choice.seconds)
        return choice

    async def explain(self, view: View, option: str) -> str:
        """One sentence on why an option was chosen; "" when the planner says nothing. Raises PolicyError."""
        user = self._fit(view, lambda rows: self._render("explain", view, rows, option=option))
        form = grammar.free_text(grammar.REASON_CHARS)
        answer = await self._ask("explain", view, user, grammar=form, max_tokens=REASON_TOKENS, reuse_prefix=True)
        self._note("explain", answer.text, answer.tokens, answer.seconds)
        return answers.whole_sentences(answer.text, grammar.REASON_CHARS)

    async def remember(self, view: View, trial: Trial) -> str:
        """The memory, rewritten after a trial (LaMDAgent, arXiv 2505.21963). Raises PolicyError."""
        newest = brief.newest_line(view, trial)
        user = self._fit(view, lambda rows: self._render("update_memory", view, rows, newest=newest))
        answer = await self._ask("update_memory", view, user, grammar=grammar.free_text(), max_tokens=MEMORY_TOKENS)
        self._note("update_memory", answer.text, answer.tokens, answer.seconds)
        memory = answers.whole_sentences(answer.text)
        if not memory:
            raise PolicyError("the planner wrote an empty memory")
        return memory

    async def _think(self, view: View, call: str, options: Sequence[str]) -> str:
        """What a planner says to itself before it answers, at most `think_tokens` long."""
        lines = "\n".join(f"- {option}" for option in options)
        user = self._fit(view, lambda rows: self._render("think", view, rows, options=lines))
        answer = await self._ask(f"think {call}", view, user, max_tokens=self.settings.think_tokens)
        self._note("think", answer.reasoning or answer.text, answer.tokens, answer.seconds)
        return answers.plain(f"{answer.reasoning} {answer.text}", 4 * self.settings.think_tokens)

    def _render(self, name: str, view: View, rows: int, **fields: str) -> str:
        return self._prompts.render(
            name, objective=view.objective, **brief.situation(view, rows, self.settings.facts), **fields
        )

    def _system(self, view: View) -> str:
        name = "system_judge" if self.style == "yes-no" else "system"
        return self._prompts.render(name, objective=view.objective)

    def _fit(self, view: View, prompt: Callable[[int], str]) -> str:
        """The first of ever shorter prompts (fewer rows of the record) that the budget holds, else the shortest."""
        used = brief.tokens(self._system(view))
        text = ""
        for rows in _ROWS:
            text = prompt(rows)
            if used + brief.tokens(text) <= self.settings.prompt_budget:
                break
        return text

    async def _ask(
        self,
        call: str,
        view: View,
        user: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        schema: dict[str, Any] | None = None,
        top_logprobs: int = 0,
        reuse_prefix: bool = False,
    ) -> Answer:
        client = await self._ready()
        system = self._system(view)
        try:
            return await client.chat(
                [{"role": "system", "content": system}, {"role": "user", "content": user}],
                grammar=grammar,
                schema=schema,
                max_tokens=max_tokens,
                temperature=self.settings.temperature,
                seed=int(digest([call, view.seed, view.number])[:7], 16),
                top_logprobs=top_logprobs,
                reuse_prefix=reuse_prefix,
            )
        except PlannerError as error:
            dead = await self.host.death()
            self._told_dead = bool(dead)
            raise PolicyError(dead or str(error)) from error

    def _note(self, call: str, answer: str, tokens: int, seconds: float) -> None:
        self.calls.append(PlannerCall(call, answer[:MOST_RECORDED], tokens, seconds))


def draw(view: View, purpose: str) -> random.Random:
    """A source of randomness that depends on the run's seed, the trial and the purpose only."""
    return random.Random(digest([purpose, view.seed, view.number]))


def weighed(candidates: Sequence[Candidate], choice: Picked) -> tuple[dict[str, Any], ...]:
    """The alternatives of a proposal, the most likely first."""
    told = zip(brief.short(candidates), candidates, choice.probabilities, strict=True)
    ranked = sorted(told, key=lambda item: -item[2])
    return tuple({"action": line, "digest": item.action.digest, "probability": round(p, 4)} for line, item, p in ranked)
