"""Everything that can be set about the planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lamdatui.errors import LamdatuiError

Backend = Literal["llamacpp", "openai"]

MOST_OPTIONS = 26
"""Options are labelled with one letter each, so that one token decides and its probability can be read."""

ANSWER_TOKENS = 220
"""Tokens kept free in the context for the longest answer."""


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """Which LLM plans, and how.

    `model` is the path of a GGUF file (`llamacpp`) or the model's name on the server at `url` (`openai`; empty means
    the first one it lists). `reasons`: the planner writes a `sentence`, or chooses among computed `facts`, which is all that
    a very small one can do sensibly. `context` and `prompt_tokens` are tokens, time-outs are seconds. One thread is the default
    because two spin against each other on a busy machine. Raises LamdatuiError on values that can't work.
    """

    backend: Backend = "llamacpp"
    model: str = ""
    url: str = ""
    context: int = 4096
    threads: int = 1
    temperature: float = 0.7
    first_token_timeout: float = 120.0
    idle_timeout: float = 30.0
    total_timeout: float = 300.0
    ready_timeout: float = 90.0
    shortlist: int = 12
    reasons: Literal["sentence", "facts"] = "sentence"
    prompt_tokens: int = 900

    def __post_init__(self) -> None:
        for name, low, high in (
            ("context", 512, 1 << 20),
            ("threads", 1, 1024),
            ("temperature", 0.0, 5.0),
            ("first_token_timeout", 0.01, 86400.0),
            ("idle_timeout", 0.01, 86400.0),
            ("total_timeout", 0.01, 86400.0),
            ("ready_timeout", 0.01, 86400.0),
            ("shortlist", 2, MOST_OPTIONS),
            ("prompt_tokens", 200, 1 << 20),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise LamdatuiError(f"planner.{name} is between {low:g} and {high:g}, not {value:g}", where="planner")
        if self.backend not in ("llamacpp", "openai"):
            raise LamdatuiError(f"planner.backend is llamacpp or openai, not {self.backend!r}", where="planner")
        if self.backend == "openai" and not self.url:
            raise LamdatuiError(
                "planner.url is missing",
                where="planner (backend: openai)",
                fix="give the address of an OpenAI-compatible server, say url: http://127.0.0.1:8000",
            )
        if self.backend == "llamacpp" and not self.model:
            raise LamdatuiError(
                "planner.model is missing",
                where="planner (backend: llamacpp)",
                fix="give the path of a GGUF file",
            )

    @property
    def prompt_budget(self) -> int:
        """Tokens that a prompt may take: `prompt_tokens`, less where the context is smaller."""
        return min(self.prompt_tokens, self.context - ANSWER_TOKENS)
