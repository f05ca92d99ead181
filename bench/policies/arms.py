"""The arms of the bench: which policy, with which planner, what is taken away; and planners whose answers are kept by prompt."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.jsonio import canonical, digest
from lamdatui.domain.choice import Policy
from lamdatui.inputs.workspace import locate
from lamdatui.planner.choose import TOP_LOGPROBS
from lamdatui.planner.client import Answer, PlannerClient, TokenChoice
from lamdatui.planner.prompts import folder_loader
from lamdatui.planner.session import PlannerSession
from lamdatui.planner.settings import PlannerSettings
from lamdatui.policy import Ingredients, make_policy
from lamdatui.policy.hybrid import HybridPolicy
from lamdatui.policy.lamdagent import LamdagentPolicy

PROMPTS = folder_loader(Path(__file__).parents[2] / "prompts")
SHORTLIST = 5


@dataclass(frozen=True)
class Arm:
    """One line of the result. `planner` is a key of `bench.policies.planners.PLANNERS`, or "" for none."""

    name: str
    policy: str
    planner: str = ""
    share: float = 0.3
    adapt: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    anonymous: bool = False


CHEAP = tuple(Arm(name, name) for name in ("random", "surrogate", "tpe", "evolution", "halving"))
LLM = (
    Arm("hybrid 0.5B", "hybrid", "0.5b"),
    Arm("hybrid 1.5B", "hybrid", "1.5b", settings={"memory": "facts"}),
    Arm("share 100%", "hybrid", "0.5b", share=1.0, adapt=False),
    Arm("lamdagent 0.5B", "lamdagent", "0.5b"),
    Arm("hybrid 135M", "hybrid", "135m"),
    Arm("hybrid 135M + adapter", "hybrid", "135m", settings={"adapter": str(locate("builtin:smollm2-135m-decisions.gguf"))}),
    Arm("share 10%", "hybrid", "0.5b", share=0.1, adapt=False),
    Arm("share 30%", "hybrid", "0.5b", share=0.3, adapt=False),
    Arm("share 50%", "hybrid", "0.5b", share=0.5, adapt=False),
    Arm("memory off", "hybrid", "0.5b", share=0.3, adapt=False, settings={"memory": "off"}),
    Arm("facts off", "hybrid", "0.5b", share=0.3, adapt=False, settings={"facts": False}),
    Arm("anonymous names", "hybrid", "0.5b", share=0.3, adapt=False, anonymous=True),
)
"""`share 0%` is the surrogate alone."""


class Kept:
    """Answers by everything that was asked, in a file: a second run of the bench asks nothing again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._db.execute("create table if not exists answers (key text primary key, value text)")

    def get(self, key: str) -> Answer | None:
        """An answer that was kept."""
        found = self._db.execute("select value from answers where key = ?", (key,)).fetchone()
        if found is None:
            return None
        value = json.loads(found[0])
        choices = tuple(TokenChoice(text, tuple((t, p) for t, p in top)) for text, top in value["choices"])
        return Answer(value["text"], value["tokens"], value["seconds"], choices)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        choices = [[choice.text, [list(pair) for pair in choice.top]] for choice in answer.choices[:1]]
        value = {"text": answer.text, "tokens": answer.tokens, "seconds": answer.seconds, "choices": choices}
        self._db.execute("insert or replace into answers values (?, ?)", (key, canonical(value)))


class KeepingClient:
    """A client that asks only what it was not asked before. Choices don't depend on the sampling seed."""

    def __init__(self, inner: PlannerClient, kept: Kept, model: str) -> None:
        self._inner, self._kept, self._model = inner, kept, model

    async def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> Answer:
        """As `PlannerClient.chat`."""
        told = {name: value for name, value in options.items() if name not in ("reuse_prefix", "schema")}
        if told.get("top_logprobs") == TOP_LOGPROBS:
            told.pop("seed")
        key = digest([self._model, [dict(message) for message in messages], told])
        found = self._kept.get(key)
        if found is None:
            found = await self._inner.chat(messages, **options)
            self._kept.put(key, found)
        return found

    async def parameters(self) -> int:
        """As `PlannerClient.parameters`."""
        return await self._inner.parameters()

    async def close(self) -> None:
        """Nothing: the connection is one request's."""


class KeepingSession(PlannerSession):
    """A session whose answers are kept."""

    def __init__(self, settings: PlannerSettings, kept: Kept) -> None:
        super().__init__(settings, PROMPTS, Path(tempfile.gettempdir()) / "bench-planner.log")
        self._kept = kept

    def _connect(self) -> Any:
        client = super()._connect()
        self._client = KeepingClient(client, self._kept, Path(self.settings.model).stem + Path(self.settings.adapter).stem)  # type: ignore[assignment]
        return self._client


def session_of(arm: Arm, model: Path, kept: Kept) -> KeepingSession:
    """The planner of an arm, not started; reasons are facts, because a replay reads none."""
    plain = PlannerSettings(model=str(model), reasons="facts", shortlist=SHORTLIST, rotations=2, context=2048)
    return KeepingSession(plain.model_copy(update=arm.settings), kept)


def make(arm: Arm, session: PlannerSession | None) -> Policy:
    """The policy of an arm; `session` where it needs a planner, started."""
    if session is None:
        return make_policy(arm.policy, Ingredients())
    if arm.policy == "lamdagent":
        policy: LamdagentPolicy | HybridPolicy = LamdagentPolicy(session.settings, PROMPTS, Path("planner.log"))
    else:
        policy = HybridPolicy(session.settings, PROMPTS, Path("planner.log"), share=arm.share, adapt=arm.adapt)
    policy.session = session
    return policy
