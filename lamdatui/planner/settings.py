"""Everything that can be set about the planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lamdatui.base.errors import LamdatuiError

ChoiceStyle = Literal["auto", "letters", "yes-no"]
ReasonMode = Literal["auto", "sentence", "facts"]

MOST_OPTIONS = 26
"""Options are labelled with one letter each, so that one token decides and its probability can be read."""

ANSWER_TOKENS = 220
"""Tokens kept free in the context for the longest answer."""

LEAST_PROMPT = 200
"""Tokens below which no prompt says anything useful."""

MOST_SECONDS = 86400.0

READY_SECONDS: dict[str, float] = {"llamacpp": 90.0, "llama-cpp-python": 120.0, "vllm": 600.0, "openai": 30.0}
"""How long a backend may take until it answers. vLLM loads, compiles and measures its memory before it does."""

TAKEN = {
    "host": "",
    "port": "",
    "uds": "",
    "config": "",
    "headless": "",
    "grpc": "",
    "root-path": "",
    "ssl-keyfile": "",
    "ssl-certfile": "",
    "served-model-name": "",
    "model-alias": "",
    "config-file": "",
    "api-server-count": "",
    "asc": "",
    "api-key": "",
    "logits-all": "",
    "model": "planner.model",
    "max-model-len": "planner.context",
    "n-ctx": "planner.context",
    "n-threads": "planner.threads",
    "n-threads-batch": "planner.threads",
    "gpu-memory-utilization": "planner.gpu_memory_utilization",
    "enable-sleep-mode": "planner.sleep",
}
"""Flags that `arguments` can't have, with the setting to use instead; "" where the program decides them itself."""


def taken_flag(words: Sequence[str]) -> str | None:
    """The first of a server's arguments that is one of TAKEN, as it was written."""
    for word in words:
        name = word.partition("=")[0]
        if word.startswith("-") and name.lstrip("-").replace("_", "-").removeprefix("no-") in TAKEN:
            return name
    return None


class PlannerSettings(BaseModel):
    """Which LLM plans, and how: a profile's section `planner`. A key is never in a profile.

    `backend`: `llamacpp` (xllamacpp in a process of ours), `llama-cpp-python` (its server as our process), `vllm` (`vllm serve`
    as our process, from an environment of its own) or `openai` (a server that runs already). `model`: path of a GGUF file (the
    first two), path or name of a Hugging Face model (`vllm`), or the model's name on the server at `url` (`openai`; empty means
    the first one that it lists). `executable`: the `vllm` command or a Python that has it, or the Python that has `llama_cpp`. `arguments`: more flags
    for the server of these two. `adapter`: a LoRA adapter of the model, in GGUF (`llamacpp`).
    `api_key_env` names the environment variable that holds an `openai` server's key.

    `gpu_memory_utilization`: share of the GPU that vLLM takes. `sleep`: whether the planner gives its memory back while steps
    run: `always`, `never`, or `auto`, where they would not fit otherwise. `reasons`: the planner writes a `sentence`, or code
    tells `facts`, which is all that a very small one can do sensibly; `memory` likewise: the `planner` writes it, code does, or
    nobody. `facts`: whether prompts have computed facts in them. `style`: how it is asked to choose; `rotations`: how often the
    options are reordered and asked again. `auto` decides by the planner's size. `think_tokens`: room to think before it answers.

    `context`, `prompt_tokens`, `think_tokens` are tokens, time-outs are seconds. Raises LamdatuiError on what can't work
    together, pydantic's ValidationError on a value out of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backend: Literal["llamacpp", "llama-cpp-python", "vllm", "openai"] = "llamacpp"
    model: str = ""
    url: str = ""
    adapter: str = ""
    executable: str = ""
    arguments: tuple[str, ...] = ()
    api_key_env: str = Field(default="", pattern="^([A-Za-z_][A-Za-z0-9_]*)?$")
    context: int = Field(default=4096, ge=512, le=1 << 20)
    threads: int | None = Field(default=None, ge=1, le=1024)
    temperature: float = Field(default=0.7, ge=0, le=2)
    first_token_seconds: float = Field(default=120, gt=0, le=MOST_SECONDS)
    idle_seconds: float = Field(default=30, gt=0, le=MOST_SECONDS)
    total_seconds: float = Field(default=300, gt=0, le=MOST_SECONDS)
    ready_seconds: float | None = Field(default=None, gt=0, le=MOST_SECONDS)
    prompt_tokens: int = Field(default=900, ge=LEAST_PROMPT, le=1 << 20)
    shortlist: int = Field(default=8, ge=2, le=MOST_OPTIONS)
    gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    sleep: Literal["auto", "always", "never"] = "auto"
    think_tokens: int = Field(default=0, ge=0, le=8192)
    style: ChoiceStyle = "auto"
    rotations: int = Field(default=3, ge=1, le=12)
    reasons: ReasonMode = "auto"
    memory: Literal["auto", "planner", "facts", "off"] = "auto"
    facts: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_room()
        self._check_server()
        self._check_arguments()
        return self

    def placed(self, model: str, adapter: str, threads: int) -> PlannerSettings:
        """The same with its files found, and with these CPU threads where it names none. Raises LamdatuiError."""
        found = {"model": model, "adapter": adapter, "threads": self.threads or threads}
        return PlannerSettings.model_validate({**self.model_dump(), **found})

    @property
    def ready_limit(self) -> float:
        """How long it may take until it answers, in seconds."""
        return self.ready_seconds or READY_SECONDS[self.backend]

    def _check_room(self) -> None:
        least = self.think_tokens + ANSWER_TOKENS + LEAST_PROMPT
        if self.context < least:
            raise LamdatuiError(
                f"planner.context ({self.context}) leaves no room for a prompt beside planner.think_tokens ({self.think_tokens})",
                where="planner",
                fix=f"set context to {least} or more, or think_tokens lower",
            )

    def _check_server(self) -> None:
        where = f"planner (backend: {self.backend})"
        if self.backend == "openai":
            if not self.url:
                # Only this mistake needs httpx and a look at the machine.
                from lamdatui.planner.discover import suggestions

                raise LamdatuiError("planner.url is missing", where=where, fix=suggestions())
            if not self.url.startswith(("http://", "https://")):
                raise LamdatuiError(
                    f"planner.url {self.url!r} is no address", where=where, fix="it begins with http:// or https://"
                )
        elif self.url:
            raise LamdatuiError(
                "planner.url is for the backend openai only", where=where, fix="drop url, or set backend: openai"
            )
        elif not self.model:
            fix = "give the path of a GGUF file"
            if self.backend == "vllm":
                fix = "give the folder of a Hugging Face model, or its name if it is in the Hugging Face cache"
            raise LamdatuiError("planner.model is missing", where=where, fix=fix)
        if self.backend == "vllm" and "://" in self.model:
            raise LamdatuiError(
                f"planner.model {self.model!r} is not on this machine",
                where=where,
                fix="give the folder of a Hugging Face model, or its name if it is in the Hugging Face cache",
            )
        if self.backend == "vllm" and self.model.endswith(".gguf"):
            raise LamdatuiError(
                "vLLM takes a Hugging Face model, not a GGUF file",
                where=where,
                fix="give a folder with safetensors, or set backend: llamacpp",
            )

    def _check_arguments(self) -> None:
        where = f"planner (backend: {self.backend})"
        own_server = self.backend in ("vllm", "llama-cpp-python")
        for name, fits, whose in (
            ("executable", own_server, "the backends vllm and llama-cpp-python"),
            ("arguments", own_server, "the backends vllm and llama-cpp-python"),
            ("api_key_env", self.backend == "openai", "the backend openai"),
            ("adapter", self.backend == "llamacpp", "the backend llamacpp"),
        ):
            if getattr(self, name) and not fits:
                raise LamdatuiError(f"planner.{name} is for {whose} only", where=where, fix=f"drop {name}")
        if taken := taken_flag(self.arguments):
            instead = TAKEN[taken.lstrip("-").replace("_", "-").removeprefix("no-")]
            fix = f"set {instead}" if instead else "drop it: the server's address and name are chosen when it starts"
            raise LamdatuiError(f"planner.arguments can't have {taken}", where=where, fix=fix)

    @property
    def prompt_budget(self) -> int:
        """Tokens that a prompt may take: `prompt_tokens`, less where the context is smaller."""
        return min(self.prompt_tokens, self.context - ANSWER_TOKENS - self.think_tokens)
